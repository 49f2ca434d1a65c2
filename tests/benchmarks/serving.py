"""Serving: our server, the same scorer behind uvicorn and FastAPI, and the scorer alone; the encoder; the cache.

100 candidates a request, the default encoder, one process of one thread that scores on each side, `wrk` on loopback.

    part      what is compared
    load      requests a second of both servers when 8 connections ask without a pause; then latency at half of ours,
              requests evenly spaced (and, for the record, as a Poisson process, whose bursts no server can answer at
              once), beside calls of the scorer in a loop. No cache: every pair of every request is encoded.
    cache     requests a second of our server for queries drawn by popularity (Zipf), with its caches and without; each
              query was asked once before
    events    latency of 20 scores a second beside 200 event lists a second, by that without events; queries by
              popularity, caches on; a list is a page of 20 candidates of such a request, one of them clicked
    encoder   pairs a second, texts in, levels out: ours in ONNX Runtime, a sentence-transformers CrossEncoder in torch
    soak      two replicas under 20 scores and 20 event lists a second for --soak seconds (left out at 0), with two
              replicas killed and a burst of 300 requests: failed requests, and memory

    PRECTR_BENCH_DIR=FOLDER make bench-serving
    .venv/bin/python tests/benchmarks/serving.py --parts load,cache --seconds 20 --rounds 3
    .venv/bin/python tests/benchmarks/serving.py --parts soak --soak 600
"""

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import psutil
from _logs import scratch_folder
from _quality_world import World
from _smallest import parse_options, print_result
from _training_world import quick_world

from jobs import train
from jobs.cluster.serve_host import free_port
from prectr.contracts.model_config import ModelConfig
from prectr.data.tables import Tables
from prectr.training.config import TrainConfig

HERE = Path(__file__).parent
SIDES, SCRIPT = HERE / "_serving_sides.py", HERE / "_serving_wrk.lua"
PARTS = ("load", "cache", "events", "encoder", "soak")
CANDIDATES, DISTINCT = 100, 400
CONNECTIONS, OPEN_CONNECTIONS = 8, 32
LONGER = 3
"""Loads whose 99th percentile is asked for take so many times as long."""
SCORES_A_SECOND, LISTS_A_SECOND, SHOWN_ITEMS = 20, 200, 20
"""Loads of the part `events`, and items of a list."""
SOAK_LISTS_A_SECOND, BURST, IN_FLIGHT = 20, 300, 30
"""Part `soak`: lists a second, requests of the burst, and requests that may fail when a replica is killed."""
NO_CACHE = ("serve.cache_text_mib=0", "serve.cache_pools_mib=0")
TO_CATCH_UP = 3.0
"""Seconds between two loads."""


def make_bundle(world: World) -> Path:
    """PRECTR-V2 with its encoder tuned, trained for a moment."""
    out = world.folder / "ranker"
    config = TrainConfig(epochs=1, model=ModelConfig())
    train.run(samples=world.samples, encoder=world.encoder, preferences=world.preferences, out=out, config=config)
    return out


def write_bodies(world: World, folder: Path) -> dict[str, Path]:
    """Two files of requests of 100 candidates: each query once, and queries by their popularity in the log."""
    tables, chance = Tables(world.tables), random.Random(7)
    log = tables.impressions(columns=["user_id", "query", "item_id"])
    items, users = tables.items()["item_id"].to_list(), log["user_id"].unique().sort().to_list()
    of_query = dict(log.group_by("query").agg(pl.col("item_id").unique().sort()).sort("query").iter_rows())

    def body(query: str, chance: random.Random) -> str:
        pool = random.Random(query)  # retrieval gives a query the same candidates each time
        candidates = list(dict.fromkeys([*of_query[query], *pool.sample(items, CANDIDATES)]))[:CANDIDATES]
        return json.dumps({"user_id": chance.choice(users), "query": query, "candidates": candidates})

    once = chance.sample(sorted(of_query), min(DISTINCT, len(of_query)))
    popular = chance.choices(log["query"].to_list(), k=5 * DISTINCT)
    files = {}
    for name, queries in (("once", once), ("zipf", popular)):
        files[name] = folder / f"{name}.jsonl"
        files[name].write_text("\n".join(body(query, chance) for query in queries) + "\n", encoding="utf-8")
    return files


