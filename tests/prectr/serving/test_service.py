"""A service without HTTP: who is scored by which model, changes under load, events, health, the log."""

import asyncio
import json
import math
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import yaml

from jobs.score import ScoreLines
from prectr.contracts.protocol import Context, Event, InvalidField, ScoreRequest, ScoreResponse, ShownItem
from prectr.core.errors import PrectrError, UsageError
from prectr.data.exposure_log import impressions, scored_with_events
from prectr.evaluation.experiments.config import ExperimentConfig
from prectr.evaluation.experiments.exposures import read_experiment
from prectr.ranking.bundle import Bundle
from prectr.ranking.golden import golden_scores, require_golden
from prectr.ranking.ranking import Ranking
from prectr.serving import service as service_module
from prectr.serving import states
from prectr.serving.batcher import Overloaded, TooLate
from prectr.serving.client import shown
from prectr.serving.config import ExperimentSplit, ModelsConfig, SecurityConfig, ServeConfig, ShadowConfig
from prectr.serving.event_recorder import TooManyEvents, Unproved
from prectr.serving.instruments import PrometheusInstruments
from prectr.serving.publish import publish
from prectr.serving.service import ScoringService, UnknownModel
from tests.prectr.bundle_world import World, record_files
from tests.redis_server import RedisServer

ITEMS = [f"i{number}" for number in range(5)]
ANY_TIME: dict[str, Any] = {"event_ahead_hours": None, "event_window_days": None}
"""Settings under which events may have the tests' fixed times."""


@pytest.fixture
def bundles(world: World, tmp_path: Path) -> dict[str, Path]:
    """Two bundles: the second has another identity, and says the same."""
    paths = {}
    for name in ("a", "b"):
        paths[name] = tmp_path / "rankers" / name
        shutil.copytree(world.bundle, paths[name])
    manifest = paths["b"] / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"identity": "of-b"}))
    return paths


def request(user: str = "u0", **fields: Any) -> ScoreRequest:
    defaults = {"user_id": user, "query": "nokia 3310", "candidates": ITEMS, "context": Context(ts=1.8e9)}
    return ScoreRequest.model_validate(defaults | fields)


def serve(config: ServeConfig, scenario: Any, instruments: PrometheusInstruments | None = None) -> Any:
    async def whole() -> Any:
        service = ScoringService(config, instruments or PrometheusInstruments())
        try:
            return await scenario(service)
        finally:
            await service.close()

    return asyncio.run(whole())


def _same(actual: ScoreResponse, expected: ScoreResponse) -> None:
    assert [entry.item_id for entry in actual.results] == [entry.item_id for entry in expected.results]
    np.testing.assert_allclose(
        [entry.score for entry in actual.results], [entry.score for entry in expected.results], atol=1e-5
    )


def test_together_scores_as_alone(world: World, bundles: dict[str, Path]) -> None:
    """What is in a batch with a request does not touch its scores; nor do caches."""
    requests = [
        request(user, query=query, candidates=items)
        for user in ("u0", "u1", "nobody")
        for query, items in (("nokia 3310", ITEMS), ("sofa", ITEMS[:2]), ("unheard of", ITEMS[1:]))
    ]
    ranking = Ranking(world.bundle)
    alone = [ranking.rank(one) for one in requests]
    ranking.close()

    async def scenario(service: ScoringService) -> None:
        for _ in range(2):
            actual = await asyncio.gather(*(service.score(one) for one in requests))
            for together, single in zip(actual, alone, strict=True):
                _same(together, single)

    instruments = PrometheusInstruments()
    config = ServeConfig(models=ModelsConfig(bundles={"a": bundles["a"]}))
    serve(config, scenario, instruments)
    text = instruments.text().decode()
    assert 'prectr_requests_total{model="a",outcome="answered",variant="none"} 18.0' in text
    assert 'prectr_users_total{kind="cold",model="a",variant="none"} 6.0' in text


