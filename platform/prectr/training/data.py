"""Sample rows in memory as arrays, and their batches as tensors."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from prectr.contracts.types import RankerInputs, RankerLabels
from prectr.core.errors import PrectrError, shorten
from prectr.features.inputs import INPUT_NAMES, RowArrays, ranker_inputs
from prectr.features.load import Samples

SCALED = ("numeric", "tolerance", "query_preference")


class RankerData:
    """Rows of sample files, with their labels.

    Args:
        samples: opened samples.
        files: row files to read.

    Raises:
        PrectrError: a feature is NaN or infinite; the message names the column and the first such row.
    """

    def __init__(self, samples: Samples, files: Sequence[Path]) -> None:
        frame = samples.read(files)
        self.samples = samples
        self.rows: RowArrays = samples.rows(frame)
        self.user = frame["user_id"].to_numpy()
        self.clicked = frame["clicked"].to_numpy()
        self.position = frame["position"].to_numpy().astype(np.int64)
        self._row_names = frame.select("request_id", "item_id")
        self._check_features(frame)

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, index: np.ndarray, behaviours: bool = True) -> tuple[RankerInputs, RankerLabels, Tensor]:
        """Inputs and labels of rows, and the pair of each row.

        Args:
            index: int64 [B] row numbers.
            behaviours: include the behaviour sequences; see `ranker_inputs`.

        Returns:
            Inputs, labels, and the pair number of each row, int64 [B].
        """
        rows = self.rows.take(index)
        pairs = self.samples.pairs
        arrays = ranker_inputs(rows, pairs, behaviours)
        inputs = RankerInputs(**{name: torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in INPUT_NAMES})
        labels = RankerLabels(
            click=torch.from_numpy(self.clicked[index].astype(np.float32)),
            position=torch.from_numpy(self.position[index]),
            level_soft=torch.from_numpy(pairs.levels[rows.pair]),
            level_known=torch.ones(len(index), dtype=torch.bool),
            level_weight=torch.from_numpy(self.samples.level_weights[self.samples.sources[rows.pair]]),
        )
        return inputs, labels, torch.from_numpy(rows.pair.astype(np.int64))

    def name_of(self, row: int) -> str:
        """Name of a row for messages: its request and item."""
        request, item = self._row_names.row(row)
        return f"request {shorten(request, 80)}, item {shorten(item, 80)}"

    def _check_features(self, frame: pl.DataFrame) -> None:
        """Raise on NaN or infinite features. Reads the stored columns, because scaling clips an infinity."""
        for group in SCALED:
            columns = [f"{group}.{name}" for name in self.samples.spec.scalers[group].names]
            finite = frame.select(pl.col(columns).is_finite().fill_null(False))
            if not finite.select(pl.all_horizontal(pl.all().all())).item():
                broken = ~finite.to_numpy()
                column = np.argwhere(broken)[0, 1]
                self._raise_if_any(np.asarray(broken.any(axis=1)), group, f"in {columns[column]} ")
        pairs = self.samples.pairs
        finite_pairs = np.isfinite(pairs.match).all(axis=1) & np.isfinite(pairs.levels).all(axis=1)
        if not finite_pairs.all():
            self._raise_if_any(~finite_pairs[self.rows.pair], "match", "")

    def _raise_if_any(self, broken: np.ndarray, group: str, column: str) -> None:
        """Raise an error that names the first broken row; `broken` is boolean [rows]."""
        if broken.any():
            raise PrectrError(
                f"{self.samples.path}: {int(broken.sum())} rows hold NaN or infinite {group} features, the first "
                f"{column}of {self.name_of(int(broken.argmax()))}; build the samples again from validated tables."
            )
