"""Settings of a mapping file: the files of each canonical table of a log, and the meaning of their columns.

`prectr.core.config` reads it, so an unknown key is refused and the nearest valid name suggested. A column may be
written in short as its name: `query: q` means `query: {column: q}`.
"""

import zoneinfo
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from prectr.contracts.schema import GRADES, TABLES
from prectr.core.config import FrozenConfig
from prectr.data.reading.files import COMPRESSIONS, FORMATS


def _short(key: str) -> BeforeValidator:
    """Accept a text in place of a section: it becomes the section's value of `key`."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


class _OneColumn(FrozenConfig):
    """Values of one column of the log, or the same value for all rows."""

    column: str | None = None
    """Column of the log."""

    @model_validator(mode="after")
    def _check_one_origin(self) -> "_OneColumn":
        origins = [name for name in ("column", "columns", "constant") if getattr(self, name, None) is not None]
        if len(origins) != 1:
            choices = [name for name in ("column", "columns", "constant") if name in type(self).model_fields]
            raise ValueError(
                f"give one of {', '.join(choices)}" + (f", not {' and '.join(origins)}" if origins else "")
            )
        return self


class Text(_OneColumn):
    """A text or an id."""

    constant: str | None = None
    """Text of all rows."""


class Number(_OneColumn):
    """A number."""

    constant: float | None = None
    """Number of all rows."""


class Category(_OneColumn):
    """A category path in one column, or with one column for each level."""

    columns: tuple[str, ...] | None = None
    """Columns of the levels, the broadest first."""
    separator: str | None = None
    """Separator of the levels in `column`, e.g. "/". Null: it is " > ", or there is only one level."""


class Time(_OneColumn):
    """A time: epoch counts, text in a `format`, or ISO 8601."""

    unit: Literal["s", "ms", "us", "ns"] | None = None
    """Unit of counts from 1970-01-01T00:00Z: s, ms, us or ns. Null: the unit of counts follows from their size."""
    format: str | None = None
    """Format of the text as of strftime, e.g. "%d.%m.%Y %H:%M". Null: ISO 8601."""
    zone: str | None = None
    """Zone of times that state none, e.g. UTC or Europe/Berlin. Null: every time states its zone."""

    @model_validator(mode="after")
    def _check_format(self) -> "Time":
        if self.unit and (self.format or self.zone):
            raise ValueError("unit is for epoch counts, which have neither format nor zone")
        if self.format and ("%z" in self.format) == (self.zone is not None):
            raise ValueError("a format needs a zone, unless it reads the zone itself (%z)")
        return self

    @field_validator("zone")
    @classmethod
    def _check_zone(cls, zone: str | None) -> str | None:
        if zone is not None:
            try:
                zoneinfo.ZoneInfo(zone)
            except (zoneinfo.ZoneInfoNotFoundError, ValueError):
                raise ValueError("not a time zone; write it as UTC or Europe/Berlin") from None
        return zone


class Position(_OneColumn):
    """Position in the list of results."""

    constant: int | None = None
    """Position of all rows."""
    base: int = 1
    """Number of the first position in the log, e.g. 0."""


class Flag(_OneColumn):
    """Yes or no."""

    constant: bool | None = None
    """Value of all rows."""
    true_when: Literal["present"] | tuple[bool | int | float | str, ...] | None = None
    """Values that mean yes, compared as values: yes, on and true are one, 1 and 1.0 as well, in any case. All others
    and empty fields mean no. `present`: any value means yes, an empty field no. Null: the column holds true or false,
    yes or no, 1 or 0."""

    @field_validator("true_when", mode="before")
    @classmethod
    def _one_value(cls, values: Any) -> Any:
        return values if values is None or values == "present" or isinstance(values, list | tuple) else [values]


TextColumn = Annotated[Text, _short("column")]
NumberColumn = Annotated[Number, _short("column")]
CategoryColumn = Annotated[Category, _short("column")]
TimeColumn = Annotated[Time, _short("column")]
PositionColumn = Annotated[Position, _short("column")]
FlagColumn = Annotated[Flag, _short("column")]


class Items(FrozenConfig):
    """Columns of the catalogue."""

    item_id: TextColumn
    """Unique id of the item."""
    title: TextColumn
    """Title of the item."""
    category: CategoryColumn | None = None
    """Category path of the item."""
    brand: TextColumn | None = None
    """Brand of the item."""
    price: NumberColumn | None = None
    """Price of the item."""


class Users(FrozenConfig):
    """Columns of user profiles; keep more of them with `files.users.keep`."""

    user_id: TextColumn
    """Unique id of the user."""


class Impressions(FrozenConfig):
    """Columns of the shown items, one row for each item of a request."""

    request_id: TextColumn
    """Id of the request: one user, one query, one list of results."""
    user_id: TextColumn
    """Id of the user."""
    ts: TimeColumn
    """Time of the request."""
    query: TextColumn
    """Query text."""
    item_id: TextColumn
    """Id of the shown item."""
    position: PositionColumn
    """Position of the item in the list."""
    clicked: FlagColumn
    """Whether the item was clicked."""
    purchased: FlagColumn | None = None
    """Whether the item was bought."""
    policy: TextColumn | None = None
    """Name of the policy that ordered the list; "explore" for a random order."""
    propensity: NumberColumn | None = None
    """Probability, in (0, 1], with which the policy put the item at its position."""
    price: NumberColumn | None = None
    """Price of the item when it was shown."""


class Candidates(FrozenConfig):
    """Columns of candidates that were not shown."""

    request_id: TextColumn
    """Id of the request."""
    user_id: TextColumn
    """Id of the user."""
    ts: TimeColumn
    """Time of the request."""
    query: TextColumn
    """Query text."""
    item_id: TextColumn
    """Id of the candidate."""


class Judgments(FrozenConfig):
    """Columns of the judgments."""

    query: TextColumn
    """Query text."""
    item_id: TextColumn
    """Id of the judged item."""
    grade: TextColumn
    """Grade 0..3, or a label that `grades` of the mapping converts."""
    source: TextColumn | None = None
    """Origin of the judgment."""


class Columns(FrozenConfig):
    """Canonical table -> canonical column -> column of the log."""

    items: Items | None = None
    """Columns of the catalogue."""
    users: Users | None = None
    """Columns of user profiles. Null: the log has none."""
    impressions: Impressions | None = None
    """Columns of the shown items. Null: the log has none."""
    candidates: Candidates | None = None
    """Columns of candidates that were not shown. Null: the log has none."""
    judgments: Judgments | None = None
    """Columns of the judgments. Null: the log has none."""


class TableFiles(FrozenConfig):
    """Files of one table and their format."""

    path: str
    """Path or pattern of the files (`logs/*.csv`, `logs/**/*.parquet`), relative to the mapping file."""
    format: Literal["csv", "jsonl", "parquet", "delta"] | None = None
    """Format of the files: csv, jsonl, parquet or delta. Null: by the ending of their names; .gz or .zst may follow."""
    version: int | None = Field(None, ge=0)
    """Delta Lake: version of the table. Null: the newest, which the manifest then names."""
    separator: str | None = Field(None, min_length=1, max_length=1)
    """CSV: character between the fields. Null: a tabulator for .tsv, else a comma."""
    quote: str | None = Field('"', max_length=1)
    """CSV: character around fields that hold a separator. Null: quotes are ordinary characters."""
    encoding: str = "utf-8"
    """CSV: encoding of the text, by its Python name."""
    nulls: tuple[str, ...] = ("",)
    """CSV: spellings of a missing value."""
    keep: tuple[str, ...] = ()
    """Further columns of the log to keep under their names."""

    @model_validator(mode="after")
    def _check_suffix(self) -> "TableFiles":
        endings = [f".{part}" for part in self.path.lower().split(".")[1:] if f".{part}" not in COMPRESSIONS]
        if self.format is None and (endings[-1:] or [""])[0] not in (*FORMATS, ".txt"):
            raise ValueError("the path's ending names no format; add format: csv, jsonl, parquet or delta")
        return self


class Files(FrozenConfig):
    """Canonical table -> its files."""

    items: Annotated[TableFiles, _short("path")] | None = None
    """Files of the catalogue; required."""
    users: Annotated[TableFiles, _short("path")] | None = None
    """Files of user profiles. Null: the log has none."""
    impressions: Annotated[TableFiles, _short("path")] | None = None
    """Files of the shown items. Null: the log has none."""
    candidates: Annotated[TableFiles, _short("path")] | None = None
    """Files of candidates that were not shown. Null: the log has none."""
    judgments: Annotated[TableFiles, _short("path")] | None = None
    """Files of the judgments. Null: the log has none."""


class Mapping(FrozenConfig):
    """A mapping file."""

    files: Files
    """Files of each canonical table."""
    columns: Columns
    """Meaning of the columns of each canonical table."""
    grades: dict[str, int] | None = None
    """Label of a judgment -> grade 0..3. Null: the labels are the grades 0..3."""

    @field_validator("grades", mode="before")
    @classmethod
    def _labels_as_text(cls, grades: Any) -> Any:
        return {str(label): grade for label, grade in grades.items()} if isinstance(grades, dict) else grades

    @field_validator("grades")
    @classmethod
    def _check_grades(cls, grades: dict[str, int] | None) -> dict[str, int] | None:
        known: dict[str, int] = {}
        for label, grade in (grades or {}).items():
            if grade not in GRADES:
                raise ValueError(f"'{label}' means the grade {grade}; grades are 0, 1, 2 and 3")
            if known.setdefault(label.lower(), grade) != grade:
                raise ValueError(f"'{label}' has two grades; labels are compared in any case")
        return grades

    @model_validator(mode="after")
    def _check_tables(self) -> "Mapping":
        for table in TABLES:
            files, columns = getattr(self.files, table.name), getattr(self.columns, table.name)
            if (files is None) != (columns is None):
                present, missing = ("files", "columns") if columns is None else ("columns", "files")
                raise ValueError(f"{present}.{table.name} is there, but {missing}.{table.name} is not")
        if self.files.items is None:
            raise ValueError("files.items is missing: the other tables' item_id refers to it")
        return self
