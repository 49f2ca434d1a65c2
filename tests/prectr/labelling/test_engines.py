import numpy as np
import pandas as pd
import pytest
import torch

from prectr.core.errors import UsageError
from prectr.labelling.config import LabelConfig, TeacherConfig
from prectr.labelling.engines import choose as engines
from prectr.labelling.engines.choose import choose_engine
from prectr.labelling.engines.contract import Question, answer_columns
from prectr.labelling.engines.ray_llm_engine import collapse
from prectr.labelling.engines.transformers_engine import TransformersTeacher
from prectr.labelling.label_run import last_error
from prectr.labelling.own_teacher.model import new_model
from prectr.labelling.prompt import load_prompt


def entry(probability):
    return {"logprob": float(np.log(probability)), "rank": 1, "decoded_token": None}


def test_label_masses_become_levels_and_outside_mass():
    columns = answer_columns(np.array([[0.1, 0.1, 0.2, 0.4]]))
    assert np.allclose([columns[f"level_{level}"][0] for level in range(4)], [0.125, 0.125, 0.25, 0.5])
    assert np.isclose(columns["outside_mass"][0], 0.2)


def test_engine_rows_collapse_and_bad_rows_are_named():
    good = [{11: entry(0.4), 12: entry(0.3), 13: entry(0.2), 14: entry(0.05), 99: entry(0.05)}]
    text_keys = [{str(token): value for token, value in good[0].items()}]
    batch = pd.DataFrame(
        {
            "key": ["a", "b", "c", "d"],
            "logprobs": [good, text_keys, [{11: entry(0.9)}], None],
            "__inference_error__": ["", "", "", "engine died"],
        }
    )
    found = collapse(batch, [11, 12, 13, 14])
    assert np.allclose(found["level_0"][:2], 0.4 / 0.95)
    assert np.allclose(found["outside_mass"][:2], 0.05)
    assert found["error"].tolist()[:2] == ["", ""]
    assert "no log-probability" in found["error"][2]
    assert found["error"][3] == "engine died"


@pytest.fixture
def teacher(tmp_path):
    torch.manual_seed(0)
    new_model(TeacherConfig(width=16, layers=2, heads=2, feed_forward=32), 50, 0).save_pretrained(tmp_path)
    config = LabelConfig(data_type="float32", max_length=32)
    return TransformersTeacher(Question(str(tmp_path), load_prompt("relevance_v1"), (3, 4, 5, 6), config))


def test_padding_in_a_batch_changes_no_answer(teacher):
    prompts = [np.array([7, 8, 9]), np.arange(10, 30)]
    together = teacher.label_mass(prompts)
    alone = np.concatenate([teacher.label_mass([prompt]) for prompt in prompts])
    assert np.allclose(together, alone, atol=1e-6)
    assert ((together > 0) & (together < 1)).all()


def test_a_prompt_that_is_too_long_fails_alone(teacher):
    found = teacher({"key": np.array(["a", "b"]), "prompt_tokens": [np.arange(33), np.arange(32)]})
    assert "33 tokens, more than label.max_length (32)" in found["error"][0] and found["error"][1] == ""
    assert found["outside_mass"][1] < 1


def test_the_engine_is_chosen_by_the_teacher_and_by_what_runs_here(monkeypatch):
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    assert choose_engine("auto", "teacher") == "transformers"
    with pytest.raises(UsageError, match=r"not installed.*label\.engine=transformers"):
        choose_engine("vllm", "teacher")
    assert choose_engine("auto", "https://host/v1") == choose_engine("http", "http://host/v1") == "http"
    with pytest.raises(UsageError, match="is a URL"):
        choose_engine("transformers", "http://host/v1")
    with pytest.raises(UsageError, match="is no URL"):
        choose_engine("http", "teacher")


def test_the_last_error_of_an_engine_name_the_error_and_what_follows():
    account = "The actor died\n  File x\n\x1b[36mpydantic_core.ValidationError\x1b[0m: 1 error\n  too small\n"
    assert last_error(account) == "pydantic_core.ValidationError: 1 error too small"
    assert last_error("the worker was lost") == "the worker was lost"
    assert last_error("") == "no reason given"
