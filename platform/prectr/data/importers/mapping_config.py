"""The mapping file: which files of a log hold which canonical table, and what their columns mean.

Frozen pydantic models, read by `prectr.core.config`, so an unknown key is refused with the nearest valid name. A
column may be written in short as its name: `query: q` is `query: {column: q}`.
"""

import zoneinfo
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from prectr.contracts.schema import GRADES, TABLES
from prectr.core.config import FrozenConfig
from prectr.data.importers.reading import SUFFIXES, Format


def _short(key: str) -> BeforeValidator:
    return BeforeValidator(lambda given: {key: given} if isinstance(given, str) else given)


class _OneColumn(FrozenConfig):
    """Values of one column of the file, or the same value for all rows."""

    column: str | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> "_OneColumn":
        given = [name for name in ("column", "columns", "constant") if getattr(self, name, None) is not None]
        if len(given) != 1:
            choices = [name for name in ("column", "columns", "constant") if name in type(self).model_fields]
            raise ValueError(f"give one of {', '.join(choices)}" + (f", not {' and '.join(given)}" if given else ""))
        return self


class Text(_OneColumn):
    """A text or an id."""

    constant: str | None = None


class Number(_OneColumn):
    """A number."""

    constant: float | None = None


class Category(_OneColumn):
    """A category path, written as one column, or as a column a level."""

    columns: tuple[str, ...] | None = None
    separator: str | None = None
    """What stands between the levels in the log, e.g. "/"; None: it is " > " already, or there is one level only."""


class Time(_OneColumn):
    """A moment: epoch counts (`unit`), a `format` of strftime, or ISO 8601; `zone` is that of times without one."""

    unit: Literal["s", "ms", "us", "ns"] | None = None
    format: str | None = None
    zone: str | None = None

    @model_validator(mode="after")
    def _one_reading(self) -> "Time":
        if self.unit and (self.format or self.zone):
            raise ValueError("unit is for epoch counts, which have neither format nor zone")
        if self.format and ("%z" in self.format) == (self.zone is not None):
            raise ValueError("a format needs a zone, unless it reads the zone itself (%z)")
        return self

    @field_validator("zone")
    @classmethod
    def _known_zone(cls, zone: str | None) -> str | None:
        if zone is not None:
            try:
                zoneinfo.ZoneInfo(zone)
            except (zoneinfo.ZoneInfoNotFoundError, ValueError):
                raise ValueError("not a time zone; write it as UTC or Europe/Berlin") from None
        return zone


class Position(_OneColumn):
    """The place in the list of results; `base` is the number of the first place."""

    constant: int | None = None
    base: int = 1


class Flag(_OneColumn):
    """Yes or no; `true_when` lists the values that mean yes (all others, and empty ones, mean no)."""

    constant: bool | None = None
    true_when: tuple[str, ...] | Literal["present"] | None = None
    """Or `present`: any value means yes, an empty one no. None: the column holds true/false or 1/0 itself."""

    @field_validator("true_when", mode="before")
    @classmethod
    def _as_text(cls, given: Any) -> Any:
        return [str(value) for value in given] if isinstance(given, list) else given


TextColumn = Annotated[Text, _short("column")]
NumberColumn = Annotated[Number, _short("column")]
CategoryColumn = Annotated[Category, _short("column")]
TimeColumn = Annotated[Time, _short("column")]
PositionColumn = Annotated[Position, _short("column")]
FlagColumn = Annotated[Flag, _short("column")]


class Items(FrozenConfig):
    """Columns of the catalogue."""

    item_id: TextColumn
    title: TextColumn
    category: CategoryColumn | None = None
    brand: TextColumn | None = None
    price: NumberColumn | None = None


class Users(FrozenConfig):
    """Columns of the profiles; keep more with `files.users.keep`."""

    user_id: TextColumn


class Impressions(FrozenConfig):
    """Columns of the log of what was shown."""

    request_id: TextColumn
    user_id: TextColumn
    ts: TimeColumn
    query: TextColumn
    item_id: TextColumn
    position: PositionColumn
    clicked: FlagColumn
    purchased: FlagColumn | None = None
    policy: TextColumn | None = None
    propensity: NumberColumn | None = None
    price: NumberColumn | None = None


class Candidates(FrozenConfig):
    """Columns of unexposed candidates."""

    request_id: TextColumn
    user_id: TextColumn
    ts: TimeColumn
    query: TextColumn
    item_id: TextColumn


class Judgments(FrozenConfig):
    """Columns of the judgments; `grades` of the mapping says what a label means."""

    query: TextColumn
    item_id: TextColumn
    grade: TextColumn
    source: TextColumn | None = None


class Columns(FrozenConfig):
    """Canonical table -> canonical column -> column of the log."""

    items: Items | None = None
    users: Users | None = None
    impressions: Impressions | None = None
    candidates: Candidates | None = None
    judgments: Judgments | None = None


class TableFiles(FrozenConfig):
    """The files of one table and how they are written."""

    path: str
    """A path or a pattern (`logs/*.csv`, `logs/**/*.parquet`), relative to the mapping file."""
    format: Format | None = None
    """None: by the suffix."""
    separator: str = Field(",", min_length=1, max_length=1)
    quote: str | None = Field('"', max_length=1)
    """None: quotes are ordinary characters."""
    encoding: str = "utf-8"
    nulls: tuple[str, ...] = ("",)
    """Spellings of an empty field."""
    keep: tuple[str, ...] = ()
    """Further columns that are kept under their own names."""

    @model_validator(mode="after")
    def _known_format(self) -> "TableFiles":
        suffix = "." + self.path.rsplit(".", 1)[-1].lower()
        if self.format is None and suffix not in SUFFIXES:
            raise ValueError("the path's suffix names no format; add format: csv, jsonl or parquet")
        return self


class Files(FrozenConfig):
    """Canonical table -> its files."""

    items: Annotated[TableFiles, _short("path")] | None = None
    users: Annotated[TableFiles, _short("path")] | None = None
    impressions: Annotated[TableFiles, _short("path")] | None = None
    candidates: Annotated[TableFiles, _short("path")] | None = None
    judgments: Annotated[TableFiles, _short("path")] | None = None


class Mapping(FrozenConfig):
    """A mapping file."""

    files: Files
    columns: Columns
    grades: dict[str, int] | None = None
    """Label -> grade 0..3. None: the labels are 0..3 themselves."""

    @field_validator("grades", mode="before")
    @classmethod
    def _labels_as_text(cls, given: Any) -> Any:
        return {str(label): grade for label, grade in given.items()} if isinstance(given, dict) else given

    @field_validator("grades")
    @classmethod
    def _known_grades(cls, grades: dict[str, int] | None) -> dict[str, int] | None:
        for label, grade in (grades or {}).items():
            if grade not in GRADES:
                raise ValueError(f"'{label}' means the grade {grade}; grades are 0, 1, 2 and 3")
        return grades

    @model_validator(mode="after")
    def _files_have_columns(self) -> "Mapping":
        for table in TABLES:
            files, columns = getattr(self.files, table.name), getattr(self.columns, table.name)
            if (files is None) != (columns is None):
                there, missing = ("files", "columns") if columns is None else ("columns", "files")
                raise ValueError(f"{there}.{table.name} is there, but {missing}.{table.name} is not")
        if self.files.items is None:
            raise ValueError("files.items is missing: the other tables' item_id refers to it")
        return self
