"""Examples in docstrings run, and every setting has a description that stands alone."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

from jobs.settings import Settings
from prectr.core.config import setting_docs

ROOT = Path(__file__).parents[1]
WITH_EXAMPLES = sorted(
    ".".join(file.relative_to(source).with_suffix("").parts).removesuffix(".__init__")
    for source, folder in ((ROOT / "platform", "prectr"), (ROOT, "models"), (ROOT, "jobs"), (ROOT, "serve_apps"))
    for file in (source / folder).rglob("*.py")
    if ">>> " in file.read_text(encoding="utf-8")
)
CALLED_BY_USERS = ("prectr", "prectr.data.tables", "prectr.metrics.roc", "prectr.core.config", "prectr.core.text")


def test_modules_that_users_call_have_examples() -> None:
    assert set(CALLED_BY_USERS) <= set(WITH_EXAMPLES)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_in_docstrings_run(name: str) -> None:
    result = doctest.testmod(import_module(name))
    assert result.attempted > 0 and result.failed == 0


def test_every_setting_has_a_description_that_stands_alone() -> None:
    fragments = ("Of ", "That ", "Which ", "Who ", "As ", "By which", "In which", "From which", "For the ")
    for setting in setting_docs(Settings()):
        text = setting.description
        assert len(text) > 15, f"{setting.name}: no description"
        assert text[0].isupper() and text.endswith((".", ")")), f"{setting.name}: {text}"
        assert not text.startswith(fragments), f"{setting.name} is a fragment: {text}"
