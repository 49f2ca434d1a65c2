"""Presets: what they change, in which order settings outrank each other, and that no artifact is another by them."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.settings import Settings
from prectr.core.artifacts import run_stage, stage_identity
from prectr.core.config import Execution, FrozenConfig, computed_part, load_config
from prectr.core.errors import UsageError

PRESETS = Settings.presets or Path()
NAMES = sorted(file.stem for file in PRESETS.glob("*.yaml"))


def _leaves(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def _at(settings: FrozenConfig, path: str) -> Any:
    value: Any = settings
    for part in path.split("."):
        value = getattr(value, part)
    return list(value) if isinstance(value, tuple) else value


def _resolved(*assignments: str) -> Settings:
    return load_config(Settings, None, assignments)


def test_there_are_three_and_the_laptop_is_the_default() -> None:
    assert NAMES == ["cpu-cluster", "gpu-cluster", "laptop"]
    assert _resolved("preset=laptop") == Settings() == _resolved()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "laptop"])
def test_a_preset_holds_only_what_it_changes(name: str) -> None:
    changes = _leaves(yaml.safe_load((PRESETS / f"{name}.yaml").read_text(encoding="utf-8")))
    settings, defaults = _resolved(f"preset={name}"), Settings()
    assert changes and {path: _at(settings, path) for path in changes} == changes
    assert [path for path in changes if _at(settings, path) == _at(defaults, path)] == []


@pytest.mark.parametrize("name", NAMES)
def test_another_preset_makes_no_stage_run_again(name: str) -> None:
    settings, defaults = _resolved(f"preset={name}"), Settings()
    for stage in set(Settings.model_fields) - {"preset", "ray"}:  # neither is any artifact's configuration
        section, usual = getattr(settings, stage), getattr(defaults, stage)
        assert stage_identity("distill", section, {}) == stage_identity("distill", usual, {}), stage


def test_a_preset_outranks_defaults_a_file_the_preset_and_an_assignment_the_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("preset: gpu-cluster\nlabel: {replicas: {at_most: 3, cpus: 2}}\ntrain: {epochs: 5}\n")
    settings = load_config(Settings, file, ["label.replicas.cpus=6"])
    replicas = settings.label.replicas
    assert (replicas.gpus, replicas.at_most, replicas.cpus, replicas.at_least) == (1, 3, 6, 1)
    assert (settings.preset, settings.train.epochs, settings.train.gpus) == ("gpu-cluster", 5, 1)
    assert load_config(Settings, file, ["preset=cpu-cluster"]).label.replicas.gpus is None


def test_an_unknown_preset_names_the_nearest_and_the_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        _resolved("preset=gpu-clutser")
    told = (
        "preset 'gpu-clutser': no such preset. Did you mean 'gpu-cluster'? There are cpu-cluster, gpu-cluster, laptop."
    )
    assert str(caught.value) == told
    file = tmp_path / "mine.yaml"
    file.write_text("preset: ../secrets\n")
    with pytest.raises(UsageError, match=r"mine\.yaml or --set: preset '\.\./secrets': no such preset\. There are"):
        load_config(Settings, file)
    with pytest.raises(UsageError, match=r"--set preset=3: 'preset': .*valid string"):
        _resolved("preset=3")


class Inner(FrozenConfig):
    """A section."""

    copies: Execution[int] = 1
    rate: float = 0.5


class Stage(FrozenConfig):
    """A stage's settings."""

    size: int = 1
    cpus: Execution[int] = 2
    inner: Inner = Inner()
    place: Execution[Inner] = Inner()


def _run(out: Path, config: Stage) -> Any:
    return run_stage("distill", out, config=config, inputs={}, build=lambda _: {})


@pytest.mark.parametrize(
    "change",
    [{"cpus": 8}, {"inner": Inner(copies=4)}, {"place": Inner(rate=0.1)}],
    ids=lambda change: next(iter(change)),
)
def test_how_a_stage_is_carried_out_is_recorded_but_no_part_of_what_it_is(tmp_path: Path, change: Any) -> None:
    first = _run(tmp_path / "a", Stage())
    again = _run(tmp_path / "a", Stage(**change))
    assert again.skipped and again.manifest["config"] == first.manifest["config"], "what was built was built like that"
    other = _run(tmp_path / "b", Stage(**change))
    assert other.manifest["identity"] == first.manifest["identity"]
    assert other.manifest["config"] == Stage(**change).model_dump(mode="json")


@pytest.mark.parametrize("change", [{"size": 2}, {"inner": Inner(rate=0.1)}])
def test_what_decides_the_result_makes_another_artifact(tmp_path: Path, change: Any) -> None:
    _run(tmp_path / "a", Stage())
    assert not _run(tmp_path / "a", Stage(**change)).skipped


def test_the_computed_part_holds_all_but_the_marked_fields() -> None:
    assert computed_part(Stage()) == {"size": 1, "inner": {"rate": 0.5}}


def test_settings_that_change_a_figure_stay_in_the_identity() -> None:
    """Each worker draws its own dropout, and precision rounds."""
    train, teacher = computed_part(Settings().train), computed_part(Settings().teacher)
    assert {"workers", "precision", "batch_size", "rows_in_memory", "seed"} <= train.keys()
    assert {"workers", "precision", "accumulate", "max_seconds"} <= teacher.keys()
    assert not {"cpus", "gpus", "memory_gib", "tracking", "restarts"} & train.keys()
