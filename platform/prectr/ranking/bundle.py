"""A bundle: all that serving needs of one trained ranker, in one directory, without pickles.

ranker.onnx            the ranker: arrays of `RankerInputs` and text in, `RankerOutput` out
encoder.onnx           the text encoder tuned with it; absent where the encoder stayed frozen or is not read
encoder.int8.onnx      its int8 form, where the distilled encoder has one too
relevance/             the distilled encoder and tokenizer, for pairs that the log never saw
model.safetensors      the same weights for further training
config.json            model configuration, feature sizes, position bias, and how long each file is that serving needs
feature_spec.json      vocabularies and scalers
preferences.json       click curve, examination, priors: what tolerance posteriors need
online/                LMDB state of users, queries, items and pairs at the end of the log
golden.json            a few requests and what the bundle said of them (`prectr.ranking.golden`)
reference.json         how scores and levels of the validation day were spread (`prectr.ranking.drift`)
model_card.json        what it was trained on and how well it did on the validation day
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from prectr.contracts.model_config import FeatureSizes, ModelConfig
from prectr.core.artifacts import require_artifact
from prectr.core.errors import PrectrError, UsageError
from prectr.core.mirror import MANIFEST
from prectr.features.spec import SPEC_FILE, FeatureSpec
from prectr.preferences.fit import PreferenceModel
from prectr.relevance.encoder_session import ONNX_FILE, SETTINGS_FILE, encoder_file
from prectr.relevance.tokenisation import TOKENIZER_FILE

BUNDLE_VERSION = 4
RANKER_FILE, ENCODER_FILE, INT8_ENCODER_FILE = "ranker.onnx", "encoder.onnx", "encoder.int8.onnx"
CONFIG_FILE, CARD_FILE = "config.json", "model_card.json"
GOLDEN_FILE, REFERENCE_FILE = "golden.json", "reference.json"
PREFERENCES_FILE = "preferences.json"
RELEVANCE_FILES = (ONNX_FILE, SETTINGS_FILE, TOKENIZER_FILE)
ONLINE_FILE = Path("online") / "data.mdb"
NOT_SERVED = (CONFIG_FILE, CARD_FILE, "model.safetensors", "learning_curve.jsonl", MANIFEST)
"""Files that people and further training need; a copy for serving may leave out all but the first and the last."""


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
    alternate: bool = True
    """Whether users' tolerances are corrected for the queries they typed (`preferences.alternate`)."""

    @cached_property
    def state_identity(self) -> str:
        """What numbers of an online state mean hangs on the specification and the preferences; hash of both."""
        return _digest(self.path / SPEC_FILE, self.path / PREFERENCES_FILE)

    @cached_property
    def tokenizer_identity(self) -> str:
        """Hash of the tokenizer: token ids of a published state are read with the same one only."""
        return _digest(self.path / "relevance" / TOKENIZER_FILE)

    @classmethod
    def open(cls, path: Path) -> "Bundle":
        """Open a bundle.

        Raises:
            UsageError: `path` is no bundle.
            PrectrError: it was written by another version of the project, or a file of it is missing or cut short.
        """
        return cls.read(path, require_artifact(path, "train")["identity"])

    @classmethod
    def read(cls, path: Path, version: str) -> "Bundle":
        """As `open`, for a bundle that is not published yet."""
        try:
            content = json.loads((path / CONFIG_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise PrectrError(f"{path / CONFIG_FILE}: cannot be read ({error}); train the bundle again.") from None
        if content.get("bundle_version") != BUNDLE_VERSION:
            raise PrectrError(
                f"{path}: a bundle of version {content.get('bundle_version')}, this project reads {BUNDLE_VERSION}; "
                "train it again."
            )
        _require_whole(path, content["files"])
        return cls(
            path=path,
            name=content["model"]["name"],
            version=version,
            model=ModelConfig.model_validate(content["model"]),
            sizes=FeatureSizes.model_validate(content["sizes"]),
            spec=FeatureSpec.load(path / SPEC_FILE),
            preferences=PreferenceModel.load(path / PREFERENCES_FILE),
            position_form=content["position"]["form"],
            position_logits=tuple(content["position"]["logits"]),
            alternate=content["alternate"],
        )


def require_bundle(path: Path, int8: bool = False) -> None:
    """Refuse what cannot be served, before Ray starts.

    Raises:
        UsageError: no bundle there, or int8 is asked for and its encoders have no such form.
    """
    require_artifact(path, "train")
    if int8:
        encoder_file(path / "relevance", int8=True)


def require_online_state(samples: Path) -> None:
    """Refuse samples that no bundle can be made of, before a ranker is trained on them.

    Raises:
        UsageError: they were built without the state that serving starts from.
    """
    if not (samples / ONLINE_FILE).is_file():
        raise UsageError(
            f"{samples}: holds no online state ({ONLINE_FILE}), which a bundle needs; build the samples again with "
            "`prectr build-samples --set samples.online=true`."
        )


def _digest(*files: Path) -> str:
    digest = hashlib.blake2b(digest_size=12)
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _require_whole(path: Path, sizes: Mapping[str, int]) -> None:
    """Lengths only: a bundle is opened often, its online state may be large, and a copy that broke off is short."""
    for name, size in sizes.items():
        file = path / name
        if not file.is_file():
            raise PrectrError(f"{file}: is missing from the bundle; copy it again or train it again.")
        if file.stat().st_size != size:
            raise PrectrError(
                f"{file}: holds {file.stat().st_size:,} bytes of {size:,}; copy the bundle again or train it again."
            )
