"""The HTTP engine against a real server on the loopback, good and bad."""

import asyncio
import json
import re
import time
from dataclasses import replace
from email.utils import formatdate

import numpy as np
import polars as pl
import pytest
from pydantic import SecretStr

from prectr.core.errors import UsageError
from prectr.labelling.config import HttpConfig, LabelConfig, ReplicaConfig
from prectr.labelling.engines.contract import UNASKED, Question
from prectr.labelling.engines.http_engine import HttpAsker, answer_with_http, probe
from prectr.labelling.engines.http_protocol import Server
from prectr.labelling.prompt import PromptTemplate, load_prompt
from tests.openai_server import Drop, Hang, OpenAiServer, Status, masses

ALTERNATIVES = '{"choices": [{"logprobs": {"content": [{"top_logprobs": [{"token": "0", "logprob": %s}]}]}}]}'
KEY = "sk-secret-of-the-test"


def ask(server, prompts, *, key=None, share=1.0, **http):
    """Masses, reasons and seconds of one asker that speaks the openai dialect."""
    found = Server(server.url, "tiny", "openai", ("0", "1", "2", "3"), (), chat=True, seed=17)

    async def run():
        asker = HttpAsker(found, HttpConfig(**({"first_wait_seconds": 0.01} | http)), key and SecretStr(key), share)
        try:
            return await asker.label_mass(prompts)
        finally:
            await asker.close()

    started = time.monotonic()
    mass, errors = asyncio.run(run())
    return mass, errors, time.monotonic() - started


def expected(prompt):
    found = masses(prompt)
    return [found["0"], found["1"], found["2"], found["3"] + found[" 3"]]


def choice(**fields):
    return json.dumps({"choices": [fields]})


def error(**fields):
    return json.dumps({"error": fields})


def question(server, *, template=None, replicas=None, **http):
    config = LabelConfig(http=HttpConfig(**({"first_wait_seconds": 0.01} | http)), replicas=replicas or ReplicaConfig())
    return Question(server.url, template or load_prompt("relevance_v1"), (), config)


def test_good_answers_are_the_servers_own_masses():
    prompts = [f"prompt {number}" for number in range(40)]
    with OpenAiServer() as server:
        mass, errors, _ = ask(server, prompts, at_once=8)
    assert errors == [""] * 40
    assert np.allclose(mass, [expected(prompt) for prompt in prompts], atol=1e-12)
    body = server.questions[0].body
    assert (body["max_tokens"], body["temperature"], body["top_logprobs"], body["seed"]) == (1, 0, 20, 17)


@pytest.mark.parametrize("chat_template", [True, False])
def test_vllm_is_asked_for_the_label_tokens_and_for_nothing_else(chat_template):
    with OpenAiServer(owned_by="vllm", chat_template=chat_template) as server:
        found = probe(question(server))
        assert (found.http.model, found.http.dialect, found.server.label_tokens) == ("tiny", "vllm", (15, 16, 17, 18))
        assert found.fingerprint == "tiny root=/models/tiny"
        mass, errors = asyncio.run(HttpAsker(found.server, found.http, None).label_mass(["a", "b"]))
    assert errors == ["", ""]
    assert np.allclose(mass, [[masses(prompt)[label] for label in "0123"] for prompt in "ab"])
    asked = server.questions[-1]
    assert asked.path == ("/v1/chat/completions" if chat_template else "/v1/completions")
    thinking = {"enable_thinking": False} if chat_template else None
    assert asked.body.get("chat_template_kwargs") == thinking


@pytest.mark.parametrize("told", ["0.3", formatdate(time.time() + 3600)])
def test_a_limited_server_is_left_alone_for_as_long_as_it_asks(told, monkeypatch):
    monkeypatch.setattr("prectr.labelling.engines.http_failures._MAX_RETRY_AFTER", 0.3)
    with OpenAiServer() as server:
        server.faults.append(Status(429, headers={"Retry-After": told}))
        _, errors, _ = ask(server, ["a", "b"], at_once=1)
    assert errors == ["", ""]
    first, *later = [asked.at for asked in server.questions]
    assert len(later) == 2 and min(later) - first >= 0.29, "both questions wait, not only the refused one"


