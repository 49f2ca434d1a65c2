"""The command line `prectr`: one command a stage, heavy imports inside, so that `prectr --help` is instant.

Results go to standard output, progress and messages to standard error. Exit codes: 0 done, 1 the work failed, 2 bad
usage or configuration; a user's mistake never ends in a traceback.
"""

import functools
import inspect
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from prectr import progress
from prectr.configuration import dump_yaml, load_config
from prectr.errors import UsageError
from prectr.mirror import fetch, local_path, named, with_uris
from prectr.model_config import MODELS
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
ledger_app = typer.Typer(no_args_is_help=True, help="Count, export or tidy the ledger of the teacher's labels.")
app.add_typer(ledger_app, name="ledger")
jobs_app = typer.Typer(no_args_is_help=True, help="List, follow or stop the jobs of a Ray cluster.")
app.add_typer(jobs_app, name="jobs")
preferences_app = typer.Typer(no_args_is_help=True, help="Show what mine-preferences found, or check it.")
app.add_typer(preferences_app, name="preferences")

INTERRUPTED = 130

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
                return _settings(config, [*_preset(preset), *(given or []), *own], verbose)

            _fetch_inputs(options)
            result = function(load, **options)
            if as_json:
                content = result.content if isinstance(result, Answer) else _manifest(result)
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


def _fetch_inputs(options: dict[str, Any]) -> None:
    """Bring what lies at URIs here; a stage looks after its own `--out`, a workspace is not wanted whole."""
    for name, value in options.items():
        if name not in ("out", "workspace"):
            for path in value if isinstance(value, list) else [value]:
                if isinstance(path, Path):
                    fetch(path)


def _manifest(result: Any) -> dict[str, Any]:
    return {"path": named(result.path), "skipped": result.skipped, "manifest": result.manifest}


def _preset(name: str | None) -> list[str]:
    return [] if name is None else [f"preset={name}"]


def _settings(config: Path | None, assignments: list[str], verbose: int = 0) -> Any:
    from prectr.ray_session import prepare_environment
    from prectr.settings import Settings

    progress.set_verbosity(verbose)
    prepare_environment()
    return load_config(Settings, config, assignments)


@command("simulate")
def simulate(
    load: Load,
    force: bool,
    out: Out,
    scale: Annotated[str | None, typer.Option(help="small, medium or large.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed writes the same log.")] = None,
    placebo: Annotated[bool, typer.Option("--placebo", help="All tolerances equal.")] = False,
    catalogue: Annotated[
        Path | None,
        typer.Option("--catalogue", help="Validated tables: their items, queries and judgments are used.", **PATH),
    ] = None,
) -> Any:
    """Make a log with known truth: the built-in second-hand marketplace, or its users on a real catalogue."""
    settings = load(
        None if scale is None else f"simulate.scale={scale}",
        None if seed is None else f"simulate.seed={seed}",
        "simulate.placebo=true" if placebo else None,
    )
    from jobs import simulate as job

    return job.run(out=out, config=settings.simulate, catalogue=catalogue, force=force)


@command("validate")
def validate(
    load: Load,
    force: bool,
    tables: Annotated[Path, typer.Argument(help="Directory with items, impressions and optional tables.", **PATH)],
    out: Annotated[
        Path | None, typer.Option("--out", help="Publish the clean tables here; else check only.", **PATH)
    ] = None,
) -> Any:
    """Check a log (Parquet or CSV) and publish it as canonical tables; bad rows go to quarantine."""
    settings = load()
    from jobs import validate as job

    return job.run(source=tables, out=out, config=settings.validation, force=force)


@command("import")
def import_log(
    load: Load,
    force: bool,
    source: Annotated[str, typer.Argument(help="wands, esci, home-depot, kuaisearch, diginetica or mapping.")],
    path: Annotated[Path, typer.Argument(help="Where the published files lie; for mapping, the YAML file.", **PATH)],
    out: Out,
) -> Any:
    """Bring a published data set, or any log that a mapping file describes, into canonical tables."""
    settings = load()
    from jobs import import_log as job

    return job.run(
        source=source,
        path=path,
        out=out,
        config=settings.importing,
        validation=settings.validation,
        force=force,
    )


