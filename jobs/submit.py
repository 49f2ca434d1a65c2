"""submit: any command as a job of a Ray cluster; and `jobs list`, `logs`, `stop`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel
from typer import BadParameter

from prectr import cluster_jobs
from prectr.cluster_jobs import Submission
from prectr.core import progress
from prectr.core.config import load_config
from prectr.core.errors import UsageError
from prectr.core.mirror import uri_of
from prectr.settings import Settings

NOT_SUBMITTED = ("submit", "jobs", "serve", "demo", "config", "doctor")
URI = "://"
NEW_PATHS = ("publish", "to")
"""Strings that name a directory, which need not be there yet, or Redis."""
PATH_OR_NAME = ("teacher", "base_model", *NEW_PATHS)
"""Strings that may name a directory; the others else a model on the hub."""
CommandLineError = BadParameter.__mro__[2]
"""The base of all that is wrong with a command line."""


def run(
    command: Sequence[str],
    *,
    app: typer.Typer,
    address: str,
    mode: str,
    environment: Sequence[str],
    resources: dict[str, float],
    submission_id: str | None,
) -> tuple[str, int | None]:
    """Submit a command.

    Args:
        command: as on the command line, such as ["train", "--samples", ...]; it is checked before anything is sent.
        app: the command line that knows the command.
        address: of the job port.
        mode: `follow` (print what the job says), `wait`, or `submit` (return at once).
        environment: NAME=VALUE of the job.
        resources: of the entry point.
        submission_id: by which it is found again.

    Returns:
        the job's id, and its exit code unless `mode` is `submit`.

    Raises:
        UsageError: no such command, wrong arguments, or no cluster there.
        PrectrError: the cluster refused it.
    """
    arguments, config = absolute_arguments(command, app)
    wrong = [entry for entry in environment if "=" not in entry]
    if wrong:
        raise UsageError(f"--env {wrong[0]}: write it as NAME=VALUE.")
    client = cluster_jobs.job_client(address)
    job = cluster_jobs.submit(
        client,
        Submission(
            command=arguments,
            config=config,
            environment=dict(entry.split("=", 1) for entry in environment),
            resources=resources,
            submission_id=submission_id,
        ),
    )
    progress.say(f"submitted {arguments[0]} as {job}")
    if mode == "submit":
        return job, None
    return job, (cluster_jobs.follow if mode == "follow" else cluster_jobs.wait)(client, job)


def absolute_arguments(command: Sequence[str], app: typer.Typer) -> tuple[list[str], str | None]:
    """A command line that means the same elsewhere: paths made absolute; and the content of its `--config` file.

    Paths in the settings are made absolute by further `--set`, so that the file travels as it is.

    Raises:
        UsageError: no such command, one that is not for a cluster, wrong arguments or settings.
    """
    if not command:
        raise UsageError("submit: name a command, such as prectr submit train --address URL -- --samples ...")
    name, *given = command
    group: Any = typer.main.get_command(app)  # typer brings a click of its own, without public names for its classes
    found = group.commands.get(name)
    if found is None or name in NOT_SUBMITTED:
        able = ", ".join(sorted(set(group.commands) - set(NOT_SUBMITTED)))
        raise UsageError(f"submit {name}: no command for a cluster; there are {able}.")
    try:
        context = found.make_context(name, list(given))
    except CommandLineError as error:
        raise UsageError(f"submit {name}: {error.format_message()}") from None
    config: Path | None = context.params.pop("config", None)
    arguments = [name]
    for parameter in found.params:
        value = context.params.get(parameter.name or "")
        if value in (None, False, 0, (), []) or value == parameter.default:
            continue
        arguments += _written(parameter, value)
    if "set_" in context.params:
        settings = load_config(Settings, config, context.params["set_"] or ())
        for setting, path in _relative_paths(settings, name):
            arguments += ["--set", f"{setting}={path.resolve()}"]
    return arguments, None if config is None else _read(config)


def _relative_paths(section: BaseModel, command: str, prefix: str = "") -> Iterator[tuple[str, Path]]:
    """Settings that hold a relative path: those that were given, and the defaults of the command's own section."""
    for name in type(section).model_fields:
        value, setting = getattr(section, name), f"{prefix}{name}"
        if isinstance(value, BaseModel):
            yield from _relative_paths(value, command, f"{setting}.")
        elif name in section.model_fields_set or prefix == f"{command}.":
            path = _as_path(name, value)
            if path is not None and not path.is_absolute():
                yield setting, path


def _as_path(name: str, value: Any) -> Path | None:
    """A value as a path of this machine, if it is one."""
    if isinstance(value, Path):
        return value
    named = isinstance(value, str) and name in PATH_OR_NAME and URI not in value
    return Path(value) if named and (name in NEW_PATHS or Path(value).exists()) else None


def _written(parameter: Any, value: Any) -> list[str]:
    """A parameter as it stands on a command line."""
    values = list(value) if isinstance(value, list | tuple) else [value]
    paths = [_as_path(parameter.name, one) for one in values]
    texts = [
        str(one) if path is None else uri_of(path) or str(path.resolve())
        for one, path in zip(values, paths, strict=True)
    ]
    if parameter.param_type_name != "option":
        return texts
    option = max(parameter.opts, key=len)
    if parameter.is_flag:
        return [option]
    if parameter.count:
        return [option] * int(value)
    return [part for text in texts for part in (option, text)]


def _read(config: Path) -> str:
    try:
        return config.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{config}: cannot read the configuration file ({error}).") from None


if __name__ == "__main__":
    from jobs.cli import run_job

    run_job("submit")