def test_unknown_items_are_named_and_the_rest_is_scored(bundles: dict[str, Path]) -> None:
    async def scenario(service: ScoringService) -> None:
        whole = await service.score(request())
        part = await service.score(request(candidates=["unheard", *ITEMS, "of"]))
        assert part.unscored == ["unheard", "of"]
        _same(part, whole)
        described = await service.score(request(candidates=[{"item_id": "unheard", "title": "nokia"}, "i0"]))
        assert {entry.item_id: entry.in_catalogue for entry in described.results} == {"unheard": False, "i0": True}
        with pytest.raises(ValueError, match="item 'unheard' is not in the catalogue"):
            await service.score(request(candidates=["unheard"]))

    serve(ServeConfig(models=ModelsConfig(bundles={"a": bundles["a"]})), scenario)


def test_an_explanation_adds_up(bundles: dict[str, Path]) -> None:
    async def scenario(service: ScoringService) -> None:
        answer = await service.score(request(explain=True))
        plain = await service.score(request())
        assert all(entry.explanation is None for entry in plain.results)
        for entry in answer.results:
            explanation = entry.explanation
            assert explanation is not None
            mixed = float(np.dot(entry.level_probabilities, explanation.level_click_probabilities))
            assert explanation.without_tau == pytest.approx(mixed, abs=1e-4), "the sum over levels, before tau"
            logit = np.log(explanation.without_tau / (1 - explanation.without_tau)) + entry.tau
            assert entry.score == pytest.approx(logit, abs=1e-4)
            assert set(explanation.rates) == {"user", "query", "item", "pair", "user_brand", "user_category"}

    serve(ServeConfig(models=ModelsConfig(bundles={"a": bundles["a"]})), scenario)


def test_users_stay_with_their_model_and_a_request_may_name_one(bundles: dict[str, Path]) -> None:
    models = ModelsConfig(bundles=bundles, experiment=ExperimentSplit(shares={"b": 0.5}))

    async def scenario(service: ScoringService) -> None:
        seen = {user: (await service.score(request(user))).variant for user in map(str, range(40))}
        assert {user: (await service.score(request(user))).variant for user in seen} == seen
        assert 8 < list(seen.values()).count("b") < 32
        for user, variant in list(seen.items())[:5]:
            answer = await service.score(request(user))
            assert answer.version == ("of-b" if variant == "b" else service.describe().models["a"])
        named = await service.score(request("0", model="b"))
        assert (named.model, named.version, named.variant) == ("b", "of-b", None)
        for wrong in ("c", "../a", "/etc/passwd"):
            with pytest.raises(UnknownModel, match=wrong):
                await service.score(request(model=wrong))

    serve(ServeConfig(models=models), scenario)


def test_models_change_under_load_without_a_lost_request(bundles: dict[str, Path]) -> None:
    one, other = ModelsConfig(bundles={"x": bundles["a"]}), ModelsConfig(bundles={"x": bundles["b"]})

    async def scenario(service: ScoringService) -> None:
        versions: list[str] = []
        done = asyncio.Event()

        async def client(user: str) -> None:
            while not done.is_set():
                versions.append((await service.score(request(user))).version)

        clients = [asyncio.create_task(client(str(number))) for number in range(4)]
        for models in (other, one, other):
            await asyncio.sleep(0.1)
            await service.reconfigure(models)
            count = len(versions)
            while len(versions) < count + 20:
                await asyncio.sleep(0.01)
        done.set()
        await asyncio.gather(*clients)
        assert versions[-1] == "of-b" and len(set(versions)) == 2
        assert len(service._loader._states) == 1, "the state of the bundle that went is closed"

    serve(ServeConfig(models=one, max_queued_requests=64), scenario)


def test_a_bundle_that_does_not_score_as_it_did_is_refused(bundles: dict[str, Path]) -> None:
    golden = bundles["b"] / "golden.json"
    content = json.loads(golden.read_text())
    content["click_logits"][1][0] += 0.01
    golden.write_text(json.dumps(content))
    record_files(bundles["b"])
    with pytest.raises(PrectrError, match=r"golden request 2 \('.+'\) scores .* ONNX Runtime has changed"):
        serve(ServeConfig(models=ModelsConfig(bundles={"b": bundles["b"]})), None)

    async def scenario(service: ScoringService) -> None:
        before = service.describe()
        await service.reconfigure(ModelsConfig(bundles=bundles))
        description = service.describe()
        assert description.models == before.models and "golden request 2" in (description.refused or "")
        assert (await service.score(request())).model == "a"
        await service.reconfigure(ModelsConfig(bundles={"other name": bundles["a"]}))
        assert service.describe().refused is None

    serve(ServeConfig(models=ModelsConfig(bundles={"a": bundles["a"]})), scenario)


