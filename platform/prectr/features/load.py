"""Reading a samples artifact into the arrays that training and offline scoring slice batches from."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from prectr.contracts.schema import LEVEL_COLUMNS
from prectr.core.artifacts import require_artifact
from prectr.core.errors import PrectrError, listed
from prectr.features.derive import SOURCES, level_logarithms
from prectr.features.inputs import Behaviours, Histories, PairArrays, RowArrays, stack
from prectr.features.spec import SPEC_FILE, FeatureSpec
from prectr.features.texts import join_texts
from prectr.relevance.tokenisation import PairTokens


@dataclass(frozen=True)
class Samples:
    """An opened samples artifact: its specification and pairs; rows are loaded by day."""

    path: Path
    spec: FeatureSpec
    pairs: PairArrays
    tokens: PairTokens
    sources: np.ndarray
    """[P] where each pair's levels come from: index into `SOURCES`."""
    level_weights: np.ndarray
    """[3] weight of each source in the loss of levels, float32."""

    @classmethod
    def open(cls, path: Path) -> "Samples":
        """Open the artifact.

        Raises:
            UsageError: `path` is not an artifact of `build-samples`.
        """
        manifest = require_artifact(path, "build-samples")
        spec = FeatureSpec.load(path / SPEC_FILE)
        pairs = pl.read_parquet(path / "pairs.parquet")
        tokens = join_texts(pl.read_parquet(path / "texts.parquet"), pairs)
        tokens = tokens.with_match(pairs.select(match_names(pairs)).to_numpy())
        sources = pairs["source"].replace_strict(SOURCES, range(len(SOURCES)), return_dtype=pl.Int8).to_numpy()
        weights = np.array([manifest["level_weights"][source] for source in SOURCES], dtype=np.float32)
        return cls(path, spec, pair_arrays(pairs, spec), tokens, sources, weights)

    def days(self) -> list[date]:
        """The days that have rows, in order."""
        return sample_days(self.path)

    def files(self, days: Sequence[date], folder: Literal["rows", "candidates"] = "rows") -> list[Path]:
        """The files that hold the rows of some days; of `candidates`, which are optional, there may be none.

        Raises:
            PrectrError: there are no rows.
        """
        files = [file for day in days for file in sorted((self.path / folder / f"date={day}").glob("*.parquet"))]
        if not files and folder == "rows":
            raise PrectrError(f"{self.path}: no samples of {listed(days)}.")
        return files

    def frame(self, days: Sequence[date], columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Sample rows of some days in time order; the order is the same for every selection of columns."""
        return self.read(self.files(days), columns)

    def read(self, files: Sequence[Path], columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Sample rows of some files in time order; rows of a request, which share a file, follow each other."""
        order = ["ts", "request_id", "position"]
        wanted = None if columns is None else list(dict.fromkeys([*columns, *order]))
        frame = pl.read_parquet(list(files), columns=wanted, hive_partitioning=False).sort(order)
        return frame if columns is None else frame.select(columns)

    def judged_pairs(self) -> np.ndarray:
        """Whether each pair's levels come from its judgment, so that rankers are given its grade; bool [P]."""
        judged: np.ndarray = self.sources == SOURCES.index("judgment")
        return judged

    def rows(self, frame: pl.DataFrame) -> RowArrays:
        """The arrays of sample rows, numbers scaled."""
        return row_arrays(frame, self.spec, self.pairs)


def sample_days(path: Path) -> list[date]:
    """The days of a samples artifact that have rows, in order."""
    return sorted(date.fromisoformat(folder.name[5:]) for folder in (path / "rows").glob("date=*"))


def split_days(days: Sequence[date]) -> tuple[list[date], date, date]:
    """Training days, the validation day and the test day: the last day tests, the one before validates.

    The first day has no history to learn from and is left out where at least five days remain.

    Raises:
        PrectrError: fewer than three days.
    """
    if len(days) < 3:
        raise PrectrError(
            f"the log holds {len(days)} day(s); at least three are needed: to train, to validate and to test."
        )
    training = list(days[:-2])
    return (training[1:] if len(training) > 3 else training), days[-2], days[-1]


def match_columns(pairs: pl.DataFrame) -> dict[str, np.ndarray]:
    """The `match` group of pairs: level log-probabilities, then the lexical match features; each [P]."""
    levels = level_logarithms(pairs.select(LEVEL_COLUMNS).to_numpy().astype(np.float64))
    return levels | {name: pairs[name].to_numpy() for name in match_names(pairs)}


def match_names(pairs: pl.DataFrame) -> list[str]:
    """Columns of the lexical match features, in their order."""
    return sorted(name for name in pairs.columns if name.startswith("match_"))


def pair_arrays(pairs: pl.DataFrame, spec: FeatureSpec) -> PairArrays:
    """Arrays of the rows of a pair table."""
    fields = pairs.select("query_bucket", "category_id", "brand_id", "price_bucket").to_numpy().astype(np.int32)
    return PairArrays(
        fields,
        pairs["level"].to_numpy().astype(np.int32),
        spec.scalers["match"].scale(stack(match_columns(pairs))),
        pairs.select(LEVEL_COLUMNS).to_numpy().astype(np.float32),
    )


def row_arrays(frame: pl.DataFrame, spec: FeatureSpec, pairs: PairArrays) -> RowArrays:
    """Arrays of sample rows; rows of a request must follow each other, as `Samples.frame` sorts them."""
    scaled = {
        group: spec.scalers[group].scale(
            np.stack([frame[f"{group}.{name}"].to_numpy() for name in spec.scalers[group].names], axis=1)
        )
        for group in ("numeric", "tolerance", "query_preference")
    }
    request = frame.select(pl.struct("ts", "request_id").rle_id()).to_series().to_numpy().astype(np.int64)
    first = np.flatnonzero(np.diff(request, prepend=-1))
    return RowArrays(
        pair=frame["pair"].to_numpy(),
        request=request,
        categorical=np.stack([frame[f"cat.{name}"].to_numpy() for name in spec.categorical_fields], axis=1),
        histories=_histories(frame[first], spec, pairs),
        **scaled,
    )


def _histories(frame: pl.DataFrame, spec: FeatureSpec, pairs: PairArrays) -> Histories:
    """S_u and S_q of requests, given one row of each."""
    now = frame["ts"].dt.epoch("us").to_numpy() / 1e6
    clicks = int(frame["su_pair"].list.len().sum())
    user = _behaviours(frame["su_pair"], frame["su_ts"], np.ones(clicks, np.int8), np.zeros(clicks, np.int32))
    query = _behaviours(
        frame["sq_pair"], frame["sq_ts"], _flat(frame["sq_clicked"], np.int8), _flat(frame["sq_group"], np.int32)
    )
    return Histories(
        user.padded(now, pairs, spec.user_behaviours, with_group=False),
        query.padded(now, pairs, spec.query_behaviours, with_group=True),
    )


def _behaviours(pair: pl.Series, ts: pl.Series, clicked: np.ndarray, group: np.ndarray) -> Behaviours:
    offsets = np.r_[0, np.cumsum(pair.list.len().to_numpy().astype(np.int64))]
    return Behaviours(offsets, _flat(pair, np.int32), clicked, _flat(ts, np.float64) / 1e6, group)


def _flat(lists: pl.Series, kind: type) -> np.ndarray:
    """All values of a list column; empty lists hold none."""
    return lists.filter(lists.list.len() > 0).explode().to_numpy().astype(kind)
