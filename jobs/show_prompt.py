"""`label --show-prompt`: one prompt exactly as the teacher gets it, with its labels' tokens; labels nothing."""

from pathlib import Path

import polars as pl

from prectr.data.judgments import read_judged
from prectr.data.tables import Tables
from prectr.labelling.config import LabelConfig
from prectr.labelling.engines.contract import is_url
from prectr.labelling.prompt import show_prompt
from prectr.labelling.teacher import teacher_source, template_for

EXAMPLE = pl.DataFrame(
    {
        "query": ["nokia 3310 battery"],
        "title": ["Battery for Nokia 3310, 1000 mAh, new"],
        "category": ["phones > parts"],
    }
)
"""Shown where no tables are given."""


def run(*, teacher: str, tables: Path | None, config: LabelConfig) -> str:
    """The text to print, for the first judged pair of `tables`, else their first item, else an example.

    Raises:
        UsageError: no such teacher or template, or a label is not one token of the teacher.
    """
    log = None if tables is None else Tables(tables)
    pair = EXAMPLE if log is None else _first_pair(log)
    template = template_for(config.prompt, config.language, pair["title"] if log is None else log.items()["title"])
    source = str(teacher_source(teacher))
    if is_url(source):
        return show_prompt(template, None, pair)
    from prectr.labelling.own_teacher.model import load_tokenizer

    return show_prompt(template, load_tokenizer(source), pair)


def _first_pair(tables: Tables) -> pl.DataFrame:
    items = tables.items()
    shown = [column for column in ("category", "brand") if column in items.columns]
    judged = read_judged(tables).head(1).select("query", "item_id")
    if judged.is_empty():
        judged = items.head(1).select("item_id", query=pl.col("title").str.to_lowercase())
    return judged.join(items.select("item_id", "title", *shown), on="item_id", how="left")
