"""What may be given as a teacher."""

from pathlib import Path

import pytest

from prectr.core.errors import UsageError
from prectr.labelling.teacher import teacher_source
from tests.manifests import write_manifest


def test_a_trained_teacher_of_another_schema_version_is_refused(tmp_path: Path) -> None:
    assert teacher_source(tmp_path) == tmp_path.resolve(), "a checkpoint from elsewhere has no manifest"
    write_manifest(tmp_path, "train-teacher")
    assert teacher_source(tmp_path) == tmp_path.resolve()
    write_manifest(tmp_path, "train-teacher", schema=0)
    with pytest.raises(UsageError, match=r"schema version 0 .*`prectr train-teacher "):
        teacher_source(tmp_path)
    write_manifest(tmp_path, "distill")
    with pytest.raises(UsageError, match="is an artifact of distill, but one of train-teacher is needed"):
        teacher_source(str(tmp_path))
