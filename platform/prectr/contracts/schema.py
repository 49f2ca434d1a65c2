"""Names, columns and types of the canonical tables: the contract with users who bring a log."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from prectr.core.text import is_blank

Kind = Literal["string", "timestamp", "integer", "float", "bool"]

WANTED_TYPE: dict[Kind, str] = {
    "string": "string",
    "timestamp": "timestamp[us, UTC] (a time with its zone)",
    "integer": "int32",
    "float": "double",
    "bool": "bool",
}
"""Type of each kind of column, as messages name it."""


@dataclass(frozen=True)
class Column:
    """One column of a canonical table. A `required` column must exist and must not hold nulls."""

    name: str
    kind: Kind
    required: bool = True


@dataclass(frozen=True)
class Table:
    """One canonical table. Rows are unique by `key`; a `dated` table has a folder `date=YYYY-MM-DD/` for each day."""

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    dated: bool = False
    optional: bool = False

    @property
    def required_names(self) -> tuple[str, ...]:
        """Names of the required columns."""
        return tuple(column.name for column in self.columns if column.required)


ITEMS = Table(
    "items",
    (
        Column("item_id", "string"),
        Column("title", "string"),
        Column("category", "string", required=False),
        Column("brand", "string", required=False),
        Column("price", "float", required=False),
    ),
    key=("item_id",),
)
USERS = Table("users", (Column("user_id", "string"),), key=("user_id",), optional=True)
IMPRESSIONS = Table(
    "impressions",
    (
        Column("request_id", "string"),
        Column("user_id", "string"),
        Column("ts", "timestamp"),
        Column("query", "string"),
        Column("item_id", "string"),
        Column("position", "integer"),
        Column("clicked", "bool"),
        Column("purchased", "bool", required=False),
        Column("policy", "string", required=False),
        Column("propensity", "float", required=False),
        Column("price", "float", required=False),
    ),
    key=("request_id", "item_id"),
    dated=True,
)
CANDIDATES = Table(
    "candidates",
    (
        Column("request_id", "string"),
        Column("user_id", "string"),
        Column("ts", "timestamp"),
        Column("query", "string"),
        Column("item_id", "string"),
    ),
    key=("request_id", "item_id"),
    dated=True,
    optional=True,
)
JUDGMENTS = Table(
    "judgments",
    (
        Column("query", "string"),
        Column("item_id", "string"),
        Column("grade", "integer"),
        Column("source", "string", required=False),
    ),
    key=("query", "item_id"),
    optional=True,
)

TABLES = (ITEMS, USERS, IMPRESSIONS, CANDIDATES, JUDGMENTS)
NULL_IDS: tuple[str, ...] = ("nan", "null", "none", r"\n", "<na>", "undefined")
"""Words, in lower case, that programs write for a missing id. As a query or a title they are plain text."""


def is_null_id(text: str, words: Collection[str] = NULL_IDS) -> bool:
    """Whether an id means that there is none: it shows nothing, or it is one of `words` (in lower case).

    >>> [is_null_id(text) for text in ("", " \\u200b", " NaN ", "\\\\N", "n", "user null")]
    [True, True, True, True, False, False]
    """
    return is_blank(text) or text.strip().lower() in words


GRADES = (0, 1, 2, 3)
LEVEL_COLUMNS = ("level_0", "level_1", "level_2", "level_3")
"""Columns of labels, relevance and pair tables: probabilities of the levels irrelevant, weak, relevant and strong."""
EXPLORE_POLICY = "explore"
"""Value of `policy` for requests whose order was random; their clicks are free of the ranking's bias."""
