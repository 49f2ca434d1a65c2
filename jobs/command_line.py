"""What the commands of `prectr` share: options, how settings are resolved, and how a result is printed."""

import functools
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from prectr.contracts.model_config import MODELS
from prectr.core import progress
from prectr.core.config import load_config
from prectr.core.mirror import fetch, local_path, named

app = typer.Typer(
    name="prectr",
    help="From a search log to a served ranker of joint relevance and click-through rate (PRECTR-V2 on Ray).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

PATH: Any = {"parser": local_path, "metavar": "PATH_OR_URI"}
"""What makes an option or argument take a path or the URI of one."""

ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML file with settings.")]
Assignments = Annotated[list[str] | None, typer.Option("--set", help="One setting, as section.key=value.")]
Preset = Annotated[str | None, typer.Option("--preset", help="laptop, cpu-cluster or gpu-cluster: resources.")]
Force = Annotated[bool, typer.Option("--force", help="Run even if the artifact is up to date.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
Verbose = Annotated[int, typer.Option("-v", "--verbose", count=True, help="Show what Ray and the libraries say too.")]
TablesIn = Annotated[Path, typer.Option("--tables", help="Directory of validated canonical tables.", **PATH)]
Out = Annotated[Path, typer.Option("--out", help="Directory of the artifact to publish.", **PATH)]
Samples = Annotated[Path, typer.Option("--samples", help="Artifact of build-samples.", **PATH)]
Relevance = Annotated[Path, typer.Option("--relevance", help="Artifact of score-relevance.", **PATH)]
Preferences = Annotated[Path, typer.Option("--preferences", help="Artifact of mine-preferences.", **PATH)]
Labels = Annotated[Path, typer.Option("--labels", help="Artifact of label.", **PATH)]
Memory = Annotated[
    str | None, typer.Option("--memory", help="Memory for the tasks of each machine, as 6GiB; they are cut to fit.")
]
Encoder = Annotated[Path, typer.Option("--encoder", help="Artifact of distill.", **PATH)]
Model = Annotated[str | None, typer.Option("--model", help=f"{', '.join(MODELS)}.")]
Seeds = Annotated[int, typer.Option("--seeds", min=1, help="Trainings of each model, from train.seed on.")]
Rankers = Annotated[
    Path | None,
    typer.Option("--rankers", help="Directory of bundles; by default `rankers` beside the samples.", **PATH),
]
LedgerIn = Annotated[Path, typer.Argument(help="Directory of the label ledger.", **PATH)]
Address = Annotated[
    str, typer.Option("--address", envvar="PRECTR_ADDRESS", help="Job port of the cluster, as http://HEAD:8265.")
]
JobName = Annotated[str, typer.Argument(metavar="JOB", help="As `jobs list` names it.")]

Load = Callable[..., Any]
"""Resolves the settings of a command; takes further `section.key=value` assignments, None among them is skipped."""

_COMMON = {
    "config": (ConfigFile, None),
    "set_": (Assignments, None),
    "preset": (Preset, None),
    "verbose": (Verbose, 0),
}
_OF_STAGES = {"force": (Force, False), "json_": (Json, False)}


@dataclass(frozen=True)
class Answer:
    """The result of a command that prints more than a manifest: for `--json`, and for a person."""

    content: Any
    show: Callable[[], None]


def command(name: str, stage: bool = True) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a command with the options that all commands share.

    The function's first parameter is a `Load`. A stage's function also takes `force` and returns its `StageResult`, of
    which `--json` prints the manifest (what a person reads was printed by the stage), or an `Answer`.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(**options: Any) -> None:
            config, given, preset, verbose = (options.pop(option) for option in _COMMON)
            as_json = stage and options.pop("json_")

            def load(*assignments: str | None) -> Any:
                own = (one for one in assignments if one)
                return resolve_settings(config, [*(given or []), *own], preset, verbose)

            _fetch_inputs(options)
            result = function(load, **options)
            if as_json:
                content = result.content if isinstance(result, Answer) else manifest_of(result)
                typer.echo(json.dumps(content, default=str))
            elif isinstance(result, Answer):
                result.show()

        shared = _COMMON | (_OF_STAGES if stage else {})
        own = list(inspect.signature(function).parameters.values())[1:]
        added = [
            inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)
            for option, (kind, default) in shared.items()
        ]
        own = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own if parameter.name != "force"]
        run.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in [*own, *added]}
        app.command(name)(run)
        return function

    return register


def _fetch_inputs(options: Mapping[str, Any]) -> None:
    """Bring what lies at URIs here; a stage looks after its own `--out`, a workspace is not wanted whole."""
    for name, value in options.items():
        if name not in ("out", "workspace"):
            fetch_paths(*(value if isinstance(value, list) else [value]))


def fetch_paths(*values: Any) -> None:
    """Bring here what lies at URIs, of those values that are paths."""
    for value in values:
        if isinstance(value, Path):
            fetch(value)


def manifest_of(result: Any) -> dict[str, Any]:
    """What `--json` prints of a `StageResult`."""
    return {"path": named(result.path), "skipped": result.skipped, "manifest": result.manifest}


def resolve_settings(
    config: Path | None, assignments: Sequence[str], preset: str | None = None, verbose: int = 0
) -> Any:
    """The settings of a file, a preset and assignments, which outrank each other in the reverse of this order.

    Raises:
        UsageError: an unknown key or preset, or a wrong value.
    """
    from prectr.core.ray_session import prepare_environment
    from prectr.settings import Settings

    progress.set_verbosity(verbose)
    prepare_environment()
    chosen = [] if preset is None else [f"preset={preset}"]
    return load_config(Settings, config, [*chosen, *assignments])


def print_answer(answer: Answer, as_json: bool) -> None:
    """For a program or for a person."""
    if as_json:
        typer.echo(json.dumps(answer.content, default=str))
    else:
        answer.show()
