"""Yes or no from the values of a column, by the rule `true_when` of a mapping."""

from collections import Counter
from pathlib import Path

import polars as pl

from prectr.core.errors import PrectrError, quoted
from prectr.data.importers.mapping_config import Flag
from prectr.data.reading.values import FALSE, TRUE

LISTED = 10
"""Most values that a note names."""
COUNTED = 1_000
"""Most distinct values that are counted."""


class FlagRule:
    """A rule, with the counts of the values that it met.

    Values are compared as values: `yes`, `on`, `true` and, in YAML, their unquoted spellings are one; so are 1 and 1.0;
    case does not matter.
    """

    def __init__(self, key: str, meaning: Flag) -> None:
        """`key` names the rule in messages, e.g. columns.impressions.clicked."""
        self.key, self.column = key, meaning.column or ""
        self.rules = () if meaning.true_when == "present" or meaning.true_when is None else meaning.true_when
        self.present = meaning.true_when == "present"
        self.met: set[int] = set()
        self.unnamed: Counter[str] = Counter()

    def read(self, file: Path, frame: pl.DataFrame) -> pl.Series:
        """Whether each value means yes.

        Raises:
            PrectrError: the rule is `present`, but the column holds values that mean no, such as 0.
        """
        texts = frame[self.column].cast(pl.String)
        counts = texts.drop_nulls().value_counts()
        if self.present:
            self._require_no_denial(file, counts[self.column])
            return texts.is_not_null()
        yes: list[str] = []
        for text, count in counts.iter_rows():
            met = [number for number, rule in enumerate(self.rules) if same_value(text, rule)]
            self.met.update(met)
            if met:
                yes.append(text)
            elif len(self.unnamed) < COUNTED or text in self.unnamed:
                self.unnamed[text] += count
        return texts.is_in(yes).fill_null(False)

    def notes(self) -> list[str]:
        """Values of the rule that never occurred, and values of the column that the rule does not name."""
        absent = [quoted(rule) for number, rule in enumerate(self.rules) if number not in self.met]
        notes = [f"{self.key}: no row has {', '.join(absent)}"] if absent else []
        if self.unnamed:
            listed = ", ".join(f"{count:,} x {quoted(text, 40)}" for text, count in self.unnamed.most_common(LISTED))
            more = len(self.unnamed) - LISTED
            notes.append(f"{self.key}: these mean no: {listed}" + (f" and {more:,} more values" if more > 0 else ""))
        return notes

    def _require_no_denial(self, file: Path, values: pl.Series) -> None:
        denials = values.filter(values.str.strip_chars().str.to_lowercase().is_in(FALSE))
        if denials.len():
            raise PrectrError(
                f"{file}: {self.key}: `present` takes every value for a yes, but the column {quoted(self.column)} "
                f"holds {quoted(denials[0])}. Leave true_when out for 0 and 1, or list the values that mean yes."
            )


def same_value(text: str, rule: bool | int | float | str) -> bool:
    """Whether a text of a log is a value of a rule.

    >>> same_value("Yes", True), same_value("1", 1.0), same_value("1.0", "1"), same_value("Click", "click")
    (True, True, True, True)
    >>> same_value("0", False), same_value("yes", 1), same_value("2", True)
    (True, False, False)
    """
    value = text.strip().lower()
    if isinstance(rule, bool):
        return value in (TRUE if rule else FALSE)
    if value in ("true", "false") and str(rule).strip().lower() in ("1", "1.0", "0", "0.0"):
        return float(rule) == float(value == "true")
    if value == str(rule).strip().lower():
        return True
    try:
        return float(value) == float(rule)
    except ValueError:
        return False