def test_a_failing_server_is_asked_again_ever_later_and_then_the_row_says_so():
    with OpenAiServer() as server:
        server.fault_for_all = Status(500)
        mass, errors, _ = ask(server, ["a"], retries=3, first_wait_seconds=0.1)
    assert errors == ["HTTP 500: told to fail (4 tries)"]
    assert np.isnan(mass).all()
    gaps = np.diff([asked.at for asked in server.questions])
    assert len(gaps) == 3 and (gaps >= [0.05, 0.1, 0.2]).all()


@pytest.mark.parametrize("fault", [Status(503), Status(408), Drop(), Hang(1.5)])
def test_a_passing_failure_costs_a_try_and_no_row(fault):
    with OpenAiServer() as server:
        server.faults.append(fault)
        mass, errors, _ = ask(server, ["a"], timeout_seconds=0.8 if isinstance(fault, Hang) else 20)
    assert errors == [""] and np.allclose(mass, [expected("a")])
    assert len(server.questions) == 2


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (error(code=429, message="slow down"), 429),
        (error(code="429", message="slow down"), 429),
        (error(code="rate_limit_exceeded", type="tokens", message="slow down"), 429),
        (error(code=None, type="server_error", message="slow down"), 500),
        (error(type="overloaded_error", message="slow down"), 503),
        (error(status="RESOURCE_EXHAUSTED", message="slow down"), 429),
        ('{"type": "error", "error": {"type": "overloaded_error", "message": "slow down"}}', 503),
        ('{"error": {"error": {"code": 503, "text": "slow down"}}}', 503),
        ('{"errors": [{"code": 503, "message": "slow down"}]}', 503),
        ('{"object": "error", "type": "InternalServerError", "message": "slow down", "code": 500}', 500),
        ('{"error": true, "message": "upstream timed out, slow down"}', 504),
        ('{"error": "slow down"}', 500),
        ('{"error": "Error code: 502 - slow down"}', 502),
        ('{"detail": "Too many requests, slow down"}', 429),
        ('{"choices": [], "error": {"code": 502, "message": "slow down"}}', 502),
        (choice(finish_reason="error", error={"code": 502, "message": "slow down"}, message={"content": ""}), 502),
        (choice(error="slow down", logprobs=None), 500),
    ],
)
def test_an_error_with_status_200_is_tried_again_as_what_it_is(body, status):
    with OpenAiServer() as server:
        server.faults.extend([Status(200, body)])
        assert ask(server, ["a"])[1] == [""] and len(server.questions) == 2
        server.fault_for_all = Status(200, body)
        _, (reason,), _ = ask(server, ["a"], retries=1)
    assert re.fullmatch(rf"HTTP 200 with error {status}: .*slow down.* \(2 tries\)", reason), reason


@pytest.mark.parametrize(
    "body",
    [
        "",
        "null",
        "<html>busy</html>",
        '{"choices": [{"logpro',
        "[" * 100_000,
        "{}",
        '{"choices": null}',
        '{"choices": []}',
        '{"choices": [null]}',
        choice(),
        choice(finish_reason="error"),
        choice(finish_reason="stop", message={"role": "assistant", "content": ""}, logprobs=None),
    ],
)
def test_a_reply_with_nothing_in_it_is_tried_again(body):
    with OpenAiServer() as server:
        server.faults.append(Status(200, body))
        mass, errors, _ = ask(server, ["a"])
    assert errors == [""] and np.allclose(mass, [expected("a")])
    assert len(server.questions) == 2


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (error(code=400, message="no"), 400),
        (error(code="invalid_api_key", type="invalid_request_error", message="no"), 401),
        (error(code="model_not_found", message="no"), 404),
        (error(code="context_length_exceeded", message="no"), 400),
        (error(type="permission_error", message="no"), 403),
        ('{"error": "the model `tiny` does not exist: no"}', 404),
        ('{"detail": [{"loc": ["body"], "msg": "no", "type": "missing"}]}', 422),
    ],
)
def test_a_fault_of_ours_with_status_200_is_told_at_once(body, status):
    with OpenAiServer() as server:
        server.faults.append(Status(200, body))
        _, (reason,), _ = ask(server, ["a"])
    assert re.fullmatch(rf"HTTP 200 with error {status}: .*no.*", reason) and len(server.questions) == 1


