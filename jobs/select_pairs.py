"""select-pairs: which pairs the teacher will be asked about, as an artifact with its counts.

A stage of its own, so that a choice can be looked at before it is paid for, and the same pairs put to several teachers.
"""

from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from jobs.options import Force, Out, TablesIn, command
from prectr.core import progress
from prectr.core.artifacts import StageResult, require_artifact, run_stage
from prectr.data.tables import Tables
from prectr.labelling.bands import BANDS
from prectr.labelling.config import SelectionConfig
from prectr.labelling.selection import SELECTION, Selection, choose_pairs, extend_selection


class _Extended(SelectionConfig):
    """A selection that keeps what was chosen on earlier days."""

    extend: bool = True


@command("select-pairs")
def run(
    *, tables: TablesIn, out: Out, config: SelectionConfig, extend: bool = False, force: Force = False
) -> StageResult:
    """Choose pairs of `tables` for the teacher and publish them at `out`.

    Args:
        tables: canonical tables.
        out: the artifact.
        config: budget and shares of the selection.
        extend: keep the pairs of the artifact at `out`, and choose only among pairs of later days.
        force: choose again.

    Raises:
        UsageError: nothing to choose from; or there is nothing to extend.
    """
    log = Tables(tables)
    before = require_artifact(out, "select-pairs") if extend else {}

    def build(staging: Path) -> dict[str, Any]:
        if extend:
            old = pl.read_parquet(out / SELECTION)
            selection = extend_selection(old, date.fromisoformat(before["last_day"]), log, config)
        else:
            selection = choose_pairs(log, config)
        selection.pairs.write_parquet(staging / SELECTION)
        pairs, questions = len(selection.pairs), selection.pairs["question"].n_unique()
        _show(selection)
        progress.say(f"  {questions:,} questions stand for {pairs:,} pairs ({pairs - questions:,} duplicates)")
        return {
            "last_day": str(max(log.days(), default="")),
            "rows": {"pairs": pairs, "questions": questions, "duplicates": pairs - questions},
            "pool": selection.pool.to_dicts(),
            "cells": selection.cells.to_dicts(),
        }

    resolved = _Extended(**config.model_dump()) if extend else config
    return run_stage("select-pairs", out, config=resolved, inputs={"tables": tables}, build=build, force=force)


def _show(selection: Selection) -> None:
    """Questions chosen of those available, a line for each origin and stratum."""
    of = pl.format(
        "{} of {}", *(pl.col(name).map_elements("{:,}".format, pl.String) for name in ("chosen", "available"))
    )
    wide = selection.cells.with_columns(of=of).pivot("band", index=["origin", "stratum"], values="of").fill_null("")
    rows = wide.with_columns(pl.lit("").alias(band) for band in BANDS if band not in wide.columns)
    progress.say("  " + f"{'origin':<11}{'traffic':<9}" + "".join(f"{'words: ' + band:>22}" for band in BANDS))
    for row in rows.to_dicts():
        progress.say(f"  {row['origin']:<11}{row['stratum']:<9}" + "".join(f"{row[band]:>22}" for band in BANDS))