@contextmanager
def our_server(bundle: Path, settings: Sequence[str]) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """`prectr serve` with one replica; its URL and process."""
    port = free_port()
    command = [sys.executable, "-m", "jobs.cli", "serve", str(bundle), "--port", str(port)]
    command += [part for one in (*settings, "serve.max_queued_requests=64") for part in ("--set", one)]
    with _running(command, f"http://127.0.0.1:{port}", "/healthz") as process:
        yield f"http://127.0.0.1:{port}", process


@contextmanager
def fastapi_server(bundle: Path) -> Iterator[str]:
    """The bare FastAPI; its URL."""
    port = free_port()
    command = [sys.executable, str(SIDES), "fastapi", str(bundle), str(port)]
    with _running(command, f"http://127.0.0.1:{port}", "/docs"):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def _running(command: list[str], url: str, path: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, start_new_session=True, stdout=sys.stderr, env=_environment())
    try:
        deadline = time.monotonic() + 180
        while True:
            try:
                if httpx.get(url + path, timeout=5).status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"did not start: {' '.join(command)}")
            time.sleep(0.3)
        yield process
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(timeout=90)


def wrk(
    url: str, target: str, bodies: Path, seconds: float, rate: float | None = None, arrivals: str = "even"
) -> dict[str, Any]:
    """Load a server; its figures.

    Args:
        url: of the server.
        target: path of the requests.
        bodies: of the requests.
        seconds: how long.
        rate: requests a second; None: as many as eight connections get.
        arrivals: even or poisson.

    Raises:
        SystemExit: a request failed.
    """
    if not shutil.which("wrk"):
        return one_connection(url + target, bodies, seconds)
    connections = CONNECTIONS if rate is None else OPEN_CONNECTIONS
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--timeout", "30s", "-s", str(SCRIPT), url]
    interval = 0.0 if rate is None else 1000 / rate
    environment = {"BODIES": str(bodies), "TARGET": target, "INTERVAL": f"{interval:.3f}", "ARRIVALS": arrivals}
    ran = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)
    figures: dict[str, Any] = json.loads(ran.stdout.strip().splitlines()[-1])
    if figures["failed"]:
        raise SystemExit(f"{figures['failed']} of {figures['requests']} requests failed: {ran.stdout}")
    time.sleep(min(TO_CATCH_UP, seconds))
    return figures


def one_connection(url: str, bodies: Path, seconds: float) -> dict[str, Any]:
    """What stands in for `wrk` at the smallest size, where it is not installed: one request after another."""
    lines, milliseconds = bodies.read_text(encoding="utf-8").splitlines(), []
    until = time.monotonic() + seconds
    with httpx.Client(timeout=30, headers={"content-type": "application/json"}) as http:
        while time.monotonic() < until:
            started = time.perf_counter()
            http.post(url, content=lines[len(milliseconds) % len(lines)]).raise_for_status()
            milliseconds.append(1000 * (time.perf_counter() - started))
    return {
        "requests": len(milliseconds),
        "requests_per_second": 1000 * len(milliseconds) / sum(milliseconds),
        "p50_ms": float(np.quantile(milliseconds, 0.5)),
        "p99_ms": float(np.quantile(milliseconds, 0.99)),
    }


