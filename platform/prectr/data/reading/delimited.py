"""CSV and TSV, a block of records at a time, every field as text. A line that holds no row is set aside by its number.

Records follow RFC 4180: a field that begins with a quote ends at the next single quote, and a separator or the end of
the line follows. A quote inside a field that does not begin with one is an ordinary character. A block in which nothing
is unusual is split by polars; all others are split here, record by record.

A quote that is opened and not closed could swallow good rows up to the next quote. So a field that holds separators
*and* line ends is only read if the settings say so (`validation.multiline_fields`).
"""

import codecs
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import polars as pl

from prectr.core.errors import quoted
from prectr.data.reading.bad_rows import ADVICE, ROW, BadLine
from prectr.data.reading.files import Layout

BLOCK_BYTES = 16 * 1024 * 1024
"""Bytes that are read at once."""
RECORD_BYTES = 1024 * 1024
"""Most bytes of a record with quotes; in a longer one a quote was opened and not closed."""
LINE_BYTES = 4 * BLOCK_BYTES
"""Most bytes without a line end."""
SWALLOWED_WIDTH = 4
"""Least number of columns for which lines inside quotes may be taken for rows that a stray quote swallowed."""
SWALLOWED_LINES = 3
"""Least number of such lines if the field is closed as it should be; fewer are rather the lines of a text."""
NEWLINE, RETURN = b"\n", b"\r"
BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}

NOT_TEXT = "the line is not text in the file's encoding"
NUL_BYTE = "the line holds a NUL byte"
AFTER_QUOTE = "text follows a closing quote"
UNCLOSED = "a quote is opened and not closed"
SEPARATORS_AND_LINE_ENDS = "a quoted field holds separators and line ends"
IN_BAD_FIELD = "the line is part of a field whose quotes are wrong"

ADVICE |= {
    SEPARATORS_AND_LINE_ENDS: "If its fields are meant so, set validation.multiline_fields=true; if quotes are "
    "ordinary characters in this file, say `quote: null` in a mapping.",
    AFTER_QUOTE: "If quotes are ordinary characters in this file, say `quote: null` in a mapping.",
    UNCLOSED: "If quotes are ordinary characters in this file, say `quote: null` in a mapping.",
    NOT_TEXT: "Say `encoding: latin-1` (or what it is) in a mapping.",
}

Chosen = Callable[[Sequence[str]], list[str]]
"""Chooses columns of those that a file has; it raises an error if one is missing."""


@dataclass(frozen=True)
class Piece:
    """Rows of a block, all columns text besides `ROW`, and the lines of the block that hold no row."""

    frame: pl.DataFrame
    bad: list[BadLine]


def read_delimited(stream: BinaryIO, layout: Layout, multiline: bool, chosen: Chosen) -> Iterator[Piece]:
    """Read a CSV file.

    Args:
        stream: the bytes of the file, decompressed.
        layout: separator, quote, encoding and spellings of null; an empty field is always null.
        multiline: whether a quoted field may hold separators and line ends.
        chosen: chooses the columns to read.

    Raises:
        ValueError: the first line is no header, or names a column that is read twice; or no line ends.
        LookupError: the encoding is unknown.
    """
    reader = _Reader(layout, multiline)
    rest, line = b"", 1
    blocks = _blocks(stream, layout.encoding)
    header = True
    for block, final in blocks:
        # Whole lines only, in one copy: what follows the last line end waits for the next block.
        cut = len(block) if header or final else block.rfind(NEWLINE) + 1
        data, tail = b"".join((rest, memoryview(block)[:cut])), block[cut:]
        if header:
            if not data.strip():
                if final:
                    return
                rest = data
                continue
            found = reader.read_header(data, final)
            if found is None:
                rest = data
                continue
            start, lines = found
            data, line, header = data[start:], line + lines, False
            if final and not data.strip():
                return
            reader.choose(chosen)
        piece, used, lines = reader.read_block(data, line, final)
        rest, line = data[used:] + tail, line + lines
        if len(rest) > LINE_BYTES:
            raise ValueError(f"no line ends within {LINE_BYTES:,} bytes, from line {line:,}")
        if piece.frame.height or piece.bad:
            yield piece


