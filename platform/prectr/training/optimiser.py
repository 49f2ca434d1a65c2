"""The optimiser of a ranker: AdamW for its layers, a lazy row-wise Adam for large ID tables.

A batch touches few of a table's millions of rows. Dense Adam would read and write the whole table and two moments of it
in each step. Row-wise Adam updates only the rows of the batch and keeps one second moment per row, as FBGEMM's
`PARTIAL_ROWWISE_ADAM` does:

    m_r <- b1 m_r + (1 - b1) g_r          s_r <- b2 s_r + (1 - b2) mean(g_r^2)
    w_r <- w_r - lr m_r / (1 - b1^t) / (sqrt(s_r / (1 - b2^t)) + eps)                 t: steps of the table

| symbol | variable | shape |
|---|---|---|
| w | the table | [R, d] |
| g | its sparse gradient, summed by row | [rows of the batch, d] |
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
    """Adam for parameters with sparse gradients: updates the rows of a batch, with one second moment per row."""

    def __init__(self, params: Any, lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update the rows that the last backward pass touched.

        Raises:
            ValueError: a closure is given, or a gradient is dense.
        """
        if closure is not None:
            raise ValueError("RowWiseAdam.step takes no closure; compute the gradients before it.")
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is None:
                    continue
                if not table.grad.is_sparse:
                    raise ValueError("RowWiseAdam needs sparse gradients; give dense parameters to AdamW.")
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
        weights = table.index_select(0, rows)
        weights.addcdiv_(mean, spread.unsqueeze(1), value=-rate / (1 - first**step))
        table.index_copy_(0, rows, weights)


def _summed_by_row(gradient: Any) -> tuple[Tensor, Tensor]:
    """Distinct rows of a sparse gradient and their sums; the result of `coalesce`, computed faster."""
    row, order = gradient._indices()[0].sort()
    first = torch.cat([row.new_zeros(1), row.diff().nonzero().squeeze(-1) + 1])
    return row[first], functional.embedding_bag(order, gradient._values(), first, mode="sum")


class RankerOptimiser:
    """Both optimisers, gradient clipping and the learning rate schedule, behind one interface.

    Args:
        groups: `Ranker.parameter_groups`; groups named TABLES have sparse gradients.
        config: weight decay, clipping, warm-up.
        steps: steps of the whole run.
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

    def step(self, loss: Tensor, step: int) -> float:
        """Update the parameters from a loss and return the norm of the dense gradients before clipping.

        Args:
            loss: scalar.
            step: number of the step, from 0; the learning rate depends on it.
        """
        for optimiser in self._optimisers.values():
            optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self._dense, self._config.clip_norm)
        factor = learning_rate_factor(step, self._steps, self._config.warm_up)
        for name, optimiser in self._optimisers.items():
            for group, rate in zip(optimiser.param_groups, self._rates[name], strict=True):
                group["lr"] = rate * factor
            optimiser.step()
        return float(norm)

    def tensors(self) -> dict[str, Tensor]:
        """State of both optimisers as named tensors."""
        return {
            f"{name}.{number}.{key}": value
            for name, optimiser in self._optimisers.items()
            for number, values in optimiser.state_dict()["state"].items()
            for key, value in values.items()
        }

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the state from the result of `tensors`."""
        for name, optimiser in self._optimisers.items():
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in tensors.items():
                owner, number, part = key.split(".", 2)
                if owner == name:
                    state.setdefault(int(number), {})[part] = value
            optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def learning_rate_factor(step: int, steps: int, warm_up: float) -> float:
    """Factor of the learning rate at a step: rises linearly over the share `warm_up`, then falls to 0 as a cosine."""
    warm_steps = max(1, round(steps * warm_up))
    if step < warm_steps:
        return (step + 1) / warm_steps
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - warm_steps) / max(1, steps - warm_steps))))