def measure_load(bundle: Path, bodies: Path, folder: Path, seconds: float, rounds: int) -> dict[str, Any]:
    """Both servers and the scorer alone, in turns."""
    seen: dict[str, list[dict[str, Any]]] = {name: [] for name in ("bare", "ours", "fastapi", "half", "half_poisson")}
    out = folder / "bare.json"
    with our_server(bundle, NO_CACHE) as (url, _), fastapi_server(bundle) as other:
        for turn in range(rounds + 1):
            command = [sys.executable, str(SIDES), "bare", str(bundle), str(bodies), str(out)]
            subprocess.run(command, check=True, env=_environment())
            told = {"bare": json.loads(out.read_text(encoding="utf-8"))}
            told["ours"] = wrk(url, "/v1/score", bodies, seconds)
            told["fastapi"] = wrk(other, "/score", bodies, seconds)
            half = told["ours"]["requests_per_second"] / 2
            told["half"] = wrk(url, "/v1/score", bodies, LONGER * seconds, half)
            told["half_poisson"] = wrk(url, "/v1/score", bodies, LONGER * seconds, half, "poisson")
            print(f"load, {'warm-up' if turn == 0 else f'round {turn}'}: {told}", file=sys.stderr)
            if turn:
                for name, figures in told.items():
                    seen[name].append(figures)
    middle = {name: _medians(figures) for name, figures in seen.items()}
    return {
        "ratio_to_fastapi": middle["ours"]["requests_per_second"] / middle["fastapi"]["requests_per_second"],
        "p50_to_bare_call": middle["half"]["p50_ms"] / middle["bare"]["p50_ms"],
        "p99_to_bare_call": middle["half"]["p99_ms"] / middle["bare"]["p99_ms"],
        "p99_to_bare_call_poisson": middle["half_poisson"]["p99_ms"] / middle["bare"]["p99_ms"],
        "half_load_reached": middle["half"]["requests_per_second"] / middle["ours"]["requests_per_second"],
        "sides": middle,
    }


def measure_cache(bundle: Path, bodies: Path, seconds: float, rounds: int) -> dict[str, Any]:
    """Our server for popular queries, with and without its caches."""
    rates: dict[str, list[float]] = {"cached": [], "uncached": []}
    with our_server(bundle, ()) as (cached, _), our_server(bundle, NO_CACHE) as (uncached, _):
        _ask_each_once(cached, bodies)
        for turn in range(rounds + 1):
            for name, url in (("cached", cached), ("uncached", uncached)):
                found = wrk(url, "/v1/score", bodies, seconds)
                if turn:
                    rates[name].append(found["requests_per_second"])
        print(f"cache: {rates}", file=sys.stderr)
    middle = {name: statistics.median(values) for name, values in rates.items()}
    return {"ratio_to_uncached": middle["cached"] / middle["uncached"], "requests_per_second": middle}


def measure_events(bundle: Path, bodies: Path, folder: Path, seconds: float, rounds: int) -> dict[str, Any]:
    """Latency of scores at a fixed rate, with events and without, in turns."""
    chance = random.Random(11)
    seen: dict[str, list[dict[str, Any]]] = {"scores": [], "scores_beside_events": [], "events": []}
    with our_server(bundle, ("serve.unproved_lists_per_minute=null",)) as (url, _):
        _ask_each_once(url, bodies)
        for turn in range(rounds + 1):
            lists = folder / "lists.jsonl"
            count = int(LISTS_A_SECOND * (LONGER * seconds + 5))
            lists.write_text("\n".join(_events_of(bodies, str(turn), count, chance)) + "\n", encoding="utf-8")
            told = {"scores": wrk(url, "/v1/score", bodies, LONGER * seconds, SCORES_A_SECOND)}
            with ThreadPoolExecutor(1) as pool:
                events = pool.submit(wrk, url, "/v1/events", lists, LONGER * seconds, LISTS_A_SECOND)
                told["scores_beside_events"] = wrk(url, "/v1/score", bodies, LONGER * seconds, SCORES_A_SECOND)
                told["events"] = events.result()
            print(f"events, {'warm-up' if turn == 0 else f'round {turn}'}: {told}", file=sys.stderr)
            if turn:
                for name, figures in told.items():
                    seen[name].append(figures)
    middle = {name: _medians(figures) for name, figures in seen.items()}
    return {
        "p99_ratio_beside_events": middle["scores_beside_events"]["p99_ms"] / middle["scores"]["p99_ms"],
        "events": middle,
    }


def _events_of(scored: Path, name: str, count: int, chance: random.Random) -> list[str]:
    """Bodies of events: each a page of `SHOWN_ITEMS` candidates of a scored request, one of them clicked."""
    requests = [json.loads(line) for line in scored.read_text(encoding="utf-8").splitlines()]
    bodies = []
    for number in range(count):
        request = chance.choice(requests)
        shown = chance.sample(request["candidates"], SHOWN_ITEMS)
        clicked = chance.randrange(len(shown))
        rows = [
            {"item_id": item, "position": place + 1, "clicked": place == clicked, "price": 10.0}
            for place, item in enumerate(shown)
        ]
        user = chance.choice(requests)["user_id"]
        event = {"request_id": f"{name}-{number}", "user_id": user, "query": request["query"], "shown": rows}
        bodies.append(json.dumps({"events": [event]}))
    return bodies


