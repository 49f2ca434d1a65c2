"""Options that commands share, and `command`, which makes a command of a job's function.

The function is written once, for Python and for the command line: its annotated parameters are the options, and its
parameters of a settings type are filled from the configuration.
"""

import inspect
import json
import os
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import typer

from jobs.settings import Settings
from prectr.contracts.model_config import MODELS
from prectr.core import progress
from prectr.core.artifacts import StageResult, require_artifact
from prectr.core.config import FrozenConfig, load_config
from prectr.core.errors import UsageError
from prectr.core.mirror import fetch, local_path, named
from prectr.core.ray_session import parse_gib, prepare_environment
from prectr.core.secrets import mask_logs, masked

PATH: Any = {"parser": local_path, "metavar": "PATH_OR_URI"}
"""Keywords of an option or argument that takes a path or a URI."""

ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML file with settings.")]
Assignments = Annotated[list[str] | None, typer.Option("--set", help="One setting, as section.key=value.")]
Preset = Annotated[str | None, typer.Option("--preset", help="laptop, cpu-cluster or gpu-cluster: resources.")]
Force = Annotated[bool, typer.Option("--force", help="Run even if the artifact is up to date.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
Verbose = Annotated[int, typer.Option("-v", "--verbose", count=True, help="Show messages of Ray and libraries too.")]
TablesIn = Annotated[Path, typer.Option("--tables", help="Directory of validated canonical tables.", **PATH)]
Out = Annotated[Path, typer.Option("--out", help="Directory of the artifact to publish.", **PATH)]
Samples = Annotated[Path, typer.Option("--samples", help="Artifact of build-samples.", **PATH)]
Relevance = Annotated[Path, typer.Option("--relevance", help="Artifact of score-relevance.", **PATH)]
Preferences = Annotated[Path, typer.Option("--preferences", help="Artifact of mine-preferences.", **PATH)]
Labels = Annotated[Path, typer.Option("--labels", help="Artifact of label.", **PATH)]
Encoder = Annotated[Path, typer.Option("--encoder", help="Artifact of distill.", **PATH)]
Teacher = Annotated[
    str, typer.Option("--teacher", help="Checkpoint directory, a model's name on the hub, or a server's URL.")
]
Seeds = Annotated[int, typer.Option("--seeds", min=1, help="Trainings of each model, from train.seed on.")]
Rankers = Annotated[
    Path | None,
    typer.Option("--rankers", help="Directory of bundles; by default `rankers` beside the samples.", **PATH),
]
Address = Annotated[
    str, typer.Option("--address", envvar="PRECTR_ADDRESS", help="Job port of the cluster, as http://HEAD:8265.")
]


@dataclass(frozen=True)
class Shortcut:
    """An option that stands for a setting; it is no parameter of the job.

    Attributes:
        path: of the setting, such as `train.model.name`.
        option: the annotation of the option.
        parse: makes the setting's value of the option's.
    """

    path: str
    option: Any
    parse: Callable[[Any], Any] | None = None


MEMORY = {
    "memory": Shortcut(
        "ray.memory_gib",
        Annotated[str | None, typer.Option(help="Memory for tasks on each machine, as 6GiB; tasks are cut to fit.")],
        parse_gib,
    )
}
MODEL = {"model": Shortcut("train.model.name", Annotated[str | None, typer.Option(help=f"{', '.join(MODELS)}.")])}
PORT = {"port": Shortcut("serve.port", Annotated[int | None, typer.Option(help="Port on the loopback address.")])}

_MADE = ("out", "workspace", "html", "rankers", "report")
"""Options with paths that a command makes where they are missing."""
_STAGES = {
    "samples": "build-samples",
    "relevance": "score-relevance",
    "preferences": "mine-preferences",
    "labels": "label",
    "encoder": "distill",
    "ranker": "train",
    "evaluation": "evaluate",
    "ablation": "evaluate",
}
"""Stages that make the artifacts which options take."""
_SETTINGS = {
    "config_file": (ConfigFile, None),
    "set_": (Assignments, None),
    "preset": (Preset, None),
    "verbose": (Verbose, 0),
}


@dataclass(frozen=True)
class Answer:
    """The result of a command that prints more than a manifest: for `--json`, and for a person."""

    content: Any
    show: Callable[[], None]
    exit_code: int = 0


@dataclass(frozen=True)
class Command:
    """A registered command: its function with the signature that typer reads, and how typer reads it."""

    callback: Callable[..., None]
    context_settings: dict[str, Any] | None


REGISTERED: dict[str, Command] = {}
"""Commands of the modules that were imported, by their words on the command line, such as `jobs list`."""


def command(
    name: str,
    *,
    shortcuts: Mapping[str, Shortcut] | None = None,
    show: Callable[[Any], Answer] | None = None,
    as_json: bool = True,
    context_settings: dict[str, Any] | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function as a command and return it unchanged.

    Parameters that are annotated with a typer option or argument become options. Parameters whose type is a section of
    the settings, or all `Settings`, are filled from the configuration. Other parameters keep their defaults. The
    function returns a `StageResult` (`--json` prints its manifest), an `Answer`, or None.

    Args:
        name: words on the command line, such as `ledger stats`.
        shortcuts: options that stand for a setting, such as `MODEL`.
        show: makes an `Answer` of the function's result.
        as_json: whether the command has `--json`.
        context_settings: of click, for unusual command lines.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        parameters = inspect.signature(function).parameters.values()
        own = [parameter for parameter in parameters if _is_option(parameter.annotation)]
        sections = {parameter.name: kind for parameter in parameters if (kind := _section(parameter.annotation))}
        short = dict(shortcuts or {})

        def run(**options: Any) -> None:
            config_file, assignments, preset, verbose = (options.pop(option) for option in _SETTINGS)
            json_ = as_json and options.pop("json_")
            own_settings = [text for option, one in short.items() for text in _assignment(one, options.pop(option))]
            settings = resolve_settings(config_file, [*(assignments or []), *own_settings], preset, verbose)
            for option, value in options.items():
                paths = [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, Path)]
                if option not in ("out", "workspace"):  # a stage looks after its own output
                    fetch_paths(*paths)
                if option not in _MADE:
                    require_paths(option, *paths)
            result = function(**options, **{option: _section_of(settings, kind) for option, kind in sections.items()})
            print_result(show(result) if show else result, json_)

        added = [
            *((option, shortcut.option, None) for option, shortcut in short.items()),
            *((option, kind, default) for option, (kind, default) in _SETTINGS.items()),
            *([("json_", Json, False)] if as_json else []),
        ]
        signature = [
            *(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own),
            *(
                inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)
                for option, kind, default in added
            ),
        ]
        run.__signature__ = inspect.Signature(signature)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in signature}
        REGISTERED[name] = Command(run, context_settings)
        return function

    return register


