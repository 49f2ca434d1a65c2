"""label: ask the teacher for the relevance level of selected pairs; a question is asked only once.

The selection is an artifact beside the labels. Its questions are looked up in the ledger; missing ones go to the engine
over Ray Data, and answers are committed shard by shard, so that a killed run loses at most one shard. Calibration and
quality on judged pairs are computed last, from the ledger alone.
"""

import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import polars as pl
import typer

from jobs import select_pairs
from jobs.options import PATH, Force, Out, TablesIn, command
from jobs.options import Teacher as TeacherIn
from prectr.contracts.schema import LEVEL_COLUMNS
from prectr.core import progress
from prectr.core.artifacts import StageResult, read_manifest, run_stage
from prectr.core.errors import PrectrError, UsageError, shorten
from prectr.core.ray_session import RayConfig
from prectr.core.text import normalise_queries
from prectr.data.judgments import read_judged, split_of
from prectr.data.tables import Tables
from prectr.labelling.config import LabelConfig, SelectionConfig
from prectr.labelling.label_quality import calibrate_and_judge, flip_rate
from prectr.labelling.label_run import AskingPlan, ask, make_plan
from prectr.labelling.ledger import ContextLedger, LabelLedger
from prectr.labelling.selection import read_selection
from prectr.labelling.teacher import Teacher, recognise_teacher, teacher_source, template_for, with_label_tokens


def run(
    *,
    tables: Path,
    teacher: str | Path,
    out: Path,
    config: LabelConfig,
    selection: SelectionConfig | Path | None = None,
    ray_config: RayConfig | None = None,
    yes: bool = False,
    retry_errors: bool = False,
    force: bool = False,
) -> StageResult:
    """Label pairs of `tables` with `teacher` into `out`.

    Args:
        tables: validated canonical tables.
        teacher: a checkpoint directory, a model's name on the hub, or the URL of an OpenAI-compatible server.
        out: the artifact. Beside it lie `OUT-selection`, unless `selection` is a path, and `label-ledger`, unless
            `label.ledger` names another directory.
        config: prompt, engine, replicas and limits.
        selection: settings of the selection, or an artifact of `select-pairs`, or a file of pairs (query, item_id).
        ray_config: of an embedded Ray, which starts only if a question is missing.
        yes: do not ask for confirmation above `label.confirm_above` questions.
        retry_errors: ask questions again that failed in earlier runs.
        force: build the artifact again; answers in the ledger are reused.
    """
    log = Tables(tables)
    source = teacher_source(teacher)
    if isinstance(selection, Path):
        chosen = selection
    else:
        chosen = out.parent / f"{out.name}-selection"
        select_pairs.run(tables=tables, out=chosen, config=selection or SelectionConfig())
    if retry_errors and (published := read_manifest(out)) is not None:
        force = force or bool(published.get("rows", {}).get("errors"))

    def build(staging: Path) -> dict[str, Any]:
        pairs = read_selection(chosen, log)
        template = template_for(config.prompt, config.language, log.items()["title"])
        ready = recognise_teacher(source, config, template)
        ledger = LabelLedger(config.ledger or out.parent / "label-ledger").context(ready.context)
        keyed = with_keys(pairs, ready)
        plan, asked = _ask_missing(keyed, ready, ledger, config, ray_config, yes, retry_errors)
        facts = _publish(log, keyed, ready, ledger, plan, staging, config)
        selected = read_manifest(chosen) or {}
        # If nothing was asked, the manifest shows versions and flags of the last run that asked.
        last = asked or next(iter(ledger.runs()[-1:]), {})
        return facts | {"run": last, "selection": {key: selected.get(key) for key in ("rows", "cells", "config")}}

    return run_stage(
        "label",
        out,
        config=config,
        inputs={"tables": tables, "teacher": source, "selection": chosen},
        build=build,
        force=force,
    )


