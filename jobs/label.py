"""`label`: ask the teacher for the relevance level of selected pairs, each pair once ever.

Selection, then an anti-join with the ledger, then the engine over Ray Data for what is missing; answers go to the
ledger shard by shard as they come: a killed run loses at most one shard. Calibration comes last.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from prectr import progress
from prectr.artifacts import StageResult, run_stage
from prectr.errors import PrectrError, UsageError
from prectr.labelling.calibration import Calibration, fit_calibration, negative_log_likelihood
from prectr.labelling.config import LabelConfig
from prectr.labelling.engines import EngineName, Question, answer, choose_engine
from prectr.labelling.ledger import SCHEMA, LabelLedger, label_keys, model_fingerprint
from prectr.labelling.prompt import label_token_ids, load_prompt, tokenise_prompts
from prectr.labelling.selection import select_pairs
from prectr.labelling.split import read_judged
from prectr.ray_session import ray_session
from prectr.schema import LEVEL_COLUMNS


def run(*, tables: Path, teacher: str | Path, out: Path, config: LabelConfig, force: bool = False) -> StageResult:
    """Label pairs of `tables` with `teacher` (a checkpoint directory or a name on the hub) into `out`."""
    directory = Path(teacher)
    if not directory.is_dir() and (
        isinstance(teacher, Path) or directory.is_absolute() or str(teacher).startswith(".")
    ):
        raise UsageError(f"teacher {teacher}: no such directory; make one with `prectr train-teacher --out {teacher}`.")
    source: Path | str = directory if directory.is_dir() else str(teacher)

    def build(staging: Path) -> dict[str, Any]:
        ledger = config.ledger or out.parent / "label-ledger"
        return _build(tables, str(source), staging, LabelLedger(ledger), config)

    return run_stage(
        "label", out, config=config, inputs={"tables": tables, "teacher": source}, build=build, force=force
    )


def _build(tables: Path, teacher: str, staging: Path, ledger: LabelLedger, config: LabelConfig) -> dict[str, Any]:
    from prectr.labelling.teacher_model import load_tokenizer

    template = load_prompt(config.prompt)
    tokenizer = load_tokenizer(teacher)
    question = Question(
        teacher=str(Path(teacher).resolve()) if Path(teacher).is_dir() else teacher,
        label_tokens=tuple(label_token_ids(tokenizer)),
        batch_size=config.batch_size,
        data_type=config.data_type,
        max_length=config.max_length,
    )
    engine = choose_engine(config.engine)
    context = f"{template.version}|{model_fingerprint(teacher)}|{question.decoding}"
    pairs = select_pairs(tables, config)
    pairs = pairs.with_columns(key=pl.Series(label_keys(pairs["query"].to_list(), pairs["title"].to_list(), context)))

    distinct = pairs.unique("key", keep="first", maintain_order=True)
    known = ledger.read(distinct["key"])
    missing = distinct.join(known, on="key", how="anti")
    progress.say(
        f"label: {len(pairs):,} pairs, {len(distinct):,} distinct, {len(known):,} known to the ledger, "
        f"{len(missing):,} for the teacher ({engine})"
    )
    started = time.perf_counter()
    errors = pl.DataFrame(schema={"key": pl.String, "error": pl.String})
    first_answer = 0.0
    if len(missing):
        errors, first_answer = _ask(missing, tokenizer, template, question, engine, ledger, config)
    seconds = time.perf_counter() - started

    raw = ledger.read(distinct["key"])
    labelled = pairs.join(raw.drop("query", "title"), on="key", how="inner").sort("query", "item_id")
    failed = distinct.join(errors, on="key", how="inner").select("query", "item_id", "title", "key", "error")
    failed.write_parquet(staging / "errors.parquet")
    if len(failed) > config.max_error_share * len(distinct):
        raise PrectrError(
            f"label: the teacher failed on {len(failed):,} of {len(distinct):,} pairs, above label.max_error_share; "
            f"first error: {failed['error'][0]}. The {len(raw):,} good labels are kept in the ledger."
        )
    calibration, metrics = _calibrate(tables, labelled, config)
    levels = calibration.apply(labelled.select(LEVEL_COLUMNS).to_numpy().astype(np.float64))
    finished = labelled.with_columns(
        *(pl.Series(name, levels[:, place], dtype=pl.Float32) for place, name in enumerate(LEVEL_COLUMNS)),
        expected=pl.Series(levels @ np.arange(4) / 3, dtype=pl.Float32),
    )
    finished.select(
        "query", "item_id", *LEVEL_COLUMNS, "outside_mass", "expected", "engine", "origin", "stratum", "key"
    ).write_parquet(staging / "labels.parquet")
    return {
        "rows": {
            "labels": len(finished),
            "asked": len(missing),
            "from_ledger": len(known),
            "errors": len(failed),
            **{f"origin_{name}": count for name, count in sorted(finished.group_by("origin").len().iter_rows())},
        },
        "engine": engine,
        "engines": dict(sorted(finished.group_by("engine").len().iter_rows())),
        "prompt": template.version,
        "calibration": {"scale": round(calibration.scale, 4), "bias": [round(value, 4) for value in calibration.bias]},
        "metrics": metrics
        | {
            "engine_seconds": round(seconds, 1),
            "first_answer_seconds": round(first_answer, 1),
            "mean_outside_mass": round(float(finished["outside_mass"].mean() or 0.0), 6),
        },
    }


def _ask(
    missing: pl.DataFrame,
    tokenizer: Any,
    template: Any,
    question: Question,
    engine: EngineName,
    ledger: LabelLedger,
    config: LabelConfig,
) -> tuple[pl.DataFrame, float]:
    """Run the engine over the missing pairs, committing shards; (key, error) of failed rows, seconds to an answer."""
    import pyarrow as pa

    prompts = tokenise_prompts(
        tokenizer, template, missing["query"].to_list(), missing["title"].to_list(), question.max_length
    )
    # Neighbours of similar length waste little padding in the fallback engine.
    lengths = np.array([len(prompt) for prompt in prompts])
    order = np.argsort(lengths, kind="stable")
    table = pa.table(
        {
            "key": missing["key"].gather(order).to_arrow(),
            "prompt_tokens": pa.array([prompts[row] for row in order], pa.list_(pa.int32())),
        }
    )
    texts = missing.select("key", "query", "title")
    failures: list[pl.DataFrame] = []
    started, first_answer = time.perf_counter(), 0.0
    with ray_session(), progress.track("label", total=len(missing), unit="pairs") as bar:
        import ray.data

        blocks = max(1, min(len(missing), round(len(missing) / (config.batch_size * 4))))
        dataset = answer(ray.data.from_arrow(table).repartition(blocks), question, engine)
        waiting: list[pl.DataFrame] = []
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
            first_answer = first_answer or time.perf_counter() - started
            answers = pl.DataFrame(batch)
            failures.append(answers.filter(pl.col("error") != "").select("key", "error"))
            good = answers.filter(pl.col("error") == "").join(texts, on="key", how="inner")
            waiting.append(good.with_columns(engine=pl.lit(engine)).select(list(SCHEMA)))
            if sum(map(len, waiting)) >= config.shard_rows:
                ledger.append(pl.concat(waiting))
                waiting = []
            bar.advance(len(answers))
        if waiting:
            ledger.append(pl.concat(waiting))
    return pl.concat(failures), first_answer


def _calibrate(tables: Path, labelled: pl.DataFrame, config: LabelConfig) -> tuple[Calibration, dict[str, Any]]:
    """Fit on judged validation pairs, report on held-back ones (mean negative log-likelihood, nats)."""
    gold = labelled.join(
        read_judged(tables).select("query", "item_id", "grade", "split"), on=["query", "item_id"], how="inner"
    )
    metrics: dict[str, Any] = {}
    calibration = Calibration()
    parts = {
        split: (rows.select(LEVEL_COLUMNS).to_numpy().astype(np.float64), rows["grade"].to_numpy().astype(np.int64))
        for split in ("validation", "held-back")
        if len(rows := gold.filter(pl.col("split") == split))
    }
    if config.calibrate and "validation" in parts:
        calibration = fit_calibration(*parts["validation"])
    for split, (probabilities, grades) in parts.items():
        name = split.replace("-", "_")
        metrics[f"{name}_pairs"] = len(grades)
        metrics[f"{name}_nll_raw"] = round(negative_log_likelihood(probabilities, grades), 4)
        metrics[f"{name}_nll_calibrated"] = round(negative_log_likelihood(calibration.apply(probabilities), grades), 4)
    return calibration, metrics


if __name__ == "__main__":
    from jobs.cli import run_job

    run_job("label")
