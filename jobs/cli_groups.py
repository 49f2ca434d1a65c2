"""Commands in groups: `prectr config`, `ledger`, `preferences` and `jobs`."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from jobs.command_line import (
    PATH,
    Address,
    Answer,
    Assignments,
    ConfigFile,
    JobName,
    Json,
    LedgerIn,
    Preferences,
    Preset,
    Relevance,
    TablesIn,
    app,
    fetch_paths,
    print_answer,
    resolve_settings,
)
from prectr.core import progress
from prectr.core.config import dump_yaml


def _group(name: str, help_: str) -> typer.Typer:
    """A group of commands."""
    group = typer.Typer(no_args_is_help=True, help=help_)
    app.add_typer(group, name=name)
    return group


config_app = _group("config", "Show the configuration.")
ledger_app = _group("ledger", "Count, export or tidy the ledger of the teacher's labels.")
jobs_app = _group("jobs", "List, follow or stop the jobs of a Ray cluster.")
preferences_app = _group("preferences", "Show what mine-preferences found, or check it.")


@ledger_app.command("stats")
def ledger_stats(ledger: LedgerIn, json_: Json = False) -> None:
    """Count labels, errors, repeats, shards and bytes of each prompt and model."""
    from jobs import ledger as job

    content = job.stats(ledger)
    print_answer(Answer(content, show=lambda: job.print_stats(content)), json_)


@ledger_app.command("export")
def ledger_export(
    ledger: LedgerIn,
    out: Annotated[Path, typer.Option("--out", help="File to write: .parquet, .csv or .jsonl.")],
    kind: Annotated[str, typer.Option(help="labels, errors or repeats.")] = "labels",
    context: Annotated[list[str] | None, typer.Option(help="Only this context; may be given more than once.")] = None,
    json_: Json = False,
) -> None:
    """Write the ledger's rows into one file, with the prompt and model of each."""
    from jobs import ledger as job

    content = job.write_export(ledger, out, kind, context or [])
    print_answer(Answer(content, show=lambda: typer.echo(f"{content['rows']:,} rows: {content['path']}")), json_)


@ledger_app.command("gc")
def ledger_gc(
    ledger: LedgerIn,
    drop: Annotated[list[str] | None, typer.Option(help="Delete this context; may be given more than once.")] = None,
    unused_days: Annotated[float | None, typer.Option(help="Delete contexts without a run in so many days.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Really delete.")] = False,
    json_: Json = False,
) -> None:
    """Merge small files and remove settled errors; no label is lost unless a context is named to be deleted."""
    from jobs import ledger as job

    content = job.gc(ledger, drop or [], unused_days, yes)
    print_answer(Answer(content, show=lambda: None), json_)


@preferences_app.command("show")
def preferences_show(
    preferences: Preferences,
    query: Annotated[str | None, typer.Argument(help="The query to show, as anybody may type it.")] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write a page with plots of all that was mined.")] = None,
    tables: Annotated[Path | None, typer.Option("--tables", help="Validated tables: adds titles.", **PATH)] = None,
    relevance: Annotated[
        Path | None,
        typer.Option("--relevance", help="Artifact of score-relevance: adds levels and sources.", **PATH),
    ] = None,
    json_: Json = False,
) -> None:
    """Show what was mined for a query; with --html, write a page about all of it; --json alone prints its figures."""
    from jobs import preferences as job

    fetch_paths(preferences, tables, relevance)
    content = job.show(preferences, query=query, html=html, tables=tables, relevance=relevance, as_json=json_)
    print_answer(Answer(content, show=lambda: job.print_shown(content)), json_)


@preferences_app.command("check")
def preferences_check(preferences: Preferences, relevance: Relevance, tables: TablesIn, json_: Json = False) -> None:
    """Compare mined tolerances with the true ones of a simulated log, beside a naive estimate and a ceiling."""
    from jobs import preferences as job

    fetch_paths(preferences, relevance, tables)
    content = job.check(preferences, relevance=relevance, tables=tables)
    print_answer(Answer(content, show=lambda: job.print_check(content)), json_)


@jobs_app.command("list")
def jobs_list(address: Address, json_: Json = False) -> None:
    """Jobs of prectr on a cluster, the newest first."""
    from prectr.cluster_jobs import job_client, jobs_table
    from prectr.reports.terminal import print_jobs

    rows = jobs_table(job_client(address))
    print_answer(Answer(rows, show=lambda: print_jobs(rows)), json_)


@jobs_app.command("logs")
def jobs_logs(
    job: JobName,
    address: Address,
    follow: Annotated[bool, typer.Option("--follow", help="Until it ends; the exit code is the job's.")] = False,
) -> None:
    """Print what a job said."""
    from prectr.cluster_jobs import existing_job, job_client
    from prectr.cluster_jobs import follow as follow_job

    client = job_client(address)
    existing_job(client, job)
    if follow:
        sys.exit(follow_job(client, job))
    typer.echo(client.get_job_logs(job), nl=False)


@jobs_app.command("stop")
def jobs_stop(job: JobName, address: Address) -> None:
    """Stop a job; the same command submitted again goes on where it was."""
    from prectr.cluster_jobs import existing_job, job_client

    client = job_client(address)
    existing_job(client, job)
    stopped = client.stop_job(job)
    progress.say(f"{job}: stopping" if stopped else f"{job}: had ended already")


@config_app.command("show")
def config_show(
    config: ConfigFile = None, set_: Assignments = None, preset: Preset = None, json_: Json = False
) -> None:
    """Print the resolved configuration; `--config` reads it back."""
    settings = resolve_settings(config, set_ or [], preset)
    typer.echo(json.dumps(settings.model_dump(mode="json")) if json_ else dump_yaml(settings).rstrip())
