"""The optimiser of a ranker: AdamW for its layers, a lazy row-wise Adam for large tables of ids.

A batch touches few rows of a table of millions. Dense Adam would read and write the whole table and two moments of it
in each step. Here only the rows of the batch move, and the second moment is one number a row, as in FBGEMM's
`PARTIAL_ROWWISE_ADAM`:

    m_r <- b1 m_r + (1 - b1) g_r          s_r <- b2 s_r + (1 - b2) mean(g_r^2)
    w_r <- w_r - lr m_r / (1 - b1^t) / (sqrt(s_r / (1 - b2^t)) + eps)                 t: steps of the table

| symbol | variable | shape |
|---|---|---|
| w | the table | [R, d] |
| g | its sparse gradient, rows summed | [rows of the batch, d] |
| m | `mean` | [R, d] |
| s | `square` | [R] |
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from prectr.training.config import TrainConfig

TABLES = "tables"
"""Name of the parameter groups whose gradients are sparse."""


class RowWiseAdam(torch.optim.Optimizer):
    """Adam on the rows that a batch touches, with one second moment a row, for parameters with sparse gradients."""

    def __init__(self, params: Any, lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update the rows that the last backward pass touched.

        Raises:
            ValueError: a closure is given, or a gradient is dense.
        """
        if closure is not None:
            raise ValueError("row-wise Adam takes no closure.")
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is None:
                    continue
                if not table.grad.is_sparse:
                    raise ValueError("row-wise Adam is for sparse gradients; give dense parameters to AdamW.")
                self._update(table, group["lr"], group["betas"], group["eps"])

    def _update(self, table: Tensor, rate: float, betas: tuple[float, float], eps: float) -> None:
        first, second = betas
        rows, values = _summed_by_row(table.grad)
        state = self.state[table]
        if not state:
            state |= {
                "step": torch.zeros(()), "mean": torch.zeros_like(table), "square": table.new_zeros(len(table))
            }  # fmt: skip
        state["step"] += 1
        step = float(state["step"])
        mean = state["mean"].index_select(0, rows).lerp_(values, 1 - first)
        square = state["square"].index_select(0, rows).lerp_(values.square().mean(1), 1 - second)
        state["mean"].index_copy_(0, rows, mean)
        state["square"].index_copy_(0, rows, square)
        spread = square.div_(1 - second**step).sqrt_().add_(eps)
        moved = table.index_select(0, rows)
        moved.addcdiv_(mean, spread.unsqueeze(1), value=-rate / (1 - first**step))
        table.index_copy_(0, rows, moved)


def _summed_by_row(gradient: Any) -> tuple[Tensor, Tensor]:
    """The distinct rows of a sparse gradient and their sums: what `coalesce` gives, in a fraction of its time."""
    row, order = gradient._indices()[0].sort()
    first = torch.cat([row.new_zeros(1), row.diff().nonzero().squeeze(-1) + 1])
    return row[first], functional.embedding_bag(order, gradient._values(), first, mode="sum")


class RankerOptimiser:
    """Both optimisers, gradient clipping and the learning rate's course, as one thing to step, save and load.

    Args:
        groups: `Ranker.parameter_groups`; those named TABLES have sparse gradients.
        config: weight decay, clipping, warm-up.
        steps: of the whole run.
    """

    def __init__(self, groups: list[dict[str, Any]], config: TrainConfig, steps: int) -> None:
        self._config, self._steps = config, steps
        dense = [group for group in groups if group["name"] != TABLES]
        tables = [group for group in groups if group["name"] == TABLES]
        self._dense = [parameter for group in dense for parameter in group["params"]]
        self._optimisers: dict[str, torch.optim.Optimizer] = {}
        if dense:
            self._optimisers["dense"] = torch.optim.AdamW(dense, weight_decay=config.weight_decay, fused=True)
        if tables:
            self._optimisers[TABLES] = RowWiseAdam(tables, lr=config.learning_rate)
        self._rates = {
            name: [group["lr"] for group in optimiser.param_groups] for name, optimiser in self._optimisers.items()
        }

    def step(self, loss: Tensor, done: int) -> float:
        """One update from a loss; returns the dense gradients' norm before clipping.

        Args:
            loss: scalar.
            done: steps before this one; what the learning rate depends on.
        """
        for optimiser in self._optimisers.values():
            optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self._dense, self._config.clip_norm)
        factor = learning_rate_factor(done, self._steps, self._config.warm_up)
        for name, optimiser in self._optimisers.items():
            for group, rate in zip(optimiser.param_groups, self._rates[name], strict=True):
                group["lr"] = rate * factor
            optimiser.step()
        return float(norm)

    def tensors(self) -> dict[str, Tensor]:
        """The state as named tensors."""
        return {
            f"{name}.{number}.{key}": value
            for name, optimiser in self._optimisers.items()
            for number, values in optimiser.state_dict()["state"].items()
            for key, value in values.items()
        }

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `tensors` gave."""
        for name, optimiser in self._optimisers.items():
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in tensors.items():
                owner, number, part = key.split(".", 2)
                if owner == name:
                    state.setdefault(int(number), {})[part] = value
            optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def learning_rate_factor(done: int, steps: int, warm_up: float) -> float:
    """Rises evenly over the first `warm_up` of the steps, then falls to 0 as a cosine."""
    warm = max(1, round(steps * warm_up))
    if done < warm:
        return (done + 1) / warm
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (done - warm) / max(1, steps - warm))))
