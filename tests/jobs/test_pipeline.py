"""The whole chain on a tiny marketplace, through `prectr demo` itself, and what it leaves: bundles, a page, a server.

One workspace and one Ray for all tests here; the teacher answers through vLLM where that is installed.
"""

import contextlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest

from jobs import evaluate, score, serve, simulate_experiment, train
from prectr.contracts.protocol import MAX_CANDIDATES, Context, ScoreRequest
from prectr.core.artifacts import read_manifest
from prectr.core.errors import PrectrError, UsageError
from prectr.data.tables import Tables
from prectr.evaluation.day import TestDay
from prectr.evaluation.experiments.config import ExperimentConfig, ReplayConfig
from prectr.features.load import Samples, split_days
from prectr.features.spec import SPEC_FILE
from prectr.labelling.engines.choose import choose_engine
from prectr.ranking.batch_ranking import BatchRanking, PoolRequest
from prectr.ranking.bundle import Bundle
from prectr.ranking.ranking import Ranking
from prectr.ranking.scoring import Scorer
from prectr.serving.config import ServeConfig
from tests.close import assert_close
from tests.jobs.demo_run import STAGES, Ran, run_demo
from tests.processes import free_port, with_code


def test_demo_prints_results_scored_queries_times_and_the_report(ran: Ran) -> None:
    for name in ("position only", "Wide&Deep", "PRECTR ", "PRECTR-V2", "oracle", "teacher", "student", "TF-IDF"):
        assert name in ran.output, name
    assert "(simulated log)" in ran.output
    assert len(re.findall(r"POST /v1/score: '.+' for \S+, (?:a cold|a active|an active) user", ran.output)) == 2
    assert "Wall time" in ran.output and "mine-preferences" in ran.output and "total" in ran.output
    assert f"report: {ran.workspace / 'reports' / 'page' / 'report.html'}" in ran.output
    assert f"labels come from the engine: {choose_engine('auto', 'directory')}" in ran.messages


def test_every_stage_published_its_manifest(ran: Ran) -> None:
    for stage, manifest in ran.manifests().items():
        assert manifest is not None, stage
        assert {"identity", "config", "inputs", "versions", "wall_seconds"} <= manifest.keys(), stage
    assert not list(ran.workspace.rglob(".*.building-*"))


def test_the_share_of_rows_that_no_vocabulary_knows_is_told(ran: Ran) -> None:
    samples = Samples.open(ran.workspace / "samples")
    _, _, test_day = split_days(samples.days())
    manifest = read_manifest(samples.path)
    assert manifest is not None
    told = manifest["unknown"][str(test_day)]
    rows = pl.concat(pl.read_parquet(file, hive_partitioning=False) for file in samples.files([test_day]))
    known = samples.spec.ids["item_id"].values
    assert told["item_id"] == pytest.approx(1 - rows["item_id"].is_in(list(known)).mean(), abs=1e-6)
    assert 0 < told["item_id"] < 1 and len(known) == 200
    assert set(told) == set(samples.spec.categorical_fields)


def test_unexposed_candidates_have_one_order(ran: Ran) -> None:
    samples = Samples.open(ran.workspace / "samples")
    files = samples.files(samples.days(), "candidates")
    assert files
    for rows in map(pl.read_parquet, files):
        assert rows.equals(rows.sort("ts", "request_id", "position", "item_id"))
        assert rows.select("request_id", "item_id").is_unique().all()


def test_report_is_one_self_contained_page_that_says_simulated(ran: Ran) -> None:
    folder = ran.workspace / "reports" / "page"
    assert {file.name for file in folder.iterdir()} == {"manifest.json", "report.html", "report.json", "report.md"}
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "simulated" in page and "PRECTR-V2" in page
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?!\#|data:)[^"'\s>]""", page)
    assert not re.search(r"@import|url\((?!#|'#|\"#)", page)


def test_second_demo_skips_every_stage_and_says_so(ran: Ran) -> None:
    again = run_demo(ran.workspace, ran.settings)
    assert again.messages.count("up to date, skipped") == again.output.count("(skipped)") == len(STAGES)
    assert again.manifests() == ran.manifests()
    table = ran.output[: ran.output.index("POST /v1/score")]
    assert table in again.output


