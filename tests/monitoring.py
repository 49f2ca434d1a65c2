"""What tests of monitoring share: Debian's promtool, the rules, the board, and the names of a scrape."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).parents[1] / "cluster" / "monitoring"
_NAME = re.compile(r"\bprectr_\w+")


def promtool(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run promtool; skip the test where it is not installed, and fail it in CI."""
    binary = shutil.which("promtool")
    if binary is None:
        message = "promtool is not installed (Debian: apt-get install prometheus)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return subprocess.run([binary, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False)


def rule_groups() -> dict[str, Any]:
    """The file of rules that a Prometheus without the operator reads."""
    content: dict[str, Any] = yaml.safe_load((FOLDER / "rules.yaml").read_text(encoding="utf-8"))["spec"]
    return content


def alerts() -> list[dict[str, Any]]:
    """The alerts."""
    return [rule for group in rule_groups()["groups"] for rule in group["rules"]]


def board_expressions() -> list[str]:
    """Expressions of the board's panels, with a fixed interval."""
    board = json.loads((FOLDER / "dashboard.json").read_text(encoding="utf-8"))
    found = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    return [expression.replace("$__rate_interval", "5m") for expression in found]


def series_named(expressions: Iterable[str]) -> set[str]:
    """Names of our series in PromQL."""
    return {name for expression in expressions for name in _NAME.findall(expression)}


def series_of(scrape: str, relabelled: bool) -> set[str]:
    """Names of the series in a scrape, renamed as the scrape's configuration does it for Ray."""
    names = {re.split(r"[ {]", line, maxsplit=1)[0] for line in scrape.splitlines() if not line.startswith("#")}
    if not relabelled:
        return names
    ray, _ = yaml.safe_load((FOLDER / "prometheus.yaml").read_text(encoding="utf-8"))["scrape_configs"]
    rename = ray["metric_relabel_configs"][0]
    replacement = rename["replacement"].replace("$1", r"\1")
    return {re.sub(f"^(?:{rename['regex']})$", replacement, name) for name in names}