@command("train-teacher")
def train_teacher(load: Load, force: bool, tables: TablesIn, out: Out) -> Any:
    """Fit a causal language model to the judgments: the demo's teacher, an ordinary Hugging Face checkpoint."""
    settings = load()
    from jobs import train_teacher as job

    return job.run(tables=tables, out=out, config=settings.teacher, ray_config=settings.ray, force=force)


@command("select-pairs")
def select_pairs(load: Load, force: bool, tables: TablesIn, out: Out) -> Any:
    """Choose which pairs the teacher is asked about; `label` does it by itself, unless it is given a selection."""
    settings = load()
    from jobs import select_pairs as job

    return job.run(tables=tables, out=out, config=settings.selection, force=force)


@command("label")
def label(
    load: Load,
    force: bool,
    teacher: Annotated[
        str, typer.Option("--teacher", help="Checkpoint directory, a model's name on the hub, or a server's URL.")
    ],
    tables: Annotated[
        Path | None, typer.Option("--tables", help="Directory of validated canonical tables.", **PATH)
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Directory of the artifact to publish.", **PATH)] = None,
    selection: Annotated[
        Path | None,
        typer.Option("--selection", help="Artifact of select-pairs, or a file with query and item_id.", **PATH),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Ask even more questions than label.confirm_above.")] = False,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Ask again what failed in earlier runs.")
    ] = False,
    report: Annotated[bool, typer.Option("--report", help="Also write OUT/report.html about the labels.")] = False,
    show_prompt: Annotated[bool, typer.Option("--show-prompt", help="Print one prompt, and label nothing.")] = False,
    serve: Annotated[
        bool, typer.Option("--serve", help="Serve the teacher over HTTP; --out is where its calibration comes from.")
    ] = False,
    port: Annotated[int | None, typer.Option(help="Port of --serve on the loopback address.")] = None,
) -> Any:
    """Have the teacher label query-item relevance with vLLM; resumable, a rerun labels only what is missing."""
    settings = load(None if port is None else f"serve.port={port}")
    if show_prompt:
        from jobs import show_prompt as printer

        text = printer.run(teacher=teacher, tables=tables, config=settings.label)
        return Answer({"prompt": text}, show=lambda: typer.echo(text))
    if serve:
        from jobs import serve_teacher

        serve_teacher.run(
            teacher=teacher, labels=out, config=settings.label, serve=settings.serve, ray_config=settings.ray
        )
        return Answer({}, show=lambda: None)
    if tables is None or out is None:
        raise UsageError("label: give --tables and --out (only --show-prompt and --serve do without).")
    from jobs import label as job

    result = job.run(
        tables=tables,
        teacher=teacher,
        out=out,
        config=settings.label,
        selection=selection or settings.selection,
        ray_config=settings.ray,
        yes=yes,
        retry_errors=retry_errors,
        force=force,
    )
    if report:
        job.write_report(result.path)
    return result


@ledger_app.command("stats")
def ledger_stats(ledger: LedgerIn, json_: Json = False) -> None:
    """Count labels, errors, repeats, shards and bytes of each prompt and model."""
    from jobs import ledger as job

    content = job.stats(ledger)
    _answer(Answer(content, show=lambda: job.print_stats(content)), json_)


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
    _answer(Answer(content, show=lambda: typer.echo(f"{content['rows']:,} rows: {content['path']}")), json_)


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
    _answer(Answer(content, show=lambda: None), json_)


@command("distill")
def distill(
    load: Load,
    force: bool,
    tables: TablesIn,
    labels: Labels,
    out: Out,
) -> Any:
    """Distil the teacher's labels into a light transformer encoder."""
    settings = load()
    from jobs import distill as job

    return job.run(tables=tables, labels=labels, out=out, config=settings.distill, ray_config=settings.ray, force=force)


@command("score-relevance")
def score_relevance(
    load: Load,
    force: bool,
    tables: TablesIn,
    encoder: Encoder,
    labels: Labels,
    out: Out,
) -> Any:
    """Level probabilities of every distinct logged or candidate pair, with their source."""
    settings = load()
    from jobs import score_relevance as job

    return job.run(
        tables=tables,
        encoder=encoder,
        labels=labels,
        out=out,
        config=settings.relevance,
        ray_config=settings.ray,
        force=force,
    )