def test_bundle_holds_no_pickle(ran: Ran) -> None:
    names = {file.name for file in ran.bundle.rglob("*") if file.is_file()}
    assert {"ranker.onnx", "encoder.onnx", "model.safetensors", "config.json", "model_card.json"} <= names
    for file in ran.bundle.rglob("*"):
        assert file.suffix in ("", ".json", ".jsonl", ".onnx", ".safetensors", ".mdb", ".parquet"), file


def test_served_onnx_equals_the_trained_module(ran: Ran) -> None:
    import torch
    from safetensors.torch import load_file

    from prectr.training.config import TrainConfig
    from prectr.training.data import RankerData
    from prectr.training.ranker_loop import predict
    from prectr.training.step import TrainingStep

    samples = Samples.open(ran.workspace / "samples")
    test_day = split_days(samples.days())[2]
    for path in sorted((ran.workspace / "rankers").iterdir()):
        bundle, scorer = Bundle.open(path), Scorer(path)
        torch.manual_seed(1)
        ranker = train.build_ranker_from(bundle.model, bundle.spec, ran.workspace / "encoder")
        ranker.load_state_dict(load_file(path / "model.safetensors"))
        data = RankerData(samples, samples.files([test_day]))
        step = TrainingStep(ranker, samples, TrainConfig(model=bundle.model, precision="float32"))
        free, logged = predict(step, data)
        scores = scorer.score(data.rows, samples.pairs, samples.tokens)
        assert np.std(free) > 1e-4, "a constant score would make the comparison empty"
        np.testing.assert_allclose(scores.click_logit, free, atol=1e-4)
        np.testing.assert_allclose(scorer.with_position(scores.click_logit, data.position), logged, atol=1e-4)


def test_evaluation_predictions_are_the_scorers(ran: Ran) -> None:
    samples = Samples.open(ran.workspace / "samples")
    rows = TestDay.of(samples, Tables(ran.workspace / "tables"), ran.settings.evaluate).shown
    predictions = pl.read_parquet(ran.workspace / "reports" / "evaluation" / "predictions.parquet")
    assert predictions.height == rows.height > 500
    for path in sorted((ran.workspace / "rankers").iterdir()):
        scores = Scorer(path).score(samples.rows(rows), samples.pairs, samples.tokens)
        np.testing.assert_allclose(predictions[f"{path.name}.logit"].to_numpy(), scores.click_logit, atol=1e-5)
        np.testing.assert_allclose(predictions[f"{path.name}.incentive"].to_numpy(), scores.incentive, atol=1e-5)


def test_evaluate_refuses_a_ranker_of_other_samples(ran: Ran, tmp_path: Path) -> None:
    other = tmp_path / "samples"
    shutil.copytree(ran.workspace / "samples", other)
    manifest = json.loads((other / "manifest.json").read_text(encoding="utf-8"))
    (other / "manifest.json").write_text(json.dumps(manifest | {"identity": "another"}), encoding="utf-8")
    spec = json.loads((other / SPEC_FILE).read_text(encoding="utf-8"))
    (other / SPEC_FILE).write_text(json.dumps(spec | {"positions": spec["positions"] + 1}), encoding="utf-8")
    with pytest.raises(UsageError, match=r"prectr-v2: was trained on other samples than .*; models are compared"):
        evaluate.run(
            tables=ran.workspace / "tables",
            samples=other,
            preferences=ran.workspace / "preferences",
            bundles={"prectr-v2": [ran.bundle]},
            labels=ran.workspace / "labels",
            encoder=ran.workspace / "encoder",
            out=tmp_path / "evaluation",
            config=ran.settings.evaluate,
        )
    assert not (tmp_path / "evaluation").exists()


