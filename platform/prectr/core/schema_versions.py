"""Schema versions of artifacts: a whole number for each stage that writes one.

An artifact of another schema version is refused, and its stage is not skipped. The version of the project plays no
part, so a release keeps the artifacts whose schema it leaves unchanged.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prectr.core.errors import UsageError
from prectr.core.text import NORMAL_FORM

SCHEMA_VERSIONS = {
    "simulate": 1,
    "validate": 1,
    "import": 1,
    "train-teacher": 1,
    "select-pairs": 2,
    "label": 2,
    "distill": 2,
    "export": 1,
    "score-relevance": 3,
    "mine-preferences": 2,
    "build-samples": 4,
    "train": 8,
    "sweep": 1,
    "evaluate": 2,
    "report": 1,
    "analyze-experiment": 1,
    "simulate-experiment": 1,
}
"""Stage -> schema version of the artifacts that it writes now. `docs/develop.md` says when to raise one."""


def schema_of(manifest: Mapping[str, Any]) -> int:
    """The schema version that a manifest records; 0 if it was written before schema versions were recorded."""
    version = manifest.get("schema")
    return version if isinstance(version, int) else 0


def require_version(path: Path, manifest: Mapping[str, Any]) -> None:
    """Refuse an artifact that has another schema version or another normal form of queries than this release writes.

    A manifest that names no normal form is of form 1.

    Raises:
        UsageError: one of the two differs; the message names both versions and the command that rebuilds the artifact.
    """
    stage = manifest["stage"]
    written, current, form = schema_of(manifest), SCHEMA_VERSIONS[stage], manifest.get("normal_form", 1)
    rebuild = f"rebuild it with `prectr {stage} ... --out {path}`"
    if written != current:
        origin = "" if written else " (written before schema versions were recorded)"
        raise UsageError(
            f"{path}: has schema version {written}{origin}, this release reads version {current} of {stage}; {rebuild}."
        )
    if form != NORMAL_FORM:
        raise UsageError(
            f"{path}: its queries have normal form {form}, this release reads form {NORMAL_FORM}; {rebuild}."
        )
