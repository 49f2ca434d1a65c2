"""What the teacher is trained on: nothing is lost when prompts are split, batched and shared out."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from prectr.labelling.own_teacher.data import (
    TeacherData,
    bucketed_batches,
    common_prefix_length,
    micro_batches,
    save_prompts,
)

PROMPTS = [[1, 2, 9, 9, 7, 8], [1, 2, 5, 7, 8], [1, 2, 3, 4, 6, 7, 8]]


def test_common_prefix_leaves_a_token_of_each_prompt():
    assert common_prefix_length([[1, 2, 3, 4], [1, 2, 5]]) == 2
    assert common_prefix_length([[1, 2], [1, 2, 3]]) == 1
    assert common_prefix_length([[1], [2]]) == 0


def test_prompts_survive_the_file_and_the_split(tmp_path):
    save_prompts(tmp_path / "prompts.npz", PROMPTS, np.array([3, 0, 1], np.int8), np.array([0, 1, 2]))
    data = TeacherData.load(tmp_path / "prompts.npz")
    assert (data.prefix.tolist(), data.shared_end) == ([1, 2], 2)
    assert [[*data.prefix, *suffix] for suffix in data.suffixes] == PROMPTS
    assert (data.grades.tolist(), data.rows(2).tolist()) == ([3, 0, 1], [2])
    ids, lengths = data.padded(np.array([2, 1]), blank=0)
    assert ids.tolist() == [[3, 4, 6, 7, 8], [5, 7, 8, 0, 0]]
    assert lengths.tolist() == [5, 3]


def test_blanks_never_fall_on_what_all_prompts_share():
    data = TeacherData.of([np.array(prompt) for prompt in PROMPTS], np.zeros(3), np.zeros(3))
    ids, _ = data.padded(np.array([0, 2]), 0, dropout=1.0, generator=np.random.default_rng(0))
    assert ids.tolist() == [[0, 0, 7, 8, 0], [0, 0, 0, 7, 8]]
    some = [data.padded(np.array([2]), 0, 0.5, np.random.default_rng(seed))[0][0, :3] for seed in range(40)]
    assert 0.3 < (np.array(some) == 0).mean() < 0.7


def test_bucketed_batches_hold_every_row_once():
    rows = np.arange(100, 350)
    lengths = np.random.default_rng(0).integers(1, 30, 350)
    batches = bucketed_batches(rows, lengths, 16, np.random.default_rng(1))
    assert sorted(np.concatenate(batches)) == rows.tolist()
    assert np.mean([np.ptp(lengths[batch]) for batch in batches]) < 5


@given(rows=st.integers(1, 40), accumulate=st.integers(1, 6), world=st.integers(1, 5))
def test_workers_and_parts_share_out_every_place_once(rows, accumulate, world):
    parts = [list(micro_batches(rows, accumulate, rank, world)) for rank in range(world)]
    assert sorted(np.concatenate([place for mine in parts for place in mine])) == list(range(rows))
    assert all(len(mine) <= accumulate and all(len(part) for part in mine) for mine in parts)
    sizes = [sum(map(len, mine)) for mine in parts]
    assert max(sizes) - min(sizes) <= 1
