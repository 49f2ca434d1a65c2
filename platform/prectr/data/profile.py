"""What a log holds, for `prectr validate --report`: days, values, positions, busy users, and what looks suspicious."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from prectr.data.reading.bad_rows import BadRows

VALUES = 20
"""Most values of a column that are counted; a column with more shows some examples."""
HEAVY = 1_000
"""Users whose rows are counted at once (Misra-Gries): counts are low by at most a 1,000th of all rows."""
QUIET_DAY = 0.1
"""Share of the median day's rows below which a day is suspicious."""
BUSY_USER = 0.01
"""Share of all rows from which a user is suspicious."""
UNCLICKED_ROWS = 100
"""Rows of a position from which it is suspicious that none is clicked."""


@dataclass
class Values:
    """Values of a column: rows, nulls, and the counts of its values, None if they are many."""

    kind: str
    rows: int = 0
    nulls: int = 0
    counts: Counter[str] | None = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)


@dataclass
class Profile:
    """Counts of the good rows of a log.

    Attributes:
        bad: the rows that were set aside.
        columns: table -> column -> its values.
        days: table -> day -> rows.
        positions: position -> rows, clicks.
        users: user_id -> rows of impressions, a lower bound, of the busiest users.
    """

    bad: BadRows | None = None
    columns: dict[str, dict[str, Values]] = field(default_factory=dict)
    days: dict[str, Counter[str]] = field(default_factory=dict)
    positions: dict[int, list[int]] = field(default_factory=dict)
    users: Counter[str] = field(default_factory=Counter)
    impressions: int = 0

    def add(self, table: str, rows: pl.DataFrame) -> None:
        """Count good rows of a table."""
        for name in rows.columns:
            self._values(table, name, rows[name])
        if "ts" in rows.columns:
            counts = self.days.setdefault(table, Counter())
            for day, count in rows.group_by(pl.col("ts").dt.date()).len().iter_rows():
                counts[str(day)] += count
        if table == "impressions":
            self.impressions += rows.height
            by_position = rows.group_by("position").agg(pl.len(), pl.col("clicked").sum())
            for position, count, clicks in by_position.iter_rows():
                known = self.positions.setdefault(position, [0, 0])
                known[0] += count
                known[1] += clicks
            self._users(rows["user_id"])

    def _values(self, table: str, name: str, values: pl.Series) -> None:
        known = self.columns.setdefault(table, {}).setdefault(name, Values(str(values.dtype)))
        known.rows += values.len()
        known.nulls += values.null_count()
        if known.counts is None:
            return
        texts = values.drop_nulls()
        if not known.examples and texts.len():
            known.examples = [str(value)[:80] for value in texts.head(3).to_list()]
        if values.dtype.is_nested() or texts.n_unique() > VALUES:
            known.counts = None
            return
        for value, count in texts.value_counts().iter_rows():
            known.counts[str(value)[:80]] += count
        if len(known.counts) > VALUES:
            known.counts = None

    def _users(self, users: pl.Series) -> None:
        counts = users.value_counts(sort=True).head(2 * HEAVY)
        for user, count in counts.iter_rows():
            self.users[user] += count
        if len(self.users) > HEAVY:
            least = self.users.most_common(HEAVY + 1)[-1][1]
            self.users = Counter({user: count - least for user, count in self.users.items() if count > least})

    def suspicious(self) -> list[str]:
        """Sentences about what looks wrong, though no row is bad."""
        found: list[str] = []
        for table, days in self.days.items():
            median = sorted(days.values())[len(days) // 2]
            found += [
                f"{table}: {day} has {rows:,} rows, less than {QUIET_DAY:.0%} of the median day ({median:,})"
                for day, rows in sorted(days.items())
                if rows < QUIET_DAY * median
            ]
        found += [
            f"impressions: position {position} was never clicked in {rows:,} rows"
            for position, (rows, clicks) in sorted(self.positions.items())
            if rows >= UNCLICKED_ROWS and not clicks
        ]
        found += [
            f"impressions: user {user[:80]!r} has at least {rows:,} of {self.impressions:,} rows"
            for user, rows in self.users.most_common()
            if rows >= BUSY_USER * self.impressions
        ]
        return found

    def content(self) -> dict[str, Any]:
        """The profile as JSON content, with the bad rows by reason and examples."""
        assert self.bad is not None
        bad = self.bad
        return {
            "tables": {
                table: {
                    "rows": rows,
                    "bad": [
                        {
                            "reason": reason,
                            "rows": count,
                            "examples": [vars(example) for example in bad.examples[table, reason]],
                        }
                        for reason, count in bad.reasons.get(table, Counter()).most_common()
                    ],
                    "merged": [
                        {"reason": reason, "rows": count}
                        for reason, count in bad.merged.get(table, Counter()).most_common()
                    ],
                    "days": dict(sorted(self.days.get(table, Counter()).items())),
                    "columns": {
                        name: {
                            "type": values.kind,
                            "rows": values.rows,
                            "nulls": values.nulls,
                            "values": None if values.counts is None else dict(values.counts.most_common()),
                            "examples": values.examples,
                        }
                        for name, values in self.columns.get(table, {}).items()
                    },
                }
                for table, rows in bad.rows.items()
            },
            "positions": {str(position): counts for position, counts in sorted(self.positions.items())},
            "suspicious": self.suspicious(),
        }
