"""Assignment, caches, drift: the small parts of serving."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from prectr.ranking.drift import Drift
from prectr.relevance.pair_encoder import OutputCache, PairEncoder, pair_keys
from prectr.relevance.tokenisation import PairTokens
from prectr.serving.config import ExperimentSplit, ModelsConfig, ServeConfig

USERS = [f"user {number}" for number in range(20_000)]


def _split(**shares: float) -> ExperimentSplit:
    return ExperimentSplit(name="e", salt="s", shares=shares)


def test_shares_are_met_and_a_user_stays() -> None:
    split = _split(a=0.3, b=0.1)
    actual = [split.treatment_of(user) for user in USERS]
    assert actual == [split.treatment_of(user) for user in USERS]
    for name, share in split.shares.items():
        assert actual.count(name) / len(USERS) == pytest.approx(share, abs=0.01)


def test_a_ramp_moves_users_from_the_control_only() -> None:
    before, after = _split(a=0.1, b=0.2), _split(a=0.5, b=0.2)
    for user in USERS[:5000]:
        first, second = before.treatment_of(user), after.treatment_of(user)
        assert first == second or (first, second) == (None, "a")


def test_another_salt_is_another_draw() -> None:
    half = [ExperimentSplit(name="e", salt=salt, shares={"a": 0.5}) for salt in ("x", "y")]
    both = [all(split.treatment_of(user) for split in half) for user in USERS]
    assert np.mean(both) == pytest.approx(0.25, abs=0.02), "the draws are independent"


def test_everybody_sees_the_default_model_without_an_experiment() -> None:
    models = ModelsConfig(bundles={"a": Path("a"), "b": Path("b")})
    assert models.assigned_model("u") == ("a", None)
    full = models.model_copy(update={"experiment": _split(b=1.0)})
    assert {full.assigned_model(user) for user in USERS[:50]} == {("b", "b")}


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ({"bundles": {"a": "x"}, "default_model": "c"}, "default_model names 'c', which is not among bundles"),
        ({"bundles": {"a": "x"}, "experiment": {"shares": {"z": 0.1}}}, "experiment.shares names 'z'"),
        ({"bundles": {"a": "x", "b": "y"}, "experiment": {"shares": {"a": 0.1}}}, "which gets the remaining users"),
        ({"bundles": {"a": "x"}, "shadow": {"model": "z"}}, "shadow.model names 'z'"),
        ({"experiment": {"shares": {"a": 0.6, "b": 0.1}}}, "with 2 treatments a share must be from 0 to 0.5"),
    ],
)
def test_a_wrong_routing_is_refused(models: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ModelsConfig.model_validate(models)


def test_a_falling_range_of_replicas_is_refused() -> None:
    with pytest.raises(ValidationError, match="must be at least 1"):
        ServeConfig(replicas=(3, 2))


class _Session:
    """In place of ONNX Runtime: the sum of a pair's tokens and their number."""

    def __init__(self) -> None:
        self.rows = 0

    def run(self, outputs: list[str], feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        real = feed["attention_mask"]
        self.rows += len(real)
        return [(feed["input_ids"] * real).sum(1, keepdims=True).astype(np.float32), real.sum(1, keepdims=True) * 1.0]


ENTRY = 262
"""Bytes of a pair of three tokens in the cache."""


def _encoder(monkeypatch: pytest.MonkeyPatch, cached: int) -> tuple[PairEncoder, _Session]:
    session = _Session()
    node = SimpleNamespace
    session.get_inputs = lambda: [node(name="input_ids"), node(name="attention_mask")]  # type: ignore[attr-defined]
    session.get_outputs = lambda: [node(name=name, shape=[None, 1]) for name in ("a", "b")]  # type: ignore[attr-defined]
    monkeypatch.setattr("prectr.relevance.pair_encoder.onnx_session", lambda *_: session)
    return PairEncoder(Path("none"), ("a", "b"), batch_size=3, cache_bytes=cached * ENTRY), session


def _tokens(pairs: list[list[int]]) -> PairTokens:
    lengths = [len(pair) for pair in pairs]
    return PairTokens(
        np.concatenate([np.array(pair, np.int32) for pair in pairs]),
        np.concatenate([[0], np.cumsum(lengths)]),
        np.ones(len(pairs), np.int16),
    )


@given(st.lists(st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=3), min_size=1, max_size=6), max_size=8))
def test_a_cache_changes_no_output(calls: list[list[list[int]]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        cached, _ = _encoder(patch, cached=4)
        plain, _ = _encoder(patch, cached=0)
    for pairs in calls:
        tokens, rows = _tokens(pairs), np.arange(len(pairs))[::-1]
        for actual, expected in zip(cached.encode(tokens, rows), plain.encode(tokens, rows), strict=True):
            np.testing.assert_array_equal(actual, expected)
    assert cached.cache is not None and len(cached.cache) <= 4


def test_a_known_pair_is_not_encoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, session = _encoder(monkeypatch, cached=10)
    tokens = _tokens([[1], [2, 2], [3]])
    encoder.encode(tokens, np.array([0, 1]))
    encoder.encode(tokens, np.array([2, 1, 0]))
    assert session.rows == 3
    assert encoder.cache is not None and (encoder.cache.hits, encoder.cache.misses) == (2, 3)


def test_equal_tokens_with_another_border_are_another_pair() -> None:
    values = np.array([2, 5, 3, 7, 3, 2, 5, 3, 7, 3, 2, 6, 3, 7, 3], np.int32)
    tokens = PairTokens(values, np.array([0, 5, 10, 15]), np.array([3, 2, 3], np.int16))
    first, border, other, again = pair_keys(tokens, np.array([0, 1, 2, 0]))
    assert first == again and len({first, border, other}) == 3
    cache = OutputCache(1_000, [1])
    cache.write([first], [np.ones((1, 1), np.float32)])
    assert cache.find([border, first, other]).tolist() == [-1, 0, -1]


def test_drift_is_zero_for_the_same_spread_and_large_for_another(tmp_path: Path) -> None:
    spread = {"edges": [0.0, 1.0], "shares": [0.25, 0.5, 0.25]}
    (tmp_path / "reference.json").write_text(json.dumps({"score": spread, "level": spread}))
    drift = Drift(tmp_path)
    assert drift.index("score") == 0.0
    drift.add(score=[-1.0, 0.5, 0.6, 2.0], level=[2.0] * 4)
    assert drift.index("score") == pytest.approx(0.0, abs=1e-9)
    # All rows in a bin of a quarter: (1 - .25) ln 4 + .25 ln(.25/t) ... with the least share t = 1e-4 elsewhere.
    tiny = 1e-4
    expected = 0.75 * np.log(4) + (tiny - 0.25) * np.log(tiny / 0.25) + (tiny - 0.5) * np.log(tiny / 0.5)
    assert drift.index("level") == pytest.approx(expected)
