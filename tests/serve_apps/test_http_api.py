"""The HTTP API: answers, refusals, tokens, limits, slow clients, and fuzzed bodies, over a plain server."""

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import polars as pl
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from starlette.testclient import TestClient

from jobs import serve
from jobs.serve import _serve_plain
from prectr.contracts.protocol import MAX_CANDIDATES, CandidateItem
from prectr.core.errors import UsageError
from prectr.serving.client import AsyncClient, Client, RankerError, shown
from prectr.serving.config import ModelsConfig, SecurityConfig, ServeConfig
from prectr.serving.instruments import METRICS, PrometheusInstruments
from prectr.serving.service import ScoringService
from prectr.serving.tokens import BearerTokens
from serve_apps.http_api import create_app
from tests.prectr.bundle_world import World
from tests.serve_apps.conftest import plain_server

ITEMS = [f"i{number}" for number in range(5)]
TOKEN = "0123456789abcdef-token"


def _config(world: World, **settings_: Any) -> ServeConfig:
    return ServeConfig(models=ModelsConfig(bundles={"v2": world.bundle}), **settings_)


def _body(**fields: Any) -> dict[str, Any]:
    return {"user_id": "u0", "query": "nokia 3310", "candidates": ITEMS, "context": {"ts": 1.8e9}} | fields


@pytest.fixture
def http(world: World) -> Iterator[TestClient]:
    config, instruments = _config(world), PrometheusInstruments()
    with TestClient(create_app(ScoringService(config, instruments), config, instruments)) as client:
        yield client


def test_an_answer_is_in_click_order_and_names_its_model(http: TestClient) -> None:
    answer = http.post("/v1/score", json=_body(context={"ts": 1.8e9, "request_id": "r1"})).json()
    scores = [entry["score"] for entry in answer["results"]]
    assert scores == sorted(scores, reverse=True) and len(set(scores)) == 5
    assert answer["request_id"] == "r1" and answer["model"] == "v2" and answer["version"]
    assert set(answer["seconds"]) == {"waiting", "features", "model"}
    models = http.get("/v1/models").json()
    assert models["models"] == {"v2": answer["version"]} and models["default_model"] == "v2"
    assert http.get("/healthz").json() == {"status": "ok"}
    assert http.get("/readyz").json() == {"status": "ready", "model": "v2", "version": answer["version"]}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"candidates": ["i"] * (MAX_CANDIDATES + 1)}, "candidates"),
        ({"candidates": []}, "candidates"),
        ({"candidates": ["unheard"]}, "candidates"),
        ({"candidates": [{"item_id": "x", "title": "t" * 2001}]}, "candidates"),
        ({"query": ""}, "query"),
        ({"query": "q" * 2001}, "query"),
        ({"query": " \u200b"}, "query"),
        ({"user_id": None}, "user_id"),
        ({"user_id": ""}, "user_id"),
        ({"user_id": "NaN"}, "user_id"),
        ({"candidates": ["i0", "\\N"]}, "candidates"),
        ({"context": {"request_id": "null"}}, "context"),
        ({"top_k": 0}, "top_k"),
        ({"model": "../../etc/passwd"}, "model"),
        ({"context": {"ts": -1}}, "context"),
        ({"context": {"ts": 1e300}}, "context"),
        ({"context": {"ts": "2026-03-02T10:26:45"}}, "context"),
        ({"context": {"ts": 20260302}}, "context"),
        ({"user": "u"}, "user"),
    ],
)
def test_a_bad_request_is_refused_by_field(http: TestClient, change: dict[str, Any], field: str) -> None:
    refused = http.post("/v1/score", json=_body(**change))
    assert refused.status_code == 422
    assert field in [entry["loc"][1] for entry in refused.json()["detail"]]


