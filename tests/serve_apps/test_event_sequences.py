"""Sequences of scores and events, honest and hostile: no 5xx, and no state changes that should not change.

Hypothesis draws the sequences; every answer is checked by schemathesis' rules against our own OpenAPI document. What an
honest client reported is added up once more at the end, each list once, and has to equal the state of its user.
"""

import copy
import itertools
import json
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.testclient import TestClient

from prectr.contracts.protocol import Event
from prectr.serving.config import ModelsConfig, SecurityConfig, ServeConfig
from prectr.serving.impression_tokens import ImpressionTokens
from prectr.serving.instruments import PrometheusInstruments
from prectr.serving.service import ScoringService
from prectr.serving.user_delta import UserRecord, add_list, merged
from serve_apps.http_api import create_app
from tests.prectr.bundle_world import World

ITEMS = [f"i{number}" for number in range(5)]
SCORER, REPORTER, KEY = "token-of-the-shop-front", "token-of-the-backend", b"key-of-the-event-sequences"
PER_MINUTE = 3
RULES = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
USERS, PLACES = st.sampled_from([0, 1]), st.integers(0, 4)
numbers = itertools.count()


class Server:
    """An application, its OpenAPI document and the service behind it."""

    def __init__(self, http: TestClient, service: ScoringService) -> None:
        self.http, self.service = http, service
        document = http.get("/openapi.json", headers={"authorization": f"Bearer {SCORER}"}).json()
        self.schema = schemathesis.openapi.from_dict(document)

    def post(self, path: str, body: dict[str, Any], token: str | None) -> Any:
        """Send a request, check the answer by schemathesis' rules, and return it."""
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        answer = self.http.post(path, json=body, headers=headers)
        self.schema[path]["POST"].Case(body=body, headers=headers).validate_response(answer, checks=RULES)
        return answer

    def deltas(self, users: list[str]) -> dict[str, Any]:
        """What is kept of users, without the times of arrival."""
        return {user: self.service._deltas.read(user) for user in users}


@pytest.fixture
def server(world: World, tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "tokens").write_text(f"{SCORER} score admin\n{REPORTER} events\n")
    (tmp_path / "keys").write_text(KEY.decode())
    config = ServeConfig(
        models=ModelsConfig(bundles={"v2": world.bundle}),
        security=SecurityConfig(tokens_file=tmp_path / "tokens", impression_keys_file=tmp_path / "keys"),
        unproved_lists_per_minute=PER_MINUTE,
        playground=False,
    )
    service = ScoringService(config, PrometheusInstruments())
    with TestClient(create_app(service, config)) as http:
        yield Server(http, service)


