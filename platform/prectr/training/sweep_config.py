"""Settings of `sweep`: the declared search space and how long to search."""

import json
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from prectr.core.config import Execution, FrozenConfig

Mode = Literal["min", "max"]


class SearchRange(FrozenConfig):
    """The values a setting may take: `choices`, or the range from `low` to `high`."""

    choices: tuple[Any, ...] | None = None
    low: float | None = None
    high: float | None = None
    log: bool = False
    """Draw evenly on the logarithm."""
    integer: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.choices is None) == (self.low is None and self.high is None):
            raise ValueError("give either choices, or low and high")
        if self.choices is None and (self.low is None or self.high is None or self.low >= self.high):
            raise ValueError(f"low must be below high, got {self.low} and {self.high}")
        if self.choices is not None and not self.choices:
            raise ValueError("choices is empty")
        if self.log and (self.low or 0.0) <= 0:
            raise ValueError(f"low must be above 0 to draw on the logarithm, got {self.low}")
        if self.integer and self.choices is None and (int(self.low or 0), int(self.high or 0)) != (self.low, self.high):
            raise ValueError(f"low and high of an integer must be whole, got {self.low} and {self.high}")
        return self

    @property
    def bounds(self) -> tuple[Any, ...]:
        """The choices, or the lowest and the highest value."""
        if self.choices is not None:
            return self.choices
        kind = int if self.integer else float
        return kind(self.low or 0), kind(self.high or 0)


class SweepConfig(FrozenConfig):
    """A search for the best settings of `train`: Optuna proposes, ASHA stops what does not get on."""

    search: dict[str, SearchRange] = Field(
        default={
            "learning_rate": SearchRange(low=5e-4, high=1e-2, log=True),
            "weight_decay": SearchRange(low=1e-6, high=1e-2, log=True),
            "batch_size": SearchRange(choices=(1024, 2048, 4096)),
            "model.fusion.dropout": SearchRange(low=0.0, high=0.3),
        },
        description="setting of `train` (dotted) -> its values",
    )
    trials: int = Field(default=16, ge=1)
    parallel: Execution[int] = Field(
        default=1, ge=1, description="trials at once; each takes `train.cpus`, `train.gpus` and `train.memory_gib`"
    )
    metric: Literal["gauc", "auc", "auc_position_free", "logloss"] = "gauc"
    grace: int = Field(default=2, ge=1, description="validations before a trial may be stopped")
    reduction: int = Field(default=3, ge=2, description="one trial in so many goes on at each rung")
    seed: int = 17

    @property
    def mode(self) -> Mode:
        """Whether less or more of the metric is better."""
        return "min" if self.metric == "logloss" else "max"

    def proposal(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Settings in Optuna's form: a choice is its JSON text, because Optuna tells apart plain values only."""
        return {
            name: value if self.search[name].choices is None else json.dumps(value) for name, value in settings.items()
        }

    def settings(self, proposal: Mapping[str, Any]) -> dict[str, Any]:
        """The settings that were proposed."""
        return {
            name: value if self.search[name].choices is None else json.loads(value) for name, value in proposal.items()
        }
