"""The command line `prectr`: one command a stage, heavy imports inside, so that `prectr --help` is instant.

Results go to standard output, progress and messages to standard error. Exit codes: 0 done, 1 the work failed, 2 bad
usage or configuration; a user's mistake never ends in a traceback.
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from prectr import progress
from prectr.configuration import dump_yaml, load_config
from prectr.ray_errors import find_user_error

app = typer.Typer(
    name="prectr",
    help="From a search log to a served ranker of joint relevance and click-through rate (PRECTR-V2 on Ray).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
config_app = typer.Typer(no_args_is_help=True, help="Show the configuration.")
app.add_typer(config_app, name="config")

INTERRUPTED = 130

ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML file with settings.")]
Assignments = Annotated[list[str] | None, typer.Option("--set", help="One setting, as section.key=value.")]
Force = Annotated[bool, typer.Option("--force", help="Run even if the artifact is up to date.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
Verbose = Annotated[int, typer.Option("-v", "--verbose", count=True, help="Show what Ray and the libraries say too.")]
TablesIn = Annotated[Path, typer.Option("--tables", help="Directory of validated canonical tables.")]
Out = Annotated[Path, typer.Option("--out", help="Directory of the artifact to publish.")]
Samples = Annotated[Path, typer.Option("--samples", help="Artifact of build-samples.")]
Relevance = Annotated[Path, typer.Option("--relevance", help="Artifact of score-relevance.")]
Preferences = Annotated[Path, typer.Option("--preferences", help="Artifact of mine-preferences.")]
Labels = Annotated[Path, typer.Option("--labels", help="Artifact of label.")]
Encoder = Annotated[Path, typer.Option("--encoder", help="Artifact of distill.")]


def _settings(config: Path | None, assignments: list[str] | None, verbose: int = 0) -> Any:
    from prectr.ray_session import prepare_environment
    from prectr.settings import Settings

    progress.set_verbosity(verbose)
    prepare_environment()
    return load_config(Settings, config, assignments or [])


def _finish(result: Any, as_json: bool) -> None:
    """Print the manifest of a finished stage where JSON was asked for; the human line was printed by the stage."""
    if as_json:
        content = {"path": str(result.path), "skipped": result.skipped, "manifest": result.manifest}
        typer.echo(json.dumps(content, default=str))


@app.command()
def simulate(
    out: Out,
    scale: Annotated[str | None, typer.Option(help="small, medium or large.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed writes the same log.")] = None,
    placebo: Annotated[bool, typer.Option("--placebo", help="All tolerances equal.")] = False,
    config: ConfigFile = None,
    set_: Assignments = None,
    force: Force = False,
    json_: Json = False,
    verbose: Verbose = 0,
) -> None:
    """Make a log with known truth: the built-in second-hand marketplace."""
    given = [*(set_ or [])]
    given += [f"simulate.scale={scale}"] if scale is not None else []
    given += [f"simulate.seed={seed}"] if seed is not None else []
    given += ["simulate.placebo=true"] if placebo else []
    settings = _settings(config, given, verbose)
    from jobs import simulate as job

    _finish(job.run(out=out, config=settings.simulate, force=force), json_)


@app.command()
def validate(
    tables: Annotated[Path, typer.Argument(help="Directory with items, impressions and optional tables.")],
    out: Annotated[Path | None, typer.Option("--out", help="Publish the clean tables here; else check only.")] = None,
    config: ConfigFile = None,
    set_: Assignments = None,
    force: Force = False,
    json_: Json = False,
    verbose: Verbose = 0,
) -> None:
    """Check a log (Parquet or CSV) and publish it as canonical tables; bad rows go to quarantine."""
    settings = _settings(config, set_, verbose)
    from jobs import validate as job

    _finish(job.run(source=tables, out=out, config=settings.validation, force=force), json_)


@app.command("train-teacher")
def train_teacher(
    tables: TablesIn,
    out: Out,
    config: ConfigFile = None,
    set_: Assignments = None,
    force: Force = False,
    json_: Json = False,
    verbose: Verbose = 0,
) -> None:
    """Fit a causal language model to the judgments: the demo's teacher, an ordinary Hugging Face checkpoint."""
    settings = _settings(config, set_, verbose)
    from jobs import train_teacher as job
    from prectr.ray_session import ray_session
    from prectr.tables import Tables

    Tables(tables)  # a mistake is told before Ray starts
    with ray_session(settings.ray):
        _finish(job.run(tables=tables, out=out, config=settings.teacher, force=force), json_)


