"""Licence, version, changelog and hooks say the same."""

import re
import tomllib
from pathlib import Path

import yaml

from prectr import __version__

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_version_is_written_once() -> None:
    assert "version" not in PROJECT["project"] and PROJECT["project"]["dynamic"] == ["version"]
    source = ROOT / PROJECT["tool"]["hatch"]["version"]["path"]
    assert f'__version__ = "{__version__}"' in source.read_text(encoding="utf-8")
    written = re.compile(r'^__version__ = "', re.MULTILINE)
    code = [file for folder in ("platform", "models", "jobs", "serve_apps") for file in (ROOT / folder).rglob("*.py")]
    assert [file for file in code if written.search(file.read_text(encoding="utf-8"))] == [source]


def test_the_changelog_has_the_version_and_keeps_its_headings() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert text.index("## [Unreleased]") < text.index(f"## [{__version__}] - ")
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.+)$", text, re.MULTILINE)) <= kinds


def test_the_licence_is_the_one_that_is_named() -> None:
    assert PROJECT["project"]["license"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text
    for image in (ROOT / "cluster" / "images").glob("*.Dockerfile"):
        assert " LICENSE " in image.read_text(encoding="utf-8"), f"{image.name}: the build needs LICENSE"


def test_hooks_are_local_and_run_the_tools_of_the_lint() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert [repository["repo"] for repository in config["repos"]] == ["local"]
    hooks = config["repos"][0]["hooks"]
    assert all(hook["language"] == "system" for hook in hooks)
    lint = (ROOT / "Makefile").read_text(encoding="utf-8").split("\nlint:")[1].split("\n\n")[0]
    for tool in ("ruff check", "ruff format", "mypy", "lint-imports"):
        assert tool in lint and any(f".venv/bin/{tool}" in hook["entry"] for hook in hooks), tool