def test_an_event_with_a_null_id_or_a_position_of_two_items_is_refused(world: World) -> None:
    shown = [{"item_id": "i0", "position": 1}]
    events = {"events": [{"request_id": f"r{user}", "user_id": user, "query": "nan", "shown": shown} for user in "ab"]}
    config = _config(world, null_ids=("B",))
    with TestClient(create_app(ScoringService(config, PrometheusInstruments()), config)) as http:
        refused = http.post("/v1/events", json=events)
        assert refused.status_code == 422
        assert refused.json()["detail"][0]["loc"] == ["body", "events", 1, "user_id"]
        assert "'b' stands for a missing id" in refused.json()["detail"][0]["msg"]
        assert http.post("/v1/events", json={"events": events["events"][:1]}).json()["accepted"] == 1
        assert http.post("/v1/score", json=_body(user_id="nan")).status_code == 200
        twice = events["events"][0] | {"shown": [*shown, {"item_id": "i1", "position": 1}]}
        refused = http.post("/v1/events", json={"events": [twice]})
        assert refused.status_code == 422 and refused.json()["detail"][0]["loc"] == ["body", "events", 0, "shown"]
        assert "position 1 holds two items" in refused.json()["detail"][0]["msg"]
        ahead = {"events": [events["events"][0] | {"ts": "2039-01-01 00:00:00 UTC"}]}
        refused = http.post("/v1/events", json=ahead)
        assert refused.status_code == 422 and refused.json()["detail"][0]["loc"] == ["body", "events", 0, "ts"]
        assert "2039-01-01T00:00:00+00:00 is" in refused.json()["detail"][0]["msg"]
        old = {"events": [events["events"][0] | {"ts": "2019-01-01 00:00:00 UTC"}]}
        assert http.post("/v1/events", json=old).json()["ignored"] == 1


@pytest.mark.parametrize("content", [b'{"user_id": ', b"\xff\xfe", b"[]", b"", b'{"user_id": "\\ud800"}'])
def test_what_is_no_request_is_the_clients_fault(http: TestClient, content: bytes) -> None:
    refused = http.post("/v1/score", content=content, headers={"content-type": "application/json"})
    assert 400 <= refused.status_code < 500


def test_metrics_hold_what_is_declared(http: TestClient) -> None:
    http.post("/v1/score", json=_body())
    text = http.get("/metrics").text
    for metric in METRICS:
        assert f"# HELP {metric.name}" in text
    assert 'prectr_stage_seconds_count{model="v2",stage="whole",variant="none"} 1.0' in text
    assert 'prectr_drift{model="v2",of="score"}' in text


def test_every_answer_forbids_sniffing_and_storing(http: TestClient) -> None:
    headers = http.post("/v1/score", json=_body()).headers
    assert headers["x-content-type-options"] == "nosniff" and headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in http.get("/v1/models", headers={"origin": "http://evil"}).headers


def test_other_origins_may_call_only_where_configured(world: World) -> None:
    config = _config(world, security=SecurityConfig(cors_origins=("http://shop",)))
    with TestClient(create_app(ScoringService(config, PrometheusInstruments()), config)) as http:
        for origin, allowed in (("http://shop", "http://shop"), ("http://evil", None)):
            answer = http.get("/v1/models", headers={"origin": origin})
            assert answer.headers.get("access-control-allow-origin") == allowed


ADMIN = "admin-token-of-the-tests"
REPORTER = "reporter-token-of-the-tests"


@contextlib.contextmanager
def _guarded(world: World, file: Path, tokens: str) -> Iterator[TestClient]:
    """An application with a file of tokens, and metrics."""
    file.write_text(tokens)
    config, instruments = _config(world, security=SecurityConfig(tokens_file=file)), PrometheusInstruments()
    with TestClient(create_app(ScoringService(config, instruments), config, instruments)) as http:
        yield http


