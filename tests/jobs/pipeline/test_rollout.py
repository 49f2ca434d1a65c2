"""What a day's figures lead to, step by step of a ramp."""

import math
from pathlib import Path
from typing import Any

import pytest

from jobs.pipeline.rollout import CURRENT, NEXT, after, judge, read_models, write_models
from prectr.core.errors import UsageError
from prectr.serving.config import ModelsConfig

OLD, FIRST, SECOND = Path("rankers/old"), Path("rankers/first"), Path("rankers/second")
RAMP = (0.1, 0.5)


def _serving(share: float | None = None, **others: Any) -> ModelsConfig:
    arms = {CURRENT: OLD} | ({} if share is None else {NEXT: FIRST})
    experiment = {"shares": {} if share is None else {NEXT: share}, "salt": "kept"}
    return ModelsConfig.model_validate({"bundles": arms | others, "experiment": experiment})


def _evaluation(value: float | None, low: float | None, high: float | None, verdict: str) -> dict[str, Any]:
    difference = {"value": value, "low": low, "high": high, "verdict": verdict}
    return {"figures": {"all": {metric: {"new": {"difference": difference}} for metric in ("auc", "logloss")}}}


@pytest.mark.parametrize(
    ("metric", "value", "verdict", "worse"),
    [
        ("auc", 0.01, "better", False),
        ("auc", -0.001, "no difference", False),
        ("auc", -0.003, "no difference", True),
        ("auc", -0.001, "worse", True),
        ("logloss", 0.003, "no difference", True),
        ("logloss", -0.003, "better", False),
        ("auc", None, "undefined", True),
    ],
)
def test_a_model_is_worse_by_verdict_or_beyond_the_margin(
    metric: str, value: float | None, verdict: str, worse: bool
) -> None:
    judged = judge(_evaluation(value, -0.1, 0.1, verdict), "new", metric, margin=0.002)
    assert judged.worse is worse
    assert judged.difference == value or math.isnan(judged.difference)


def test_a_model_enters_ramps_and_becomes_current() -> None:
    models, outcome = after(_serving(), FIRST, RAMP, new_is_worse=False, next_is_worse=False)
    assert (outcome, models.experiment.shares) == ("started", {NEXT: 0.1})
    assert models.bundles == {CURRENT: OLD, NEXT: FIRST} and models.control == CURRENT
    models, outcome = after(models, SECOND, RAMP, new_is_worse=False, next_is_worse=False)
    assert (outcome, models.experiment.shares) == ("advanced", {NEXT: 0.5})
    assert models.bundles[NEXT] == SECOND, "what ramps is the newest model"
    models, outcome = after(models, FIRST, RAMP, new_is_worse=False, next_is_worse=False)
    assert (outcome, models.experiment.shares) == ("promoted", {})
    assert models.bundles == {CURRENT: FIRST}


def test_a_worse_model_stops_the_ramp_and_a_worse_ramp_ends() -> None:
    ramping = _serving(0.1)
    stopped, outcome = after(ramping, SECOND, RAMP, new_is_worse=True, next_is_worse=False)
    assert outcome == "rejected" and stopped == ramping
    ended, outcome = after(ramping, SECOND, RAMP, new_is_worse=True, next_is_worse=True)
    assert outcome == "rolled_back"
    assert ended.bundles == {CURRENT: OLD} and ended.experiment.shares == {}


def test_without_a_ramp_a_model_becomes_current_at_once() -> None:
    models, outcome = after(_serving(), FIRST, (), new_is_worse=False, next_is_worse=False)
    assert outcome == "promoted" and models.bundles == {CURRENT: FIRST}


def test_what_else_is_served_stays(tmp_path: Path) -> None:
    models = ModelsConfig.model_validate(
        _serving(0.1, mine=Path("mine")).model_dump() | {"shadow": {"model": NEXT, "share": 0.5}}
    )
    ended, _ = after(models, SECOND, RAMP, new_is_worse=True, next_is_worse=True)
    assert ended.bundles == {CURRENT: OLD, "mine": Path("mine")}
    assert ended.shadow is None, "what is not served any more casts no shadow"
    assert ended.experiment.salt == "kept", "the draw of the users stays the same"
    write_models(models, tmp_path / "models.yaml")
    read = read_models(tmp_path / "models.yaml")
    assert read is not None and read.experiment == models.experiment
    assert read.bundles == {name: path.absolute() for name, path in models.bundles.items()}


def test_a_file_of_models_may_be_absent_but_not_broken(tmp_path: Path) -> None:
    assert read_models(tmp_path / "models.yaml") is None
    (tmp_path / "models.yaml").write_text("bundels: {}\n")
    with pytest.raises(UsageError, match="Did you mean 'bundles'"):
        read_models(tmp_path / "models.yaml")
