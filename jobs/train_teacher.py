"""`train-teacher`: fit a causal language model to the judged training queries, as an ordinary checkpoint.

It starts from a Hugging Face checkpoint, or from fresh weights and a tokenizer of its own; all weights are trained, or
LoRA adapters that are merged at the end. Prompts are made on the driver, the training runs under Ray Train, and the
artifact is a checkpoint directory that vLLM and transformers load. Held-back queries are never read here.
"""

import shutil
from pathlib import Path
from typing import Any

import polars as pl

from jobs.options import Force, Out, TablesIn, command
from prectr.core import progress
from prectr.core.artifacts import StageResult, run_stage
from prectr.core.errors import PrectrError, UsageError
from prectr.core.ray_session import RayConfig, ray_session, require_resources
from prectr.data.judgments import read_judged
from prectr.data.made_pairs import random_negatives
from prectr.data.tables import Tables
from prectr.labelling.config import TeacherConfig
from prectr.labelling.own_teacher.data import TRAINING, VALIDATION, WARM, save_prompts
from prectr.labelling.prompt import PromptTemplate, label_token_ids, tokenise_prompts
from prectr.labelling.teacher import template_for
from prectr.relevance.warm_start import made_pairs

ROLE_NAMES = {"training": TRAINING, "validation": VALIDATION, "warm_start": WARM}


@command("train-teacher")
def run(
    *,
    tables: TablesIn,
    out: Out,
    config: TeacherConfig,
    ray_config: RayConfig | None = None,
    force: Force = False,
) -> StageResult:
    """Train the teacher on `tables` and publish its checkpoint at `out`.

    Raises:
        UsageError: the base model or its tokenizer cannot be used; raised before Ray starts.
        PrectrError: too few judgments, or the training failed.
    """
    log = Tables(tables)
    inputs: dict[str, Path | str] = {"tables": tables}
    if config.base_model is not None:
        from prectr.labelling.own_teacher.model import check_base_model

        check_base_model(config.base_model, config.max_length)
        if Path(config.base_model).is_dir():
            inputs["base_model"] = Path(config.base_model)

    def build(staging: Path) -> dict[str, Any]:
        return _build(log, staging, config, ray_config)

    return run_stage("train-teacher", out, config=config, inputs=inputs, build=build, force=force)


def _build(tables: Tables, staging: Path, config: TeacherConfig, ray_config: RayConfig | None) -> dict[str, Any]:
    from prectr.core.ray_train import fit_on_ray
    from prectr.labelling.own_teacher.model import load_tokenizer, quiet_transformers
    from prectr.labelling.own_teacher.training import train_teacher_loop

    quiet_transformers()
    items = tables.items()
    template = template_for(config.prompt, config.language, items["title"])
    pairs = _pairs(tables, items, template, config)
    start, work = _starting_checkpoint(staging, items, pairs, template, config)
    tokenizer = load_tokenizer(start)
    tokenizer.save_pretrained(staging)
    label_tokens = label_token_ids(tokenizer, template)

    prompts = pl.Series(tokenise_prompts(tokenizer, template, pairs, config.max_length), dtype=pl.List(pl.Int32))
    lengths = prompts.list.len()
    fits = lengths <= config.max_length
    roles = pairs.filter(fits)["role"]
    rows = {name: int((roles == role).sum()) for name, role in ROLE_NAMES.items()}
    if not rows["training"] or not rows["validation"]:
        raise UsageError(
            f"teacher.max_length {config.max_length}: too short for {(~fits).sum():,} of {len(pairs):,} prompts even "
            f"without a title; the shortest has {lengths.min()!s} tokens."
        )
    if dropped := int((~fits).sum()):
        progress.say(f"train-teacher: {dropped:,} pairs left out: longer than {config.max_length} tokens")
    progress.say(
        f"train-teacher: {rows['training']:,} training pairs, {rows['validation']:,} validation pairs, "
        f"{rows['warm_start']:,} made from the catalogue to warm up"
    )
    kept = prompts.filter(fits)
    data = work / "prompts.npz"
    save_prompts(data, kept.to_list(), pairs.filter(fits)["grade"].to_numpy(), roles.to_numpy())
    curve = staging / "curve.jsonl"
    loop_config = {
        "teacher": config.model_dump(mode="json"),
        "data": str(data.resolve()),
        "label_tokens": label_tokens,
        "blank": _blank_token(tokenizer),
        "model": start,
        "out": str(staging.resolve()),
        "curve": str(curve.resolve()),
    }
    with ray_session(ray_config):
        require_resources("teacher", config.of_worker, workers=config.workers)
        facts = fit_on_ray(
            train_teacher_loop,
            loop_config,
            name="train-teacher",
            storage=staging,
            workers=config.workers,
            of_worker=config.of_worker,
            curve=curve,
        )
    shutil.rmtree(work)
    lora = {"rank": config.lora_rank, "alpha": config.lora_alpha, "targets": config.lora_targets or "all linear"}
    return {
        "rows": rows | {"too_long": dropped},
        "metrics": facts,
        "prompt": template.version,
        "language": template.language,
        "labels": dict(zip(template.labels, label_tokens, strict=True)),
        "lora": lora if config.lora_rank else None,
        "mean_prompt_tokens": round(float(kept.list.len().mean() or 0.0), 1),  # type: ignore[arg-type]
    }


