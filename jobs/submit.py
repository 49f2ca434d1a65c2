"""submit: any command as a job of a Ray cluster; and `jobs list`, `logs`, `stop`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
from typer import BadParameter

from prectr import cluster_jobs, progress
from prectr.cluster_jobs import Submission
from prectr.errors import UsageError
from prectr.mirror import uri_of

NOT_SUBMITTED = ("submit", "jobs", "serve", "demo", "config", "doctor")
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

    Raises:
        UsageError: no such command, one that is not for a cluster, or wrong arguments.
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
    return arguments, None if config is None else _read(config)


def _written(parameter: Any, value: Any) -> list[str]:
    """A parameter as it stands on a command line."""
    values = list(value) if isinstance(value, list | tuple) else [value]
    texts = [(uri_of(one) or str(one.resolve())) if isinstance(one, Path) else str(one) for one in values]
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