def test_failed_training_says_why_and_leaves_the_old_bundle(ran: Ran) -> None:
    bundle = ran.workspace / "rankers" / "wide-deep"
    before = {file: file.stat().st_mtime_ns for file in bundle.rglob("*")}
    config = ran.settings.train.model_copy(
        update={"model": Bundle.open(bundle).model, "learning_rate": 1e30, "warm_up": 0.0}
    )
    with pytest.raises(PrectrError, match=r"^the loss became (nan|inf) at step \d+ .*; lower train\.learning_rate\.$"):
        train.run(
            samples=ran.workspace / "samples",
            encoder=ran.workspace / "encoder",
            preferences=ran.workspace / "preferences",
            out=bundle,
            config=config,
        )
    assert {file: file.stat().st_mtime_ns for file in bundle.rglob("*")} == before
    assert not list(bundle.parent.glob(".wide-deep.*"))


@dataclass(frozen=True)
class Log:
    """Names that requests are made of."""

    user: str
    query: str
    items: list[str]
    ts: float


@pytest.fixture(scope="module")
def log(ran: Ran) -> Log:
    rows = Tables(ran.workspace / "tables").impressions()
    user = rows.group_by("user_id").len().sort("len", "user_id")["user_id"][-1]
    query = rows.group_by("query").len().sort("len", "query")["query"][-1]
    items = rows.filter(pl.col("query") == query)["item_id"].unique().sort().to_list()
    return Log(user, query, items[:20], rows["ts"].max().timestamp() + 3600.0)  # type: ignore[union-attr]


def test_many_requests_at_once_are_ordered_as_served(ran: Ran, log: Log) -> None:
    rows = Tables(ran.workspace / "tables").impressions()
    other = rows.filter(pl.col("query") != log.query)
    query, item = other.select("query", "item_id").row(0)
    requests = [
        PoolRequest(log.user, log.query, log.items, log.ts, 0),
        PoolRequest("nobody", query, [item, log.items[0]], log.ts, 1),
        PoolRequest(other["user_id"][0], log.query.upper(), log.items, log.ts + 60, 0),
        PoolRequest(other["user_id"][0], query, [item, log.items[0]], log.ts + 60, 1),
    ]
    bundles = [ran.bundle, ran.workspace / "rankers" / "wide-deep"]
    with contextlib.closing(BatchRanking(bundles)) as ranking:
        found = ranking.click_logits(requests)
        with pytest.raises(PrectrError, match="another catalogue: item 'unheard'"):
            ranking.click_logits([PoolRequest("u", log.query, ["unheard"], log.ts, 0)])
    for bundle, logits in zip(bundles, found, strict=True):
        service = Ranking(bundle)
        for request, values in zip(requests, logits, strict=True):
            served = service.rank(
                ScoreRequest(
                    user_id=request.user_id,
                    query=request.query,
                    candidates=list(request.candidates),
                    context=Context(ts=request.now),
                )
            )
            clicks = {entry.item_id: entry.click_probability for entry in served.results}
            expected = [clicks[candidate] for candidate in request.candidates]
            np.testing.assert_allclose(1 / (1 + np.exp(-values.astype(float))), expected, atol=1e-6)
        service.features.close()


def test_simulated_experiment_of_two_bundles_orders_by_them_and_knows_the_truth(ran: Ran, tmp_path: Path) -> None:
    bundle, other = ran.bundle, ran.workspace / "rankers" / "wide-deep"
    result = simulate_experiment.run(
        tables=ran.workspace / "tables",
        control=str(other),
        treatment=str(bundle),
        out=tmp_path / "experiment",
        replay=ReplayConfig(days=2, requests=30),
        experiment=ExperimentConfig(resamples=100),
    )
    report = json.loads((result.path / "experiment.json").read_text(encoding="utf-8"))
    assert report["rankers"] == [str(other), str(bundle)]
    assert report["truth"]["ctr"]["control"] != report["truth"]["ctr"]["treatment"]
    rows = pl.read_parquet(result.path / "exposures" / "*" / "*.parquet", hive_partitioning=False)
    last_day = Tables(ran.workspace / "tables").days()[-1]
    assert rows.height == 600 and rows["ts"].min().date() > last_day  # type: ignore[union-attr]
    for variant, path in (("control", other), ("treatment", bundle)):
        shown = rows.filter(pl.col("policy") == variant)
        first = shown.filter(pl.col("request_id") == shown["request_id"][0]).sort("position")
        user, query, ts = first.select("user_id", "query", "ts").row(0)
        candidates = first["item_id"].sort().to_list()
        service = Ranking(path)
        context = Context(ts=ts.timestamp())
        served = service.rank(ScoreRequest(user_id=user, query=query, candidates=candidates, context=context))
        service.features.close()
        clicks = {entry.item_id: entry.click_probability for entry in served.results}
        best_first = [entry.click_probability for entry in served.results]
        assert best_first[0] > best_first[-1]
        np.testing.assert_allclose([clicks[item] for item in first["item_id"]], best_first, atol=1e-6)