@pytest.mark.parametrize("int8", [False, True])
def test_golden_requests_hold_and_are_of_three_kinds(world: World, int8: bool) -> None:
    golden = golden_scores(world.bundle)
    ranking = Ranking(world.bundle, int8=int8, users=golden.users.get)
    require_golden(golden, ranking, int8, "bundle")
    answers = [ranking.rank(one) for one in golden.requests]
    ranking.close()
    assert answers[0].user_known and not answers[2].user_known
    assert not answers[2].query_known and not all(entry.in_catalogue for entry in answers[2].results)
    assert answers[0].earlier_requests > answers[1].earlier_requests > 0 == answers[2].earlier_requests
    log_users = {f"u{number}" for number in range(100)}
    assert not log_users & {request.user_id for request in golden.requests} and not log_users & set(golden.users)


@pytest.mark.parametrize(("int8", "too_far"), [(False, 1e-2), (True, 0.3)])
def test_another_processors_rounding_passes_and_another_model_does_not(
    world: World, int8: bool, too_far: float
) -> None:
    golden, field = golden_scores(world.bundle), "int8_click_logits" if int8 else "click_logits"
    published: list[list[float]] = getattr(golden, field)
    ranking = Ranking(world.bundle, int8=int8, users=golden.users.get)

    def require(logits: list[list[float]]) -> None:
        require_golden(golden.model_copy(update={field: logits}), ranking, int8, "bundle")

    require([[value * (1 + 1e-7) for value in logits] for logits in published])
    for request in range(len(published)):  # any one score that is off refuses the bundle
        moved = [list(logits) for logits in published]
        moved[request][-1] += too_far
        with pytest.raises(PrectrError, match=f"bundle: golden request {request + 1} "):
            require(moved)
    ranking.close()


def test_health_runs_the_golden_requests(bundles: dict[str, Path]) -> None:
    async def scenario(service: ScoringService) -> None:
        await service.check_health()
        model = service.default
        off = [[value + 1.0 for value in logits] for logits in model.golden.click_logits]
        service._models = {"a": replace(model, golden=model.golden.model_copy(update={"click_logits": off}))}
        with pytest.raises(PrectrError, match="a: golden request 1"):
            await service.check_health()

    serve(ServeConfig(models=ModelsConfig(bundles={"a": bundles["a"]})), scenario)


def test_a_bundle_that_is_replaced_where_it_lies_is_refused_and_the_old_one_goes_on(bundles: dict[str, Path]) -> None:
    models = ModelsConfig(bundles={"a": bundles["a"]})

    async def scenario(service: ScoringService) -> None:
        version = service.describe().models["a"]
        shutil.rmtree(bundles["a"])
        shutil.copytree(bundles["b"], bundles["a"])
        await service.reconfigure(models)
        description = service.describe()
        assert description.models == {"a": version} and "was replaced while the earlier version" in (
            description.refused or ""
        )
        assert (await service.score(request())).version == version
        await service.check_health()

    serve(ServeConfig(models=models), scenario)


def test_an_old_and_a_new_model_of_one_name_may_meet_in_a_batch(bundles: dict[str, Path]) -> None:
    async def scenario(service: ScoringService) -> None:
        old = service.default
        await service.reconfigure(ModelsConfig(bundles={"x": bundles["a"], "y": bundles["b"]}))
        jobs = [
            service_module._Job(model, request(), math.inf) for model in (replace(old, name="y"), service._models["y"])
        ]
        actual = [answer.version for answer in service._score_batch(jobs) if isinstance(answer, ScoreResponse)]
        assert actual == [old.bundle.version, "of-b"]

    serve(ServeConfig(models=ModelsConfig(bundles={"x": bundles["a"]})), scenario)


