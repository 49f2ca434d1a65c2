"""What the simulator of a log knows: who tolerates what, and what made each shown row's click likely."""

import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import polars as pl

from prectr.core.errors import PrectrError, UsageError
from prectr.data.tables import Tables, read_parquet

SHOWN = ("r", "p_exam", "attraction")
_CONSTANTS = ("TOLERANCE_BASE", "ACCEPTANCE_SLOPE", "ACCEPTANCE_FLOOR", "THRESHOLD_RANGE")


@dataclass(frozen=True)
class TrueCurve:
    """P(click | examined) = (floor + (1 - floor) sigmoid((r - T) / slope)) attraction, T = clip(base + t_u + d_q)."""

    base: float
    slope: float
    floor: float
    least: float
    """Thresholds are clipped to `least`..`most`."""
    most: float


@dataclass(frozen=True)
class Truth:
    """The truth of a simulated log.

    Attributes:
        folder: `truth/` of the tables.
        users: user_id and tolerance, t_u.
        queries: query (normalised) and tolerance, d_q.
        curve: the true click curve; None where another simulator made the log.
    """

    folder: Path
    users: pl.DataFrame
    queries: pl.DataFrame
    curve: TrueCurve | None

    @classmethod
    def open(cls, tables: Tables) -> "Truth":
        """Read what does not grow with the log.

        Raises:
            UsageError: the log has no truth.
            PrectrError: the truth does not hold the tolerances.
        """
        folder = tables.path / "truth"
        if not folder.is_dir():
            raise UsageError(
                f"{tables.path}: has no truth/ to check against; only simulated logs have one. "
                "Make one with `prectr simulate --out DIR`."
            )
        try:
            users = pl.read_parquet(folder / "users.parquet", columns=["user_id", "t_u"])
            queries = pl.read_parquet(folder / "queries.parquet", columns=["query", "d_q"])
        except (OSError, pl.exceptions.PolarsError) as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise PrectrError(
                f"{folder}: does not hold the tolerances t_u of users.parquet and d_q of queries.parquet ({reason}). "
                "`prectr simulate` writes them."
            ) from None
        users, queries = users.rename({"t_u": "tolerance"}), queries.rename({"d_q": "tolerance"})
        return cls(folder, users, queries, _read_curve(folder / "params.json"))

    def of_shown(self, day: date, shown: pl.DataFrame) -> pl.DataFrame:
        """True relevance, examination and attraction of shown rows, in their order: columns SHOWN.

        Args:
            day: the day of all rows.
            shown: request_id and item_id.

        Raises:
            PrectrError: a row is not in the truth, or a file of it is damaged.
        """
        keys = ["request_id", "item_id"]
        files = sorted((self.folder / "impressions" / f"date={day}").glob("*.parquet"))
        schema = dict.fromkeys(keys, pl.String) | dict.fromkeys(SHOWN, pl.Float64)
        known = pl.concat([pl.DataFrame(schema=schema), *(read_parquet(file, list(schema), schema) for file in files)])
        found = shown.select(keys).join(known, on=keys, how="left", maintain_order="left")
        missing = found["r"].null_count()
        if missing:
            raise PrectrError(
                f"{self.folder / 'impressions' / f'date={day}'}: lacks {missing:,} of the day's {shown.height:,} "
                "impressions; the truth is of another log."
            )
        return found.select(SHOWN)


def _read_curve(file: Path) -> TrueCurve | None:
    """The click curve of a log of `prectr simulate`; None where the file is not of its kind."""
    try:
        constants = json.loads(file.read_text(encoding="utf-8"))["constants"]
        base, slope, floor, (least, most) = (constants[name] for name in _CONSTANTS)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return TrueCurve(base, slope, floor, least, most)
