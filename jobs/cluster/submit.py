"""submit: run any command as a job of a Ray cluster; jobs list, logs, stop: manage such jobs."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from typer import BadParameter

from jobs.cluster import cluster_jobs
from jobs.cluster.cluster_jobs import Submission
from jobs.options import Address, Answer, command
from jobs.settings import Settings
from prectr.core import progress
from prectr.core.config import load_config
from prectr.core.errors import UsageError, shorten
from prectr.core.mirror import uri_of
from prectr.core.ray_session import parse_gib
from prectr.reports.terminal import print_jobs

NOT_SUBMITTED = ("submit", "jobs", "serve", "teacher", "demo", "config", "doctor")
URI = "://"
NEW_PATHS = ("publish", "to")
"""Strings that name Redis or a directory, which need not exist yet."""
PATH_OR_NAME = ("teacher", "base_model", *NEW_PATHS)
"""Strings that may name a directory. Otherwise they name a model on the hub, or are one of `NEW_PATHS`."""
CommandLineError: type[Any] = BadParameter.__mro__[2]
"""Base class of command-line errors."""


@command("submit", as_json=False, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def run_command(
    *,
    context: typer.Context,
    words: Annotated[list[str], typer.Argument(metavar="COMMAND...", help="A command of prectr and its options.")],
    address: Address,
    follow: Annotated[bool, typer.Option("--follow", help="Print the job's output until it ends.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it has ended.")] = False,
    env: Annotated[list[str] | None, typer.Option("--env", help="NAME=VALUE of the job.")] = None,
    cpus: Annotated[float | None, typer.Option("--cpus", help="CPUs of the driver itself.")] = None,
    gpus: Annotated[float | None, typer.Option("--gpus", help="GPUs of the driver itself.")] = None,
    memory: Annotated[str | None, typer.Option("--memory", help="Memory of the driver itself, as 4GiB.")] = None,
    job_id: Annotated[
        str | None, typer.Option("--id", help="Name of the job. Run it again with the same --id to resume that job.")
    ] = None,
) -> Answer:
    """`prectr submit`: submit a command, and follow it or wait for it if asked to."""
    resources = {
        "entrypoint_num_cpus": cpus,
        "entrypoint_num_gpus": gpus,
        "entrypoint_memory": None if memory is None else int(parse_gib(memory) * 2**30),
    }
    _, code = run(
        words,
        commands=context.find_root().command,
        address=address,
        mode="follow" if follow else "wait" if wait else "submit",
        environment=env or [],
        resources={name: value for name, value in resources.items() if value is not None},
        submission_id=job_id,
    )
    return Answer(None, show=lambda: None, exit_code=code or 0)


@command("jobs list", show=lambda rows: Answer(rows, show=lambda: print_jobs(rows)))
def list_jobs(*, address: Address) -> list[dict[str, Any]]:
    """Jobs of prectr on a cluster, the newest first."""
    return cluster_jobs.jobs_table(cluster_jobs.job_client(address))


JobName = Annotated[str, typer.Argument(metavar="JOB", help="As `jobs list` names it.")]


@command("jobs logs", as_json=False)
def print_logs(
    *,
    job: JobName,
    address: Address,
    follow: Annotated[bool, typer.Option("--follow", help="Until it ends; the exit code is the job's.")] = False,
) -> Answer:
    """Print the output of a job."""
    client = cluster_jobs.job_client(address)
    cluster_jobs.existing_job(client, job)
    if follow:
        return Answer(None, show=lambda: None, exit_code=cluster_jobs.follow(client, job))
    return Answer(None, show=lambda: typer.echo(client.get_job_logs(job), nl=False))


@command("jobs stop", as_json=False)
def stop(*, job: JobName, address: Address) -> None:
    """Stop a job; the same command submitted again goes on where it was."""
    client = cluster_jobs.job_client(address)
    cluster_jobs.existing_job(client, job)
    progress.say(f"{job}: stopping" if client.stop_job(job) else f"{job}: had ended already")


def run(
    words: Sequence[str],
    *,
    commands: Any,
    address: str,
    mode: str,
    environment: Sequence[str],
    resources: dict[str, float],
    submission_id: str | None,
) -> tuple[str, int | None]:
    """Submit a command.

    Args:
        words: as on the command line, such as ["train", "--samples", ...]; checked before anything is sent.
        commands: `jobs.cli.command_table()`.
        address: of the job port.
        mode: `follow` (print the job's output), `wait`, or `submit` (return at once).
        environment: NAME=VALUE of the job.
        resources: of the entry point.
        submission_id: name of the job; the same name resumes it.

    Returns:
        the job's id, and its exit code unless `mode` is `submit`.

    Raises:
        UsageError: no such command, wrong arguments, or no cluster there.
        PrectrError: the cluster refused it.
    """
    arguments, config = absolute_arguments(words, commands)
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


def absolute_arguments(words: Sequence[str], commands: Any) -> tuple[list[str], str | None]:
    """A command line with absolute paths, which means the same on another machine; and its `--config` file's content.

    Paths in the settings become absolute by further `--set` options, so that the file itself is sent unchanged.

    Raises:
        UsageError: no such command, one that is not for a cluster, wrong arguments or settings.
    """
    if not words:
        raise UsageError("submit: name a command, such as prectr submit train --address URL -- --samples ...")
    name, *given = words
    parsed_command = commands.command_of(name)
    if parsed_command is None or name in NOT_SUBMITTED:
        able = ", ".join(sorted(set(commands.commands) - set(NOT_SUBMITTED)))
        raise UsageError(f"submit {name}: no command for a cluster; there are {able}.")
    try:
        context = parsed_command.make_context(name, list(given))
    except CommandLineError as error:
        raise UsageError(f"submit {name}: {error.format_message()}") from None
    config: Path | None = context.params.pop("config_file", None)
    arguments = [name]
    for parameter in parsed_command.params:
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
    """Settings that hold a relative path: those that the user set, and defaults of the command's own section."""
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
    """A parameter as words of a command line."""
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
        raise UsageError(f"{config}: cannot read the configuration file ({shorten(error)}).") from None