def _memory(given: str | None) -> str | None:
    """`--memory` as an assignment of the setting behind it."""
    if given is None:
        return None
    from prectr.ray_session import parse_gib

    return f"ray.memory_gib={parse_gib(given)}"


@command("mine-preferences")
def mine_preferences(
    load: Load,
    force: bool,
    tables: TablesIn,
    relevance: Relevance,
    out: Out,
    memory: Memory = None,
) -> Any:
    """Mine which relevance levels people really click, per user, query and category."""
    settings = load(_memory(memory))
    from jobs import mine_preferences as job

    return job.run(
        tables=tables,
        relevance=relevance,
        out=out,
        config=settings.preferences,
        ray_config=settings.ray,
        force=force,
    )


@command("build-samples")
def build_samples(
    load: Load,
    force: bool,
    tables: TablesIn,
    relevance: Relevance,
    preferences: Preferences,
    out: Out,
    memory: Memory = None,
) -> Any:
    """Logged impressions with everything that was known before them, and the state that serving starts from."""
    settings = load(_memory(memory))
    from jobs import build_samples as job

    return job.run(
        tables=tables,
        relevance=relevance,
        preferences=preferences,
        out=out,
        config=settings.samples,
        ray_config=settings.ray,
        force=force,
    )


@command("train")
def train(
    load: Load,
    force: bool,
    samples: Samples,
    encoder: Encoder,
    preferences: Preferences,
    out: Out,
    model: Model = None,
) -> Any:
    """Train a ranker and publish it as a bundle."""
    settings = load(None if model is None else f"train.model.name={model}")
    from jobs import train as job

    return job.run(
        samples=samples,
        encoder=encoder,
        preferences=preferences,
        out=out,
        config=settings.train,
        ray_config=settings.ray,
        force=force,
    )


@command("sweep")
def sweep(
    load: Load,
    force: bool,
    samples: Samples,
    encoder: Encoder,
    out: Out,
    model: Model = None,
    trials: Annotated[int | None, typer.Option(help="Trials in all.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a sweep that was stopped; fail without one.")
    ] = False,
) -> Any:
    """Search the settings of train with Ray Tune; the best are written as a file that train --config takes."""
    settings = load(
        None if model is None else f"train.model.name={model}", None if trials is None else f"sweep.trials={trials}"
    )
    from jobs import sweep as job

    return job.run(
        samples=samples,
        encoder=encoder,
        out=out,
        config=settings.sweep,
        train=settings.train,
        ray_config=settings.ray,
        resume=resume,
        force=force,
    )


@command("evaluate")
def evaluate(
    load: Load,
    force: bool,
    tables: TablesIn,
    samples: Samples,
    preferences: Preferences,
    labels: Labels,
    encoder: Encoder,
    out: Out,
    models: Annotated[
        str | None, typer.Option("--models", help="Models to train, or reuse, and judge: all, or a,b,c.")
    ] = None,
    seeds: Seeds = 1,
    rankers: Rankers = None,
    ranker: Annotated[
        list[Path] | None, typer.Option("--ranker", help="A bundle to judge; give the option once for each.", **PATH)
    ] = None,
    scores: Annotated[
        list[str] | None,
        typer.Option("--scores", help="NAME=FILE: scores of a model of yours for every impression of the test day."),
    ] = None,
) -> Any:
    """Judge rankers on the same test day, with intervals; with --models, train what is missing first."""
    settings = load()
    from jobs import evaluate as job
    from jobs import train_contestants
    from prectr.errors import UsageError
    from prectr.evaluation.contestants import chosen
    from prectr.tabulate import print_evaluation

    named = [pair.partition("=") for pair in scores or ()]
    if any(not name or not file for name, _, file in named):
        raise UsageError("--scores wants NAME=FILE, such as ours=scores.parquet.")
    bundles: dict[str, list[Path]] = {path.name: [path] for path in ranker or ()}
    if models is not None:
        if ranker:
            raise UsageError("give --models or --ranker, not both: with --models, bundles are found in --rankers.")
        bundles = train_contestants.run(
            chosen(models.split(",")),
            seeds,
            samples=samples,
            encoder=encoder,
            preferences=preferences,
            rankers=rankers or samples.parent / "rankers",
            config=settings.train,
            ray_config=settings.ray,
        )
    result = job.run(
        tables=tables,
        samples=samples,
        preferences=preferences,
        bundles=bundles,
        labels=labels,
        encoder=encoder,
        out=out,
        config=settings.evaluate,
        files={name: Path(file) for name, _, file in named},
        force=force,
    )
    content = job.read(result.path)
    return Answer(content, show=lambda: print_evaluation(content))


@command("ablate")
def ablate(
    load: Load,
    force: bool,
    tables: TablesIn,
    samples: Samples,
    preferences: Preferences,
    labels: Labels,
    encoder: Encoder,
    out: Out,
    seeds: Seeds = 1,
    rankers: Rankers = None,
) -> Any:
    """Train and judge PRECTR-V2 with its parts taken away one by one, several seeds each."""
    settings = load()
    from jobs import ablate as job
    from jobs.evaluate import read
    from prectr.tabulate import print_evaluation

    result = job.run(
        tables=tables,
        samples=samples,
        preferences=preferences,
        labels=labels,
        encoder=encoder,
        rankers=rankers or samples.parent / "rankers",
        out=out,
        seeds=seeds,
        train=settings.train,
        config=settings.evaluate,
        ray_config=settings.ray,
        force=force,
    )
    content = read(result.path)
    return Answer(content, show=lambda: print_evaluation(content))


@command("analyze-experiment")
def analyze_experiment(
    load: Load,
    force: bool,
    exposures: Annotated[
        Path,
        typer.Option(
            "--exposures", help="Impressions (Parquet or CSV file or directory) during the experiment.", **PATH
        ),
    ],
    assignment: Annotated[
        Path, typer.Option("--assignment", help="user_id, variant and, if known, ts (file).", **PATH)
    ],
    out: Out,
    before: Annotated[
        Path | None, typer.Option("--before", help="Earlier impressions or tables, for CUPED.", **PATH)
    ] = None,
    control: Annotated[str | None, typer.Option(help="The variant that others are held against.")] = None,
) -> Any:
    """Judge an online experiment: sample ratio, intervals by user, CUPED, bounds for any time."""
    settings = load(None if control is None else f"experiment.control={control}")
    from jobs import analyze_experiment as job
    from prectr.experiments.report import print_experiment

    result = job.run(
        exposures=exposures, assignment=assignment, before=before, out=out, config=settings.experiment, force=force
    )
    content = job.read(result.path)
    return Answer(content, show=lambda: print_experiment(content))


@command("simulate-experiment")
def simulate_experiment(
    load: Load,
    force: bool,
    tables: Annotated[
        Path, typer.Option("--tables", help="Tables of simulate, on which the rankers were trained.", **PATH)
    ],
    out: Out,
    control: Annotated[str, typer.Option("--control", help="A bundle, or production: the logging policy.")] = (
        "production"
    ),
    treatment: Annotated[str | None, typer.Option("--treatment", help="A bundle, or production.")] = None,
    aa: Annotated[bool, typer.Option("--aa", help="Show the control to both halves.")] = False,
    days: Annotated[int | None, typer.Option(help="Days after the log's last.")] = None,
    catalogue: Annotated[
        Path | None, typer.Option("--catalogue", help="The tables that simulate --catalogue was given.", **PATH)
    ] = None,
) -> Any:
    """Play an online test of two rankers on the simulated marketplace, and hold it against the truth."""
    settings = load(None if days is None else f"replay.days={days}")
    from jobs import simulate_experiment as job
    from jobs.analyze_experiment import read
    from prectr.experiments.report import print_experiment

    result = job.run(
        tables=tables,
        control=control,
        treatment=treatment,
        out=out,
        replay=settings.replay,
        experiment=settings.experiment,
        aa=aa,
        catalogue=catalogue,
        force=force,
    )
    content = read(result.path, "simulate-experiment")
    return Answer(content, show=lambda: print_experiment(content))


