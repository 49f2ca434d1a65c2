"""The canonical tables (DESIGN.md section 3): names, columns and types. The contract with users, and nothing else."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["string", "timestamp", "integer", "float", "bool"]

WANTED_TYPE: dict[Kind, str] = {
    "string": "string",
    "timestamp": "timestamp[us, UTC] (a time with its zone)",
    "integer": "int32",
    "float": "double",
    "bool": "bool",
}


@dataclass(frozen=True)
class Column:
    """One column of a canonical table. `required` columns must be there; their values may not be null."""

    name: str
    kind: Kind
    required: bool = True


@dataclass(frozen=True)
class Table:
    """One canonical table. `key` is unique; a `dated` table is partitioned as `date=YYYY-MM-DD/`."""

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    dated: bool = False
    optional: bool = False

    @property
    def required_names(self) -> tuple[str, ...]:
        """Names of the columns that must be there."""
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
GRADES = (0, 1, 2, 3)
LEVEL_COLUMNS = ("level_0", "level_1", "level_2", "level_3")
"""Probabilities of the relevance levels irrelevant, weak, relevant and strong: in labels, relevance and pair tables."""
EXPLORE_POLICY = "explore"
"""The `policy` of requests whose order was randomised: the unbiased slice."""
