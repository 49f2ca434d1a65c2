"""What the simulator of a log knows: who tolerates what, and what made each shown row's click likely."""

import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import polars as pl

from prectr.errors import PrectrError, UsageError
from prectr.tables import Tables

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
        curve: the true click curve.
    """

    folder: Path
    users: pl.DataFrame
    queries: pl.DataFrame
    curve: TrueCurve

    @classmethod
    def open(cls, tables: Tables) -> "Truth":
        """Read what does not grow with the log.

        Raises:
            UsageError: the log has no truth.
            PrectrError: the truth is not of this version's simulator.
        """
        folder = tables.path / "truth"
        if not folder.is_dir():
            raise UsageError(
                f"{tables.path}: has no truth/ to check against; only simulated logs have one. "
                "Make one with `prectr simulate --out DIR`."
            )
        try:
            constants = json.loads((folder / "params.json").read_text(encoding="utf-8"))["constants"]
            base, slope, floor, (least, most) = (constants[name] for name in _CONSTANTS)
            users = pl.read_parquet(folder / "users.parquet", columns=["user_id", "t_u"])
            queries = pl.read_parquet(folder / "queries.parquet", columns=["query", "d_q"])
        except (OSError, ValueError, KeyError, TypeError, pl.exceptions.PolarsError) as error:
            raise PrectrError(
                f"{folder}: is not the truth of a log of `prectr simulate` ({error}); simulate the log again."
            ) from None
        return cls(
            folder,
            users.rename({"t_u": "tolerance"}),
            queries.rename({"d_q": "tolerance"}),
            TrueCurve(base, slope, floor, least, most),
        )

    def of_shown(self, day: date, shown: pl.DataFrame) -> pl.DataFrame:
        """True relevance, examination and attraction of shown rows, in their order: columns SHOWN.

        Args:
            day: the day of all rows.
            shown: request_id and item_id.

        Raises:
            PrectrError: a row is not in the truth.
        """
        keys = ["request_id", "item_id"]
        files = sorted((self.folder / "impressions" / f"date={day}").glob("*.parquet"))
        known = pl.concat([pl.read_parquet(file, columns=[*keys, *SHOWN], hive_partitioning=False) for file in files])
        found = shown.select(keys).join(known, on=keys, how="left", maintain_order="left")
        missing = found["r"].null_count()
        if missing:
            raise PrectrError(
                f"{self.folder / 'impressions' / f'date={day}'}: lacks {missing:,} of the day's {shown.height:,} "
                "impressions; the truth is of another log."
            )
        return found.select(SHOWN)