@pytest.fixture(scope="module")
def client(ran: Ran) -> Iterator[httpx.Client]:
    config = ServeConfig(port=free_port())
    with serve.serving(ran.bundle, config) as url, httpx.Client(base_url=url, timeout=60) as http:
        yield http


def test_health_names_the_bundle(ran: Ran, client: httpx.Client) -> None:
    assert client.get("/readyz").json() == {
        "status": "ready",
        "model": "prectr-v2",
        "version": read_manifest(ran.bundle)["identity"],  # type: ignore[index]
    }


def test_known_user_and_query_are_scored_in_click_order(client: httpx.Client, log: Log) -> None:
    body = {"user_id": log.user, "query": log.query, "candidates": log.items, "context": {"ts": log.ts}}
    answer = client.post("/v1/score", json=body).raise_for_status().json()
    assert answer["user_known"] and answer["query_known"] and answer["earlier_requests"] > 3
    results = answer["results"]
    assert sorted(entry["item_id"] for entry in results) == log.items
    clicks = [entry["click_probability"] for entry in results]
    assert clicks == sorted(clicks, reverse=True) and len(set(clicks)) > 1
    assert [entry["rank"] for entry in results] == list(range(1, len(results) + 1))
    for entry in results:
        levels = np.array(entry["level_probabilities"])
        assert levels.sum() == pytest.approx(1.0, abs=1e-5)
        assert entry["expected_level"] == pytest.approx(float(levels @ np.arange(4)), abs=1e-4)
    best = client.post("/v1/score", json=body | {"top_k": 3}).raise_for_status().json()
    assert best["results"] == results[:3]
    spelled = client.post("/v1/score", json=body | {"query": f"  {log.query.upper()} "}).raise_for_status().json()
    assert spelled["results"] == results


def test_unknown_user_and_unseen_query_are_scored(client: httpx.Client, log: Log) -> None:
    body = {"user_id": "nobody", "query": "never asked before", "candidates": log.items, "context": {"ts": log.ts}}
    answer = client.post("/v1/score", json=body).raise_for_status().json()
    assert (answer["user_known"], answer["query_known"], answer["earlier_requests"]) == (False, False, 0)
    assert len(answer["results"]) == len(log.items)
    assert {entry["relevance_source"] for entry in answer["results"]} == {"encoder"}


def test_new_item_is_scored_from_its_title_and_refused_without(client: httpx.Client, log: Log) -> None:
    body = {"user_id": log.user, "query": log.query, "context": {"ts": log.ts}}
    new = {"item_id": "new", "title": f"{log.query} as good as new"}
    answer = client.post("/v1/score", json=body | {"candidates": [*log.items[:3], new]}).raise_for_status().json()
    scored = {entry["item_id"]: entry for entry in answer["results"]}
    assert scored["new"]["relevance_source"] == "encoder" and scored["new"]["title"] == new["title"]
    partly = client.post("/v1/score", json=body | {"candidates": [*log.items[:3], "new"]}).raise_for_status().json()
    assert partly["unscored"] == ["new"] and len(partly["results"]) == 3
    refused = client.post("/v1/score", json=body | {"candidates": ["new"]})
    assert refused.status_code == 422
    assert "new" in refused.text and "title" in refused.text


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"candidates": ["i"] * (MAX_CANDIDATES + 1)}, "candidates"),
        ({"candidates": []}, "candidates"),
        ({"top_k": 0}, "top_k"),
        ({"user": "u"}, "user"),
        ({"query": None}, "query"),
    ],
)
def test_bad_requests_are_refused_by_field(client: httpx.Client, log: Log, change: dict[str, Any], named: str) -> None:
    body = {"user_id": log.user, "query": log.query, "candidates": log.items} | change
    refused = client.post("/v1/score", json=body)
    assert refused.status_code == 422
    assert named in [entry["loc"][1] for entry in refused.json()["detail"]]


