"""Manifests of artifacts that tests write by hand."""

from pathlib import Path
from typing import Any

from prectr.core.artifacts import write_json
from prectr.core.mirror import MANIFEST
from prectr.core.schema_versions import SCHEMA_VERSIONS
from prectr.core.text import NORMAL_FORM


def write_manifest(folder: Path, stage: str, **facts: Any) -> None:
    """Mark a folder as an artifact of a stage, of the present schema version."""
    versions = {"schema": SCHEMA_VERSIONS[stage], "normal_form": NORMAL_FORM}
    write_json(folder / MANIFEST, {"stage": stage, "identity": "test", **versions, **facts})