def test_a_file_of_models_is_watched(bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "WATCH_SECONDS", 0.02)
    file = tmp_path / "models.yaml"

    async def until(service: ScoringService, condition: Any) -> None:
        for _ in range(500):
            if condition(service.describe()):
                return
            await asyncio.sleep(0.02)
        raise AssertionError(service.describe())

    async def scenario(service: ScoringService) -> None:
        service.watch(file)
        await asyncio.sleep(0.1)
        assert list(service.describe().models) == ["a"], "no file, no change"
        file.write_text(yaml.safe_dump({"bundles": {"a": str(bundles["a"]), "b": str(bundles["b"])}}))
        await until(service, lambda description: list(description.models) == ["a", "b"])
        file.write_text("bundles: {a: [")
        await until(service, lambda description: description.refused)
        assert list(service.describe().models) == ["a", "b"]
        file.write_text(yaml.safe_dump({"bundles": {"b": str(bundles["b"])}, "bundle": 1}))
        await until(service, lambda description: "bundle" in (description.refused or ""))
        file.write_text("bundles: {b: 'https://user:planted-password@host/bundle?token=planted-token'}")
        await until(service, lambda description: "host" in (description.refused or ""))
        assert "***" in str(service.describe().refused) and "planted" not in service.describe().model_dump_json()

    serve(ServeConfig(models=ModelsConfig(bundles={"a": bundles["a"]})), scenario)


def test_a_missing_id_enters_no_arm_and_no_log(bundles: dict[str, Path], tmp_path: Path) -> None:
    models = ModelsConfig(bundles=bundles, experiment=ExperimentSplit(shares={"b": 0.5}))
    items = [ShownItem(item_id=ITEMS[0], position=1, clicked=True)]

    async def scenario(service: ScoringService) -> None:
        for user in ("nan", " NULL "):
            with pytest.raises(InvalidField, match="stands for a missing id"):
                await service.score(request(user))
            with pytest.raises(InvalidField, match="stands for a missing id"):
                await service.record_events([Event(request_id="r", user_id=user, query="q", shown=items)])
        await service.score(request("nano"))

    serve(ServeConfig(models=models, log=tmp_path / "log"), scenario)
    assigned = pl.read_parquet(tmp_path / "log" / "assignment" / "*.parquet")
    assert assigned["user_id"].to_list() == ["nano"] and not list((tmp_path / "log" / "events").iterdir())


def test_the_log_merges_the_rows_of_an_item_by_user(bundles: dict[str, Path], tmp_path: Path) -> None:
    clicked, later = ({"item_id": "i0", "position": place, "clicked": place == 1} for place in (1, 3))
    bodies = [("u0", [clicked, later]), ("u1", [later]), ("u0", [later | {"purchased": True, "price": 5.0}])]
    events = [Event(request_id="r", user_id=user, query="q", shown=rows) for user, rows in bodies]  # type: ignore[arg-type]

    async def scenario(service: ScoringService) -> None:
        assert (await service.record_events(events)).accepted == 2

    serve(ServeConfig(models=ModelsConfig(bundles={"a": bundles["a"]}), log=tmp_path / "log"), scenario)
    rows = impressions(tmp_path / "log").collect().sort("user_id")
    columns = ["user_id", "item_id", "position", "clicked", "purchased", "price"]
    assert rows.select(columns).rows() == [("u0", "i0", 1, True, True, 5.0), ("u1", "i0", 3, False, False, None)]