def _is_option(annotation: Any) -> bool:
    return annotation is typer.Context or (
        get_origin(annotation) is Annotated
        and any(isinstance(mark, typer.models.ParameterInfo) for mark in get_args(annotation)[1:])
    )


def _section(annotation: Any) -> type[FrozenConfig] | None:
    """The settings type of a parameter such as `config: TrainConfig` or `ray_config: RayConfig | None`."""
    kinds = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, FrozenConfig)), None)


def _section_of(settings: Any, kind: type[FrozenConfig]) -> FrozenConfig:
    section: FrozenConfig = settings if isinstance(settings, kind) else getattr(settings, _section_names()[kind])
    return section


@cache
def _section_names() -> dict[Any, str]:
    return {field.annotation: name for name, field in Settings.model_fields.items()}


def _assignment(shortcut: Shortcut, value: Any) -> list[str]:
    """The assignment of a shortcut that was given."""
    if value is None or value is False:
        return []
    setting = value if shortcut.parse is None else shortcut.parse(value)
    return [f"{shortcut.path}={setting if isinstance(setting, str) else json.dumps(setting)}"]


def fetch_paths(*values: Any) -> None:
    """Fetch what lies at URIs, of those values that are paths."""
    for value in values:
        if isinstance(value, Path):
            fetch(value)


def require_paths(option: str, *paths: Path) -> None:
    """Check that the paths of an option are there.

    Raises:
        UsageError: one is not; the message names the command that makes it, if one does.
    """
    for path in paths:
        if os.path.exists(path):
            continue
        if option in _STAGES:
            require_artifact(path, _STAGES[option])
        if option == "tables":
            from prectr.data.tables import Tables

            Tables(path)
        raise UsageError(f"{path}: no such file or directory.")


def manifest_of(result: StageResult) -> dict[str, Any]:
    """What `--json` prints of a stage."""
    return {"path": named(result.path), "skipped": result.skipped, "manifest": result.manifest}


def resolve_settings(
    config: Path | None, assignments: Sequence[str], preset: str | None = None, verbose: int = 0
) -> Any:
    """The settings of a file, a preset and assignments, which outrank each other in the reverse of this order.

    Raises:
        UsageError: an unknown key or preset, or a wrong value.
    """
    progress.set_verbosity(verbose)
    mask_logs()
    prepare_environment()
    chosen = [] if preset is None else [f"preset={preset}"]
    return load_config(Settings, config, [*chosen, *assignments])


def print_result(result: Any, as_json: bool) -> None:
    """Print the result of a command, for a program or for a person; stages printed their own lines already."""
    if as_json:
        content = result.content if isinstance(result, Answer) else manifest_of(result)
        typer.echo(masked(json.dumps(content, default=str)))
    elif isinstance(result, Answer):
        result.show()
    if isinstance(result, Answer) and result.exit_code:
        sys.exit(result.exit_code)