@pytest.mark.parametrize(
    "fault",
    [
        Status(200, error(code=429), headers={"Retry-After": "0.3"}),
        Status(200, error(code=429), headers={"retry-after-ms": "300"}),
        Status(200, error(code=429, retry_after=0.3)),
        Status(200, '{"error": {"code": 429}, "retry_after": "0.3"}'),
        Status(200, error(code=429, metadata={"headers": {"Retry-After": 0.3}})),
        Status(200, choice(error={"code": 503, "retry_after_seconds": 0.3})),
        Status(429, error(retry_after=0.3)),
        Status(429, error(retry_after=0.3), headers={"Retry-After": "nan"}),
    ],
)
def test_a_wait_that_a_reply_states_anywhere_is_kept_by_all_questions(fault):
    with OpenAiServer() as server:
        server.faults.append(fault)
        _, errors, _ = ask(server, ["a", "b"], at_once=1)
    first, *later = [asked.at for asked in server.questions]
    assert errors == ["", ""] and len(later) == 2 and 0.29 <= min(later) - first < 2


def test_a_stopped_asker_awaits_what_is_on_its_way_and_asks_nothing_more():
    found = Server("", "tiny", "openai", ("0", "1", "2", "3"), (), chat=True, seed=17)

    async def run(server):
        config = HttpConfig(at_once=2, first_wait_seconds=30)
        asker = HttpAsker(replace(found, url=server.url), config, None)
        asking = asyncio.create_task(asker.label_mass([str(number) for number in range(20)]))
        while len(server.questions) < 3:
            await asyncio.sleep(0.01)
        asker.stop()
        try:
            return await asking
        finally:
            await asker.close()

    with OpenAiServer(seconds=0.1) as server:
        server.faults.append(Status(200, error(code=429, message="slow down")))
        started = time.monotonic()
        mass, errors = asyncio.run(run(server))
    assert time.monotonic() - started < 10, "nothing waits for another try"
    answered = {number for number in range(20) if errors[number] == ""}
    assert {errors[number] for number in set(range(20)) - answered} == {UNASKED}
    assert answered == {int(asked.prompt) for asked in server.questions[1:]}
    assert np.allclose(mass[sorted(answered)], [expected(str(number)) for number in sorted(answered)])


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Hang(), r"timed out after 0\.2 s \(2 tries\)"),
        (Drop(), r"no answer: RemoteProtocolError .* \(2 tries\)"),
        (Status(502, "<html>Bad\n gateway</html>"), r"HTTP 502: <html>Bad gateway</html> \(2 tries\)"),
        (Status(200, "<html>busy</html>"), r"answer is not JSON: '<html>busy</html>' \(2 tries\)"),
        (Status(200, '{"choices": []}'), r"answer has no log-probabilities: \{\"choices\": \[\]\} \(2 tries\)"),
        (Status(200, choice(logprobs=None)), r"answer has no log-probabilities: .*null.* \(2 tries\)"),
        (Status(200, choice(message={"content": "2"}, logprobs=None)), r"answer has no log-probabilities: .*null.*"),
        (Status(200, choice(finish_reason="length", logprobs=None)), r"answer has no log-probabilities: .*null.*"),
        (Status(200, ALTERNATIVES % "9e99"), r"answer holds 9e\+99, which is no log-probability"),
        (Status(200, ALTERNATIVES % "NaN"), r"answer holds nan, which is no log-probability"),
        (Status(200, ALTERNATIVES % '"x"'), r"answer has no log-probabilities: .*"),
        (Status(200, "[1]"), r"answer has no log-probabilities: \[1\] \(2 tries\)"),
        (Status(400, "no such thing"), r"HTTP 400: no such thing"),
    ],
)
def test_a_failure_for_good_is_told_and_only_what_may_pass_is_tried_again(fault, reason):
    with OpenAiServer() as server:
        server.faults.extend([fault, fault])
        mass, errors, seconds = ask(server, ["a"], timeout_seconds=0.2 if isinstance(fault, Hang) else 20, retries=1)
    assert len(server.questions) == (2 if "tries" in reason else 1)
    assert re.fullmatch(reason, errors[0]), errors[0]
    assert np.isnan(mass).all() and seconds < 4


