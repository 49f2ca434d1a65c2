"""Sample rows in memory as arrays, and batches of them as tensors."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from prectr.errors import PrectrError
from prectr.features.inputs import INPUT_NAMES, RowArrays, ranker_inputs
from prectr.samples.load import Samples
from prectr.types import RankerInputs, RankerLabels

SCALED = ("numeric", "tolerance", "query_preference")


class RankerData:
    """Rows of some files, with their labels.

    Raises:
        PrectrError: a feature is NaN or infinite; names the column and the first such row's request.
    """

    def __init__(self, samples: Samples, files: Sequence[Path]) -> None:
        frame = samples.read(files)
        self.samples = samples
        self.rows: RowArrays = samples.rows(frame)
        self.user = frame["user_id"].to_numpy()
        self.clicked = frame["clicked"].to_numpy()
        self.position = frame["position"].to_numpy().astype(np.int64)
        self._named = frame.select("request_id", "item_id")
        self._refuse_broken()

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, index: np.ndarray, behaviours: bool = True) -> tuple[RankerInputs, RankerLabels, Tensor]:
        """Inputs and labels of some rows, and the pair of each row (int64 [B]); `behaviours` as of `ranker_inputs`."""
        rows = self.rows.take(index)
        pairs = self.samples.pairs
        arrays = ranker_inputs(rows, pairs, behaviours)
        inputs = RankerInputs(**{name: torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in INPUT_NAMES})
        labels = RankerLabels(
            click=torch.from_numpy(self.clicked[index].astype(np.float32)),
            position=torch.from_numpy(self.position[index]),
            level_soft=torch.from_numpy(pairs.levels[rows.pair]),
            level_known=torch.ones(len(index), dtype=torch.bool),
        )
        return inputs, labels, torch.from_numpy(rows.pair.astype(np.int64))

    def name_of(self, row: int) -> str:
        """Which row that is, for messages."""
        request, item = self._named.row(row)
        return f"request {request}, item {item}"

    def _refuse_broken(self) -> None:
        for group in SCALED:
            broken = ~np.isfinite(getattr(self.rows, group))
            if not broken.any():
                continue
            row, column = np.argwhere(broken)[0]
            name = self.samples.spec.scalers[group].names[column]
            raise PrectrError(
                f"{self.samples.path}: {int(broken.any(axis=1).sum())} rows hold NaN or infinite {group} features, the "
                f"first in {group}.{name} of {self.name_of(int(row))}; build the samples again from validated tables."
            )