def _blocks(stream: BinaryIO, encoding: str) -> Iterator[tuple[bytes, bool]]:
    """Blocks of the file in UTF-8, and whether each is the last. A byte that is not of the encoding becomes NUL."""
    block = stream.read(BLOCK_BYTES)
    is_utf8 = codecs.lookup(encoding).name in ("utf-8", "utf-8-sig")
    for mark, marked in BYTE_ORDER_MARKS.items():
        if block.startswith(mark) and (is_utf8 or marked.startswith(codecs.lookup(encoding).name[:6])):
            block, encoding, is_utf8 = block[len(mark) :], marked, marked == "utf-8"
            break
    decoder = None if is_utf8 else codecs.getincrementaldecoder(encoding)("prectr-nul")
    returns_only = None
    held = b""
    while True:
        following = stream.read(BLOCK_BYTES)
        text = held + (block if decoder is None else decoder.decode(block, not following).encode("utf-8", "replace"))
        if returns_only is None:  # old spreadsheets end lines with carriage returns alone
            held, block = text, following
            if following and NEWLINE not in text and RETURN not in text[:-1] and len(text) <= LINE_BYTES:
                continue
            held, returns_only = b"", NEWLINE not in text and RETURN in text
        yield (text.replace(RETURN, NEWLINE) if returns_only else text), not following
        if not following:
            return
        block = following