def _ask_each_once(url: str, bodies: Path) -> None:
    """Every query that will come has come before: what a server that has run for a while has seen."""
    of_query = {json.loads(line)["query"]: line for line in bodies.read_text(encoding="utf-8").splitlines()}
    with httpx.Client(base_url=url, timeout=60) as http:
        for line in of_query.values():
            http.post("/v1/score", content=line, headers={"content-type": "application/json"}).raise_for_status()


def measure_encoder(world: World, rounds: int, pairs: int) -> dict[str, Any]:
    """Pairs a second of the encoder's plain checkpoint, one thread on each side, texts in and levels out."""
    import torch
    from scipy.special import softmax
    from sentence_transformers import CrossEncoder

    from jobs import export
    from prectr.relevance.encoder_session import RelevanceEncoder

    torch.set_num_threads(1)
    tables = Tables(world.tables)
    log = tables.impressions(columns=["query", "item_id"]).unique().sort("query", "item_id")
    rows = log.join(tables.items().select("item_id", "title"), on="item_id").sample(pairs, seed=3)
    queries, titles = rows["query"].to_list(), rows["title"].to_list()
    plain = world.encoder.parent / "plain-encoder"
    export.run(encoder=world.encoder, out=plain, plain=True)
    other = CrossEncoder(str(plain), device="cpu")
    rates: dict[str, list[float]] = {"ours": [], "cross_encoder": []}
    answers: dict[str, np.ndarray] = {}
    for turn in range(rounds + 1):
        ours = RelevanceEncoder(plain, threads=1)  # anew: it remembers texts
        ours.score(queries[:300], titles[:300])
        for name in rates:
            started = time.perf_counter()
            if name == "ours":
                answers[name] = ours.score(queries, titles)[0]
            else:
                scores = other.predict(list(zip(queries, titles)), show_progress_bar=False)
                answers[name] = softmax(scores, axis=1) if scores.min() < 0 or scores.max() > 1 else scores
            if turn:
                rates[name].append(pairs / (time.perf_counter() - started))
    off = float(np.abs(answers["ours"] - answers["cross_encoder"]).max())
    if off > 1e-3:
        raise SystemExit(f"the two sides say different things: {off}")
    middle = {name: statistics.median(values) for name, values in rates.items()}
    return {"ratio_to_cross_encoder": middle["ours"] / middle["cross_encoder"], "pairs_per_second": middle}