def test_events_ahead_are_refused_and_old_ones_ignored(bundles: dict[str, Path], tmp_path: Path) -> None:
    models = ModelsConfig(bundles={"a": bundles["a"]})
    now, hour, day = time.time(), 3_600, 86_400
    items = [ShownItem(item_id=ITEMS[0], position=1, clicked=True)]
    instruments = PrometheusInstruments()

    def at(ts: float | None) -> Event:
        return Event(request_id=f"r{ts}", user_id="u0", query="q", shown=items, ts=ts)

    async def scenario(service: ScoringService) -> None:
        before = await service.score(request("u0"))
        ahead = now + 1.1 * hour
        with pytest.raises(InvalidField, match=r"1\.1 hours ahead of the server's clock \(20.*_ahead_hours") as error:
            await service.record_events([at(now), at(ahead)])
        assert error.value.path == ("events", 1, "ts")
        assert datetime.fromtimestamp(ahead, UTC).isoformat(timespec="minutes")[:16] in str(error.value)
        old = await service.record_events([at(now - 8.1 * day), at(0.0)])
        assert (old.accepted, old.ignored) == (0, 2)
        assert (await service.score(request("u0"))).user_tolerance == before.user_tolerance
        recorded = await service.record_events([at(now + 0.9 * hour), at(now - 7.9 * day), at(now - 9 * day), at(None)])
        assert (recorded.accepted, recorded.ignored) == (3, 1)

    serve(ServeConfig(models=models, log=tmp_path / "log"), scenario, instruments)
    assert pl.read_parquet(tmp_path / "log" / "events" / "*.parquet").height == 3
    text = instruments.text().decode()
    assert 'prectr_events_refused_total{reason="old"} 3.0' in text
    assert 'prectr_events_refused_total{reason="ahead"} 1.0' in text
    free = ServeConfig(models=models, **ANY_TIME)
    assert serve(free, lambda service: service.record_events([at(0.0), at(4e9)])).accepted == 2


def test_an_event_needs_the_token_of_its_list(bundles: dict[str, Path]) -> None:
    """A token proves the request, user, query and items that were scored together, until it expires."""
    config = ServeConfig(models=ModelsConfig(bundles={"a": bundles["a"]}))

    async def scenario(service: ScoringService) -> None:
        answer = await service.score(request("nobody", top_k=4, context=Context()))
        event = shown(answer, "nobody", "nokia 3310", clicked={answer.results[0].item_id})
        rest = (set(ITEMS) - {entry.item_id for entry in answer.results}).pop()
        foreign = [*event.shown, ShownItem(item_id=rest, position=9)]
        changes: list[dict[str, Any]] = [
            {"user_id": "u0"},
            {"request_id": "another"},
            {"query": "sofa"},
            {"shown": foreign},
            {"impression_token": None},
            {"impression_token": ""},
            {"impression_token": "A" * 40},
            {"impression_token": (event.impression_token or "")[:-4] + "AAAA"},
            {"impression_token": "\u00e9"},
        ]
        for change in changes:
            with pytest.raises(Unproved) as error:
                await service.record_events([event, event.model_copy(update=change)], trusted=False)
            assert error.value.number == 1
            if change.get("impression_token", "given") is not None:
                with pytest.raises(Unproved):
                    await service.record_events([event.model_copy(update=change)], trusted=True)
        assert not (await service.score(request("nobody"))).user_known, "nothing was recorded"
        part = event.model_copy(update={"shown": event.shown[2:], "query": " NOKIA  3310"})
        assert (await service.record_events([part], trusted=False)).accepted == 1
        assert (await service.record_events([event], trusted=False)).accepted == 1
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("prectr.serving.impression_tokens.time.time", lambda: time.time_ns() / 1e9 + 24.1 * 3600)
            with pytest.raises(Unproved, match="has expired"):
                await service.record_events([event], trusted=False)

    serve(config, scenario)


