"""Rows that are set aside: counts and examples by reason, and a file of them that is written while rows are read."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from prectr.core.errors import PrectrError

ROW = "__row"
"""Column of a row's place in its file: the number of its line, from 1, in a text file, else of the row, from 0."""
FILE = "__file"
"""Column of a row's file."""
FAULT = "__fault"
"""Column of the first reason why a row is bad; null for a good row."""
RAW = "__raw"
"""Column of a bad row's content as it was read; null for a good row. It may be missing."""
EXAMPLES = 5
"""Bad rows of each reason that are kept as examples."""
CONTENT = 2_000
"""Most characters of a bad row's content that are kept."""
_SCHEMA = pa.schema(
    [
        ("table", pa.string()),
        ("file", pa.string()),
        ("line", pa.int64()),
        ("row", pa.int64()),
        ("reason", pa.string()),
        ("content", pa.string()),
    ]
)


@dataclass(frozen=True)
class BadLine:
    """A line of a text file that holds no row: its number from 1, the reason, and its text as far as it can be read."""

    line: int
    reason: str
    text: str


@dataclass(frozen=True)
class Example:
    """A bad row: where it is and what it holds."""

    file: str
    place: str
    """`line N` from 1 in a text file, else `row N` from 0."""
    content: str


class BadRows:
    """Collects the bad rows of one run. Use it as a context; `file` exists afterwards if there were any.

    Attributes:
        rows: table -> rows read, bad ones included.
        reasons: table -> reason -> bad rows.
        examples: (table, reason) -> the first bad rows of this reason.
        merged: table -> reason -> rows that were merged into another row of the same key; they are not bad.
    """

    def __init__(self, file: Path | None) -> None:
        """`file` is the Parquet file of the bad rows: columns table, file, line, row, reason, content. None: none."""
        self.file = file
        self.rows: Counter[str] = Counter()
        self.reasons: dict[str, Counter[str]] = {}
        self.examples: dict[tuple[str, str], list[Example]] = {}
        self.merged: dict[str, Counter[str]] = {}
        self.table = ""
        """The table whose files are being read."""
        self._text_files: set[str] = set()
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> "BadRows":
        """Remove the bad rows of an earlier run, and their directory if nothing else is in it."""
        if self.file is not None:
            self.file.unlink(missing_ok=True)
            if self.file.parent.is_dir() and not any(self.file.parent.iterdir()):
                self.file.parent.rmdir()
        return self

    def __exit__(self, *error: object) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()

    @property
    def count(self) -> int:
        """Bad rows of all tables."""
        return sum(counts.total() for counts in self.reasons.values())

    def read(self, file: Path, is_text: bool) -> None:
        """Note that a file is read: the places of its rows are lines or rows."""
        if is_text:
            self._text_files.add(str(file))

    def add(self, table: str, bad: pl.DataFrame) -> None:
        """Add rows with `FILE`, `ROW`, `FAULT` and their content in the other columns."""
        if bad.height:
            content = as_json(bad.drop(FILE, ROW, FAULT, RAW, strict=False))
            if RAW in bad.columns:
                content = bad[RAW].zip_with(bad[RAW].is_not_null(), content)
            self._add(table, bad.select(FILE, ROW, FAULT).with_columns(content.str.slice(0, CONTENT).alias("content")))

    def add_lines(self, file: Path, lines: Sequence[BadLine]) -> None:
        """Add lines of a text file of the current table that hold no row."""
        if not lines:
            return
        self.rows[self.table] += len(lines)
        frame = pl.DataFrame(
            {
                FILE: [str(file)] * len(lines),
                ROW: [line.line for line in lines],
                FAULT: [line.reason for line in lines],
                "content": [line.text[:CONTENT] for line in lines],
            },
            schema={FILE: pl.String, ROW: pl.Int64, FAULT: pl.String, "content": pl.String},
        )
        self._add(self.table, frame)

    def merge(self, table: str, reason: str, rows: int) -> None:
        """Count rows that were merged into others."""
        if rows:
            self.merged.setdefault(table, Counter())[reason] += rows

    def of_table(self, table: str) -> int:
        """Bad rows of a table."""
        return self.reasons.get(table, Counter()).total()

    def require_share(self, table: str, limit: float, hint: str) -> None:
        """Refuse a table with too many bad rows.

        Args:
            table: name of the table.
            limit: largest share of bad rows, 0..1.
            hint: what to do, for the message.

        Raises:
            PrectrError: all rows are bad, or more than the limit. The message names the most frequent reason, with an
                example, its file and its place.
        """
        bad, rows = self.of_table(table), self.rows[table]
        if not bad or (bad < rows and bad <= rows * limit):
            return
        reason, count = self.reasons[table].most_common(1)[0]
        # Of times without an order of day and month one whose readings differ.
        example = max(self.examples[table, reason], key=lambda example: len(_advice(reason, example.content)))
        where = f" Their file, line and reason are in {self.file}." if self.file is not None else ""
        raise PrectrError(
            f"{example.file}: {bad:,} of {rows:,} rows of '{table}' are bad (limit {limit:.2%}), so nothing was "
            f"written. Most often ({count:,} x): {reason}, such as {example.place}: {example.content[:200]}."
            f"{_advice(reason, example.content)}{where} {hint}"
        )

    def _add(self, table: str, frame: pl.DataFrame) -> None:
        counts = self.reasons.setdefault(table, Counter())
        is_line = pl.col(FILE).is_in(sorted(self._text_files))
        frame = frame.select(
            pl.lit(table).alias("table"),
            pl.col(FILE).alias("file"),
            pl.when(is_line).then(ROW).cast(pl.Int64).alias("line"),
            pl.when(~is_line).then(ROW).cast(pl.Int64).alias("row"),
            pl.col(FAULT).alias("reason"),
            pl.col("content"),
        )
        for (reason,), rows in frame.partition_by("reason", as_dict=True, maintain_order=True).items():
            counts[str(reason)] += rows.height
            kept = self.examples.setdefault((table, str(reason)), [])
            for row in rows.head(max(0, EXAMPLES - len(kept))).iter_rows(named=True):
                place = f"row {row['row']:,}" if row["line"] is None else f"line {row['line']:,}"
                kept.append(Example(row["file"], place, row["content"] or ""))
        if self.file is not None:
            if self._writer is None:
                self.file.parent.mkdir(parents=True, exist_ok=True)
                self._writer = pq.ParquetWriter(self.file, _SCHEMA)
            self._writer.write_table(frame.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(_SCHEMA))


def as_json(rows: pl.DataFrame) -> pl.Series:
    """Each row as a JSON object."""
    if not rows.width:
        return pl.repeat("{}", rows.height, eager=True)
    bytes_of = [name for name, kind in rows.schema.items() if _holds_bytes(kind)]  # JSON has none
    texts = ([value if value is None else repr(value) for value in rows[name].to_list()] for name in bytes_of)
    rows = rows.with_columns(pl.Series(*column, dtype=pl.String) for column in zip(bytes_of, texts, strict=True))
    return rows.select(pl.struct(pl.all()).struct.json_encode()).to_series()


def _holds_bytes(kind: object) -> bool:
    if isinstance(kind, pl.List | pl.Array):
        return _holds_bytes(kind.inner)
    return any(_holds_bytes(field.dtype) for field in kind.fields) if isinstance(kind, pl.Struct) else kind == pl.Binary


ADVICE: dict[str, str | Callable[[str], str]] = {}
"""Part of a reason -> what to do about it, for messages; or a function that says it of the example's content."""


def _advice(reason: str, content: str) -> str:
    advice = next((advice for part, advice in ADVICE.items() if part in reason), "")
    said = advice if isinstance(advice, str) else advice(content)
    return f" {said}" if said else ""
