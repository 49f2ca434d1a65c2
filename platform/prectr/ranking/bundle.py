"""A bundle: the files that serving needs of one trained ranker, in one directory, without pickles.

ranker.onnx            the ranker: arrays of `RankerInputs` and text in, `RankerOutput` out
encoder.onnx           the text encoder tuned with the ranker; absent if the encoder was frozen or is not used
encoder.int8.onnx      its int8 form, if the distilled encoder has one too
relevance/             the distilled encoder and tokenizer, for pairs that the log never showed
model.safetensors      the same weights for further training
config.json            model configuration, feature sizes, position bias, and the length of each file that serving needs
feature_spec.json      vocabularies and scalers
preferences.json       click curve, examination and priors, from which tolerance posteriors are computed
online/                LMDB state of users, queries, items and pairs at the end of the log
golden.json            a few requests and the bundle's scores of them (`prectr.ranking.golden`)
reference.json         distribution of scores and levels on the validation day (`prectr.ranking.drift`)
model_card.json        training data, training settings and metrics of the validation day
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from prectr.contracts.model_config import FeatureSizes, ModelConfig
from prectr.core.artifacts import require_artifact
from prectr.core.errors import PrectrError, UsageError, shorten
from prectr.core.mirror import MANIFEST
from prectr.features.spec import SPEC_FILE, FeatureSpec
from prectr.preferences.fit import PreferenceModel
from prectr.relevance.encoder_session import ONNX_FILE, SETTINGS_FILE, encoder_file
from prectr.relevance.tokenisation import TOKENIZER_FILE

BUNDLE_VERSION = 5
RANKER_FILE, ENCODER_FILE, INT8_ENCODER_FILE = "ranker.onnx", "encoder.onnx", "encoder.int8.onnx"
CONFIG_FILE, CARD_FILE = "config.json", "model_card.json"
GOLDEN_FILE, REFERENCE_FILE = "golden.json", "reference.json"
PREFERENCES_FILE = "preferences.json"
RELEVANCE_FILES = (ONNX_FILE, SETTINGS_FILE, TOKENIZER_FILE)
ONLINE_FILE = Path("online") / "data.mdb"
NOT_SERVED = (CONFIG_FILE, CARD_FILE, "model.safetensors", "learning_curve.jsonl", MANIFEST)
"""Files that serving does not score with. A copy for serving needs only the first and the last of them."""


@dataclass(frozen=True)
class Bundle:
    """Configuration of an opened bundle. The scorer loads the models."""

    path: Path
    name: str
    version: str
    """Identity of the published artifact; it changes with every training."""
    model: ModelConfig
    sizes: FeatureSizes
    spec: FeatureSpec
    preferences: PreferenceModel
    position_form: str
    position_logits: tuple[float, ...]
    """Logit bias or log examination probability (by `position_form`) of each position, from position 1."""
    alternate: bool = True
    """Whether users' tolerances are corrected for the queries that they typed (`preferences.alternate`)."""

    @cached_property
    def state_identity(self) -> str:
        """Hash of feature specification and preferences; bundles with equal hashes can share an online state."""
        return _digest(self.path / SPEC_FILE, self.path / PREFERENCES_FILE)

    @cached_property
    def tokenizer_identity(self) -> str:
        """Hash of the tokenizer; the token ids in a published state fit only bundles with the same hash."""
        return _digest(self.path / "relevance" / TOKENIZER_FILE)

    @classmethod
    def open(cls, path: Path) -> "Bundle":
        """Open a bundle.

        Raises:
            UsageError: `path` holds no bundle.
            PrectrError: another version of the project wrote the bundle, or a file of it is missing or too short.
        """
        return cls.read(path, require_artifact(path, "train")["identity"])

    @classmethod
    def read(cls, path: Path, version: str) -> "Bundle":
        """Open a bundle that is not published yet under a version name; errors as in `open`."""
        try:
            content = json.loads((path / CONFIG_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise PrectrError(
                f"{path / CONFIG_FILE}: cannot be read ({shorten(error)}); train the bundle again."
            ) from None
        if content.get("bundle_version") != BUNDLE_VERSION:
            raise PrectrError(
                f"{path}: the bundle has version {content.get('bundle_version')}, but this project reads version "
                f"{BUNDLE_VERSION}; train it again."
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
    """Check that a directory holds a bundle that can be served, before Ray starts.

    Raises:
        UsageError: the directory holds no bundle, or `int8` is set and its encoders have no int8 form.
    """
    require_artifact(path, "train")
    if int8:
        encoder_file(path / "relevance", int8=True)


def require_online_state(samples: Path) -> None:
    """Check that samples hold the online state that a bundle needs, before a ranker is trained on them.

    Raises:
        UsageError: the samples were built without an online state.
    """
    if not (samples / ONLINE_FILE).is_file():
        raise UsageError(
            f"{samples}: holds no online state ({ONLINE_FILE}), which a bundle needs. Build the samples again with "
            "`prectr build-samples --set samples.online=true`."
        )


def _digest(*files: Path) -> str:
    digest = hashlib.blake2b(digest_size=12)
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _require_whole(path: Path, sizes: Mapping[str, int]) -> None:
    """Check the files' lengths, which finds incomplete copies; hashing a large online state at each start is slow."""
    for name, size in sizes.items():
        file = path / name
        if not file.is_file():
            raise PrectrError(f"{file}: is missing from the bundle; copy the bundle again or train it again.")
        if file.stat().st_size != size:
            raise PrectrError(
                f"{file}: holds {file.stat().st_size:,} bytes of {size:,}; copy the bundle again or train it again."
            )
