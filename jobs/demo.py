"""demo: every stage once, on the built-in marketplace or a log of yours, then one query scored over HTTP.

Read it top to bottom: this is the whole pipeline.
"""

import socket
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import polars as pl

from jobs import (
    build_samples,
    distill,
    evaluate,
    label,
    mine_preferences,
    report,
    score_relevance,
    select_pairs,
    serve,
    simulate,
    train,
    train_teacher,
)
from prectr import progress
from prectr.artifacts import StageResult
from prectr.model_config import ModelConfig
from prectr.protocol import ScoreResponse
from prectr.ray_session import ray_session
from prectr.samples.load import split_days
from prectr.settings import Settings
from prectr.tables import Tables
from prectr.tabulate import print_evaluation, print_scored, print_wall_times
from prectr.validate import validate_tables

RANKERS = ("wide-deep", "prectr", "prectr-v2")
SERVED = "prectr-v2"
CANDIDATES = 12


def run(*, workspace: Path, source: Path | None, settings: Settings) -> None:
    """Run all stages below `workspace`; `source` is a log of the user's, None the built-in marketplace.

    Prints the results table, a cold and an active user's scored query, the wall time of each stage and the path of
    the report. Stages whose artifacts are up to date are skipped.
    """
    started = time.perf_counter()
    stages: list[tuple[str, float, bool]] = []

    def stage(name: str, work: Callable[[], StageResult]) -> StageResult:
        clock = time.perf_counter()
        result = work()
        stages.append((name, time.perf_counter() - clock, result.skipped))
        return result

    tables, teacher, selection = workspace / "tables", workspace / "teacher", workspace / "labels-selection"
    labels = workspace / "labels"
    encoder, relevance, preferences = workspace / "encoder", workspace / "relevance", workspace / "preferences"
    samples, rankers = workspace / "samples", [workspace / "rankers" / name for name in RANKERS]
    evaluation, page = workspace / "reports" / "evaluation", workspace / "reports" / "page"

    if source is None:
        stage("simulate", lambda: simulate.run(out=tables, config=settings.simulate))
    else:
        stage("validate", lambda: validate_tables(source, tables, settings.validation))
    split_days(Tables(tables).days())  # too short a log is told before minutes of work
    with ray_session(settings.ray):
        stage("train-teacher", lambda: train_teacher.run(tables=tables, out=teacher, config=settings.teacher))
        stage("select-pairs", lambda: select_pairs.run(tables=tables, out=selection, config=settings.selection))
        labelled = stage(
            "label",
            lambda: label.run(
                tables=tables, teacher=teacher, out=labels, config=settings.label, selection=selection, yes=True
            ),
        )
        progress.say(f"  labels came from the engine: {labelled.manifest['engine']}")
        stage("distill", lambda: distill.run(tables=tables, labels=labels, out=encoder, config=settings.distill))
        stage(
            "score-relevance",
            lambda: score_relevance.run(
                tables=tables, encoder=encoder, labels=labels, out=relevance, config=settings.relevance
            ),
        )
        stage(
            "mine-preferences",
            lambda: mine_preferences.run(
                tables=tables, relevance=relevance, out=preferences, config=settings.preferences
            ),
        )
        stage(
            "build-samples",
            lambda: build_samples.run(
                tables=tables, relevance=relevance, preferences=preferences, out=samples, config=settings.samples
            ),
        )
        for name, ranker in zip(RANKERS, rankers, strict=True):
            model = ModelConfig.model_validate(settings.train.model.model_dump() | {"name": name})
            config = settings.train.model_copy(update={"model": model})
            stage(
                f"train {name}",
                lambda ranker=ranker, config=config: train.run(  # type: ignore[misc]
                    samples=samples, encoder=encoder, preferences=preferences, out=ranker, config=config
                ),
            )
        judged = stage(
            "evaluate",
            lambda: evaluate.run(
                tables=tables,
                samples=samples,
                preferences=preferences,
                bundles={name: [ranker] for name, ranker in zip(RANKERS, rankers, strict=True)},
                labels=labels,
                encoder=encoder,
                out=evaluation,
                config=settings.evaluate,
            ),
        )
        written = stage(
            "report", lambda: report.run(workspace=workspace, evaluation=evaluation, out=page, config=settings.report)
        )
        clock = time.perf_counter()
        scored = _score_over_http(Tables(tables), samples, workspace / "rankers" / SERVED, settings)
        stages.append(("serve and score", time.perf_counter() - clock, False))

    print_evaluation(evaluate.read(judged.path))
    for title, response in scored:
        print_scored(title, response)
    print_wall_times(stages, time.perf_counter() - started)
    print(f"report: {written.path / report.PAGE}")


def _score_over_http(
    tables: Tables, samples: Path, ranker: Path, settings: Settings
) -> list[tuple[str, ScoreResponse]]:
    """The same query and candidates for a cold and an active user, through Ray Serve."""
    query, cold, active, candidates = _choose_request(tables, settings.evaluate.cold_requests)
    config = settings.serve.model_copy(update={"port": _free_port(settings.serve.host)})
    answers = []
    with serve.serving(ranker, config) as url, httpx.Client(base_url=url, timeout=30) as client:
        progress.say(f"serving {ranker} at {url}")
        for kind, user in (("a cold", cold), ("an active", active)):
            body = {"user_id": user, "query": query, "candidates": candidates}
            response = client.post("/v1/score", json=body).raise_for_status()
            title = f"POST /v1/score: {query!r} for {user}, {kind} user"
            answers.append((title, ScoreResponse.model_validate(response.json())))
    return answers


def _choose_request(tables: Tables, cold_requests: int) -> tuple[str, str, str, list[str]]:
    """A query of the last day with a long candidate list, a cold and an active user of that day, and the candidates."""
    log = tables.impressions(columns=["request_id", "user_id", "ts", "query", "item_id", "position"])
    last = log.filter(pl.col("date") == log["date"].max())
    requests = log.group_by("user_id").agg(pl.col("request_id").n_unique().alias("requests"))
    seen = last.select("user_id").unique().join(requests, on="user_id").sort("requests", "user_id")
    shown = last.group_by("query").agg(pl.col("item_id").n_unique().alias("items"), pl.len()).sort("len", "query")
    query = shown["query"][-1]
    of_query = last.filter(pl.col("query") == query)
    ranked = of_query.group_by("item_id").agg(pl.col("position").mean()).sort("position", "item_id")
    # Every k-th by mean position: good and poor candidates, as coarse ranking hands them over.
    step = max(1, ranked.height // CANDIDATES)
    candidates = ranked["item_id"].gather_every(step)[:CANDIDATES].to_list()
    cold = seen.filter(pl.col("requests") <= cold_requests)["user_id"]
    return query, cold[0] if len(cold) else "someone-new", seen["user_id"][-1], candidates


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    from jobs.cli import run_job

    run_job("demo")
