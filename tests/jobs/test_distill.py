"""The exported encoder in other libraries, without anything of ours."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from jobs import export
from prectr.core.errors import UsageError
from prectr.relevance.config import DistillConfig
from prectr.relevance.encoder_session import RelevanceEncoder
from tests.prectr.bundle_world import ENCODER, publish_encoder

QUERIES = ["nokia 3310", "sofa", "blue nokia nokia", "garden gnome", "phone " * 5]
TITLES = ["Nokia 3310 BLUE phone", "nokia charger", "Nokia ３３１０", "?", "a phone " * 40]
"""Among them words that match several times, in another case or width, none, and a title that is cut."""


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    publish_encoder(folder / "encoder", QUERIES, TITLES, DistillConfig(encoder=ENCODER))
    export.run(encoder=folder / "encoder", out=folder / "plain", plain=True)
    return folder


def _own(artifact: Path) -> np.ndarray:
    return RelevanceEncoder(artifact).score(QUERIES, TITLES)[0]


def test_transformers_alone_gives_the_plain_probabilities(encoder: Path) -> None:
    inputs = AutoTokenizer.from_pretrained(encoder / "plain")(
        QUERIES, TITLES, padding=True, truncation="longest_first", return_tensors="pt"
    )
    assert inputs["input_ids"].shape[1] == ENCODER.max_length
    with torch.inference_mode():
        logits = AutoModelForSequenceClassification.from_pretrained(encoder / "plain").eval()(**inputs).logits
    np.testing.assert_allclose(logits.softmax(-1).numpy(), _own(encoder / "plain"), atol=1e-4)


def test_the_cross_encoder_of_sentence_transformers_gives_the_plain_probabilities(encoder: Path) -> None:
    model = CrossEncoder(str(encoder / "plain"), device="cpu", local_files_only=True)
    found = model.predict(list(zip(QUERIES, TITLES, strict=True)), apply_softmax=True, show_progress_bar=False)
    expected = _own(encoder / "plain")
    assert np.ptp(expected, axis=0).max() > 1e-2, "pairs differ, or this test says nothing"
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_full_encoder_reads_match_features_and_marks(encoder: Path) -> None:
    assert np.abs(_own(encoder / "encoder") - _own(encoder / "plain")).max() > 1e-2


def test_there_is_no_other_form(encoder: Path) -> None:
    with pytest.raises(UsageError, match="give --plain"):
        export.run(encoder=encoder / "encoder", out=encoder / "other")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
