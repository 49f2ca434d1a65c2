"""Field embeddings: ids of several fields in one table, so that a batch needs one gather.

    e = concat_f E_f[v_f]        FieldEmbeddings(..., reduce="concat")
    e = sum_f E_f[v_f]           reduce="sum"; equals W concat_f E'_f[v_f] with W E'_f as the table, without the product

| symbol | variable |
|---|---|
| v | ids |
| E_f | rows offsets[f] .. offsets[f] + cardinality_f of table |
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

SPARSE_ROWS = 100_000
"""Tables with at least this many rows have sparse gradients, because a batch touches few of their rows."""


class FieldEmbeddings(nn.Module):
    """Embed integer fields: int64 [..., F] -> float [..., F * width] (concat) or [..., width] (sum).

    With fewer columns than fields, the columns are the first fields. An id outside its field's vocabulary counts as 0,
    unknown; in the shared table it would otherwise silently read another field's row.
    """

    offsets: Tensor
    cardinalities: Tensor

    def __init__(
        self,
        cardinalities: Sequence[int],
        width: int,
        reduce: Literal["concat", "sum"] = "concat",
        deviation: float = 0.05,
    ) -> None:
        super().__init__()
        if any(cardinality < 1 for cardinality in cardinalities):
            raise ValueError(
                f"every field needs a cardinality of at least 1 (the unknown value), got {list(cardinalities)}."
            )
        ends = torch.tensor([0, *cardinalities], dtype=torch.int64).cumsum(0)
        self.width = width
        self.reduce = reduce
        self.sparse = int(ends[-1]) >= SPARSE_ROWS
        self._ends = [int(end) for end in ends]
        self.register_buffer("offsets", ends[:-1], persistent=False)
        self.register_buffer("cardinalities", ends.diff(), persistent=False)
        self.table = nn.Parameter(torch.randn(max(int(ends[-1]), 1), width) * deviation)

    def forward(self, ids: Tensor) -> Tensor:
        """[..., F] -> [..., F * width] or [..., width]."""
        rows = self._rows(ids)
        if self.reduce == "sum":
            if torch.compiler.is_exporting() or rows.shape[-1] == 0:
                return functional.embedding(rows, self.table).sum(-2)
            # One pass over the table, without an [..., F, width] intermediate. ONNX gets a gather and a sum instead.
            flat = functional.embedding_bag(
                rows.reshape(-1, rows.shape[-1]), self.table, mode="sum", sparse=self.sparse
            )
            return flat.reshape(*rows.shape[:-1], self.width)
        return functional.embedding(rows, self.table, sparse=self.sparse).flatten(-2)

    def rows_of(self, field: int) -> Tensor:
        """The table of one field: [cardinality, width]."""
        return self.table[self._ends[field] : self._ends[field + 1]]

    def _rows(self, ids: Tensor) -> Tensor:
        fields = ids.shape[-1]
        known = (ids >= 0) & (ids < self.cardinalities[:fields])
        return torch.where(known, ids, torch.zeros_like(ids)) + self.offsets[:fields]