def test_broken_json_is_the_clients_fault(client: httpx.Client) -> None:
    refused = client.post("/v1/score", content=b'{"user_id": ', headers={"content-type": "application/json"})
    assert 400 <= refused.status_code < 500


def test_batch_scores_equal_http_and_a_broken_line_keeps_its_place(ran: Ran, client: httpx.Client, log: Log) -> None:
    lamp = {"item_id": "n", "title": "lamp"}
    requests: list[dict[str, Any]] = [
        {"user_id": user, "query": query, "candidates": candidates, "context": {"ts": log.ts}}
        for user, query, candidates in (
            (log.user, log.query, log.items),
            ("nobody", "never asked before", log.items),
            (log.user, log.query, [lamp]),
        )
    ]
    lines = [json.dumps(request) for request in requests]
    unscorable = json.dumps({"user_id": "u", "query": "q", "candidates": ["no-such-item"]})
    source = io.StringIO("\n".join([lines[0], "{broken", lines[1], "", unscorable, lines[2]]) + "\n")
    target = io.StringIO()
    with pytest.raises(PrectrError, match=r"^2 of 5 lines could not be scored"):
        score.run(ranker=ran.bundle, source=source, target=target)
    answers = [json.loads(line) for line in target.getvalue().splitlines()]
    assert [answer.get("line") for answer in answers] == [None, 2, None, 5, None]
    assert "JSON" in answers[1]["error"] and "no-such-item" in answers[3]["error"]
    for request, batch in zip(requests, (answers[0], answers[2], answers[4])):
        online = client.post("/v1/score", json=request).raise_for_status().json()
        own = dict.fromkeys(("seconds", "request_id", "state_age_seconds", "impression_token"))
        # The batch scores all requests in one call of the model, the server each alone: other orders of summation.
        assert_close(batch | own, online | own, rel=1e-4, absolute=1e-5)


def test_nothing_to_score_is_an_error(ran: Ran) -> None:
    with pytest.raises(PrectrError, match="standard input holds no requests"):
        score.run(ranker=ran.bundle, source=io.StringIO("\n"), target=io.StringIO())


def test_a_taken_port_is_refused(ran: Ran) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PrectrError, match=rf"^127\.0\.0\.1:{port}: cannot listen there .*serve\.port"):
            serve.serving(ran.bundle, ServeConfig(port=port)).__enter__()


def test_ctrl_c_ends_a_server_and_all_its_processes(ran: Ran, tmp_path: Path) -> None:
    psutil = pytest.importorskip("psutil")
    port = free_port()
    root, messages = Path(__file__).parents[2], tmp_path / "messages"
    environment = with_code()
    command = [sys.executable, "-m", "jobs.cli", "serve", str(ran.bundle), "--port", str(port)]
    with messages.open("w") as stream:
        server = subprocess.Popen(command, cwd=root, env=environment, stderr=stream, start_new_session=True)
    children: list[Any] = []
    try:
        deadline = time.monotonic() + 120
        while "stop with Ctrl-C" not in messages.read_text():
            assert server.poll() is None and time.monotonic() < deadline, messages.read_text()
            time.sleep(0.2)
        assert httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=10).status_code == 200
        children = psutil.Process(server.pid).children(recursive=True)
        assert children
        os.killpg(server.pid, signal.SIGINT)  # as a terminal does: to the whole group
        assert server.wait(timeout=60) == 0, messages.read_text()
        assert "serving: stopped" in messages.read_text() and "Traceback" not in messages.read_text()
        _, alive = psutil.wait_procs(children, timeout=20)
        assert alive == []
        socket.create_server(("127.0.0.1", port)).close()
    finally:
        for process in (server, *children):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
