"""The served teacher over real HTTP: the batch engine's numbers, the rubric, and refusals that name the field."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest
import torch

from jobs import teacher as served_teacher
from prectr.core.artifacts import run_stage
from prectr.core.config import FrozenConfig
from prectr.core.errors import PrectrError, UsageError
from prectr.labelling.config import HttpConfig, LabelConfig, TeacherConfig
from prectr.labelling.engines.contract import Question
from prectr.labelling.engines.transformers_engine import TransformersTeacher
from prectr.labelling.own_teacher.model import load_tokenizer, new_model, train_bpe
from prectr.labelling.prompt import label_token_ids, load_prompt, tokenise_prompts
from prectr.labelling.teacher_scorer import TeacherScorer, prepare_scorer
from prectr.metrics.level_calibration import Calibration
from prectr.serving.config import ServeConfig
from tests.openai_server import OpenAiServer, Status, masses
from tests.processes import free_port

TEMPLATE = load_prompt("relevance_v1")
LOCAL = LabelConfig(engine="transformers", data_type="float32")
CALIBRATION = Calibration(0.7, (0.0, 0.5, -0.25, 1.0))
PAIR = {"query": " Nokia  3310 ", "title": "NOKIA 3310 <b>blue</b>"}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose answers differ: its matrices are ten times a fresh model's."""
    path = tmp_path_factory.mktemp("served") / "tiny-teacher"
    tokenizer = train_bpe([TEMPLATE.text] * 9, 400, 192)
    tokenizer.save_pretrained(path)
    torch.manual_seed(0)
    model = new_model(TeacherConfig(width=64, feed_forward=64), len(tokenizer), tokenizer.eos_token_id)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter *= 10
    model.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def labels(teacher: Path) -> Path:
    """What `label` leaves, as far as serving reads it."""
    context = prepare_scorer(teacher, None, LOCAL)[0].context
    facts = {
        "context": context.identity,
        "teacher": "tiny-teacher",
        "prompt": TEMPLATE.version,
        "decoding": context.decoding,
        "calibration": {"scale": CALIBRATION.scale, "bias": list(CALIBRATION.bias)},
    }
    out = teacher.parent / "labels"
    run_stage("label", out, config=FrozenConfig(), inputs={}, build=lambda _: facts)
    return out


WITHOUT_VLLM = pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")


@pytest.fixture(scope="module", params=["transformers", pytest.param("vllm", marks=WITHOUT_VLLM)])
def client(request: pytest.FixtureRequest, teacher: Path, labels: Path, ray_local: None) -> Iterator[httpx.Client]:
    """A served teacher; its header `engine` says by what. One at a time: Ray has one Serve."""
    config = LOCAL.model_copy(update={"engine": request.param})
    serve = ServeConfig(port=free_port())
    with (
        served_teacher.serving(teacher, labels, config, serve) as url,
        httpx.Client(base_url=url, timeout=60, headers={"engine": request.param}) as client,
    ):
        yield client


def batch_answer(teacher: Path) -> tuple[np.ndarray, float]:
    """Levels [4] and outside mass of PAIR by the batch engine."""
    tokenizer = load_tokenizer(str(teacher))
    question = Question(str(teacher), TEMPLATE, tuple(label_token_ids(tokenizer, TEMPLATE)), LOCAL)
    prompts = tokenise_prompts(tokenizer, TEMPLATE, pl.DataFrame([PAIR]), LOCAL.max_length)
    answer = TransformersTeacher(question)({"key": np.array(["a"]), "prompt_tokens": prompts})
    return np.array([answer[f"level_{level}"][0] for level in range(4)]), float(answer["outside_mass"][0])


def check_judgement(found: dict[str, Any], raw: np.ndarray, outside: float, tolerance: float) -> None:
    calibrated = CALIBRATION.apply(raw[None].astype(np.float64))[0]
    assert found["raw_levels"] == pytest.approx(raw, abs=tolerance)
    assert [level["probability"] for level in found["levels"]] == pytest.approx(calibrated, abs=tolerance)
    assert found["outside_mass"] == pytest.approx(outside, abs=tolerance)
    assert found["expected"] == pytest.approx(calibrated @ np.arange(4) / 3, abs=tolerance)
    assert found["grade"] == int(calibrated.argmax())
    assert (found["label"], found["definition"]) == (str(found["grade"]), TEMPLATE.grades[found["grade"]])
    assert [(level["grade"], level["definition"]) for level in found["levels"]] == list(enumerate(TEMPLATE.grades))
    assert (found["prompt_version"], found["teacher"]) == (TEMPLATE.version, "tiny-teacher")


