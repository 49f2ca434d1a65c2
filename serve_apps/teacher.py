"""The teacher over HTTP, to judge one pair and see why: `POST /judge`, a page with a form at `GET /`, `GET /health`.

Deploy with `prectr teacher serve --teacher TEACHER`, or with `serve run serve_apps.teacher:build_app teacher=DIR`. The
port has no authentication: it listens on the loopback address unless a gateway stands before it.
"""

from pathlib import Path
from typing import Annotated, Any

import polars as pl
from fastapi import FastAPI, HTTPException
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from ray import serve
from ray.serve import Application

from prectr import __version__
from prectr.core.ray_session import memory_bytes
from prectr.labelling.calibration import Calibration
from prectr.labelling.config import LabelConfig
from prectr.labelling.engines.contract import Question, replica_gpus
from prectr.labelling.engines.interactive import TooLong
from prectr.labelling.teacher_scorer import Judgement, TeacherScorer, prepare_scorer
from prectr.reports import TEMPLATES

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2_000)]
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'"
}


class AppArguments(BaseModel):
    """Arguments of the application."""

    model_config = ConfigDict(extra="forbid")

    teacher: str
    """A checkpoint directory, a model's name on the hub, or the URL of an OpenAI-compatible server."""
    labels: str | None = None
    """An artifact of `label`, for its calibration."""
    label: LabelConfig = LabelConfig()
    """How to ask; `replicas` says how many copies of the teacher are served, and on what."""
    max_ongoing_requests: int = 100
    """Ray's default of 5 makes throughput collapse under concurrent requests."""


class JudgeRequest(BaseModel):
    """A pair. Category and brand are read only if the teacher's prompt shows them."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"query": "nokia 3310", "title": "Nokia 3310, blue"}]}
    )

    query: Text
    title: Text
    category: str | None = Field(None, max_length=2_000)
    brand: str | None = Field(None, max_length=2_000)


class Level(BaseModel):
    """One grade of the rubric and how likely it is."""

    grade: int
    definition: str
    probability: float = Field(description="calibrated")


class JudgeResponse(BaseModel):
    """What the teacher says of the pair, and what it was asked."""

    grade: int = Field(description="the likeliest, 0..3")
    label: str = Field(description="the token that stands for it")
    definition: str
    levels: list[Level]
    raw_levels: list[float] = Field(description="probability of each grade before calibration")
    expected: float = Field(description="expected level, 0..1")
    outside_mass: float = Field(description="probability of an answer that is no label")
    prompt: str = Field(description="as the teacher read it")
    prompt_version: str
    teacher: str


def build_app(arguments: AppArguments) -> Application:
    """One teacher as a Serve application.

    Raises:
        UsageError: the teacher cannot answer, or the labels are not its own.
    """
    labels = None if arguments.labels is None else Path(arguments.labels)
    ready, calibration = prepare_scorer(arguments.teacher, labels, arguments.label)
    http = FastAPI(title="PRECTR-V2 teacher", version=__version__)

    @serve.ingress(http)
    class Teacher:
        """A replica: one loaded teacher."""

        def __init__(self, question: Question, calibration: Calibration) -> None:
            self.scorer = TeacherScorer(question, calibration)

        @http.post("/judge")
        async def judge(self, request: JudgeRequest) -> JudgeResponse:
            """Grade one pair, with the probability of each grade beside its definition."""
            pair = pl.DataFrame([request.model_dump()], schema=dict.fromkeys(JudgeRequest.model_fields, pl.String))
            try:
                (judgement,) = await self.scorer.judge(pair)
            except TooLong as error:
                where = {"type": "too_long", "loc": ["body", "query"], "msg": str(error)}
                raise HTTPException(status_code=422, detail=[where]) from None
            if judgement.error:
                raise HTTPException(status_code=502, detail=f"the teacher gave no answer: {judgement.error}")
            return _response(self.scorer.question, judgement)

        @http.get("/", response_class=HTMLResponse)
        def page(self) -> HTMLResponse:
            """A form, for people."""
            return HTMLResponse(render_page(self.scorer.question), headers=PAGE_HEADERS)

        @http.get("/health")
        def health(self) -> dict[str, Any]:
            """Which teacher is loaded."""
            question = self.scorer.question
            return {
                "status": "ok",
                "teacher": teacher_name(question),
                "engine": self.scorer.engine,
                "prompt_version": question.template.version,
                "calibrated": self.scorer.calibration != Calibration(),
            }

        async def check_health(self) -> None:
            """Serve replaces a replica whose engine died."""
            await self.scorer.check_health()

        def __del__(self) -> None:
            if hasattr(self, "scorer"):  # it is missing if it could not be made
                self.scorer.close()

    replicas = ready.question.config.replicas
    deployment: Any = serve.deployment(
        name="Teacher",
        **_copies(replicas.at_least, replicas.at_most),
        max_ongoing_requests=arguments.max_ongoing_requests,
        # What cannot be loaded once cannot be loaded the tenth time either.
        max_constructor_retry_count=1,
        ray_actor_options=_resources(ready.question, ready.engine == "http"),
    )(Teacher)
    application: Application = deployment.bind(ready.question, calibration)
    return application


def render_page(question: Question) -> str:
    """The page of the form; everything it needs is in it."""
    folders = [Path(__file__).parent, TEMPLATES]
    environment = Environment(loader=FileSystemLoader(folders), undefined=StrictUndefined, autoescape=True)
    template = question.template
    return environment.get_template("teacher.html.j2").render(
        teacher=teacher_name(question),
        version=template.version,
        language=template.language,
        rubric=list(enumerate(template.grades)),
        fields=["query", "title", *template.shown],
    )


def teacher_name(question: Question) -> str:
    """The teacher's name; of a directory the last part only, since the rest is the server's own affair."""
    path = Path(question.teacher)
    return path.name if path.is_dir() else question.teacher


def _response(question: Question, judgement: Judgement) -> JudgeResponse:
    template = question.template
    return JudgeResponse(
        grade=judgement.grade,
        label=template.labels[judgement.grade],
        definition=template.grades[judgement.grade],
        levels=[
            Level(grade=grade, definition=definition, probability=probability)
            for grade, (definition, probability) in enumerate(zip(template.grades, judgement.levels, strict=True))
        ],
        raw_levels=list(judgement.raw_levels),
        expected=judgement.expected,
        outside_mass=judgement.outside_mass,
        prompt=judgement.prompt,
        prompt_version=template.version,
        teacher=teacher_name(question),
    )


def _copies(at_least: int, at_most: int) -> dict[str, Any]:
    if at_least == at_most:
        return {"num_replicas": at_least}
    return {"autoscaling_config": {"min_replicas": at_least, "max_replicas": at_most, "target_ongoing_requests": 8}}


def _resources(question: Question, over_http: bool) -> dict[str, Any]:
    """What one replica takes; one that asks a server only waits."""
    config = question.config
    if over_http:
        return {"num_cpus": min(0.25, config.replicas.cpus), "resources": config.replicas.resources}
    return {
        "num_cpus": config.replicas.cpus,
        "num_gpus": replica_gpus(config) * config.replicas.tensor_parallel,
        "memory": memory_bytes(config.replicas.memory_gib),
        "resources": config.replicas.resources,
        "runtime_env": {"env_vars": {"VLLM_CPU_KVCACHE_SPACE": str(config.vllm.cpu_cache_gib)}},
    }