def _bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def test_a_token_has_the_scopes_that_the_file_gives_it(world: World, tmp_path: Path) -> None:
    tokens = f"# ours\n{TOKEN}\n\n{REPORTER} events\n{ADMIN} admin score\n"
    score, models, events = ("POST", "/v1/score"), ("GET", "/v1/models"), ("POST", "/v1/events")
    start, docs, schema, metrics = (
        ("GET", path) for path in ("/v1/playground/start", "/docs", "/openapi.json", "/metrics")
    )
    allowed = {
        TOKEN: {score, models, start},
        REPORTER: {models, events},
        ADMIN: {score, models, start, docs, schema, metrics},
    }
    unproved = {
        "events": [{"request_id": "r", "user_id": "u", "query": "q", "shown": [{"item_id": "i", "position": 1}]}]
    }
    with _guarded(world, tmp_path / "tokens", tokens) as http:

        def ask(method: str, path: str, headers: dict[str, str]) -> httpx.Response:
            body = {"/v1/score": _body(), "/v1/events": unproved}.get(path)
            return http.request(method, path, headers=headers, json=body)

        paths = (score, models, events, start, docs, schema, metrics)
        for header in (None, "", TOKEN, "Bearer", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer # ours"):
            for path in paths:
                refused = ask(*path, {} if header is None else {"authorization": header})
                assert refused.status_code == 401 and refused.headers["www-authenticate"].startswith("Bearer"), path
        for token, may in allowed.items():
            for path in paths:
                answer = ask(*path, _bearer(token))
                assert answer.status_code == (200 if path in may else 403), (token, path, answer.text)
        for path in ("/", "/healthz"):
            assert http.get(path).status_code == 200
        browser = ("anyone", ADMIN)
        assert http.get("/docs", auth=browser).status_code == 200
        assert http.get("/v1/models", auth=browser).status_code == 401


def test_an_event_with_the_token_of_its_list_needs_no_other(world: World, tmp_path: Path) -> None:
    with _guarded(world, tmp_path / "tokens", TOKEN) as http:
        answer = http.post("/v1/score", json=_body(user_id="new", context={}), headers=_bearer(TOKEN)).json()
        rows = [{"item_id": entry["item_id"], "position": entry["rank"]} for entry in answer["results"]]
        event = {"request_id": answer["request_id"], "user_id": "new", "query": "nokia 3310", "shown": rows}
        proved = event | {"impression_token": answer["impression_token"]}
        for change, status in (({"user_id": "u0"}, 401), ({"shown": [*rows, {"item_id": "i", "position": 9}]}, 401)):
            refused = http.post("/v1/events", json={"events": [proved | change]})
            assert refused.status_code == status and refused.json()["detail"][0]["loc"] == ["body", "events", 0]
            refused = http.post("/v1/events", json={"events": [proved | change]}, headers=_bearer(TOKEN))
            assert refused.status_code == 403 and "impression_token" in refused.json()["detail"][0]["msg"]
        assert http.post("/v1/events", json={"events": [proved]}).json()["accepted"] == 1


def test_tokens_rotate_without_a_restart(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prectr.serving.tokens.LOOK_SECONDS", -1.0)
    file, newer = tmp_path / "tokens", "0123456789abcdef-newer"
    with _guarded(world, file, TOKEN) as http:

        def valid() -> list[bool]:
            return [http.get("/v1/models", headers=_bearer(token)).status_code == 200 for token in (TOKEN, newer)]

        assert valid() == [True, False]
        file.write_text(f"{TOKEN}\n{newer}\n")
        assert valid() == [True, True], "two are valid at once"
        for broken in ("", "short", f"{newer} everything"):
            file.write_text(broken)
            assert valid() == [True, True], "a broken file changes nothing"
        file.unlink()
        assert valid() == [True, True]
        file.write_text(newer)
        assert valid() == [False, True]


def test_tokens_come_from_a_file_or_the_environment(tmp_path: Path) -> None:
    assert not BearerTokens(SecurityConfig(), {})
    both = BearerTokens(SecurityConfig(), {"PRECTR_SERVE_TOKENS": f"{TOKEN} events, {TOKEN}2,"})
    assert (both.first_with("events"), both.first_with("score"), both.first_with("admin")) == (TOKEN, f"{TOKEN}2", None)
    for wrong, message in (
        ("short", "a token has fewer than 16 characters"),
        (f"{TOKEN} write", "'write' is no scope"),
    ):
        with pytest.raises(UsageError, match=f"PRECTR_SERVE_TOKENS: {message}"):
            BearerTokens(SecurityConfig(), {"PRECTR_SERVE_TOKENS": wrong})
    with pytest.raises(UsageError, match="tokens cannot be read"):
        BearerTokens(SecurityConfig(tokens_file=tmp_path / "none"), {})
    (tmp_path / "empty").write_text("# none yet\n")
    with pytest.raises(UsageError, match="holds no tokens"):
        BearerTokens(SecurityConfig(tokens_file=tmp_path / "empty"), {})


def test_a_large_or_frequent_report_is_refused(world: World) -> None:
    config = _config(world, event_bytes=2_000, unproved_lists_per_minute=1)
    event = {"request_id": "r", "user_id": "u", "query": "q", "shown": [{"item_id": "i0", "position": 1}]}
    with TestClient(create_app(ScoringService(config, PrometheusInstruments()), config)) as http:
        large = http.post("/v1/events", json={"events": [event | {"query": "q" * 1_999}]})
        assert large.status_code == 413 and "2000 bytes" in large.json()["detail"]
        assert http.post("/v1/score", json=_body(query="q" * 1_999)).status_code == 200
        assert http.post("/v1/events", json={"events": [event]}).json()["accepted"] == 1
        limited = http.post("/v1/events", json={"events": [event | {"request_id": "another"}]})
        assert limited.status_code == 429 and limited.headers["retry-after"] == "60"


def test_a_body_that_is_too_large_is_refused(world: World) -> None:
    config = _config(world, security=SecurityConfig(max_body_bytes=1_000))
    with TestClient(create_app(ScoringService(config, PrometheusInstruments()), config)) as http:
        large = json.dumps(_body(query="q" * 2000)).encode()
        refused = http.post("/v1/score", content=large, headers={"content-type": "application/json"})
        assert refused.status_code == 413 and "1000 bytes" in refused.json()["detail"]
        parts = (large[start : start + 100] for start in range(0, len(large), 100))  # chunked: without a length
        assert http.post("/v1/score", content=parts).status_code == 413
        assert http.post("/v1/score", json=_body()).status_code == 200


def test_overload_is_shed_and_a_late_request_told(world: World, free_port: int) -> None:
    config = _config(world, port=free_port, max_queued_requests=2, retry_after_seconds=7)

    async def scenario(url: str) -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=60)
        async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as http:
            asked = (http.post("/v1/score", json=_body(user_id=f"u{number}")) for number in range(60))
            return list(await asyncio.gather(*asked))

    with plain_server(config) as url:
        answers = asyncio.run(scenario(url))
        shed = [answer for answer in answers if answer.status_code == 429]
        assert {answer.status_code for answer in answers} == {200, 429}
        assert all(answer.headers["retry-after"] == "7" for answer in shed)
        assert httpx.post(f"{url}/v1/score", json=_body()).status_code == 200, "it recovers"
        bad = httpx.post(f"{url}/v1/score", json=_body(), headers={"x-request-timeout-seconds": "-1"})
        assert bad.status_code == 422


def test_a_server_that_ends_finishes_what_it_has(world: World, free_port: int) -> None:
    """Requests that were taken are answered, and their rows are in the log."""
    from serve_apps.plain import make_server

    log = world.bundle.parent / "drained"
    server = make_server(_config(world, port=free_port, log=log, max_queued_requests=100))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)

    async def scenario() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{free_port}", timeout=30) as http:
            tasks = [asyncio.create_task(http.post("/v1/score", json=_body(user_id=f"u{one}"))) for one in range(20)]
            while not any(task.done() for task in tasks):
                await asyncio.sleep(0.001)
            server.should_exit = True
            return list(await asyncio.gather(*tasks))

    answers = asyncio.run(scenario())
    thread.join(timeout=30)
    assert [answer.status_code for answer in answers] == [200] * 20 and not thread.is_alive()
    assert pl.read_parquet(log / "scored" / "*.parquet")["request_id"].n_unique() == 20


