"""Rules of the house that nothing else would notice being broken."""

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Collection, Mapping
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
    ran = _python(f"import sys, jobs.settings; print([name for name in {HEAVY} if name in sys.modules])")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "[]"


def test_importing_the_library_is_light_and_its_names_come_when_used() -> None:
    ran = _python(f"import sys, prectr; print([name for name in {HEAVY} if name in sys.modules]); prectr.Tables")
    assert ran.returncode == 0 and ran.stdout.strip() == "[]", ran.stderr
    ran = _python("from prectr import Client, Scorer, Tables; print(Client, Scorer, Tables)")
    assert ran.returncode == 0, ran.stderr
    ran = _python("import prectr; prectr.Table")
    assert "module 'prectr' has no attribute 'Table'" in ran.stderr


def _modules() -> dict[str, Path]:
    """Module name -> file, of all code but tests."""
    files: dict[str, Path] = {}
    for source, folder in ((ROOT / "platform", "prectr"), (ROOT, "models"), (ROOT, "jobs"), (ROOT, "serve_apps")):
        for file in (source / folder).rglob("*.py"):
            parts = file.relative_to(source).with_suffix("").parts
            files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return files


def _imports(file: Path, names: Collection[str]) -> set[str]:
    """Modules among `names` that a file imports, at its top or inside a function."""
    imported = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{file}: relative import"
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & set(names)
            imported |= inner or {node.module}
    return imported & set(names)


def _circles(imports: Mapping[str, set[str]]) -> list[str]:
    """Modules that import themselves through others."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        ahead = list(imports[start])
        while ahead:
            module = ahead.pop()
            if module not in seen:
                seen.add(module)
                ahead += imports[module]
        return seen

    return [module for module in imports if module in reached(module)]


def test_no_file_imports_itself_through_others() -> None:
    """Imports inside functions count too."""
    files = _modules()
    assert len(files) > 200
    assert _circles({name: _imports(file, files) for name, file in files.items()}) == []


def test_the_circle_test_can_fail(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("import b\n")
    (tmp_path / "b.py").write_text("def late():\n    from a import b\n")
    files = {"a": tmp_path / "a.py", "b": tmp_path / "b.py"}
    assert _circles({name: _imports(file, files) for name, file in files.items()}) == ["a", "b"]


def test_models_import_contracts_and_configuration_only() -> None:
    files = _modules()
    allowed = {
        name for name in files if name.split(".")[:2] == ["prectr", "contracts"] or name.split(".")[0] == "models"
    }
    for name, file in files.items():
        if name.split(".")[0] == "models":
            assert _imports(file, files) <= allowed, name


def test_no_module_lies_loose_beside_the_rooms() -> None:
    loose = {file.name for file in (ROOT / "platform" / "prectr").iterdir() if file.is_file()}
    assert loose == {"__init__.py", "py.typed"}


def test_every_folder_of_code_is_a_package() -> None:
    """import-linter reads packages only; a folder without `__init__.py` would escape its contracts."""
    folders = {file.parent for file in _modules().values()}
    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []
