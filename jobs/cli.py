"""The command line `prectr`: one command a stage, heavy imports inside, so that `prectr --help` is instant.

Results go to standard output, progress and messages to standard error. Exit codes: 0 done, 1 the work failed, 2 bad
usage or configuration; a user's mistake never ends in a traceback.
"""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import jobs.cli_groups  # noqa: F401  (its commands)
from jobs.command_line import (
    PATH,
    Address,
    Answer,
    Encoder,
    Json,
    Labels,
    Load,
    Memory,
    Model,
    Out,
    Preferences,
    Rankers,
    Relevance,
    Samples,
    Seeds,
    TablesIn,
    app,
    command,
    manifest_of,
    print_answer,
)
from prectr.core.errors import UsageError
from prectr.core.mirror import named, with_uris
from prectr.core.ray_errors import find_user_error

INTERRUPTED = 130


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
    from prectr.core.ray_session import parse_gib

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
    base: Annotated[
        str | None,
        typer.Option("--base", help="Which of them the others are compared with; wide-deep, else the first."),
    ] = None,
) -> Any:
    """Judge rankers on the same test day, with intervals; with --models, train what is missing first."""
    settings = load()
    from jobs import evaluate as job
    from jobs import train_contestants
    from prectr.core.errors import UsageError
    from prectr.evaluation.contestants import chosen
    from prectr.reports.terminal import print_evaluation

    named = [pair.partition("=") for pair in scores or ()]
    if any(not name or not file for name, _, file in named):
        raise UsageError("--scores wants NAME=FILE, such as ours=scores.parquet.")
    bundles: dict[str, list[Path]] = {path.name: [path] for path in ranker or ()}
    contestants = [] if models is None else chosen(models.split(","))
    names = [*(one.name for one in contestants), *bundles, *(name for name, _, _ in named)]
    if base is not None and base not in names:
        raise UsageError(f"--base {base}: is none of those that are judged: {', '.join(names)}.")
    if contestants:
        if ranker:
            raise UsageError("give --models or --ranker, not both: with --models, bundles are found in --rankers.")
        bundles = train_contestants.run(
            contestants,
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
        base=base or job.BASE,
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
    from prectr.reports.terminal import print_evaluation

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
    from prectr.reports.experiment import print_experiment

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
    from prectr.reports.experiment import print_experiment

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
    return Answer(manifest_of(result), show=lambda: typer.echo(str(result.path / job.PAGE)))


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
    print_answer(Answer(info.model_dump(), show=lambda: typer.echo(f"version {info.version} at {to}: {told}")), json_)


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
    from prectr.reports.terminal import print_wall_times

    if daily:
        taken = job.run_daily(settings.pipeline, settings, restart=restart)
        told = {"file": named(taken.models), **taken.decision.model_dump(mode="json")}
        times = taken.stages
        print_answer(Answer(told, show=lambda: print_wall_times(times, sum(took for _, took, _ in times))), json_)
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

    print_answer(Answer(content, show=show), json_)


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
    print_answer(Answer([one.to_json() for one in findings], show=lambda: job.print_findings(findings)), json_)
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
    print_answer(Answer(answer.to_json(), show=lambda: job.print_answer(answer)), json_)


@app.command("submit", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def submit(
    command_: Annotated[list[str], typer.Argument(metavar="COMMAND...", help="A command of prectr and its options.")],
    address: Address,
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
    from prectr.core.ray_session import parse_gib, prepare_environment

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
