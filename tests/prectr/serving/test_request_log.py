"""The request log: valid JSON, a pseudonym instead of the user, one line for each outcome."""

import asyncio
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from ray._common.formatters import JSONFormatter

from prectr.contracts.protocol import Context, ScoreRequest
from prectr.ranking.ranking import Ranking
from prectr.serving import request_log
from prectr.serving.batcher import TooLate
from prectr.serving.config import ExperimentSplit, ModelsConfig, ServeConfig
from prectr.serving.instruments import PrometheusInstruments
from prectr.serving.request_log import FIELDS, JsonLine, RequestLog
from prectr.serving.service import ScoringService
from tests.prectr.bundle_world import World

REQUEST = ScoreRequest(user_id="secret user", query="secret query", candidates=["i0", "i1"])


class Lines(logging.Handler):
    """Keeps what it formats."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self.lines.append(self.format(record))


@pytest.fixture
def lines() -> Iterator[tuple[Lines, Lines]]:
    """Both formats: without Ray, and of Ray Serve's log files."""
    both = Lines(JsonLine()), Lines(JSONFormatter())
    request_log.write_to(both)
    yield both
    request_log.write_to([])


def test_both_formats_are_json_with_the_same_fields(lines: tuple[Lines, Lines]) -> None:
    RequestLog(b"key").write(REQUEST, "a", "none", "answered", 0.0123, "r1")
    plain, with_ray = (json.loads(one.lines[0]) for one in lines)
    assert tuple(plain) == FIELDS and {name: with_ray[name] for name in FIELDS} == plain
    assert (plain["request_id"], plain["milliseconds"], plain["candidates"]) == ("r1", 12.3, 2)
    assert all("secret" not in one.lines[0] for one in lines)


def test_a_pseudonym_depends_on_the_key_and_without_one_on_the_process(
    lines: tuple[Lines, Lines], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(request_log.KEY_VARIABLE, raising=False)
    logs = [RequestLog(b"key"), RequestLog(b"key"), RequestLog(b"other"), RequestLog(), RequestLog()]
    for log in logs:
        log.write(REQUEST, "a", "none", "answered", 0.0, None)
    users = [json.loads(line)["user"] for line in lines[0].lines]
    assert users[0] == users[1] and len(set(users)) == 4
    monkeypatch.setenv(request_log.KEY_VARIABLE, "key")
    RequestLog().write(REQUEST, "a", "none", "answered", 0.0, None)
    assert json.loads(lines[0].lines[-1])["user"] == users[0]


def test_each_outcome_has_a_line_and_a_count(
    lines: tuple[Lines, Lines], world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    instruments = PrometheusInstruments()
    split = ExperimentSplit(shares={"b": 1.0})
    models = ModelsConfig(bundles={"a": world.bundle, "b": world.bundle}, experiment=split)

    async def scenario() -> None:
        service = ScoringService(ServeConfig(models=models, request_log=True), instruments)

        async def ask(**fields: Any) -> None:
            await service.score(REQUEST.model_copy(update=fields))

        await ask()
        await ask(model="a", context=Context(request_id="mine"))
        with pytest.raises(ValueError, match="not in the catalogue"):
            await ask(candidates=["unheard"])
        with pytest.raises(TooLate):
            await service.score(REQUEST, patience=-1.0)
        monkeypatch.setattr(Ranking, "rank_many", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await ask()
        await service.close()

    asyncio.run(scenario())
    found = [json.loads(line) for line in lines[0].lines]
    assert [(one["model"], one["variant"], one["outcome"]) for one in found] == [
        ("b", "b", "answered"),
        ("a", "none", "answered"),
        ("b", "b", "refused"),
        ("b", "b", "toolate"),
        ("b", "b", "failed"),
    ]
    assert found[0]["request_id"] and found[1]["request_id"] == "mine" and found[0]["milliseconds"] > 0
    text = instruments.text().decode()
    for outcome in ("answered", "refused", "toolate", "failed"):
        assert f'prectr_requests_total{{model="b",outcome="{outcome}",variant="b"}} 1.0' in text
    assert 'prectr_requests_total{model="b",outcome="overloaded",variant="b"} 0.0' in text, "each series begins with 0"