def _pairs(tables: Tables, items: pl.DataFrame, template: PromptTemplate, config: TeacherConfig) -> pl.DataFrame:
    """Synthetic pairs, then judged and random ones: query, title, further prompt fields, grade, role."""
    judged = read_judged(tables, required=True).filter(pl.col("split") != "held-back")
    training = judged["split"] == "train"
    if not training.any() or training.all():
        raise PrectrError(
            f"{tables.path / 'judgments.parquet'}: {len(judged)} judged pairs of queries not held back are too few "
            "to give both a training and a validation split; add judgments of more queries."
        )
    # A synthetic pair has the title of its item, not the id.
    of_title = items.unique("title", keep="first", maintain_order=True).select("title", *template.shown)
    warm = (
        made_pairs(items, config.warm_start_pairs, config.seed)
        .join(of_title, on="title", how="left", maintain_order="left")
        .with_columns(role=WARM)
    )
    role = pl.when(pl.col("split") == "train").then(TRAINING).otherwise(VALIDATION)
    random = random_negatives(judged, judged, tables, config.negatives, config.seed, "teacher")
    random = random.join(items.select("item_id", "title"), on="item_id", how="left", maintain_order="left")
    judged = (
        pl.concat([judged, random.select(judged.columns)])
        .join(items.select("item_id", *template.shown), on="item_id", how="left", maintain_order="left")
        .with_columns(role=role)
    )
    columns = ["query", "title", *template.shown, "grade", "role"]
    return pl.concat([warm.select(columns), judged.select(columns)], how="vertical_relaxed")


def _starting_checkpoint(
    staging: Path, items: pl.DataFrame, pairs: pl.DataFrame, template: PromptTemplate, config: TeacherConfig
) -> tuple[str, Path]:
    """Directory (or hub name) of the checkpoint to start from, and a hidden directory for the training's own files."""
    work = staging / ".training"
    work.mkdir()
    if config.base_model is not None:
        directory = Path(config.base_model)
        return str(directory.resolve()) if directory.is_dir() else config.base_model, work
    import torch

    from prectr.labelling.own_teacher.model import new_model, train_bpe

    # The template as often as a frequent word, so that its own words become single tokens.
    texts = [
        *[f"{template.text} {template.empty}"] * 100,
        *items["title"].str.to_lowercase().to_list(),
        *items["category"].drop_nulls().str.to_lowercase().to_list(),
        *pairs.filter(pl.col("role") == TRAINING)["query"].unique().sort().to_list(),
    ]
    tokenizer = train_bpe(texts, config.vocabulary, config.max_length)
    torch.manual_seed(config.seed)
    new_model(config, len(tokenizer), tokenizer.eos_token_id).save_pretrained(work)
    tokenizer.save_pretrained(work)
    return str(work.resolve()), work


def _blank_token(tokenizer: Any) -> int:
    """The token that replaces a missing one: the end of text if the tokenizer has it, else padding or unknown."""
    token_ids = (tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id)
    return next((token for token in token_ids if token is not None), 0)
