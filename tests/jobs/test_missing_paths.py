"""Every command refuses a path that is not there: exit code 2 and a message that names the path, before Ray starts."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.cli import COMMANDS, command_table
from jobs.options import REGISTERED
from prectr.core.artifacts import run_stage
from prectr.core.config import FrozenConfig
from tests.jobs.run_command import Prectr

pytestmark = pytest.mark.usefixtures("no_ray")

OUTPUTS = {"out", "html", "validate report", "demo workspace", "evaluate rankers", "ablate rankers"}
"""Options, or options of one command, with paths that need not be there."""
ARTIFACTS = {
    "samples": "build-samples",
    "relevance": "score-relevance",
    "preferences": "mine-preferences",
    "labels": "label",
    "encoder": "distill",
    "evaluation": "evaluate",
    "ranker": "train",
    "tables": "simulate",
}
"""Stage of the artifact that an option takes."""
WORDS = {
    "teacher": "some/model",
    "source": "mapping",
    "to": "online",
    "section": "train",
    "job": "job",
    "words": "train",
    "address": "http://127.0.0.1:9",
    "impressions_per_day": "1k",
    "queries": "1k",
    "labels": "1k",
    "requests_per_second": "1",
    "setting": "train",
}
"""Values of other required options."""


def _options(words: str) -> Iterator[tuple[str, str, bool, bool]]:
    """Name, spelling ("" for an argument), whether it takes a path, and whether it is required, of each option."""
    command: Any = command_table()
    for word in words.split():
        command = command.command_of(word)
    annotations = inspect.signature(REGISTERED[words].callback).parameters
    for option in command.params:
        annotation = annotations[option.name].annotation if option.name in annotations else None
        is_path = "pathlib.Path" in str(annotation)
        spelling = option.opts[0] if option.param_type_name == "option" else ""
        yield option.name, spelling, is_path, option.required


CASES = [
    (words, name)
    for words in COMMANDS
    for name, _, is_path, _ in _options(words)
    if is_path and not {name, f"{words} {name}"} & OUTPUTS
]


def test_the_cases_cover_what_they_should() -> None:
    assert {words for words, name in CASES if name == "config_file"} == set(COMMANDS)
    assert {("validate", "source"), ("serve", "watch"), ("evaluate", "ranker"), ("label", "selection")} <= set(CASES)


@pytest.mark.parametrize(("words", "missing"), CASES)
def test_a_path_that_is_not_there_is_refused_by_name(
    prectr: Prectr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, missing: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for stage in ARTIFACTS.values():
        run_stage(stage, tmp_path / stage, config=FrozenConfig(), inputs={}, build=lambda _: {})
    for name, _, is_path, required in _options(words):
        if is_path and required and name not in OUTPUTS:
            (tmp_path / ARTIFACTS.get(name, name)).mkdir(exist_ok=True)
    before = sorted(tmp_path.rglob("*"))
    line: list[str] = []
    for name, spelling, is_path, required in _options(words):
        if name == missing:
            value = "NONE"
        elif not required:
            continue
        else:
            value = ARTIFACTS.get(name, name) if is_path else WORDS[name]
        line = [spelling, value, *line] if spelling else [*line, value]  # what follows `submit COMMAND` is not its own
    code, output, errors = prectr(*words.split(), *line)
    assert (code, output) == (2, ""), errors
    assert "NONE" in errors and "Traceback" not in errors
    assert sorted(tmp_path.rglob("*")) == before


def test_files_of_scores_that_are_not_there_are_refused(prectr: Prectr, tmp_path: Path) -> None:
    artifacts = [f"--{name}={tmp_path}" for name in ("tables", "samples", "preferences", "labels", "encoder")]
    given = ("--scores", "ours=NONE.csv", "--base", "ours", "--out", tmp_path / "out")
    assert prectr("evaluate", *artifacts, *given) == (2, "", "prectr: NONE.csv: no such file or directory.\n")