@command("label")
def run_command(
    *,
    tables: TablesIn,
    teacher: TeacherIn,
    out: Out,
    selection: Annotated[
        Path | None,
        typer.Option("--selection", help="Artifact of select-pairs, or a file with query and item_id.", **PATH),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Ask even more questions than label.confirm_above.")] = False,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Ask again what failed in earlier runs.")
    ] = False,
    report: Annotated[bool, typer.Option("--report", help="Also write OUT/report.html about the labels.")] = False,
    config: LabelConfig,
    selecting: SelectionConfig,
    ray_config: RayConfig,
    force: Force = False,
) -> StageResult:
    """`prectr label`: label pairs, and write the page about the labels where `report` is set."""
    result = run(
        tables=tables,
        teacher=teacher,
        out=out,
        config=config,
        selection=selection or selecting,
        ray_config=ray_config,
        yes=yes,
        retry_errors=retry_errors,
        force=force,
    )
    if report:
        write_report(result.path)
    return result


def with_keys(pairs: pl.DataFrame, teacher: Teacher) -> pl.DataFrame:
    """The pairs with `text_*`, the prompt's fields in normal form, and `key`, the hash of their question."""
    shown = ["query", "title", *teacher.question.template.shown]
    distinct = pairs.unique("question", keep="first", maintain_order=True)
    texts = distinct.select(
        normal_form(distinct[column]).alias(f"text_{column}") for column in shown
    )  # over distinct questions: every text is folded once
    keyed = texts.with_columns(question=distinct["question"], key=teacher.context.keys(texts))
    return pairs.join(keyed, on="question", how="left", maintain_order="left")


def normal_form(texts: pl.Series) -> pl.Series:
    """The normal form of each text; null becomes ""."""
    distinct = texts.unique().drop_nulls()
    forms = normalise_queries(distinct.to_list())
    folded = pl.DataFrame(
        {"text": list(forms), "form": list(forms.values())}, schema={"text": pl.String, "form": pl.String}
    )
    return texts.to_frame("text").join(folded, on="text", how="left", maintain_order="left")["form"].fill_null("")


def _ask_missing(
    keyed: pl.DataFrame,
    teacher: Teacher,
    ledger: ContextLedger,
    config: LabelConfig,
    ray_config: RayConfig | None,
    yes: bool,
    retry_errors: bool,
) -> tuple[AskingPlan, dict[str, Any]]:
    """Print the plan, confirm a large one, and ask; returns the plan and the record of the run, empty if none ran."""
    columns = [column for column in keyed.columns if column.startswith("text_")]
    questions = (
        keyed.unique("key", keep="first", maintain_order=True)
        .select("key", *columns)
        .rename({column: column.removeprefix("text_") for column in columns})
    )

    def plan_now() -> AskingPlan:
        return make_plan(len(keyed), questions, ledger, config.repeat_sample, retry_errors)

    plan = plan_now()
    progress.say(f"label: {plan.describe(teacher.engine)}")
    if not plan.asked:
        return plan, {}
    _confirm(plan, config, yes)
    teacher = with_label_tokens(teacher)
    with ledger.writing():
        current = plan_now()  # another run may have answered while this one waited for the lock
        if not current.asked:
            return current, {}
        return current, ask(current, teacher.question, teacher.engine, ledger, ray_config)


