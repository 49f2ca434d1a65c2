"""Writer of bundles: collects the files that serving needs from training and earlier stages."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from prectr.contracts.model_config import ModelConfig
from prectr.core.artifacts import link_or_copy, read_manifest, require_artifact, write_json
from prectr.core.errors import UsageError
from prectr.features.spec import SPEC_FILE, FeatureSpec
from prectr.metrics import auc, log_loss
from prectr.ranking.bundle import (
    CARD_FILE,
    CONFIG_FILE,
    ENCODER_FILE,
    INT8_ENCODER_FILE,
    ONLINE_FILE,
    PREFERENCES_FILE,
    RELEVANCE_FILES,
    Bundle,
)
from prectr.relevance.encoder_session import INT8_FILE, SETTINGS_FILE
from prectr.relevance.quantisation import quantise


def bundle_figures(bundle: Any, samples: Path) -> dict[str, Any]:
    """Compare the float32 and int8 forms of a bundle on the validation day: AUC, log loss, largest logit difference.

    Args:
        bundle: an opened `Bundle` that holds both forms.
        samples: the samples that it was trained on.
    """
    from prectr.features.load import Samples, split_days
    from prectr.ranking.scoring import Scorer

    opened = Samples.open(samples)
    frame = opened.read(opened.files([split_days(opened.days())[1]]))
    rows, clicked, position = opened.rows(frame), frame["clicked"].to_numpy(), frame["position"].to_numpy()
    logits = {}

    def figures(int8: bool) -> dict[str, float]:
        scorer = Scorer(bundle, int8=int8)
        logits[int8] = scorer.score(rows, opened.pairs, opened.tokens).click_logit
        logged = scorer.with_position(logits[int8], position)
        return {
            "auc": auc(clicked, logged),
            "auc_position_free": auc(clicked, logits[int8]),
            "logloss": log_loss(clicked, expit(logged)),
        }

    both = {"float32": figures(False), "int8": figures(True)}
    return {**both, "largest_logit_difference": float(np.abs(logits[True] - logits[False]).max())}


def write_bundle(
    out: Path,
    trained: Path,
    *,
    samples: Path,
    encoder: Path,
    preferences: Path,
    model: ModelConfig,
    facts: dict[str, Any],
) -> None:
    """Write a bundle to `out` from the files of training in `trained` and the artifacts of earlier stages."""
    for file in trained.iterdir():
        if file.is_file() and file.name != "position.json":
            shutil.copy2(file, out / file.name)
    int8 = (encoder / INT8_FILE).is_file()
    if int8 and (out / ENCODER_FILE).is_file():
        quantise(out / ENCODER_FILE, out / INT8_ENCODER_FILE)
    (out / "relevance").mkdir()
    for name in (*RELEVANCE_FILES, INT8_FILE) if int8 else RELEVANCE_FILES:
        _share(encoder / name, out / "relevance" / name)
    (out / ONLINE_FILE).parent.mkdir()
    _share(samples / ONLINE_FILE, out / ONLINE_FILE)
    shutil.copy2(samples / SPEC_FILE, out / SPEC_FILE)
    shutil.copy2(preferences / "parameters.json", out / PREFERENCES_FILE)
    mined = require_artifact(preferences, "mine-preferences")
    spec = FeatureSpec.load(samples / SPEC_FILE)
    width = json.loads((encoder / SETTINGS_FILE).read_text(encoding="utf-8"))["width"]
    write_json(
        out / CONFIG_FILE,
        {
            "model": model.model_dump(mode="json"),
            "sizes": spec.sizes(width).model_dump(mode="json"),
            "alternate": mined["config"]["alternate"],
            "position": json.loads((trained / "position.json").read_text(encoding="utf-8")),
        },
    )
    int8_figures = {"int8": bundle_figures(Bundle.read(out, "unpublished"), samples)} if int8 else {}
    samples_manifest = read_manifest(samples) or {}
    write_json(
        out / CARD_FILE,
        {
            "model": model.name,
            "training": facts,
            "days": samples_manifest.get("days", {}),
            "validation": facts["best"],
            **int8_figures,
            "definitions": {
                "auc": "with the logged position, ties count one half",
                "gauc": "by user, impression-weighted, one-class users dropped",
                "auc_position_free": "without the position, as served",
            },
        },
    )


def _share(source: Path, target: Path) -> None:
    """Link a file, or copy it if the file system has no links, so that bundles of the same samples share it on disk."""
    if not source.is_file():
        raise UsageError(f"{source}: is missing; run the stage that writes it again.")
    link_or_copy(source, target)
