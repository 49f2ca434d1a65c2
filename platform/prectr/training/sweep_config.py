"""Settings of `sweep`: the search space and the length of the search."""

import json
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from prectr.core.config import Execution, FrozenConfig

Mode = Literal["min", "max"]


class SearchRange(FrozenConfig):
    """Values of a searched setting: either `choices`, or the range from `low` to `high`."""

    choices: tuple[Any, ...] | None = None
    """Values to choose from. Null: `low` and `high` give a range."""
    low: float | None = None
    """Smallest value of the range."""
    high: float | None = None
    """Largest value of the range."""
    log: bool = False
    """Draw uniformly on the logarithm of the range; `low` must be above 0."""
    integer: bool = False
    """Draw whole numbers only."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.choices is None) == (self.low is None and self.high is None):
            raise ValueError("give either choices, or low and high")
        if self.choices is None and (self.low is None or self.high is None or self.low >= self.high):
            raise ValueError(f"low must be below high, got {self.low} and {self.high}")
        if self.choices is not None and not self.choices:
            raise ValueError("choices is empty; give at least one value")
        if self.log and (self.low or 0.0) <= 0:
            raise ValueError(f"low must be above 0 if log is true, got {self.low}")
        if self.integer and self.choices is None and (int(self.low or 0), int(self.high or 0)) != (self.low, self.high):
            raise ValueError(f"low and high must be whole numbers if integer is true, got {self.low} and {self.high}")
        return self

    @property
    def bounds(self) -> tuple[Any, ...]:
        """The choices, or the lowest and the highest value."""
        if self.choices is not None:
            return self.choices
        kind = int if self.integer else float
        return kind(self.low or 0), kind(self.high or 0)


class SweepConfig(FrozenConfig):
    """Search for the best settings of `train`: Optuna proposes trials, ASHA stops weak ones early."""

    search: dict[str, SearchRange] = {
        "learning_rate": SearchRange(low=5e-4, high=1e-2, log=True),
        "weight_decay": SearchRange(low=1e-6, high=1e-2, log=True),
        "batch_size": SearchRange(choices=(1024, 2048, 4096)),
        "model.fusion.dropout": SearchRange(low=0.0, high=0.3),
    }
    """Search space: dotted name of a setting of `train` -> its values."""
    trials: int = Field(default=16, ge=1)
    """Number of trials. Raising it later adds trials to the search."""
    parallel: Execution[int] = Field(default=1, ge=1)
    """Trials at the same time; each takes `train.cpus`, `train.gpus` and `train.memory_gib`."""
    metric: Literal["gauc", "auc", "auc_position_free", "logloss"] = "gauc"
    """Metric of the validation day to optimise: the smallest `logloss`, or the largest of the others."""
    grace: int = Field(default=2, ge=1)
    """Validations of a trial before ASHA may stop it."""
    reduction: int = Field(default=3, ge=2)
    """Rate at which ASHA stops trials: at each rung it continues the best 1 / reduction of them."""
    seed: int = 17
    """Seed of Optuna's proposals."""

    @property
    def mode(self) -> Mode:
        """Direction of the search: `min` or `max` of the metric."""
        return "min" if self.metric == "logloss" else "max"

    def proposal(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Settings in Optuna's form: a choice is JSON text, because Optuna's categories must be plain values."""
        return {
            name: value if self.search[name].choices is None else json.dumps(value) for name, value in settings.items()
        }

    def settings(self, proposal: Mapping[str, Any]) -> dict[str, Any]:
        """Settings of a proposal in Optuna's form; the inverse of `proposal`."""
        return {
            name: value if self.search[name].choices is None else json.loads(value) for name, value in proposal.items()
        }