def test_a_served_pair_has_the_batch_engines_numbers(client: httpx.Client, teacher: Path) -> None:
    raw, outside = batch_answer(teacher)
    assert raw.std() > 0.05 and outside > 0.01, "else the comparison says little"
    found = client.post("/judge", json=PAIR | {"category": None}).raise_for_status().json()
    check_judgement(found, raw, outside, 1e-4)
    assert found["prompt"] == TEMPLATE.render(pl.DataFrame([PAIR]))[0]
    assert client.get("/health").json() == {
        "status": "ok",
        "teacher": "tiny-teacher",
        "engine": client.headers["engine"],
        "prompt_version": TEMPLATE.version,
        "calibrated": True,
    }


def test_the_page_shows_the_rubric_and_needs_nothing_else(client: httpx.Client) -> None:
    response = client.get("/").raise_for_status()
    page = unescape(response.text)
    for definition in TEMPLATE.grades:
        assert f'<td class="definition">{definition}</td>' in page
    assert TEMPLATE.version in page and 'fetch("judge"' in page
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert not {"src=", "href=", "@import", "url("} & {
        mark for mark in ("src=", "href=", "@import", "url(") if mark in page
    }
    assert "3310" not in page, "no pair of anybody's"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"title": "a"}, "query"),
        ({"query": "  ", "title": "a"}, "query"),
        ({"query": "a", "title": ""}, "title"),
        ({"query": "a", "title": "x" * 2001}, "title"),
        ({"query": "a", "title": "b", "brand": 3}, "brand"),
        ({"query": "a", "title": "b", "price": 1}, "price"),
        ({"query": "? " * 300, "title": "b"}, "query"),
    ],
)
def test_a_bad_body_is_refused_by_field(client: httpx.Client, body: dict[str, Any], field: str) -> None:
    response = client.post("/judge", json=body)
    assert response.status_code == 422
    assert [error["loc"] for error in response.json()["detail"]] == [["body", field]]


def test_a_taken_port_is_told(client: httpx.Client, teacher: Path) -> None:
    port = client.base_url.port
    with pytest.raises(PrectrError, match=f"{port}: cannot listen there"):
        served_teacher.run(teacher=str(teacher), labels=None, config=LOCAL, serve=ServeConfig(port=port))


def test_calibration_of_another_teacher_or_prompt_is_refused(teacher: Path, labels: Path) -> None:
    ready, calibration = prepare_scorer(teacher, labels, LOCAL)
    assert (calibration, ready.question.template) == (CALIBRATION, TEMPLATE)
    assert prepare_scorer(teacher, None, LOCAL)[1] == Calibration()
    for changed in ({"prompt": "rubric_v1"}, {"max_length": 100}, {"data_type": "bfloat16"}):
        with pytest.raises(UsageError, match="calibration is not for this teacher"):
            prepare_scorer(teacher, labels, LOCAL.model_copy(update=changed))
    with pytest.raises(UsageError, match="no label artifact here"):
        prepare_scorer(teacher, teacher, LOCAL)


def test_a_teacher_behind_a_url_is_asked_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    pairs = pl.DataFrame([PAIR, {"query": "sofa", "title": "Grey sofa"}])
    prompts = TEMPLATE.render(pairs)
    with OpenAiServer(owned_by="vllm") as server:
        config = LabelConfig(http=HttpConfig(retries=0))
        ready, calibration = prepare_scorer(server.url, None, config)
        scorer = TeacherScorer(ready.question, replace(calibration, scale=2.0))
        server.faults.extend([Status(500)])
        failed, good = asyncio.run(scorer.judge(pairs))
        if not failed.error:
            failed, good = good, failed
    assert failed.error.startswith("HTTP 500") and not good.error
    mass = np.array([masses(good.prompt)[label] for label in "0123"])
    assert good.prompt in prompts and failed.prompt in prompts and good.prompt != failed.prompt
    assert good.raw_levels == pytest.approx(mass / mass.sum(), abs=1e-6)
    assert good.outside_mass == pytest.approx(1 - mass.sum(), abs=1e-6)
    assert good.levels == pytest.approx(mass**2 / (mass**2).sum(), abs=1e-5)