def measure_soak(bundle: Path, bodies: Path, seconds: float) -> dict[str, Any]:
    """Two replicas under scores and events; a replica is killed twice, and a burst comes near the end.

    The time is cut into tenths. Of each: answers by status, and the memory of the largest replica at its end; in the
    first tenths the caches fill. The fourth and the seventh begin with a kill, the ninth with a burst of `BURST`
    requests at once.

    Raises:
        SystemExit: a request failed that should not: any but those in flight at a kill, and those shed in the burst.
    """
    scores = bodies.read_text(encoding="utf-8").splitlines()
    chance, tenths = random.Random(5), []
    settings = ("serve.replicas=2", "serve.unproved_lists_per_minute=null")
    with our_server(bundle, settings) as (url, process):
        for number in range(10):
            killed = number in (3, 6) and _kill_replica(process.pid)
            burst = BURST if number == 8 else 0
            events = _events_of(bodies, f"soak-{number}", int(SOAK_LISTS_A_SECOND * seconds / 10) + 1, chance)
            statuses = asyncio.run(_soak(url, scores, events, seconds / 10, burst))
            mib = max(one.memory_info().rss for one in _replicas(process.pid)) / 2**20
            tenths.append({"killed": killed, "burst": burst, "statuses": dict(statuses), "mib": round(mib)})
            print(f"soak: {tenths[-1]}", file=sys.stderr)
            allowed = {200} | ({429, 504} if burst else set())
            failed = sum(count for status, count in statuses.items() if status not in allowed)
            if failed > (IN_FLIGHT if killed else 0):
                raise SystemExit(f"{failed} of {statuses.total()} requests failed: {statuses}")
    return {
        "memory_ratio_of_the_second_half": tenths[-1]["mib"] / tenths[len(tenths) // 2]["mib"],
        "soak": tenths,
        "seconds": seconds,
    }


def _replicas(server: int) -> list[psutil.Process]:
    found = []
    for one in psutil.Process(server).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it may end meanwhile
            if "ServeReplica" in " ".join(one.cmdline()):
                found.append(one)
    return found


def _kill_replica(server: int) -> bool:
    _replicas(server)[0].kill()
    return True


async def _soak(url: str, scores: list[str], events: list[str], seconds: float, burst: int) -> "Counter[int]":
    """Send scores and events at fixed rates, and a burst of scores first; counts the answers by status (0: none)."""
    statuses: Counter[int] = Counter()
    limits = httpx.Limits(max_connections=burst + 64, max_keepalive_connections=32)
    headers = {"content-type": "application/json"}
    async with httpx.AsyncClient(base_url=url, timeout=30, limits=limits, headers=headers) as http:

        async def post(path: str, body: str) -> None:
            try:
                statuses[(await http.post(path, content=body)).status_code] += 1
            except httpx.HTTPError:
                statuses[0] += 1

        async def at_rate(path: str, lines: list[str], rate: float) -> None:
            started, tasks = time.monotonic(), []
            for number in range(int(rate * seconds)):
                await asyncio.sleep(max(0.0, started + number / rate - time.monotonic()))
                tasks.append(asyncio.create_task(post(path, lines[number % len(lines)])))
            await asyncio.gather(*tasks)

        await asyncio.gather(
            *(post("/v1/score", scores[number % len(scores)]) for number in range(burst)),
            at_rate("/v1/score", scores, SCORES_A_SECOND),
            at_rate("/v1/events", events, SOAK_LISTS_A_SECOND),
        )
    return statuses


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the parts that are wanted, and print one JSON object."""
    given = _options(arguments)
    if shutil.which("wrk") is None and not given.smallest:
        raise SystemExit("wrk is not installed (Debian: apt-get install wrk)")
    print("serving: ours, FastAPI, the bare scorer; 100 candidates a request, simulated log")
    result: dict[str, Any] = {}
    others = {} if shutil.which("wrk") else {"left_out": "wrk is not installed: one connection asked instead"}
    with scratch_folder() as folder:
        folder.mkdir(parents=True, exist_ok=True)
        world = quick_world(folder, given.requests, "serving", ("simulate.queries=1500",), given.smallest)
        bundle, bodies = make_bundle(world), write_bodies(world, folder)
        if "load" in given.parts:
            result |= measure_load(bundle, bodies["once"], folder, given.seconds, given.rounds)
        if "cache" in given.parts:
            result |= measure_cache(bundle, bodies["zipf"], given.seconds, given.rounds)
        if "events" in given.parts:
            result |= measure_events(bundle, bodies["zipf"], folder, given.seconds, given.rounds)
        if "encoder" in given.parts:
            result |= measure_encoder(world, given.rounds, given.encoder_pairs)
        if "soak" in given.parts and given.soak:
            result |= measure_soak(bundle, bodies["zipf"], given.soak)
    print_result({**_rounded(result), **others, "candidates": CANDIDATES, "data": "simulated"}, given.smallest)


def _medians(figures: list[dict[str, Any]]) -> dict[str, float]:
    return {name: statistics.median(one[name] for one in figures) for name in figures[0]}


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    return round(value, 3) if isinstance(value, float) else value


def _environment() -> dict[str, str]:
    root = HERE.parents[1]
    return os.environ | {
        "PYTHONPATH": f"{root / 'platform'}{os.pathsep}{root}",
        "OMP_NUM_THREADS": "1",
        "POLARS_MAX_THREADS": "1",
    }


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=lambda text: text.split(","), default=list(PARTS))
    parser.add_argument("--requests", type=int, default=8_000, help="of the simulated log")
    parser.add_argument("--seconds", type=float, default=15, help="of each load")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--encoder-pairs", type=int, default=4_000, help="of the part `encoder`")
    parser.add_argument("--soak", type=float, default=0, help="seconds of the soak; 600 for ten minutes")
    return parse_options(parser, arguments, {"seconds": 1, "rounds": 1, "encoder_pairs": 200, "soak": 5})


if __name__ == "__main__":
    main()