@app.command()
def label(
    tables: TablesIn,
    teacher: Annotated[str, typer.Option("--teacher", help="Checkpoint directory, or a model's name on the hub.")],
    out: Out,
    config: ConfigFile = None,
    set_: Assignments = None,
    force: Force = False,
    json_: Json = False,
    verbose: Verbose = 0,
) -> None:
    """Have the teacher label query-item relevance with vLLM; resumable, a rerun labels only what is missing."""
    settings = _settings(config, set_, verbose)
    from jobs import label as job
    from prectr.ray_session import ray_session
    from prectr.tables import Tables

    Tables(tables)  # a mistake is told before Ray starts
    with ray_session(settings.ray):
        _finish(job.run(tables=tables, teacher=teacher, out=out, config=settings.label, force=force), json_)


@app.command()
def distill(
    tables: TablesIn,
    labels: Labels,
    out: Out,
    config: ConfigFile = None,
    set_: Assignments = None,
    force: Force = False,
    json_: Json = False,
    verbose: Verbose = 0,
) -> None:
    """Distil the teacher's labels into a light transformer encoder."""
    settings = _settings(config, set_, verbose)
    from jobs import distill as job

    result = job.run(
        tables=tables, labels=labels, out=out, config=settings.distill, ray_config=settings.ray, force=force
    )
    _finish(result, json_)


@app.command("score-relevance")
def score_relevance(
    tables: TablesIn,
    encoder: Encoder,
    labels: Labels,
    out: Out,
    config: ConfigFile = None,
    set_: Assignments = None,
    force: Force = False,
    json_: Json = False,
    verbose: Verbose = 0,
) -> None:
    """Level probabilities of every distinct logged or candidate pair, with their source."""
    settings = _settings(config, set_, verbose)
    from jobs import score_relevance as job

    result = job.run(
        tables=tables,
        encoder=encoder,
        labels=labels,
        out=out,
        config=settings.relevance,
        ray_config=settings.ray,
        force=force,
    )
    _finish(result, json_)


@app.command("mine-preferences")
def mine_preferences(
    tables: TablesIn,
    relevance: Relevance,
    out: Out,
    config: ConfigFile = None,
    set_: Assignments = None,
    force: Force = False,
    json_: Json = False,
    verbose: Verbose = 0,
) -> None:
    """Mine which relevance levels people really click, per user, query and category."""
    settings = _settings(config, set_, verbose)
    from jobs import mine_preferences as job

    result = job.run(
        tables=tables,
        relevance=relevance,
        out=out,
        config=settings.preferences,
        ray_config=settings.ray,
        force=force,
    )
    _finish(result, json_)


@app.command("build-samples")
def build_samples(
    tables: TablesIn,
    relevance: Relevance,
    preferences: Preferences,
    out: Out,
    config: ConfigFile = None,
    set_: Assignments = None,
    force: Force = False,
    json_: Json = False,
    verbose: Verbose = 0,
) -> None:
    """Logged impressions with everything that was known before them, and the state that serving starts from."""
    settings = _settings(config, set_, verbose)
    from jobs import build_samples as job

    result = job.run(
        tables=tables,
        relevance=relevance,
        preferences=preferences,
        out=out,
        config=settings.samples,
        ray_config=settings.ray,
        force=force,
    )
    _finish(result, json_)


@app.command()
def train(
    samples: Samples,
    encoder: Encoder,
    preferences: Preferences,
    out: Out,
    model: Annotated[str | None, typer.Option(help="wide-deep, prectr or prectr-v2.")] = None,
    config: ConfigFile = None,
    set_: Assignments = None,
    force: Force = False,
    json_: Json = False,
    verbose: Verbose = 0,
) -> None:
    """Train a ranker and publish it as a bundle."""
    given = [*(set_ or []), *([f"train.model.name={model}"] if model is not None else [])]
    settings = _settings(config, given, verbose)
    from jobs import train as job

    result = job.run(
        samples=samples,
        encoder=encoder,
        preferences=preferences,
        out=out,
        config=settings.train,
        ray_config=settings.ray,
        force=force,
    )
    _finish(result, json_)