@command("report")
def report(
    load: Load,
    force: bool,
    workspace: Annotated[Path, typer.Option("--workspace", help="Directory that holds the stages' artifacts.", **PATH)],
    evaluation: Annotated[Path, typer.Option("--evaluation", help="Artifact of evaluate.", **PATH)],
    out: Out,
    ablation: Annotated[Path | None, typer.Option("--ablation", help="Artifact of ablate.", **PATH)] = None,
) -> Any:
    """Write one self-contained HTML page about a workspace: tables, curves, wall time, definitions; also as Markdown
    and JSON."""
    settings = load()
    from jobs import report as job

    result = job.run(
        workspace=workspace, evaluation=evaluation, ablation=ablation, out=out, config=settings.report, force=force
    )
    return Answer(_manifest(result), show=lambda: typer.echo(str(result.path / job.PAGE)))


@command("publish", stage=False)
def publish(
    load: Load,
    ranker: Annotated[Path, typer.Argument(help="The bundle whose state is published.", **PATH)],
    to: Annotated[str, typer.Option("--to", help="Directory (LMDB), or redis://HOST:PORT/DB.")],
    json_: Json = False,
) -> None:
    """Publish users, queries, items and pairs where servers read them: LMDB or Redis."""
    load()
    from jobs import publish as job

    info = job.run(ranker=ranker, to=to)
    told = ", ".join(f"{count:,} {kind}" for kind, count in sorted(info.entries.items()))
    _answer(Answer(info.model_dump(), show=lambda: typer.echo(f"version {info.version} at {to}: {told}")), json_)


