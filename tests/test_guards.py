"""Rules of the house that nothing else would notice being broken."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import with_code

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "ray", "polars", "numpy", "transformers", "pyarrow", "scipy")


def _python(code: str) -> subprocess.CompletedProcess[str]:
    environment = with_code()
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)


def test_platform_is_a_source_root_and_no_package() -> None:
    """With an `__init__.py` it would hide the standard library's `platform` from everything run in the root."""
    assert not (ROOT / "platform" / "__init__.py").exists()
    ran = _python("import platform; print(platform.system())")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip()


@pytest.mark.skipif(importlib.util.find_spec("importlinter") is None, reason="import-linter is not installed")
def test_rooms_import_only_what_they_may() -> None:
    ran = _python("from importlinter.cli import lint_imports_command; lint_imports_command(['--no-cache'])")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "0 broken" in ran.stdout


def test_settings_load_nothing_heavy() -> None:
    """Every command reads the settings at start, so `prectr --help` is as quick as this import."""
    ran = _python(f"import sys, prectr.settings; print([name for name in {HEAVY} if name in sys.modules])")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "[]"
