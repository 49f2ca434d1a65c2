"""Configuration: messages for wrong keys, values and files; merging of files and `--set`."""

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from prectr.core.config import FrozenConfig, dump_yaml, load_config
from prectr.core.errors import UsageError


class Inner(FrozenConfig):
    rate: float = 0.5
    names: tuple[str, ...] = ("a",)


class Outer(FrozenConfig):
    inner: Inner = Inner()
    spare: Inner | None = None
    seed: int = 7


def _file(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "mine.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_assignments_override_the_file_and_the_file_the_defaults(tmp_path: Path) -> None:
    file = _file(tmp_path, "inner: {rate: 0.25}\nseed: 1\n")
    assert load_config(Outer, file, ["seed=2"]) == Outer(inner=Inner(rate=0.25), seed=2)


@pytest.mark.parametrize("assignments", [(), ("seed=3",)])
def test_unknown_key_in_a_file_names_key_file_and_nearest(tmp_path: Path, assignments: tuple[str, ...]) -> None:
    file = _file(tmp_path, "inner: {raet: 0.25}\n")
    with pytest.raises(UsageError) as caught:
        load_config(Outer, file, assignments)
    assert str(caught.value) == f"{file}: unknown key 'inner.raet'. Did you mean 'inner.rate'?"


def test_unknown_key_of_an_assignment_names_it() -> None:
    with pytest.raises(UsageError) as caught:
        load_config(Outer, None, ["sed=3"])
    assert str(caught.value) == "--set sed=3: unknown key 'sed'. Did you mean 'seed'?"


def test_unknown_key_like_nothing_lists_the_valid_ones() -> None:
    with pytest.raises(UsageError, match=r"--set inner\.zzzz=1: unknown key .* Valid keys here: rate, names\."):
        load_config(Outer, None, ["inner.zzzz=1"])


def test_unknown_key_in_an_optional_section_is_explained_too() -> None:
    with pytest.raises(UsageError, match=r"unknown key 'spare\.raet'\. Did you mean 'spare\.rate'\?"):
        load_config(Outer, None, ["spare.raet=1"])


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("seed=many", r"--set seed=many: 'seed': .*valid integer.*\(got 'many'\)"),
        ("inner=3", r"--set inner=3: 'inner': .*\(got 3\)"),
        ("seed.deep=3", r"--set seed\.deep=3: 'seed'"),
        ("seed", r"--set seed: write it as section\.key=value"),
        ("=3", r"--set =3: write it as section\.key=value"),
    ],
)
def test_wrong_values_name_the_assignment(assignment: str, expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        load_config(Outer, None, [assignment])


@pytest.mark.parametrize(
    ("text", "expected"),
    [("inner: [1\n", "not valid YAML"), ("- 1\n", "must be a mapping of sections, got list"), ("1: 2\n", "'1'")],
)
def test_bad_files_name_the_file(tmp_path: Path, text: str, expected: str) -> None:
    file = _file(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        load_config(Outer, file)
    assert str(caught.value).startswith(f"{file}: ") and expected in str(caught.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.yaml: cannot read the configuration file"):
        load_config(Outer, tmp_path / "nowhere.yaml")


def test_empty_file_means_the_defaults(tmp_path: Path) -> None:
    assert load_config(Outer, _file(tmp_path, "# nothing\n")) == Outer()


def test_frozen() -> None:
    with pytest.raises(ValidationError):
        Outer().seed = 8  # type: ignore[misc]


def test_dumped_yaml_reads_back(tmp_path: Path) -> None:
    config = Outer(inner=Inner(rate=0.125, names=("ä", "no")), spare=Inner(), seed=11)
    assert load_config(Outer, _file(tmp_path, dump_yaml(config))) == config
    assert list(yaml.safe_load(dump_yaml(config))) == ["inner", "spare", "seed"]