def test_a_prompt_longer_than_the_context_fails_alone_and_at_once():
    with OpenAiServer(longest=100) as server:
        mass, errors, _ = ask(server, ["a", "b" * 101, "c"])
    assert errors == ["", "HTTP 400: maximum context length is 100", ""]
    assert np.isnan(mass[1]).all() and np.allclose(mass[[0, 2]], [expected("a"), expected("c")])
    assert len(server.questions) == 3


def test_an_answer_without_a_label_tells_what_came():
    with OpenAiServer(labels=False) as server:
        _, errors, _ = ask(server, ["a"])
    assert errors == ["no label 0/1/2/3 among the likeliest answers, which are 'The', 'I'"]


def test_a_dead_server_is_told():
    with OpenAiServer() as server:
        pass
    _, errors, _ = ask(server, ["a"], retries=1)
    assert errors[0].startswith("no answer: ConnectError") and errors[0].endswith("(2 tries)")


def test_the_limit_of_requests_a_second_is_kept_tries_included():
    with OpenAiServer() as server:
        server.faults.extend([Status(500)] * 3)
        _, errors, _ = ask(server, [str(number) for number in range(12)], requests_per_second=80, share=0.5)
    assert errors == [""] * 12
    times = sorted(asked.at for asked in server.questions)
    assert len(times) == 15
    # Spaced where they are sent; on a busy machine the first may arrive late.
    assert times[-1] - times[0] >= 0.7 * 14 / 40


def test_requests_in_flight_are_limited():
    with OpenAiServer() as server:
        server.faults.extend([Hang(0.5)] * 4)
        ask(server, [str(number) for number in range(4)], at_once=2, retries=0)
    times = sorted(asked.at for asked in server.questions)
    assert times[1] - times[0] < 0.4 < times[2] - times[0]


def test_the_key_comes_from_the_environment_and_is_in_no_message(monkeypatch):
    monkeypatch.setenv("TEACHER_KEY", KEY)
    with OpenAiServer(key=KEY) as server:
        probe(question(server, key_variable="TEACHER_KEY"))
        server.faults.append(Status(400, f"bad header Bearer {KEY}"))
        _, errors, _ = ask(server, ["a"], key=KEY)
        assert errors == ["HTTP 400: bad header Bearer **********"]
        with pytest.raises(UsageError, match=r"refused the key \(HTTP 401\).*OPENAI_API_KEY.*which is not set"):
            monkeypatch.delenv("OPENAI_API_KEY", raising=False)
            probe(question(server))
        monkeypatch.setenv("TEACHER_KEY", KEY + "-old")
        with pytest.raises(UsageError, match=r"TEACHER_KEY.*which is set") as refusal:
            probe(question(server, key_variable="TEACHER_KEY"))
    assert KEY not in str(refusal.value)
    monkeypatch.setenv("TEACHER_KEY", f"{KEY}\n{KEY}")
    with pytest.raises(UsageError, match="TEACHER_KEY: holds a blank, a line end") as refusal:
        probe(question(server, key_variable="TEACHER_KEY"))
    assert KEY not in str(refusal.value)


def test_the_only_model_is_taken_and_one_of_several_must_be_named():
    with OpenAiServer(models=("small", "large")) as server:
        with pytest.raises(UsageError, match=r"2 models \(small, large\).*label\.http\.model"):
            probe(question(server))
        with pytest.raises(UsageError, match=r"label\.http\.model=larg; did you mean large\?"):
            probe(question(server, model="larg"))
        found = probe(question(server, model="large", revision="7"))
    assert (found.http.dialect, found.server.model) == ("openai", "large")
    assert found.fingerprint == "large root=/models/large revision=7"


