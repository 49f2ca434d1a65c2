import numpy as np
import torch

from prectr.labelling.config import TeacherConfig
from prectr.labelling.teacher_model import new_model
from prectr.labelling.teacher_training import bucketed_batches, common_prefix_length, last_logits


def test_a_shared_prefix_gives_the_logits_of_the_whole_prompt():
    torch.manual_seed(0)
    model = new_model(TeacherConfig(width=16, layers=2, heads=2, feed_forward=32), 50, 0)
    prefix, suffix = torch.randint(50, (7,)), torch.randint(50, (3, 5))
    lengths = torch.tensor([5, 2, 4])
    shared = last_logits(model, prefix, suffix, lengths)
    for row, length in enumerate(lengths):
        whole = torch.cat([prefix, suffix[row, :length]])[None]
        assert torch.allclose(shared[row], model(input_ids=whole).logits[0, -1], atol=1e-5)
    shared.sum().backward()
    gradient = model.model.embed_tokens.weight.grad
    assert gradient[prefix].abs().sum() > 0, "the shared prefix must be trained too"


def test_common_prefix_leaves_a_token_of_each_prompt():
    assert common_prefix_length([[1, 2, 3, 4], [1, 2, 5]]) == 2
    assert common_prefix_length([[1, 2], [1, 2, 3]]) == 1
    assert common_prefix_length([[1], [2]]) == 0


def test_bucketed_batches_hold_every_row_once():
    rows = np.arange(100, 350)
    lengths = np.random.default_rng(0).integers(1, 30, 350)
    batches = bucketed_batches(rows, lengths, 16, np.random.default_rng(1))
    assert sorted(np.concatenate(batches)) == rows.tolist()
    assert np.mean([np.ptp(lengths[batch]) for batch in batches]) < 5
