"""The encoder artifact in other libraries, without anything of ours but `mark_matches`."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from prectr.relevance.config import DistillConfig
from prectr.relevance.cross_encoder import mark_matches
from prectr.relevance.encoder_session import RelevanceEncoder
from tests.prectr.bundle_world import ENCODER, publish_encoder

QUERIES = ["nokia 3310", "sofa", "blue nokia nokia", "garden gnome", "phone " * 5]
TITLES = ["Nokia 3310 BLUE phone", "nokia charger", "Nokia ３３１０", "?", "a phone " * 40]
"""Among them words that match several times, in another case or width, none, and a title that is cut."""


def _probabilities(artifact: Path, marked: bool) -> np.ndarray:
    tokenizer = AutoTokenizer.from_pretrained(artifact)
    if marked:
        mark_matches(tokenizer)
    inputs = tokenizer(QUERIES, TITLES, padding=True, truncation="longest_first", return_tensors="pt")
    assert inputs["input_ids"].shape[1] == ENCODER.max_length
    with torch.inference_mode():
        logits = AutoModelForSequenceClassification.from_pretrained(artifact).eval()(**inputs).logits
    return logits.softmax(-1).numpy()


def test_a_marking_tokenizer_gives_the_encoders_own_probabilities(tmp_path: Path) -> None:
    publish_encoder(tmp_path / "encoder", QUERIES, TITLES, DistillConfig(encoder=ENCODER))
    expected = RelevanceEncoder(tmp_path / "encoder").score(QUERIES, TITLES)[0]
    np.testing.assert_allclose(_probabilities(tmp_path / "encoder", marked=True), expected, atol=1e-4)
    plain = _probabilities(tmp_path / "encoder", marked=False)
    assert np.abs(plain - expected).max() > 1e-2, "matches are marked, or this test says nothing"


def test_without_match_marks_the_plain_tokenizer_does(tmp_path: Path) -> None:
    publish_encoder(tmp_path / "encoder", QUERIES, TITLES, DistillConfig(encoder=ENCODER, match_marks=False))
    expected = RelevanceEncoder(tmp_path / "encoder").score(QUERIES, TITLES)[0]
    assert np.ptp(expected, axis=0).max() > 1e-2, "pairs differ, or this test says nothing"
    np.testing.assert_allclose(_probabilities(tmp_path / "encoder", marked=False), expected, atol=1e-4)


def test_the_cross_encoder_of_sentence_transformers_gives_the_encoders_own_probabilities(tmp_path: Path) -> None:
    publish_encoder(tmp_path / "encoder", QUERIES, TITLES, DistillConfig(encoder=ENCODER))
    expected = RelevanceEncoder(tmp_path / "encoder").score(QUERIES, TITLES)[0]
    model = CrossEncoder(str(tmp_path / "encoder"), device="cpu", local_files_only=True)
    mark_matches(model.tokenizer)
    found = model.predict(list(zip(QUERIES, TITLES, strict=True)), apply_softmax=True, show_progress_bar=False)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_marks_come_as_arrays_too(tmp_path: Path) -> None:
    publish_encoder(tmp_path / "encoder", QUERIES, TITLES, DistillConfig(encoder=ENCODER))
    tokenizer = mark_matches(AutoTokenizer.from_pretrained(tmp_path / "encoder"))
    arrays = tokenizer(["sofa phone"], ["phone"], padding=True, return_tensors="np")
    own = RelevanceEncoder(tmp_path / "encoder").tokeniser.encode(["sofa phone"], ["phone"]).padded(np.array([0]))
    for name, array in own.items():
        np.testing.assert_array_equal(arrays[name], array)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
