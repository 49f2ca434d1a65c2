"""Bundles: broken bundles are refused, int8 encoders score nearly the same, unusual requests are answered."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from prectr.contracts.protocol import ScoreRequest
from prectr.contracts.schema import LEVEL_COLUMNS
from prectr.core.errors import PrectrError, UsageError
from prectr.features.load import Samples
from prectr.ranking.bundle import Bundle
from prectr.ranking.ranking import Ranking
from prectr.ranking.scoring import Scorer
from prectr.relevance.batch_scoring import ScorePairs
from prectr.relevance.config import ScoreConfig
from prectr.relevance.encoder_session import RelevanceEncoder
from tests.prectr.bundle_world import World, record_files


@pytest.fixture
def copy(world: World, tmp_path: Path) -> Iterator[Path]:
    """A copy of the bundle that a test may break."""
    shutil.copytree(world.bundle, tmp_path / "bundle")
    yield tmp_path / "bundle"


SERVED = (
    "ranker.onnx",
    "encoder.onnx",
    "relevance/relevance.onnx",
    "relevance/relevance.json",
    "relevance/tokenizer.json",
    "feature_spec.json",
    "preferences.json",
    "online/data.mdb",
    "config.json",
    "golden.json",
    "reference.json",
)


@pytest.mark.parametrize("name", SERVED)
def test_a_missing_or_short_file_is_named(copy: Path, name: str) -> None:
    file = copy / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(PrectrError, match=rf"{file}: holds [\d,]+ bytes of [\d,]+; copy the bundle again"):
        Scorer(copy)
    file.unlink()
    with pytest.raises(PrectrError, match=f"{file}: is missing from the bundle"):
        Scorer(copy)


@pytest.mark.parametrize("name", SERVED)
def test_a_changed_byte_is_refused(copy: Path, name: str) -> None:
    file = copy / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(PrectrError, match=f"{file}: has changed since the bundle was published; copy the bundle again"):
        Ranking(copy)


def test_weights_are_checked_when_a_training_starts_from_them(copy: Path) -> None:
    bundle, file = Bundle.open(copy), copy / "model.safetensors"
    bundle.require_unchanged(file.name)
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    with pytest.raises(PrectrError, match=f"{file}: has changed"):
        bundle.require_unchanged(file.name)
    file.unlink()
    with pytest.raises(PrectrError, match=f"{file}: is missing"):
        bundle.require_unchanged(file.name)


def test_reading_a_state_leaves_its_bytes_unchanged(copy: Path) -> None:
    before = (copy / "online" / "data.mdb").read_bytes()
    ranking = Ranking(copy)
    ranking.rank(ScoreRequest(user_id="u0", query="nokia 3310", candidates=["i0"], context={"ts": 1.8e9}))
    ranking.close()
    assert (copy / "online" / "data.mdb").read_bytes() == before
    assert [file.name for file in (copy / "online").iterdir()] == ["data.mdb"], "no lock file"


def test_a_model_that_is_no_model_is_named(copy: Path) -> None:
    file = copy / "ranker.onnx"
    file.write_bytes(b"\0" * file.stat().st_size)
    record_files(copy)
    with pytest.raises(PrectrError, match=f"{file}: is missing, cut short or no ONNX model"):
        Scorer(copy)


def test_a_bundle_of_an_older_version_is_refused(copy: Path) -> None:
    file = copy / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"schema": 4}))
    with pytest.raises(UsageError, match=f"{copy}: has schema version 4, .*`prectr train ... --out {copy}`"):
        Scorer(copy)
    with pytest.raises(UsageError, match="no train artifact here"):
        Scorer(copy / "online")


def test_a_copy_for_serving_needs_no_weights(copy: Path) -> None:
    for name in ("model.safetensors", "model_card.json", "learning_curve.jsonl"):
        (copy / name).unlink()
    assert Scorer(copy).bundle.version == Bundle.open(copy).version


def _logits(bundle: Path, samples: Path, int8: bool) -> np.ndarray:
    opened = Samples.open(samples)
    rows = opened.rows(opened.read(opened.files(opened.days())))
    return Scorer(bundle, int8=int8).score(rows, opened.pairs, opened.tokens).click_logit


def test_int8_encoders_score_nearly_the_same_and_the_card_holds_the_difference(world: World) -> None:
    exact, rounded = (_logits(world.bundle, world.samples, int8) for int8 in (False, True))
    assert np.std(exact) > 1e-3 and 0 < np.abs(exact - rounded).max() < 0.05
    card = json.loads((world.bundle / "model_card.json").read_text())
    figures = card["int8"]
    assert 0 < figures["largest_logit_difference"] <= np.abs(exact - rounded).max() + 1e-6
    for name in ("auc", "auc_position_free", "logloss"):
        assert figures["float32"][name] == pytest.approx(card["validation"][name], abs=1e-4)
        assert figures["int8"][name] == pytest.approx(figures["float32"][name], abs=0.05)
    manifest = json.loads((world.encoder / "manifest.json").read_text())["int8"]
    assert manifest["rank_correlation"] > 0.7  # of ten pairs
    assert manifest["int8"]["validation_loss"] == pytest.approx(manifest["float32"]["validation_loss"], abs=0.02)
    texts = (["nokia 3310"] * 2, ["item 0 nokia 3310", "sofa"])
    scores = [RelevanceEncoder(world.encoder, int8=int8).score(*texts)[0] for int8 in (False, True)]
    np.testing.assert_allclose(*scores, atol=0.02)
    assert not np.array_equal(*scores)


def test_pairs_are_scored_with_the_configured_form(world: World) -> None:
    titles = ["nokia 3310", "sofa"]
    pairs = pl.DataFrame({"pair": [0, 1], "query": "nokia 3310", "item_id": ["a", "b"], "title": titles})
    unknown = {name: pl.lit(None, pl.Float32) for name in LEVEL_COLUMNS} | {"source": pl.lit(None, pl.String)}
    table = pairs.with_columns(**unknown).to_arrow()
    scored = {}
    for int8 in (False, True):
        scored[int8] = ScorePairs(world.encoder, ScoreConfig(int8=int8))(table)["encoder_expected"].to_numpy()
        levels = RelevanceEncoder(world.encoder, int8=int8).score(["nokia 3310"] * 2, titles)[0]
        np.testing.assert_allclose(scored[int8], levels @ np.arange(4) / 3, atol=1e-6)
    assert not np.array_equal(scored[False], scored[True])


def test_requests_are_answered_with_the_configured_form(world: World) -> None:
    request = ScoreRequest(user_id="u0", query="nokia 3310", candidates=["i0", "i1"], context={"ts": 1.8e9})
    logits = {}
    for int8 in (False, True):
        service = Ranking(world.bundle, int8=int8)
        logits[int8] = [np.log(1 / result.click_probability - 1) for result in service.rank(request).results]
        service.close()
    np.testing.assert_allclose(logits[True], logits[False], atol=0.05)
    assert logits[True] != logits[False]


def test_int8_that_is_not_there_is_refused(copy: Path) -> None:
    for name in ("encoder.int8.onnx", "relevance/relevance.int8.onnx"):
        (copy / name).unlink()
    record_files(copy)
    Scorer(copy)
    with pytest.raises(UsageError, match=r"has no int8 encoder .*distill\.int8=true"):
        Scorer(copy, int8=True)


@pytest.fixture
def rank(world: World) -> Iterator[Callable[..., dict[str, float]]]:
    """Click probability of each candidate of a request."""
    service = Ranking(world.bundle)

    def answer(**request: object) -> dict[str, float]:
        fields = {"user_id": "u0", "query": "nokia 3310", "candidates": ["i0"], "context": {"ts": 1.8e9}} | request
        response = service.rank(ScoreRequest.model_validate(fields))
        return {result.item_id: result.click_probability for result in response.results}

    yield answer
    service.close()


STRANGE = {"item_id": "new", "title": "?", "category": "ufo > parts", "brand": "none", "price": 1e12}


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"user_id": "nobody"},
        {"query": "unheard of", "user_id": "nobody"},
        {"candidates": [STRANGE]},
        {"query": "\N{UNICORN FACE}", "candidates": [{"item_id": "blank", "title": "\N{UNICORN FACE}"}]},
        {"candidates": [STRANGE | {"title": "nokia 3310 " * 180}]},
    ],
    ids=["one candidate", "no history", "unheard query", "unknown category", "no known token", "long title"],
)
def test_a_strange_request_is_answered(rank: Callable[..., dict[str, float]], request_: dict[str, object]) -> None:
    (probability,) = rank(**request_).values()
    assert 0 < probability < 1


def test_a_candidate_alone_scores_as_among_others(rank: Callable[..., dict[str, float]]) -> None:
    among = rank(candidates=["i0", "i1", "i2", "i3", "i4"])
    assert len(set(among.values())) == 5
    assert rank(candidates=["i2"])["i2"] == pytest.approx(among["i2"], abs=1e-6)


def test_a_title_of_ten_kilobytes_counts_by_its_beginning(world: World) -> None:
    """HTTP requests with it are refused. In a catalogue or log, the encoder reads the first tokens of the title."""
    long = "nokia 3310 " * 1000
    with pytest.raises(ValidationError, match="at most 2000 characters"):
        ScoreRequest.model_validate({"user_id": "u", "query": "q", "candidates": [{"item_id": "i", "title": long}]})
    encoder = RelevanceEncoder(world.encoder)
    probabilities, text, tokens = encoder.score(["nokia"] * 3, [long, "nokia 3310 " * 20, "sofa"])
    assert tokens.lengths.max() == encoder.max_length
    np.testing.assert_array_equal(
        tokens.values[: encoder.max_length], tokens.values[encoder.max_length :][: encoder.max_length]
    )
    np.testing.assert_allclose(probabilities[0], probabilities[1], atol=1e-6)
    assert np.isfinite(text).all() and not np.allclose(probabilities[0], probabilities[2])
    queries = encoder.score([long], ["nokia"])[2]
    assert queries.lengths.max() <= encoder.max_length
