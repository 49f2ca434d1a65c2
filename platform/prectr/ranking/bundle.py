"""A bundle: the files that serving needs of one trained ranker, in one directory, without pickles.

ranker.onnx            the ranker: arrays of `RankerInputs` and text in, `RankerOutput` out
encoder.onnx           the text encoder tuned with the ranker; absent if the encoder was frozen or is not used
encoder.int8.onnx      its int8 form, if the distilled encoder has one too
relevance/             the distilled encoder and tokenizer, for pairs that the log never showed
model.safetensors      the same weights for further training
config.json            model configuration, feature sizes and position bias
feature_spec.json      vocabularies and scalers
preferences.json       click curve, examination and priors, from which tolerance posteriors are computed
online/                LMDB state of users, queries, items and pairs at the end of the log
golden.json            a few requests and the bundle's scores of them (`prectr.ranking.golden`)
reference.json         distribution of scores and levels on the validation day (`prectr.ranking.drift`)
model_card.json        training data, training settings and metrics of the validation day
manifest.json          the manifest of the artifact, with length and hash of each other file

`Bundle.open` checks the length of all files, and the hash of those that scoring reads. The online state may have
gigabytes; `Bundle.open_state` checks its hash, once a process. So `prectr publish`, each replica of `prectr serve` and
each actor of `prectr score` start one to two seconds a gigabyte later. A warm start checks the hash of the weights.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from prectr.contracts.model_config import FeatureSizes, ModelConfig
from prectr.core.artifacts import file_digests, require_artifact
from prectr.core.errors import PrectrError, UsageError, shorten
from prectr.core.mirror import MANIFEST
from prectr.features.spec import SPEC_FILE, FeatureSpec
from prectr.features.store import OnlineStore
from prectr.preferences.fit import PreferenceModel
from prectr.relevance.encoder_session import ONNX_FILE, SETTINGS_FILE, encoder_file
from prectr.relevance.match_features import MATCH_FILE
from prectr.relevance.tokenisation import TOKENIZER_FILE

RANKER_FILE, ENCODER_FILE, INT8_ENCODER_FILE = "ranker.onnx", "encoder.onnx", "encoder.int8.onnx"
CONFIG_FILE, CARD_FILE = "config.json", "model_card.json"
GOLDEN_FILE, REFERENCE_FILE = "golden.json", "reference.json"
PREFERENCES_FILE = "preferences.json"
RELEVANCE_FILES = (ONNX_FILE, SETTINGS_FILE, TOKENIZER_FILE, MATCH_FILE)
ONLINE_FILE = Path("online") / "data.mdb"
WEIGHTS_FILE = "model.safetensors"
NOT_SERVED = (CARD_FILE, WEIGHTS_FILE, "learning_curve.jsonl")
"""Files that a copy for serving does not need."""
_AGAIN = "copy the bundle again or train it again"


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
    files: Mapping[str, "FileRecord"] = field(default_factory=dict, repr=False)
    """Name -> length and hash at publication; empty for a bundle that is not published yet."""

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
            UsageError: `path` holds no bundle, or one of another schema version.
            PrectrError: a file of the bundle is missing, incomplete or changed.
        """
        version, files = _checked_files(path)
        return cls.read(path, version, files)

    @classmethod
    def read(cls, path: Path, version: str, files: Mapping[str, "FileRecord"] | None = None) -> "Bundle":
        """Open a bundle without checking its files, under a version name.

        Raises:
            PrectrError: the configuration is missing or cannot be read.
        """
        try:
            content = json.loads((path / CONFIG_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise PrectrError(
                f"{path / CONFIG_FILE}: cannot be read ({shorten(error)}); train the bundle again."
            ) from None
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
            files=files or {},
        )

    def open_state(self) -> OnlineStore:
        """Open the online state in the bundle, after checking its hash.

        Raises:
            PrectrError: the state is missing or has changed.
        """
        self.require_unchanged(str(ONLINE_FILE))
        return OnlineStore((self.path / ONLINE_FILE).parent)

    def require_unchanged(self, name: str) -> None:
        """Check the hash of one file; a bundle that is not published yet has none.

        Raises:
            PrectrError: the file is missing, or has changed since the bundle was published.
        """
        if name in self.files:
            record = {name: self.files[name]}
            _require_whole(self.path, record)
            _require_unchanged(self.path, record)


@dataclass(frozen=True)
class FileRecord:
    """What a manifest records of a file: its length in bytes, and the BLAKE2b hash of its content, in hexadecimal."""

    bytes: int
    blake2b: str


def file_records(path: Path) -> dict[str, dict[str, Any]]:
    """Compute the records of all files of a bundle, by name. Call it after the last of them was written."""
    files = sorted(file for file in path.rglob("*") if file.is_file() and file.name != MANIFEST)
    digests = file_digests(files)
    return {str(file.relative_to(path)): {"bytes": file.stat().st_size, "blake2b": digests[file]} for file in files}


def require_bundle(path: Path, int8: bool = False) -> None:
    """Check that a directory holds a bundle that can be served, before Ray starts.

    Raises:
        UsageError: the directory holds no bundle, or `int8` is set and its encoders have no int8 form.
        PrectrError: a file of the bundle is missing, incomplete or changed.
    """
    _checked_files(path)
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


def _checked_files(path: Path) -> tuple[str, dict[str, FileRecord]]:
    """Check the files of a bundle as `Bundle.open`; returns its version and the records of its files."""
    manifest = require_artifact(path, "train")
    files = {name: FileRecord(**record) for name, record in manifest["files"].items()}
    _require_whole(path, files, optional=NOT_SERVED)
    _require_unchanged(path, {name: files[name] for name in files if name not in (*NOT_SERVED, str(ONLINE_FILE))})
    return manifest["identity"], files


def _require_whole(path: Path, files: Mapping[str, FileRecord], optional: Sequence[str] = ()) -> None:
    """Check that files exist and have their lengths; `optional` files may be missing."""
    for name, record in files.items():
        file = path / name
        if not file.is_file():
            if name in optional:
                continue
            raise PrectrError(f"{file}: is missing from the bundle; {_AGAIN}.")
        if file.stat().st_size != record.bytes:
            raise PrectrError(f"{file}: holds {file.stat().st_size:,} bytes of {record.bytes:,}; {_AGAIN}.")


def _require_unchanged(path: Path, files: Mapping[str, FileRecord]) -> None:
    digests = file_digests([path / name for name in files])
    for name, record in files.items():
        if digests[path / name] != record.blake2b:
            raise PrectrError(f"{path / name}: has changed since the bundle was published; {_AGAIN}.")