def test_a_server_that_cannot_be_asked_is_refused_with_its_reason():
    split = PromptTemplate("t", "en", "Grade.\n", "{query} {title}", labels=("0", "1", "2", "unthinkable"))
    with (
        OpenAiServer(owned_by="vllm") as server,
        pytest.raises(UsageError, match="label 'unthinkable' is not one token"),
    ):
        probe(question(server, template=split))
    with OpenAiServer(labels=False) as server, pytest.raises(UsageError, match=r"no label 0/1/2/3.*'The', 'I'"):
        probe(question(server))
    with OpenAiServer(longest=10) as server, pytest.raises(UsageError, match="HTTP 400: maximum context length is 10"):
        probe(question(server))
    with OpenAiServer() as server:
        server.faults.extend([Status(503), Drop()])
        assert probe(question(server)).server.dialect == "openai", "a server that is busy for a moment is asked again"
        with pytest.raises(UsageError, match=r"/tokenize.*label\.http\.dialect=openai"):
            probe(question(server, dialect="vllm"))
        root = server.url = server.url.removesuffix("/v1")
        with pytest.raises(UsageError, match=r"HTTP 404.*mostly ends in /v1"):
            probe(question(server))
    with pytest.raises(UsageError, match=rf"teacher {root}: cannot be reached"):
        probe(question(server))
    server.url = "http://user:word@127.0.0.1/v1"
    with pytest.raises(UsageError, match="must hold no password") as refusal:
        probe(question(server))
    assert "word@" not in str(refusal.value)


def test_the_probe_knows_errors_with_status_200():
    busy = Status(200, error(code="rate_limit_exceeded", message="slow down"))
    with OpenAiServer(owned_by="vllm") as server:
        server.list_faults.append(busy)
        server.faults.extend([busy, Status(200, "")])
        assert probe(question(server)).server.dialect == "vllm"
        server.fault_for_all = busy
        with pytest.raises(UsageError, match=r"HTTP 200 with error 429: slow down\. Run again when the server is well"):
            probe(question(server, retries=1))
        server.list_faults.append(Status(200, error(code="invalid_api_key")))
        with pytest.raises(UsageError, match=r"refused the key \(HTTP 401\)"):
            probe(question(server))
        server.list_faults.extend([busy] * 2)
        with pytest.raises(UsageError, match=r"does not list its models .*with error 429: slow down"):
            probe(question(server, retries=1))
        server.list_faults.append(Status(200, "<html>" + "a" * 10_000))
        with pytest.raises(UsageError, match="list of models is not OpenAI-compatible") as refusal:
            probe(question(server))
        assert len(str(refusal.value)) < 500


def test_a_dataset_is_answered_and_a_bad_row_fails_alone(ray_local, monkeypatch):
    import ray.data

    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    rows = 60
    pairs = pl.DataFrame(
        {
            "key": [str(number) for number in range(rows)],
            "query": ["long " * 400 if number == 7 else f"query {number}" for number in range(rows)],
            "title": ["a title"] * rows,
        }
    )
    with OpenAiServer(key=KEY, longest=1000) as server:
        asked = question(server, replicas=ReplicaConfig(at_least=1, at_most=2))
        table = pairs.to_arrow()
        dataset = ray.data.from_arrow([table.slice(start, 20) for start in range(0, rows, 20)])
        answers = answer_with_http(dataset, asked)
        assert KEY not in f"{answers} {answers._logical_plan.dag.dag_str}"
        found = pl.concat(
            [pl.DataFrame(batch) for batch in answers.iter_batches(batch_size=None, batch_format="pyarrow")]
        )
    assert sorted(found["key"]) == sorted(pairs["key"])
    found = pairs.select("key").join(found, on="key", how="left", maintain_order="left")
    assert found.filter(pl.col("error") != "").select("key", "error").rows() == [
        ("7", "HTTP 400: maximum context length is 1000")
    ]
    good = found["error"] == ""
    mass = np.array([expected(prompt) for prompt in asked.template.render(pairs.filter(good))])
    levels = found.filter(good).select(f"level_{grade}" for grade in range(4)).to_numpy()
    assert np.allclose(levels, mass / mass.sum(1, keepdims=True), atol=1e-6)
    assert np.allclose(found.filter(good)["outside_mass"], 1 - mass.sum(1), atol=1e-6)
