"""`train-teacher`: fit a small causal language model to the judged training queries, as an ordinary checkpoint.

Tokenizer and fresh weights are made on the driver, the training runs under Ray Train, and the artifact is a Hugging
Face checkpoint directory that vLLM and transformers load. Held-back queries are never read here.
"""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from prectr import progress
from prectr.artifacts import StageResult, run_stage
from prectr.errors import PrectrError
from prectr.labelling.config import TeacherConfig
from prectr.labelling.prompt import catalogue_language, label_token_ids, load_prompt, tokenise_prompts
from prectr.labelling.split import read_judged
from prectr.ray_session import ray_session
from prectr.relevance.warm_start import made_pairs
from prectr.tables import Tables


def run(*, tables: Path, out: Path, config: TeacherConfig, force: bool = False) -> StageResult:
    """Train the teacher on `tables` and publish its checkpoint at `out`."""

    def build(staging: Path) -> dict[str, Any]:
        return _build(tables, staging, config)

    return run_stage("train-teacher", out, config=config, inputs={"tables": tables}, build=build, force=force)


def _build(tables: Path, staging: Path, config: TeacherConfig) -> dict[str, Any]:
    import torch

    from prectr.labelling.teacher_model import load_tokenizer, new_model, quiet_transformers, train_bpe
    from prectr.labelling.teacher_training import TRAINING, VALIDATION, WARM, train_teacher_loop
    from prectr.training.launch import fit_on_ray

    quiet_transformers()
    judged = read_judged(tables, required=True).filter(pl.col("split") != "held-back")
    training = judged["split"] == "train"
    if not training.any() or training.all():
        raise PrectrError(
            f"{tables / 'judgments.parquet'}: {len(judged)} judged pairs outside the held-back queries are too few to "
            "give both a training and a validation split; add judgments of more queries."
        )

    items = Tables(tables).items()
    language = catalogue_language(items["title"]) if config.language == "auto" else config.language
    template = load_prompt(config.prompt, language)
    if config.base_model is None:
        # The template as often as a frequent word, so that its own words become single tokens.
        texts = [
            *[f"{template.text} none"] * 100,
            *items["title"].str.to_lowercase().to_list(),
            *items["category"].drop_nulls().str.to_lowercase().to_list(),
            *judged.filter(training)["query"].unique().sort().to_list(),
        ]
        tokenizer = train_bpe(texts, config.vocabulary, config.max_length)
        torch.manual_seed(config.seed)
        new_model(config, len(tokenizer), tokenizer.eos_token_id).save_pretrained(staging)
    else:
        from transformers import AutoModelForCausalLM

        tokenizer = load_tokenizer(config.base_model)
        AutoModelForCausalLM.from_pretrained(config.base_model).save_pretrained(staging)
    tokenizer.save_pretrained(staging)
    label_tokens = label_token_ids(tokenizer, template)

    warm = made_pairs(items, config.warm_start_pairs, config.seed).with_columns(role=WARM)
    judged = judged.with_columns(role=pl.when(training).then(TRAINING).otherwise(VALIDATION))
    columns = ["query", "title", "grade", "role"]
    pairs = pl.concat([warm.select(columns), judged.select(columns)], how="vertical_relaxed")
    prompts = tokenise_prompts(tokenizer, template, pairs, config.max_length)
    data = staging / ".training.npz"
    lengths = np.array([len(prompt) for prompt in prompts])
    np.savez(
        data,
        values=np.fromiter((token for prompt in prompts for token in prompt), np.int32, int(lengths.sum())),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        grades=pairs["grade"].to_numpy(),
        role=pairs["role"].to_numpy(),
    )
    progress.say(
        f"train-teacher: {training.sum():,} training pairs, {(~training).sum():,} validation pairs, "
        f"{len(warm):,} made from the catalogue to warm up"
    )
    curve = staging / "curve.jsonl"
    loop_config = {
        "teacher": config.model_dump(mode="json"),
        "label_tokens": label_tokens,
        "data": str(data.resolve()),
        "model": str(staging.resolve()),
        "out": str(staging.resolve()),
        "curve": str(curve.resolve()),
    }
    with ray_session():
        facts = fit_on_ray(
            train_teacher_loop,
            loop_config,
            name="train-teacher",
            storage=staging,
            cpus_per_worker=config.cpus,
            curve=curve,
        )
    data.unlink()
    return {
        "rows": {"training": int(training.sum()), "validation": int((~training).sum()), "warm_start": len(warm)},
        "metrics": facts,
        "prompt": template.version,
        "mean_prompt_tokens": round(float(lengths.mean()), 1),
    }


if __name__ == "__main__":
    from jobs.cli import run_job

    run_job("train-teacher")
