"""A bundle: all that serving needs of one trained ranker, in one directory, without pickles.

ranker.onnx            the ranker: arrays of `RankerInputs` and text in, `RankerOutput` out
encoder.onnx           the text encoder tuned with it; absent where the encoder stayed frozen or is not read
relevance/             the distilled encoder and tokenizer, for pairs that the log never saw
model.safetensors      the same weights for further training
config.json            model configuration, feature sizes, position bias, smoothing
feature_spec.json      vocabularies and scalers
preferences.json       click curve, examination, priors: what tolerance posteriors need
online/                LMDB state of users, queries, items and pairs at the end of the log
model_card.json        what it was trained on and how well it did on the validation day
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prectr.artifacts import link_or_copy, read_manifest, require_artifact, write_json
from prectr.errors import PrectrError, UsageError
from prectr.features.spec import FeatureSpec
from prectr.model_config import FeatureSizes, ModelConfig
from prectr.preferences.fit import PreferenceModel
from prectr.training.config import TrainConfig

BUNDLE_VERSION = 2
RELEVANCE_FILES = ("relevance.onnx", "relevance.json", "tokenizer.json")


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: its configuration; the models are loaded by the scorer."""

    path: Path
    name: str
    version: str
    """Identity of the artifact that was published; changes with every training."""
    model: ModelConfig
    sizes: FeatureSizes
    spec: FeatureSpec
    preferences: PreferenceModel
    position_form: str
    position_logits: tuple[float, ...]
    """Bias of each position on the logit, or its log examination probability; from position 1."""

    @classmethod
    def open(cls, path: Path) -> "Bundle":
        """Open a bundle.

        Raises:
            UsageError: `path` is no bundle.
            PrectrError: it was written by another version of the project.
        """
        manifest = require_artifact(path, "train")
        content = json.loads((path / "config.json").read_text(encoding="utf-8"))
        if content.get("bundle_version") != BUNDLE_VERSION:
            raise PrectrError(
                f"{path}: a bundle of version {content.get('bundle_version')}, this project reads {BUNDLE_VERSION}; "
                "train it again."
            )
        return cls(
            path=path,
            name=content["model"]["name"],
            version=manifest["identity"],
            model=ModelConfig.model_validate(content["model"]),
            sizes=FeatureSizes.model_validate(content["sizes"]),
            spec=FeatureSpec.load(path / "feature_spec.json"),
            preferences=PreferenceModel.load(path / "preferences.json"),
            position_form=content["position"]["form"],
            position_logits=tuple(content["position"]["logits"]),
        )


def write_bundle(
    out: Path,
    trained: Path,
    *,
    samples: Path,
    encoder: Path,
    preferences: Path,
    config: TrainConfig,
    facts: dict[str, Any],
) -> None:
    """Assemble a bundle from what training left in `trained` and from the stages before it."""
    for file in trained.iterdir():
        if file.is_file() and file.name != "position.json":
            shutil.copy2(file, out / file.name)
    (out / "relevance").mkdir()
    for name in RELEVANCE_FILES:
        _share(encoder / name, out / "relevance" / name)
    (out / "online").mkdir()
    _share(samples / "online" / "data.mdb", out / "online" / "data.mdb")
    shutil.copy2(samples / "feature_spec.json", out / "feature_spec.json")
    shutil.copy2(preferences / "parameters.json", out / "preferences.json")
    require_artifact(preferences, "mine-preferences")
    spec = FeatureSpec.load(samples / "feature_spec.json")
    width = json.loads((encoder / "relevance.json").read_text(encoding="utf-8"))["width"]
    write_json(
        out / "config.json",
        {
            "bundle_version": BUNDLE_VERSION,
            "model": config.model.model_dump(mode="json"),
            "sizes": spec.sizes(width).model_dump(mode="json"),
            "position": json.loads((trained / "position.json").read_text(encoding="utf-8")),
        },
    )
    samples_manifest = read_manifest(samples) or {}
    write_json(
        out / "model_card.json",
        {
            "model": config.model.name,
            "training": facts,
            "days": samples_manifest.get("days", {}),
            "validation": facts["best"],
            "definitions": {
                "auc": "with the logged position, ties count one half",
                "gauc": "by user, impression-weighted, one-class users dropped",
                "auc_position_free": "without the position, as served",
            },
        },
    )


def _share(source: Path, target: Path) -> None:
    """Rankers on the same samples share their state on disk, where the file system allows it."""
    if not source.is_file():
        raise UsageError(f"{source}: is missing; build its artifact again.")
    link_or_copy(source, target)
