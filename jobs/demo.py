"""demo: run the whole pipeline on the built-in marketplace or a log of yours, then score a query over HTTP."""

import time
from pathlib import Path
from typing import Annotated

import httpx
import polars as pl
import typer

from jobs import evaluate, serve
from jobs.cluster.serve_host import free_port
from jobs.options import PATH, command
from jobs.pipeline import pipeline
from jobs.pipeline.config import PipelineConfig
from jobs.settings import Settings
from prectr.contracts.protocol import ScoreResponse
from prectr.core import progress
from prectr.core.ray_session import ray_session
from prectr.data.tables import Tables
from prectr.reports.terminal import print_evaluation, print_scored, print_wall_times

SERVED = "prectr-v2"
CANDIDATES = 12


@command("demo", as_json=False)
def run(
    *,
    source: Annotated[
        Path | None, typer.Option("--tables", help="A log of your own instead of the marketplace.", **PATH)
    ] = None,
    workspace: Annotated[Path, typer.Option("--workspace", help="Directory of the artifacts.", **PATH)] = Path(
        "demo-workspace"
    ),
    settings: Settings,
) -> None:
    """Run all stages below `workspace` on the log `source`; None: on the built-in marketplace.

    Prints the results table, a cold and an active user's scored query, the wall time of each stage and the path of
    the report. Stages whose artifacts are up to date are skipped.
    """
    started = time.perf_counter()
    done = pipeline.run(PipelineConfig(workspace=workspace, source=source), settings, restart=True)
    clock = time.perf_counter()
    with ray_session(settings.ray):
        scored = _score_over_http(Tables(workspace / "tables"), done.ranker(SERVED), settings)
    stages = [*done.stages, ("serve and score", time.perf_counter() - clock, False)]
    print_evaluation(evaluate.read(done.evaluation))
    for title, response in scored:
        print_scored(title, response)
    print_wall_times(stages, time.perf_counter() - started)
    print(f"report: {done.page}")


def _score_over_http(tables: Tables, ranker: Path, settings: Settings) -> list[tuple[str, ScoreResponse]]:
    """The same query and candidates for a cold and an active user, through Ray Serve."""
    query, cold, active, candidates = _choose_request(tables, settings.evaluate.cold_requests)
    config = settings.serve.model_copy(update={"port": free_port()})
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