@app.command()
def evaluate(
    tables: TablesIn,
    samples: Samples,
    preferences: Preferences,
    labels: Labels,
    encoder: Encoder,
    ranker: Annotated[list[Path], typer.Option("--ranker", help="A bundle; give the option once for each.")],
    out: Out,
    config: ConfigFile = None,
    set_: Assignments = None,
    force: Force = False,
    json_: Json = False,
    verbose: Verbose = 0,
) -> None:
    """Judge rankers on the same test day, and teacher and student on held-back judged queries."""
    settings = _settings(config, set_, verbose)
    from jobs import evaluate as job
    from prectr.tabulate import print_evaluation

    result = job.run(
        tables=tables,
        samples=samples,
        preferences=preferences,
        rankers=ranker,
        labels=labels,
        encoder=encoder,
        out=out,
        config=settings.evaluate,
        force=force,
    )
    content = job.read(result.path)
    if json_:
        typer.echo(json.dumps(content))
    else:
        print_evaluation(content)


@app.command()
def report(
    workspace: Annotated[Path, typer.Option("--workspace", help="Directory that holds the stages' artifacts.")],
    evaluation: Annotated[Path, typer.Option("--evaluation", help="Artifact of evaluate.")],
    out: Out,
    config: ConfigFile = None,
    set_: Assignments = None,
    force: Force = False,
    json_: Json = False,
    verbose: Verbose = 0,
) -> None:
    """Write one self-contained HTML page about a workspace: tables, curves, wall time, definitions."""
    _settings(config, set_, verbose)
    from jobs import report as job

    result = job.run(workspace=workspace, evaluation=evaluation, out=out, force=force)
    if json_:
        _finish(result, json_)
    else:
        typer.echo(str(result.path / job.PAGE))


@app.command()
def serve(
    ranker: Annotated[Path, typer.Argument(help="The bundle to serve.")],
    port: Annotated[int | None, typer.Option(help="Port on the loopback address.")] = None,
    config: ConfigFile = None,
    set_: Assignments = None,
    verbose: Verbose = 0,
) -> None:
    """Serve a bundle over HTTP with Ray Serve until it is interrupted: `POST /score`."""
    given = [*(set_ or []), *([f"serve.port={port}"] if port is not None else [])]
    settings = _settings(config, given, verbose)
    from jobs import serve as job

    job.run(ranker=ranker, config=settings.serve, ray_config=settings.ray)


@app.command()
def score(
    ranker: Annotated[Path, typer.Argument(help="The bundle to score with.")],
    config: ConfigFile = None,
    set_: Assignments = None,
    verbose: Verbose = 0,
) -> None:
    """Score requests from standard input, one JSON object a line, to standard output."""
    settings = _settings(config, set_, verbose)
    from jobs import score as job

    job.run(ranker=ranker, source=sys.stdin, target=sys.stdout, ray_config=settings.ray)


@app.command()
def demo(
    tables: Annotated[
        Path | None, typer.Option("--tables", help="A log of your own instead of the marketplace.")
    ] = None,
    workspace: Annotated[Path, typer.Option("--workspace", help="Where the artifacts go.")] = Path("demo-workspace"),
    config: ConfigFile = None,
    set_: Assignments = None,
    verbose: Verbose = 0,
) -> None:
    """Run all stages on the built-in marketplace or a log of yours, then score a query over HTTP."""
    settings = _settings(config, set_, verbose)
    from jobs import demo as job

    job.run(workspace=workspace, source=tables, settings=settings)


@config_app.command("show")
def config_show(config: ConfigFile = None, set_: Assignments = None, json_: Json = False) -> None:
    """Print the resolved configuration; `--config` reads it back."""
    settings = _settings(config, set_)
    typer.echo(json.dumps(settings.model_dump(mode="json")) if json_ else dump_yaml(settings).rstrip())


def main(arguments: list[str] | None = None) -> None:
    """Entry point: run a command; errors that a user can mend are printed without a traceback."""
    try:
        app(args=arguments)
    except SystemExit as stopped:
        if stopped.code == INTERRUPTED:  # typer's answer to Ctrl-C
            typer.echo("prectr: interrupted; published artifacts are whole, run the same command to go on.", err=True)
        raise
    except Exception as error:
        known = find_user_error(error)
        if known is None:
            raise
        typer.echo(f"prectr: {known}", err=True)
        sys.exit(known.exit_code)


def run_job(name: str) -> None:
    """`python -m jobs.NAME ...` is `prectr NAME ...`."""
    main([name, *sys.argv[1:]])


if __name__ == "__main__":
    main()