def test_impression_keys_are_shared_and_rotate(
    bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prectr.serving.tokens.LOOK_SECONDS", -1.0)
    file, (old, new) = tmp_path / "keys", ("old-" * 8, "new-" * 8)
    file.write_text(old)
    config = ServeConfig(
        models=ModelsConfig(bundles={"a": bundles["a"]}), security=SecurityConfig(impression_keys_file=file)
    )

    async def sign(service: ScoringService) -> Event:
        return shown(await service.score(request("nobody", context=Context())), "nobody", "nokia 3310")

    event = serve(config, sign)

    async def scenario(service: ScoringService) -> None:
        assert (await service.record_events([event], trusted=False)).accepted == 1, "another process signed it"
        file.write_text(f"{new}\n{old}\n")
        later = await sign(service)
        assert (await service.record_events([event, later], trusted=False)).accepted == 1
        file.write_text("")
        assert (await service.record_events([event], trusted=False)).accepted == 0, "an empty file changes nothing"
        file.write_text(f"{new}\n")
        assert (await service.record_events([later], trusted=False)).accepted == 0
        with pytest.raises(Unproved):
            await service.record_events([event], trusted=False)

    serve(config, scenario)


def test_a_user_who_sends_too_many_lists_is_stopped_and_others_are_not(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    config = ServeConfig(
        models=ModelsConfig(bundles={"a": bundles["a"]}), unproved_lists_per_minute=2, log=tmp_path / "log"
    )
    items = [ShownItem(item_id=ITEMS[0], position=1, clicked=True)]
    instruments = PrometheusInstruments()

    def event(user: str, name: str) -> Event:
        return Event(request_id=name, user_id=user, query="q", shown=items)

    async def scenario(service: ScoringService) -> None:
        recorded = await service.record_events([event("u", name) for name in "abc"] + [event("v", "a")])
        assert (recorded.accepted, recorded.limited, set(recorded.tolerances)) == (3, 1, {"u", "v"})
        with pytest.raises(TooManyEvents):
            await service.record_events([event("u", "c")])
        assert (await service.record_events([event("u", "a")])).limited == 0, "a list that counts already"
        answer = await service.score(request("u", context=Context()))
        assert answer.earlier_requests == 2
        proved = shown(answer, "u", "nokia 3310")
        assert (await service.record_events([proved], trusted=False)).accepted == 1

    serve(config, scenario, instruments)
    assert 'prectr_events_refused_total{reason="too_fast"} 2.0' in instruments.text().decode()
    logged = pl.read_parquet(tmp_path / "log" / "events" / "*.parquet")
    assert "c" not in logged["request_id"].to_list()


def test_events_wait_for_scores_and_a_full_queue_of_them_is_refused(bundles: dict[str, Path]) -> None:
    """A large post of events is done in short steps, with scores in between; the queue of events has its own limit."""
    config = ServeConfig(
        models=ModelsConfig(bundles={"a": bundles["a"]}), event_queue_items=400, event_items=300, max_queued_requests=0
    )
    items = [ShownItem(item_id=f"new{number}", position=number + 1, title=f"nokia {number}") for number in range(100)]
    events = [Event(request_id=f"r{number}", user_id="u", query="nokia 3310", shown=items) for number in range(3)]

    async def scenario(service: ScoringService) -> None:
        with pytest.raises(InvalidField, match=r"hold 400 items; at most 300"):
            await service.record_events([*events, events[0]])
        done: list[str] = []

        async def post() -> None:
            assert (await service.record_events(events)).accepted == 3
            done.append("events")

        posts = [asyncio.create_task(post())]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await service.record_events(events)
        await service.score(request("u0"))
        done.append("score")
        await asyncio.gather(*posts)
        assert done == ["score", "events"], "the score did not wait for all the events"
        assert (await service.record_events(events)).accepted == 0, "the queue is empty again"

    serve(config, scenario)


def test_a_request_that_is_late_when_its_work_begins_is_not_scored(bundles: dict[str, Path]) -> None:
    """Work that is not a batch, such as a check of the golden requests, also makes requests late."""
    config = ServeConfig(models=ModelsConfig(bundles={"a": bundles["a"]}), deadline_ms=50)

    async def scenario(service: ScoringService) -> None:
        await service.score(request())
        blocked = asyncio.create_task(service.run(time.sleep, 0.2))
        await asyncio.sleep(0)
        with pytest.raises(TooLate):
            await service.score(request())
        await blocked
        await service.score(request())

    serve(config, scenario)


def test_lines_with_a_missing_id_are_not_scored(world: World) -> None:
    lines = [request(user).model_dump_json() for user in ("u0", "None", "absent")]
    scorer = ScoreLines(str(world.bundle), False, ("none", "absent"))
    answers = scorer(pa.table({"number": [1, 2, 3], "line": lines}))
    assert answers["failed"].to_pylist() == [False, True, True]
    assert json.loads(answers["answer"][1].as_py()) == {
        "line": 2,
        "error": "user_id: 'None' stands for a missing id (serve.null_ids), so it names nothing",
    }


def _event(answer: ScoreResponse, user: str, clicked: set[str], ts: float) -> Event:
    rows = [
        ShownItem(item_id=entry.item_id, position=entry.rank, clicked=entry.item_id in clicked)
        for entry in answer.results
    ]
    return Event(request_id=answer.request_id, user_id=user, query="nokia 3310", shown=rows, ts=ts)


def test_the_next_request_sees_what_was_clicked(bundles: dict[str, Path], tmp_path: Path) -> None:
    config = ServeConfig(models=ModelsConfig(bundles={"a": bundles["a"]}), events=tmp_path / "events", **ANY_TIME)
    later = {"context": Context(ts=1.8e9 + 60)}

    async def scenario(service: ScoringService) -> ScoreResponse:
        first = await service.score(request("nobody"))
        assert not first.user_known
        recorded = await service.record_events([_event(first, "nobody", {ITEMS[0]}, 1.8e9)])
        assert recorded.accepted == 1
        again = await service.record_events([_event(first, "nobody", {ITEMS[0]}, 1.8e9)])
        assert again.accepted == 0 and again.tolerances == recorded.tolerances
        second = await service.score(request("nobody", **later))
        assert second.user_known and second.earlier_requests == 1
        found, expected = second.user_tolerance, recorded.tolerances["nobody"]
        assert (found.mean, found.deviation) == pytest.approx((expected.mean, expected.deviation), rel=1e-9)
        assert found.mean != pytest.approx(first.user_tolerance.mean, rel=1e-6)
        assert [entry.score for entry in second.results] != [entry.score for entry in first.results]
        return second

    async def after_a_restart(service: ScoringService) -> ScoreResponse:
        return await service.score(request("nobody", **later))

    second = serve(config, scenario)
    _same(serve(config, after_a_restart), second)


def test_published_features_give_the_bundles_scores(
    bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(states, "LOOK_SECONDS", 0.0)
    models = ModelsConfig(bundles={"a": bundles["a"]})
    target = tmp_path / "features"
    publish(Bundle.open(bundles["b"]), str(target), lambda _: None)
    expected = serve(ServeConfig(models=models), lambda service: service.score(request("u1")))

    async def scenario(service: ScoringService) -> None:
        _same(await service.score(request("u1")), expected)
        version = service.describe().state_version
        monkeypatch.setattr("prectr.serving.publish.os.getpid", lambda: 77)
        publish(Bundle.open(bundles["b"]), str(target), lambda _: None)
        _same(await service.score(request("u1")), expected)
        newer = service.describe().state_version
        assert newer != version
        for broken in ("{", '{"version": 1}', None):  # what cannot be read changes nothing, and scoring continues
            pointer = target / "current.json"
            content = pointer.read_text()
            pointer.unlink() if broken is None else pointer.write_text(broken)
            _same(await service.score(request("u1")), expected)
            assert service.describe().state_version == newer
            pointer.write_text(content)

    serve(ServeConfig(models=models, features=str(target)), scenario)
    content = json.loads((target / "current.json").read_text())
    (target / "current.json").write_text(json.dumps(content | {"identity": "another"}))
    with pytest.raises(UsageError, match="published from a ranker of other samples"):
        serve(ServeConfig(models=models, features=str(target)), None)


def test_redis_killed_and_back(bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states, "LOOK_SECONDS", 0.0)
    server = RedisServer(tmp_path)
    server.start()
    publish(Bundle.open(bundles["b"]), server.url, lambda _: None)
    models = ModelsConfig(bundles={"a": bundles["a"]})
    config = ServeConfig(models=models, features=server.url, redis_timeout_ms=500, redis_retry_ms=100, **ANY_TIME)
    instruments = PrometheusInstruments()

    async def scenario(service: ScoringService) -> None:
        before = await service.score(request("u0"))
        assert before.user_known and not before.degraded
        server.stop()
        down = await service.score(request("u0"))
        assert down.degraded == ["events", "features"] and not down.user_known
        assert len(down.results) == len(ITEMS)
        recorded = await service.record_events([_event(down, "u0", set(), 1.8e9)])
        assert recorded.accepted == 0 and "events" in recorded.degraded
        server.start()
        for _ in range(200):
            back = await service.score(request("u0"))
            if not back.degraded:
                break
            await asyncio.sleep(0.05)
        _same(back, before)
        assert back.user_known
        assert (await service.record_events([_event(back, "u0", {"i1"}, 1.8e9)])).accepted == 1
        assert (await service.score(request("u0"))).earlier_requests == before.earlier_requests + 1

    try:
        serve(config, scenario, instruments)
    finally:
        server.stop()
    (line,) = [
        line
        for line in instruments.text().decode().splitlines()
        if line.startswith("prectr_degraded_total{") and "features" in line
    ]
    assert 'model="a",variant="none"' in line and float(line.split()[-1]) >= 1


@pytest.fixture
def logged(bundles: dict[str, Path], tmp_path: Path) -> Iterator[Path]:
    """The exposure log of an experiment with 40 users, one of whom clicked later."""
    log = tmp_path / "log"
    shadow = ShadowConfig(model="b")
    models = ModelsConfig(bundles=bundles, experiment=ExperimentSplit(shares={"b": 0.5}), shadow=shadow)

    async def scenario(service: ScoringService) -> None:
        for number in range(40):
            user, ts = f"user {number}", 1.8e9 + 60 * number
            answer = await service.score(request(user, context=Context(ts=ts)))
            clicked = {"i1"} if number % 3 == 0 else set()
            await service.record_events([_event(answer, user, clicked, ts)])
            if number == 1:
                await service.record_events([_event(answer, user, {"i2"}, ts)])

    serve(ServeConfig(models=models, log=log, **ANY_TIME), scenario)
    yield log


def test_the_log_is_read_by_analyze_experiment(logged: Path) -> None:
    rows = impressions(logged).collect()
    assert rows.height == 40 * len(ITEMS), "a list that was sent twice counts once"
    assert rows["clicked"].sum() == 14 + 1
    actual = read_experiment(logged, logged / "assignment", None, ExperimentConfig(control="a"))
    assert actual.variants == ["a", "b"] and len(actual.variant) == 40
    assert actual.counts["rows_counted"] == rows.height and actual.counts["rows_without_assignment"] == 0
    scored = pl.read_parquet(logged / "scored" / "*.parquet")
    served = scored.filter(~pl.col("shadow"))
    assert served.height == 40 * len(ITEMS) and set(served["variant"]) == {"a", "b"}
    along = scored.filter("shadow")
    assert along.height > 0 and set(along["model"]) == {"b"}
    assert set(along["request_id"]) <= set(served.filter(pl.col("model") == "a")["request_id"])


def test_scores_and_events_are_joined_by_user_request_and_item(bundles: dict[str, Path], tmp_path: Path) -> None:
    """Two users may choose the same request id; neither gets the other's clicks."""
    log = tmp_path / "log"

    async def scenario(service: ScoringService) -> None:
        for user in ("u0", "u1", "u2"):
            answer = await service.score(request(user, context=Context(request_id="same"), top_k=2))
            if user != "u2":
                first = answer.results[0].item_id
                await service.record_events([shown(answer, user, "nokia 3310", {first} if user == "u0" else set())])

    serve(ServeConfig(models=ModelsConfig(bundles={"a": bundles["a"]}), log=log), scenario)
    rows = scored_with_events(log).sort("user_id", "rank").collect()
    assert rows.select("user_id", "rank", "position", "clicked").rows() == [
        ("u0", 1, 1, True),
        ("u0", 2, 2, False),
        ("u1", 1, 1, False),
        ("u1", 2, 2, False),
        ("u2", 1, None, None),
        ("u2", 2, None, None),
    ]


def test_a_full_disk_does_not_stop_scoring(bundles: dict[str, Path], tmp_path: Path) -> None:
    log = tmp_path / "log"

    async def scenario(service: ScoringService) -> None:
        assert service.log is not None
        await service.score(request())
        (log / "scored").rename(log / "gone")
        service.log.flush()
        assert "scored" in service.log.problem
        assert (await service.score(request())).results
        os.rename(log / "gone", log / "scored")

    serve(ServeConfig(models=ModelsConfig(bundles={"a": bundles["a"]}), log=log), scenario)
    assert pl.read_parquet(log / "scored" / "*.parquet").height == 2 * len(ITEMS), "nothing was lost"
