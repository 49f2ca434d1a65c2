"""The sides of the labelling benchmark, each a process of its own: `python _labelling_sides.py SIDE FOLDER PAIRS OUT`.

OUT becomes a directory with `answers.parquet` (key, level_0..level_3) and `figures.json`. The clock of every side runs
after its engine has started and answered something.
"""

import functools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from _labelling_world import CONFIG, World

from prectr.contracts.schema import LEVEL_COLUMNS
from prectr.core.ray_session import RayConfig
from prectr.labelling.engines.contract import Question, answer_columns
from prectr.labelling.engines.vllm_engine import engine_arguments, sampling_arguments
from prectr.labelling.label_run import AskingPlan, ask
from prectr.labelling.ledger import Context, ContextLedger, LabelLedger

WARM_UP = 64
BATCH = 64
TRIED = 256
"""Pairs on which the transformers loop tries its number formats."""
SHARDS = 20
LEAST_BLOCKS = 4
"""Blocks of questions, at least: the rate is taken after the first one. It matters at the smallest size only."""

Answers = tuple[pl.DataFrame, dict[str, Any]]


class TimedLedger(ContextLedger):
    """Notes when how many answers were committed."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.commits: list[tuple[float, int]] = []

    def append(self, kind: str, rows: pl.DataFrame) -> None:
        """As the ledger's own."""
        super().append(kind, rows)
        if not rows.is_empty():
            self.commits.append((time.perf_counter(), len(rows)))

    def rate(self) -> float:
        """Answers a second between the first commit and the last."""
        (first, _), (last, _) = self.commits[0], self.commits[-1]
        return sum(rows for _, rows in self.commits[1:]) / (last - first) if len(self.commits) > 1 else float("nan")


def ours(world: World, pairs: int, out: Path, through: str = "actors") -> Answers:
    """`ask`, into a ledger that holds nothing."""
    questions = world.questions().head(pairs).drop("prompt_tokens")
    vllm = CONFIG.vllm.model_copy(update={"through": through})
    config = CONFIG.model_copy(
        update={
            "shard_rows": max(1, len(questions) // SHARDS),
            "batch_size": max(1, min(CONFIG.batch_size, len(questions) // LEAST_BLOCKS)),
            "vllm": vllm,
        }
    )
    question = Question(str(world.teacher), world.template(), tuple(world.label_tokens()), config)
    context = Context(question.template.version, "benchmark", question.decoding)
    ledger = TimedLedger(LabelLedger(out / "ledger").context(context).folder)
    plan = AskingPlan(len(questions), len(questions), 0, 0, questions, questions.clear(), None, 0.0)
    with ledger.writing():
        record = ask(plan, question, "vllm", ledger, RayConfig(num_cpus=8))
    if record["failed"]:
        raise SystemExit(f"{record['failed']:,} questions failed: {ledger.errors(questions['key'])['error'][0]}")
    figures = {name: record[name] for name in ("questions_per_second", "first_answer_seconds", "seconds")}
    figures |= {"pairs_per_second": record["questions_per_second"], "between_commits_per_second": ledger.rate()}
    return ledger.labels(questions["key"]).select("key", *LEVEL_COLUMNS), figures


def bare(world: World, pairs: int, out: Path) -> Answers:
    """One `LLM.generate` over all prompts."""
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(CONFIG.vllm.cpu_cache_gib)
    from vllm import LLM, SamplingParams

    questions, tokens = world.questions().head(pairs), world.label_tokens()
    started = time.perf_counter()
    engine = LLM(model=str(world.teacher), **engine_arguments(CONFIG, on_gpu=False))
    sampling = SamplingParams(**sampling_arguments(tokens))
    prompts = [{"prompt_token_ids": ids} for ids in questions["prompt_tokens"].to_list()]
    engine.generate(prompts[:WARM_UP], sampling, use_tqdm=False)
    ready = time.perf_counter()
    answers = engine.generate(prompts, sampling, use_tqdm=False)
    seconds = time.perf_counter() - ready
    mass = np.exp([[answer.outputs[0].logprobs[0][token].logprob for token in tokens] for answer in answers])
    return levels(questions, mass), {"pairs_per_second": len(prompts) / seconds, "start_seconds": ready - started}


def transformers(world: World, pairs: int, out: Path) -> Answers:
    """Padded batches of prompts of similar length, in the number format that is faster here."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(os.cpu_count() or 1)
    # Pairs from all over the list; then of similar length side by side.
    everything = world.questions()
    questions = everything.gather_every(max(1, len(everything) // pairs)).head(pairs)
    questions = questions.sort(pl.col("prompt_tokens").list.len(), "key")
    prompts, tokens = [np.array(ids) for ids in questions["prompt_tokens"].to_list()], world.label_tokens()
    speeds: dict[str, float] = {}
    models = {}
    for name in ("bfloat16", "float32"):
        models[name] = AutoModelForCausalLM.from_pretrained(world.teacher, dtype=getattr(torch, name)).eval()
        label_mass(models[name], prompts[:BATCH], tokens)
        started = time.perf_counter()
        label_mass(models[name], prompts[:TRIED], tokens)
        speeds[name] = min(TRIED, len(prompts)) / (time.perf_counter() - started)
    fastest = max(speeds, key=lambda name: speeds[name])
    started = time.perf_counter()
    mass = label_mass(models[fastest], prompts, tokens)
    figures = {"pairs_per_second": len(prompts) / (time.perf_counter() - started), "data_type": fastest}
    return levels(questions, mass), figures | {"tried_per_second": speeds}


def label_mass(model: Any, prompts: list[np.ndarray], tokens: list[int]) -> np.ndarray:
    """Probability of each label token as the next one: [n, labels]."""
    import torch

    found = []
    with torch.inference_mode():
        for start in range(0, len(prompts), BATCH):
            batch = prompts[start : start + BATCH]
            lengths = np.array([len(prompt) for prompt in batch])
            real = np.arange(lengths.max()) < lengths[:, None]
            ids = np.zeros(real.shape, np.int64)
            ids[real] = np.concatenate(batch)
            hidden = model.base_model(torch.from_numpy(ids), attention_mask=torch.from_numpy(real.astype(np.int64)))
            last = hidden.last_hidden_state[torch.arange(len(batch)), torch.from_numpy(lengths - 1)]
            logits = model.get_output_embeddings()(last).float()
            found.append(torch.softmax(logits, dim=1)[:, tokens].double().numpy())
    return np.concatenate(found)


def levels(questions: pl.DataFrame, mass: np.ndarray) -> pl.DataFrame:
    """Columns key, level_0..level_3 of label masses."""
    columns = answer_columns(mass)
    return questions.select("key").with_columns(pl.Series(name, columns[name]) for name in LEVEL_COLUMNS)


SIDES: dict[str, Callable[[World, int, Path], Answers]] = {
    "ours": ours,
    "ours_ray_data_llm": functools.partial(ours, through="ray.data.llm"),
    "bare": bare,
    "transformers": transformers,
}


def main() -> None:
    """Be one side."""
    side, folder, pairs, out = sys.argv[1], World(Path(sys.argv[2])), int(sys.argv[3]), Path(sys.argv[4])
    out.mkdir(parents=True)
    answers, figures = SIDES[side](folder, pairs, out)
    answers.write_parquet(out / "answers.parquet")
    (out / "figures.json").write_text(json.dumps(figures), encoding="utf-8")


if __name__ == "__main__":
    main()