def _confirm(plan: AskingPlan, config: LabelConfig, yes: bool) -> None:
    """Ask the user to confirm a run above `confirm_above` questions.

    Raises:
        UsageError: the user did not.
    """
    if yes or plan.asked <= config.confirm_above:
        return
    message = f"label: {plan.asked:,} questions are more than label.confirm_above ({config.confirm_above:,})"
    if sys.stdin.isatty():
        print(f"{message}. Ask them? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() in ("y", "yes"):
            return
    raise UsageError(f"{message}; nothing was asked. Give --yes to go on, or a smaller selection.budget.")


def _publish(
    tables: Tables,
    keyed: pl.DataFrame,
    teacher: Teacher,
    ledger: ContextLedger,
    plan: AskingPlan,
    staging: Path,
    config: LabelConfig,
) -> dict[str, Any]:
    """Write labels and errors from the ledger; returns counts, calibration and quality."""
    keys = keyed["key"].unique()
    raw = ledger.labels(keys).select("key", *LEVEL_COLUMNS, "outside_mass", "engine")
    errors = ledger.errors(keys)
    failed = keyed.join(errors.select("key", "error"), on="key", how="inner")
    failed.select("query", "item_id", "title", "key", "error").write_parquet(staging / "errors.parquet")
    if len(errors) > config.max_error_share * plan.questions:
        raise PrectrError(
            f"label: {len(errors):,} of {plan.questions:,} questions have no label, above label.max_error_share "
            f"({config.max_error_share:g}); first reason: {shorten(errors['error'][0])}. The {len(raw):,} good labels "
            "are in the ledger. Fix the cause, then run again with --retry-errors."
        )
    labelled = keyed.join(raw, on="key", how="inner").sort("query", "item_id")
    gold = labelled.join(
        read_judged(tables).select("query", "item_id", "grade", "split"), on=["query", "item_id"], how="inner"
    )
    random, share = _random_pairs(tables, labelled) if config.calibrate else (None, 1.0)
    calibration, quality = calibrate_and_judge(gold, config.calibrate, random, share)
    levels = calibration.apply(labelled.select(LEVEL_COLUMNS).to_numpy().astype(np.float64))
    finished = labelled.with_columns(
        *(pl.Series(name, levels[:, level], dtype=pl.Float32) for level, name in enumerate(LEVEL_COLUMNS)),
        expected=pl.Series(levels @ np.arange(4) / 3, dtype=pl.Float32),
    )
    columns = [
        "query",
        "item_id",
        *LEVEL_COLUMNS,
        "outside_mass",
        "expected",
        "engine",
        "origin",
        "stratum",
        "band",
        "key",
    ]
    finished.select(columns).write_parquet(staging / "labels.parquet")
    mean_outside = float(finished["outside_mass"].mean() or 0.0)  # type: ignore[arg-type]
    quality["metrics"]["mean_outside_mass"] = round(mean_outside, 6)
    return {
        "rows": {
            "labels": len(finished),
            "questions": plan.questions,
            "asked": len(plan.missing),
            "from_ledger": plan.cached,
            "errors": len(failed),
            **{f"origin_{name}": count for name, count in sorted(finished.group_by("origin").len().iter_rows())},
        },
        "engine": teacher.engine,
        "engines": dict(sorted(finished.group_by("engine").len().iter_rows())),
        "teacher": teacher.context.teacher,
        "prompt": teacher.context.prompt,
        "prompt_text": teacher.context.prompt_text,
        "context": ledger.folder.name,
        "decoding": teacher.context.decoding,
        "calibration": {"scale": round(calibration.scale, 4), "bias": [round(value, 4) for value in calibration.bias]},
        "repeats": _repeats(ledger, keys),
        **quality,
    }


def _random_pairs(tables: Tables, labelled: pl.DataFrame) -> tuple[pl.DataFrame, float]:
    """Labelled random pairs of validation queries, and the share of unexposed candidates that are like judged pairs."""
    from prectr.relevance.calibration import candidates_like_judged
    from prectr.relevance.match_features import MatchTable

    made = labelled.filter(pl.col("origin") == "random")
    validation = [split_of(query) == "validation" for query in made["query"].to_list()]
    random = made.filter(pl.Series(validation, dtype=pl.Boolean))
    judged = read_judged(tables).filter(pl.col("split") != "held-back")
    if random.is_empty():
        return random, 1.0
    matches = MatchTable.fit(tables.items())
    of_judged, of_made = (
        matches.features(pairs["query"].to_list(), pairs["title"].to_list()) for pairs in (judged, made)
    )
    share, _ = candidates_like_judged(tables, of_judged, of_made, matches, 0)
    return random, len(judged) / (len(judged) + len(random)) if share is None else share


def _repeats(ledger: ContextLedger, keys: pl.Series) -> dict[str, Any]:
    """Agreement of second answers with first ones."""
    second = ledger.repeats(keys)
    both = second.join(ledger.labels(second["key"]), on="key", how="inner", suffix="_first")
    if both.is_empty():
        return {}
    return flip_rate(
        both.select(f"{name}_first" for name in LEVEL_COLUMNS).to_numpy().astype(np.float64),
        both.select(LEVEL_COLUMNS).to_numpy().astype(np.float64),
    )


def write_report(labels: Path) -> None:
    """Write `report.html`, the page about the labels, into the artifact."""
    from prectr.reports.labels_page import write_label_page

    write_label_page(labels, labels / "report.html")