class Sequences(RuleBasedStateMachine):
    """Clients of one server. The users of each sequence are its own."""

    server: Server
    lists = Bundle("lists")
    """Scored lists as events with their tokens, nothing clicked yet."""

    def __init__(self) -> None:
        super().__init__()
        number = next(numbers)
        self.users = [f"u{number}-{name}" for name in "ab"]
        self.reported: dict[tuple[str, str], dict[str, Any]] = {}
        """(user, request) -> event of all that was accepted of a list."""
        self.bodies: list[dict[str, Any]] = []
        self.unproved: dict[str, list[float]] = {user: [] for user in self.users}

    @rule(
        target=lists,
        user=st.sampled_from([0, 1]),
        query=st.sampled_from(["nokia 3310", "Sofa "]),
        most=st.integers(1, 5),
    )
    def score(self, user: int, query: str, most: int) -> dict[str, Any]:
        """A list for a user."""
        body = {"user_id": self.users[user], "query": query, "candidates": ITEMS, "top_k": most}
        answer = self.server.post("/v1/score", body, SCORER)
        assert answer.status_code == 200
        content = answer.json()
        rows = [{"item_id": entry["item_id"], "position": entry["rank"]} for entry in content["results"]]
        known = {"request_id": content["request_id"], "user_id": self.users[user], "query": query, "shown": rows}
        return known | {"impression_token": content["impression_token"]}

    @rule(
        event=lists, clicked=st.sets(st.integers(0, 4)), first=st.integers(0, 4), bearer=st.sampled_from([None, SCORER])
    )
    def report(self, event: dict[str, Any], clicked: set[int], first: int, bearer: str | None) -> None:
        """A part of a list, with clicks, by whoever has its token."""
        event = copy.deepcopy(event)
        for number, row in enumerate(event["shown"]):
            row["clicked"] = number in clicked
        event["shown"] = event["shown"][first:] or event["shown"]
        answer = self.server.post("/v1/events", {"events": [event]}, bearer)
        assert answer.status_code == 200 and answer.json()["accepted"] == self._remember(event)

    @precondition(lambda self: self.bodies)
    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        """Events of before, in another order and several times: nothing is new."""
        events = data.draw(st.lists(st.sampled_from(self.bodies), min_size=1, max_size=4))
        before = self.server.deltas(self.users)
        answer = self.server.post("/v1/events", {"events": events}, REPORTER)
        assert answer.status_code == 200 and answer.json()["accepted"] == 0
        assert self.server.deltas(self.users) == before

    @rule(
        event=lists,
        other=lists,
        forgery=st.sampled_from(["user", "request", "query", "item", "token", "other token", "no token", "expired"]),
        bearer=st.sampled_from([None, SCORER, REPORTER]),
    )
    def forge(self, event: dict[str, Any], other: dict[str, Any], forgery: str, bearer: str | None) -> None:
        """A token of another list, user or time: refused, whoever sends it; without one, whoever may not."""
        if forgery == "no token" and bearer == REPORTER:
            return
        event = copy.deepcopy(event)
        expired = ImpressionTokens(lambda: [KEY], hours=-0.1).sign(
            event["request_id"], event["user_id"], event["query"], [row["item_id"] for row in event["shown"]]
        )
        changes: dict[str, dict[str, Any]] = {
            "user": {"user_id": f"{event['user_id']}x"},
            "request": {"request_id": f"{event['request_id']}x"},
            "query": {"query": f"{event['query']} x"},
            "item": {"shown": [*event["shown"], {"item_id": "foreign", "position": 99, "clicked": True}]},
            "token": {"impression_token": event["impression_token"][::-1]},
            "other token": {"impression_token": other["impression_token"]},
            "no token": {"impression_token": None},
            "expired": {"impression_token": expired},
        }
        if forgery == "other token" and other["request_id"] == event["request_id"]:
            return
        users = [*self.users, f"{event['user_id']}x"]
        before = self.server.deltas(users)
        answer = self.server.post("/v1/events", {"events": [event, event | changes[forgery]]}, bearer)
        assert answer.status_code == (401 if bearer is None else 403), answer.text
        assert answer.json()["detail"][0]["loc"] == ["body", "events", 1]
        assert self.server.deltas(users) == before

    @rule(
        user=st.sampled_from([0, 1]),
        name=st.integers(0, 9),
        clicked=st.booleans(),
        hours=st.sampled_from([0, -24 * 9, 2]),
    )
    def report_without_token(self, user: int, name: int, clicked: bool, hours: int) -> None:
        """An event of a backend: limited by user and minute, ignored before the window, refused ahead of the clock."""
        event: dict[str, Any] = {
            "request_id": f"backend {name}",
            "user_id": self.users[user],
            "query": "nokia 3310",
            "shown": [{"item_id": ITEMS[name % 5], "position": 1, "clicked": clicked}],
        }
        if hours:
            event["ts"] = time.time() + 3600 * hours
        key, before = (event["user_id"], event["request_id"]), self.server.deltas(self.users)
        answer = self.server.post("/v1/events", {"events": [event]}, REPORTER)
        recent = [moment for moment in self.unproved[event["user_id"]] if time.time() - moment < 60]
        if hours > 0:
            assert answer.status_code == 422
        elif hours < 0:
            assert answer.json() | {"ignored": 1, "accepted": 0} == answer.json()
        elif key not in self.reported and len(recent) >= PER_MINUTE:
            assert answer.status_code == 429 and answer.headers["retry-after"] == "60"
        else:
            if key not in self.reported:
                self.unproved[event["user_id"]].append(time.time())
            assert answer.json()["accepted"] == self._remember(event)
            return
        assert self.server.deltas(self.users) == before

    @rule(user=USERS, bearer=st.sampled_from([None, REPORTER, "a-token-that-is-not-ours"]))
    def score_without_scope(self, user: int, bearer: str | None) -> None:
        """A score that the token does not allow."""
        body = {"user_id": self.users[user], "query": "sofa", "candidates": ITEMS}
        assert self.server.post("/v1/score", body, bearer).status_code == (403 if bearer == REPORTER else 401)

    def teardown(self) -> None:
        """Every list counts once: the state of each user equals that of its lists, each sent once and whole."""
        model = self.server.service.default
        for user in self.users:
            deltas = self.server.service._deltas.read(user)
            actual, record = merged(None, deltas, model.bundle.state_identity, 0.0), UserRecord()
            for (reporter, _), event in self.reported.items():
                if reporter == user:
                    seen = model.events.read(Event.model_validate(event), time.time())
                    identity, table = model.bundle.state_identity, model.events.table
                    add = partial(add_list, seen=seen, table=table, identity=identity, now=time.time())
                    record, _ = add(UserRecord(record.delta, record.lists))
            expected = merged(None, record.delta, model.bundle.state_identity, 0.0)
            assert (actual is None) == (expected is None)
            if actual is not None and expected is not None:
                np.testing.assert_allclose(actual["sums"], expected["sums"], atol=1e-8)

    def _remember(self, event: dict[str, Any]) -> int:
        """Merge an accepted event into what was reported of its list; returns 1 if anything of it is new."""
        key = (event["user_id"], event["request_id"])
        known = self.reported.get(key)
        if known is None:
            self.reported[key] = copy.deepcopy(event) | {"impression_token": None}
            self.bodies.append(event)
            return 1
        rows, changed = {row["item_id"]: row for row in known["shown"]}, False
        for row in event["shown"]:
            before = rows.get(row["item_id"])
            if before is None:
                known["shown"].append(copy.deepcopy(row))
            elif row.get("clicked") and not before.get("clicked"):
                before["clicked"] = True
            else:
                continue
            changed = True
        self.bodies.append(event)
        return int(changed)


def test_sequences_of_scores_and_events_change_only_what_they_should(server: Server) -> None:
    class OnServer(Sequences):
        pass

    OnServer.server = server
    checks = settings(max_examples=40, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(OnServer, settings=checks)
    assert json.dumps(server.service.describe().model_dump())