def _nul(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "\0", error.end


codecs.register_error("prectr-nul", _nul)


class _Reader:
    """Splits blocks of one file."""

    def __init__(self, layout: Layout, multiline: bool) -> None:
        self.separator = layout.separator.encode()
        self.quote = layout.quote.encode() if layout.quote else b""
        self.nulls = frozenset({"", *layout.nulls})
        self.multiline = multiline
        self.names: list[str] = []
        self.wanted: list[str] = []
        self.fast = len(self.separator) == 1 and len(self.quote) <= 1

    @property
    def width(self) -> int:
        """Number of columns of the file."""
        return len(self.names)

    def read_header(self, data: bytes, final: bool) -> tuple[int, int] | None:
        """Read the names of the columns; returns the bytes and the lines of the header, None if it may go on."""
        start = len(data) - len(data.lstrip(b"\r\n"))
        record = self._record(data, start, final or len(data) > LINE_BYTES)
        if record is None:
            return None
        if not isinstance(record, _Fields):
            raise ValueError("the quotes of its first line, the header, are wrong")
        try:
            names = [field.decode().strip() for field in record.fields]
        except UnicodeDecodeError:
            raise ValueError("its first line, the header, is not text in this encoding") from None
        if "\0" in "".join(names):
            raise ValueError("its first line, the header, holds NUL bytes")
        self.names = [name or f"column_{number}" for number, name in enumerate(names, start=1)]
        return record.end, data.count(NEWLINE, 0, record.end)

    def choose(self, chosen: Chosen) -> None:
        """Choose the columns to read."""
        self.wanted = chosen(self.names)
        for name in self.wanted:
            if self.names.count(name) > 1:
                raise ValueError(f"its header names the column {quoted(name)} {self.names.count(name)} times")

    def read_block(self, data: bytes, line: int, final: bool) -> tuple[Piece, int, int]:
        """Read the whole records of a block; returns them with the number of their bytes and lines."""
        if final:
            kept = data.rstrip(b"\r\n")
            data = kept + NEWLINE if kept else b""
        plain = self._plain(data, line) if self.fast and data else None
        if plain is None or (final and plain[1] < len(data)):
            return self._by_record(data, line, final)
        return plain

    def _plain(self, data: bytes, line: int) -> tuple[Piece, int, int] | None:
        """Split a block in which each line is a record with the right number of fields; None if it is another."""
        has_quotes = bool(self.quote) and self.quote in data
        if has_quotes:
            counts = self._quoting(data)
            if counts is None:
                return None
            end, lines, separators = counts
        else:
            end = data.rfind(NEWLINE) + 1
            cells = np.frombuffer(data, np.uint8, end)  # counting is faster in numpy than in bytes
            lines, separators = (int(np.count_nonzero(cells == byte)) for byte in (NEWLINE[0], self.separator[0]))
        if not end or separators != lines * (self.width - 1) or b"\0" in data:
            return None
        if RETURN in data and data.count(RETURN) > lines:
            return None
        if self.width == 1 and (data[0] in b"\r\n" or b"\n\n" in data or b"\n\r\n" in data):
            return None
        columns = {f"column_{number}": pl.String for number in range(1, self.width + 1)}
        origins = [f"column_{self.names.index(name) + 1}" for name in self.wanted]
        try:
            frame = pl.read_csv(
                data[:end] if end < len(data) else data,
                has_header=False,
                schema=columns,
                columns=origins or ["column_1"],
                separator=self.separator.decode(),
                quote_char=self.quote.decode() if has_quotes else None,
                null_values=sorted(self.nulls - {""}),
            ).select(pl.col(origin).alias(name) for origin, name in zip(origins, self.wanted, strict=True))
        except pl.exceptions.PolarsError:
            return None
        height = frame.height if origins else lines
        if height != lines:
            return None
        if has_quotes:
            frame = frame.with_columns(pl.when(pl.all() != "").then(pl.all()))
        places = pl.int_range(line, line + lines, dtype=pl.Int64, eager=True).alias(ROW)
        return Piece(frame.with_columns(places) if origins else places.to_frame(), []), end, lines

    def _quoting(self, data: bytes) -> tuple[int, int, int] | None:
        """Bytes, lines and separators of the whole records of a block; None if a quote is out of place.

        None as well if a record spans lines: only `_by_record` splits such records.
        """
        separator, quote = self.separator[0], self.quote[0]
        cells = np.frombuffer(data, np.uint8)
        is_quote = cells == quote
        inside = (np.cumsum(is_quote, dtype=np.uint8) & 1).astype(bool)  # wraps around, which keeps the parity
        is_newline = cells == NEWLINE[0]
        ends = np.flatnonzero(is_newline & ~inside)
        if not len(ends):
            return None
        end = int(ends[-1]) + 1
        if (is_newline[:end] & inside[:end]).any():
            return None
        quotes = np.flatnonzero(is_quote[:end])
        before = cells[np.maximum(quotes[::2] - 1, 0)]
        before[quotes[::2] == 0] = separator
        opens = (before == separator) | (before == NEWLINE[0]) | (before == quote)
        after = cells[quotes[1::2] + 1]  # a record ends with a line end, so that a byte follows
        closes = (after == separator) | (after == NEWLINE[0]) | (after == quote)
        returns = np.flatnonzero(after == RETURN[0])
        closes[returns] = cells[np.minimum(quotes[1::2][returns] + 2, end - 1)] == NEWLINE[0]
        if not (opens.all() and closes.all()):
            return None
        return end, len(ends), int(np.count_nonzero((cells[:end] == separator) & ~inside[:end]))

    def _by_record(self, data: bytes, line: int, final: bool) -> tuple[Piece, int, int]:
        rows: list[list[str | None]] = []
        places: list[int] = []
        bad: list[BadLine] = []
        position, origins = 0, [self.names.index(name) for name in self.wanted]
        first = line
        while position < len(data):
            record = self._record(data, position, final)
            if record is None:
                break
            raw = data[position : record.end]
            lines = raw.count(NEWLINE)
            if isinstance(record, _Faulty):
                bad += self._bad_lines(raw, line, record)
            elif raw.strip(b"\r\n") and (raw.strip() or self.width == 1 or self.separator in raw):
                row = self._row(raw, record.fields, origins)
                if isinstance(row, str):
                    bad.append(BadLine(line, row, raw.decode(errors="replace").rstrip("\r\n")))
                else:
                    rows.append(row)
                    places.append(line)
            position, line = record.end, line + lines
        columns = list(zip(*rows, strict=True)) if rows else [() for _ in origins]
        texts = {name: pl.Series(name, column, pl.String) for name, column in zip(self.wanted, columns, strict=True)}
        frame = pl.DataFrame({**texts, ROW: pl.Series(ROW, places, pl.Int64)})
        return Piece(frame, bad), position, line - first

    def _row(self, raw: bytes, fields: list[bytes], origins: list[int]) -> list[str | None] | str:
        """Texts of the wanted fields, or the reason why the record is no row."""
        if b"\0" in raw:
            return NUL_BYTE
        if len(fields) != self.width:
            return f"the line has {len(fields):,} fields, not {self.width:,} as the header"
        try:
            raw.decode()
        except UnicodeDecodeError:
            return NOT_TEXT
        texts = (fields[origin].decode() for origin in origins)
        return [None if text in self.nulls else text for text in texts]

    def _record(self, data: bytes, start: int, final: bool) -> "_Fields | _Faulty | None":
        """Split the record at `start`; None if it may continue in the next block."""
        newline = data.find(NEWLINE, start)
        end = newline + 1 if newline >= 0 else len(data)
        if newline < 0 and not final:
            return None
        if not self.quote or data.find(self.quote, start, end) < 0:
            return _Fields(_without_return(data[start : newline if newline >= 0 else end]).split(self.separator), end)
        fields: list[bytes] = []
        position, suspect = start, 0  # the place after a field that holds separators and line ends
        while True:
            if not data.startswith(self.quote, position):
                newline = data.find(NEWLINE, position)
                stop = newline if newline >= 0 else len(data)
                if newline < 0 and not final:
                    return None
                separator = data.find(self.separator, position, stop)
                if separator >= 0:
                    fields.append(data[position:separator])
                    position = separator + len(self.separator)
                    continue
                fields.append(_without_return(data[position:stop]))
                return self._whole(fields, data, start, min(stop + 1, len(data)), suspect)
            closing = self._closing(data, position, min(len(data), start + RECORD_BYTES))
            if closing is None:
                if not final and len(data) - start <= RECORD_BYTES:
                    return None
                if suspect:
                    return self._faulty(SEPARATORS_AND_LINE_ENDS, data, start, suspect)
                return self._faulty(UNCLOSED, data, start, min(len(data), start + RECORD_BYTES))
            after = closing + len(self.quote)
            if after >= len(data) - 1 and not final:
                return None
            text = data[position + len(self.quote) : closing].replace(self.quote * 2, self.quote)
            if not self.multiline and NEWLINE in text and self.separator in text:
                suspect = suspect or after
            fields.append(text)
            if data.startswith(self.separator, after):
                position = after + len(self.separator)
                continue
            for line_end in (b"\r\n", NEWLINE):
                if data.startswith(line_end, after):
                    return self._whole(fields, data, start, after + len(line_end), suspect)
            if after == len(data):
                return self._whole(fields, data, start, after, suspect)
            if suspect:
                return self._faulty(SEPARATORS_AND_LINE_ENDS, data, start, suspect)
            return self._faulty(AFTER_QUOTE, data, start, after)

    def _whole(self, fields: list[bytes], data: bytes, start: int, end: int, suspect: int) -> "_Fields | _Faulty":
        """A record whose quotes are right; a faulty one if a field of it holds what a stray quote would swallow."""
        return self._faulty(SEPARATORS_AND_LINE_ENDS, data, start, end - 1) if suspect else _Fields(fields, end)

    def _closing(self, data: bytes, opening: int, limit: int) -> int | None:
        """Place of the quote that closes the one at `opening`."""
        position = opening + len(self.quote)
        while (closing := data.find(self.quote, position, limit)) >= 0:
            if not data.startswith(self.quote, closing + len(self.quote)):
                return closing
            position = closing + 2 * len(self.quote)
        return None

    def _faulty(self, reason: str, data: bytes, start: int, until: int) -> "_Faulty":
        """The lines that a wrong quote makes bad: the first one alone if the others are rows that it swallowed.

        Args:
            reason: what is wrong.
            data: the block.
            start: place of the record.
            until: place at which the fault was found; the lines up to there are looked at.
        """
        first = data.find(NEWLINE, start) + 1 or len(data)
        last = data.find(NEWLINE, until) + 1 or len(data)
        if reason == UNCLOSED and last > until and until < len(data):
            last = data.rfind(NEWLINE, start, until) + 1 or last
        following = data[first:last].splitlines()
        rows = sum(line.count(self.separator) == self.width - 1 for line in following)
        least = SWALLOWED_LINES if reason == SEPARATORS_AND_LINE_ENDS else 1
        swallowed = self.width >= SWALLOWED_WIDTH and len(following) >= least and rows >= 0.9 * len(following)
        return _Faulty(reason, first if swallowed else max(first, last))

    def _bad_lines(self, raw: bytes, line: int, record: "_Faulty") -> list[BadLine]:
        texts = raw.decode(errors="replace").split("\n")
        texts = texts[:-1] if texts[-1] == "" else texts
        return [
            BadLine(line + number, record.reason if not number else IN_BAD_FIELD, text.rstrip("\r"))
            for number, text in enumerate(texts)
        ]


@dataclass(frozen=True)
class _Fields:
    """Fields of a record, and the place after it."""

    fields: list[bytes]
    end: int


@dataclass(frozen=True)
class _Faulty:
    """Lines that hold no row: the reason, and the place after them."""

    reason: str
    end: int


def _without_return(text: bytes) -> bytes:
    return text[:-1] if text.endswith(RETURN) else text