@command("serve", stage=False)
def serve(
    load: Load,
    rankers: Annotated[
        list[Path] | None, typer.Argument(help="Bundles to serve; the first one is what everybody gets.", **PATH)
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port on the loopback address.")] = None,
    plain: Annotated[bool, typer.Option("--plain", help="One process under uvicorn, without Ray.")] = False,
    models: Annotated[
        Path | None,
        typer.Option("--models", help="YAML file with the content of serve.models; may be changed while serving."),
    ] = None,
) -> None:
    """Serve rankers over HTTP until it is interrupted: `POST /v1/score`, events, A/B tests, a playground."""
    settings = load(None if port is None else f"serve.port={port}")
    from jobs import serve as job

    job.run(rankers=rankers or [], config=settings.serve, ray_config=settings.ray, plain=plain, watch=models)


@command("score", stage=False)
def score(
    load: Load,
    ranker: Annotated[Path, typer.Argument(help="The bundle to score with.", **PATH)],
) -> None:
    """Score requests from standard input, one JSON object a line, to standard output."""
    settings = load()
    from jobs import score as job

    job.run(
        ranker=ranker,
        source=sys.stdin,
        target=sys.stdout,
        int8=settings.serve.int8,
        config=settings.score,
        ray_config=settings.ray,
    )


@command("pipeline", stage=False)
def pipeline(
    load: Load,
    restart: Annotated[
        bool, typer.Option("--restart", help="Go on with an unfinished run although the code has changed since.")
    ] = False,
    daily: Annotated[
        bool, typer.Option("--daily", help="Take the newest day in: train on, judge, and ramp up what is not worse.")
    ] = False,
    json_: Json = False,
) -> None:
    """The whole chain as one job, as the section `pipeline` says; what is up to date is skipped."""
    settings = load()
    from jobs import pipeline as job
    from prectr.tabulate import print_wall_times

    if daily:
        taken = job.run_daily(settings.pipeline, settings, restart=restart)
        told = {"file": named(taken.models), **taken.decision.model_dump(mode="json")}
        times = taken.stages
        _answer(Answer(told, show=lambda: print_wall_times(times, sum(took for _, took, _ in times))), json_)
        return
    done = job.run(settings.pipeline, settings, restart=restart)
    content = {
        "report": named(done.page),
        "evaluation": named(done.evaluation),
        "stages": [
            {"stage": name, "seconds": round(took, 1), "skipped": skipped} for name, took, skipped in done.stages
        ],
    }

    def show() -> None:
        print_wall_times(done.stages, sum(took for _, took, _ in done.stages))
        typer.echo(f"report: {done.page}")

    _answer(Answer(content, show=show), json_)


@command("demo", stage=False)
def demo(
    load: Load,
    tables: Annotated[
        Path | None, typer.Option("--tables", help="A log of your own instead of the marketplace.", **PATH)
    ] = None,
    workspace: Annotated[Path, typer.Option("--workspace", help="Where the artifacts go.", **PATH)] = Path(
        "demo-workspace"
    ),
) -> None:
    """Run all stages on the built-in marketplace or a log of yours, then score a query over HTTP."""
    settings = load()
    from jobs import demo as job

    job.run(workspace=workspace, source=tables, settings=settings)


@command("doctor", stage=False)
def doctor(
    load: Load,
    storage: Annotated[
        str | None, typer.Option("--storage", help="Directory or URI (s3://, gs://) for artifacts; else this folder.")
    ] = None,
    address: Annotated[
        str | None, typer.Option("--address", help="Job port of a cluster, as http://HEAD:8265.")
    ] = None,
    json_: Json = False,
) -> None:
    """Check versions, memory, ports, vLLM, storage and a cluster; say what to do about what is wrong."""
    load()
    from jobs import doctor as job

    findings = job.run(storage=storage, address=address)
    _answer(Answer([one.to_json() for one in findings], show=lambda: job.print_findings(findings)), json_)
    if any(finding.status == "fail" for finding in findings):
        sys.exit(1)


@app.command("plan")
def plan(
    impressions_per_day: Annotated[str, typer.Option(help="Shown rows a day, as 1B.")],
    queries: Annotated[str, typer.Option(help="Distinct queries in the history, as 100M.")],
    labels: Annotated[str, typer.Option(help="Questions for the teacher, as 500M.")],
    requests_per_second: Annotated[str, typer.Option(help="Calls of /v1/score at the peak, as 10k.")],
    candidates: Annotated[int | None, typer.Option(help="Candidates of a request; 100 if not given.")] = None,
    days: Annotated[int | None, typer.Option(help="Days of history; 30 if not given.")] = None,
    machine: Annotated[str, typer.Option(help="CORESxGIB of every machine, the driver's too.")] = "64x512",
    hours: Annotated[float | None, typer.Option(help="That a stage may take; 6 if not given.")] = None,
    hours_of: Annotated[list[str] | None, typer.Option(help="STAGE=HOURS; may be given more than once.")] = None,
    gpu_tokens_per_second: Annotated[
        str | None, typer.Option(help="Prompt tokens a GPU reads with your teacher; without it no GPU-hours.")
    ] = None,
    users: Annotated[str | None, typer.Option(help="Distinct users; else assumed.")] = None,
    items: Annotated[str | None, typer.Option(help="Items of the catalogue; else assumed.")] = None,
    pairs_per_query: Annotated[float | None, typer.Option(help="Distinct items shown a query; else assumed.")] = None,
    repeats: Annotated[
        float | None, typer.Option(help="Showings of a pair, and requests of a user, on one day; else assumed.")
    ] = None,
    json_: Json = False,
) -> None:
    """Scale on paper: bytes, core-hours, GPU-hours, replicas and the first bottleneck, from measured unit costs."""
    from jobs import plan as job

    answer = job.run(
        machine=machine,
        hours_of=hours_of or [],
        impressions_per_day=impressions_per_day,
        days=days,
        queries=queries,
        labels=labels,
        requests_per_second=requests_per_second,
        candidates=candidates,
        hours=hours,
        gpu_tokens_per_second=gpu_tokens_per_second,
        users=users,
        items=items,
        pairs_per_query=pairs_per_query,
        repeats=repeats,
    )
    _answer(Answer(answer.to_json(), show=lambda: job.print_answer(answer)), json_)


_ADDRESS = typer.Option("--address", envvar="PRECTR_ADDRESS", help="Job port of the cluster, as http://HEAD:8265.")


@app.command("submit", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def submit(
    command_: Annotated[list[str], typer.Argument(metavar="COMMAND...", help="A command of prectr and its options.")],
    address: Annotated[str, _ADDRESS],
    follow: Annotated[bool, typer.Option("--follow", help="Print what the job says until it ends.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it has ended.")] = False,
    env: Annotated[list[str] | None, typer.Option("--env", help="NAME=VALUE of the job.")] = None,
    cpus: Annotated[float | None, typer.Option("--cpus", help="CPUs of the driver itself.")] = None,
    gpus: Annotated[float | None, typer.Option("--gpus", help="GPUs of the driver itself.")] = None,
    memory: Annotated[str | None, typer.Option("--memory", help="Memory of the driver itself, as 4GiB.")] = None,
    job_id: Annotated[str | None, typer.Option("--id", help="By which the job is found again.")] = None,
) -> None:
    """Run a command as a job of a Ray cluster: prectr submit --address URL --follow train --samples ..."""
    from jobs import submit as job
    from prectr.ray_session import parse_gib, prepare_environment

    prepare_environment()
    wanted = {
        "entrypoint_num_cpus": cpus,
        "entrypoint_num_gpus": gpus,
        "entrypoint_memory": None if memory is None else int(parse_gib(memory) * 2**30),
    }
    _, code = job.run(
        command_,
        app=app,
        address=address,
        mode="follow" if follow else "wait" if wait else "submit",
        environment=env or [],
        resources={name: value for name, value in wanted.items() if value is not None},
        submission_id=job_id,
    )
    if code:
        sys.exit(code)


@jobs_app.command("list")
def jobs_list(address: Annotated[str, _ADDRESS], json_: Json = False) -> None:
    """Jobs of prectr on a cluster, the newest first."""
    from prectr.cluster_jobs import job_client, jobs_table
    from prectr.tabulate import print_jobs

    rows = jobs_table(job_client(address))
    _answer(Answer(rows, show=lambda: print_jobs(rows)), json_)


@jobs_app.command("logs")
def jobs_logs(
    job: Annotated[str, typer.Argument(help="As `jobs list` names it.")],
    address: Annotated[str, _ADDRESS],
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
def jobs_stop(
    job: Annotated[str, typer.Argument(help="As `jobs list` names it.")], address: Annotated[str, _ADDRESS]
) -> None:
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
    settings = _settings(config, [*_preset(preset), *(set_ or [])])
    typer.echo(json.dumps(settings.model_dump(mode="json")) if json_ else dump_yaml(settings).rstrip())


@preferences_app.command("show")
def preferences_show(
    preferences: Preferences,
    query: Annotated[str | None, typer.Argument(help="The query to show, as anybody may type it.")] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write a page with plots of all that was mined.")] = None,
    tables: Annotated[Path | None, typer.Option("--tables", help="Validated tables: adds titles.", **PATH)] = None,
    relevance: Annotated[
        Path | None,
        typer.Option("--relevance", help="Artifact of score-relevance: adds levels and sources."),
    ] = None,
    json_: Json = False,
) -> None:
    """Show what was mined for a query; with --html, write a page about all of it; --json alone prints its figures."""
    from jobs import preferences as job

    content = job.show(preferences, query=query, html=html, tables=tables, relevance=relevance, as_json=json_)
    _answer(Answer(content, show=lambda: job.print_shown(content)), json_)


@preferences_app.command("check")
def preferences_check(preferences: Preferences, relevance: Relevance, tables: TablesIn, json_: Json = False) -> None:
    """Compare mined tolerances with the true ones of a simulated log, beside a naive estimate and a ceiling."""
    from jobs import preferences as job

    content = job.check(preferences, relevance=relevance, tables=tables)
    _answer(Answer(content, show=lambda: job.print_check(content)), json_)


def _answer(answer: Answer, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(answer.content, default=str))
    else:
        answer.show()


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
        typer.echo(f"prectr: {with_uris(str(known))}", err=True)
        sys.exit(known.exit_code)


def run_job(name: str) -> None:
    """`python -m jobs.NAME ...` is `prectr NAME ...`."""
    main([name, *sys.argv[1:]])


if __name__ == "__main__":
    main()