def test_a_slow_client_delays_nobody_else(world: World, free_port: int) -> None:
    with (
        plain_server(_config(world, port=free_port)) as url,
        socket.create_connection(("127.0.0.1", free_port)) as slow,
    ):
        slow.sendall(b"POST /v1/score HTTP/1.1\r\nhost: x\r\ncontent-length: 500\r\n\r\n{")
        with Client(url) as client:
            client.score("u0", "nokia 3310", ITEMS)
            started = time.perf_counter()
            for _ in range(5):
                slow.sendall(b" ")
                client.score("u0", "nokia 3310", ITEMS)
            assert time.perf_counter() - started < 5


def test_clients_speak_the_protocol(world: World, free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRECTR_SERVE_TOKENS", TOKEN)
    with plain_server(_config(world, port=free_port)) as url:
        new = CandidateItem(item_id="new", title="nokia 3310 blue", price=20.0)
        with Client(url, token=TOKEN) as client:
            answer = client.score("reader", "nokia 3310", [*ITEMS, new], ts=1.8e9, explain=True, top_k=3)
            assert len(answer.results) == 3 and answer.results[0].explanation is not None
            recorded = client.tell(shown(answer, "reader", "nokia 3310", clicked={answer.results[1].item_id}))
            assert recorded.accepted == 1 and set(recorded.tolerances) == {"reader"}
            assert client.score("reader", "nokia 3310", ITEMS).earlier_requests == 1
            with pytest.raises(RankerError, match=r"answered 422: .*no model 'x' is served") as error:
                client.score("reader", "nokia 3310", ITEMS, model="x")
            assert error.value.status == 422

        async def scenario() -> None:
            async with AsyncClient(url, token=TOKEN) as client:
                answers = await asyncio.gather(*(client.score("reader", "sofa", ITEMS, ts=1.8e9) for _ in range(4)))
                assert len({tuple(entry.score for entry in one.results) for one in answers}) == 1
                assert (await client.tell(shown(answers[0], "reader", "sofa"))).accepted == 1

        asyncio.run(scenario())
        with Client(url) as stranger, pytest.raises(RankerError, match="answered 401"):
            stranger.score("u", "q", ITEMS)


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
def test_fuzzed_requests_never_break_the_server(http: TestClient, mode: schemathesis.GenerationMode) -> None:
    """Schemathesis draws requests from our own OpenAPI, fitting and not; no answer is a 5xx or undocumented."""
    schema = schemathesis.openapi.from_dict(http.get("/openapi.json").json())
    seen: set[tuple[str, int]] = set()

    def ask(case: Any, documented: set[int]) -> None:
        arguments = case.as_transport_kwargs(base_url="http://testserver")
        supported = {
            name: arguments[name] for name in ("method", "url", "params", "json", "headers") if name in arguments
        }
        answer = http.request(**supported, content=arguments.get("data"))
        seen.add((case.path, answer.status_code))
        assert answer.status_code in documented, f"{case.path}: {answer.status_code} {answer.text}"

    for operation in (found.ok() for found in schema.get_all_operations()):
        documented = {int(code) for code in operation.definition.raw["responses"]} | {400, 405, 422}
        drawn = operation.as_strategy(generation_mode=mode)

        with contextlib.suppress(Unsatisfiable):  # nothing can be wrong with a request that has no parts
            _fuzz(drawn, lambda case, documented=documented: ask(case, documented))
    answered = {path for path, status in seen if status == 200}
    refused = {path for path, status in seen if status == 422}
    if mode == schemathesis.GenerationMode.POSITIVE:
        assert {"/v1/events", "/v1/models", "/healthz"} <= answered
    else:
        assert {"/v1/score", "/v1/events"} <= refused


def _fuzz(drawn: Any, ask: Any) -> None:
    @settings(max_examples=60, suppress_health_check=list(HealthCheck))
    @given(drawn)
    def fuzz(case: Any) -> None:
        ask(case)

    fuzz()


def test_a_server_that_stops_is_alive_but_not_ready_and_still_answers(world: World) -> None:
    service = ScoringService(ServeConfig(), PrometheusInstruments())
    with TestClient(create_app(service, ServeConfig())) as http:
        assert http.get("/healthz").status_code == 200
        unready = http.get("/readyz")
        assert (unready.status_code, unready.json()) == (503, {"detail": "no model is loaded"})
    config = _config(world)
    service = ScoringService(config, PrometheusInstruments())
    with TestClient(create_app(service, config)) as http:
        assert http.get("/readyz").status_code == 200
        service.begin_shutdown()
        assert http.get("/readyz").json() == {"detail": "the server is stopping"}
        assert http.get("/healthz").status_code == 200 and http.post("/v1/score", json=_body()).status_code == 200


def test_an_address_that_others_reach_needs_tokens_or_a_flag(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    class Allowed(Exception):
        pass

    def allow(*_: object) -> None:
        raise Allowed

    monkeypatch.setattr("jobs.serve.require_free_port", allow)
    for host in ("0.0.0.0", "::", "10.0.0.1", "example.org"):
        with pytest.raises(UsageError, match=f"serve.host {host}: other machines .* or pass --insecure"):
            serve.run(rankers=[world.bundle], config=ServeConfig(host=host))
        with pytest.raises(Allowed):
            serve.run(rankers=[world.bundle], config=ServeConfig(host=host), insecure=True)
    for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"):
        with pytest.raises(Allowed):
            serve.run(rankers=[world.bundle], config=ServeConfig(host=host))
    monkeypatch.setenv("PRECTR_SERVE_TOKENS", TOKEN)
    with pytest.raises(Allowed):
        serve.run(rankers=[world.bundle], config=ServeConfig(host="0.0.0.0"))


def test_a_plain_server_is_unready_for_a_while_before_it_closes_its_port(
    world: World, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `prectr serve --plain` ends after a signal."""
    url = f"http://127.0.0.1:{free_port}"
    seen: list[int] = []

    def stop() -> None:
        threading.Thread(target=look, daemon=True).start()

    def look() -> None:
        with contextlib.suppress(httpx.TransportError):
            while True:
                seen.append(httpx.get(f"{url}/readyz", timeout=5).status_code)
                time.sleep(0.02)

    monkeypatch.setattr("jobs.serve.wait_for_interrupt", stop)
    host: Any = SimpleNamespace(shut_down=lambda work: work())
    _serve_plain(_config(world, port=free_port, unready_seconds=0.5), None, host)
    assert 503 in seen and set(seen) <= {200, 503}
