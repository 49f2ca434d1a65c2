"""The teacher on Ray Serve, to judge single pairs: `POST /judge`, a page with a form at `GET /`, `GET /health`.

Deploy it with `prectr teacher serve --teacher TEACHER`, or with `serve run serve_apps.teacher:build_app teacher=DIR`.
The API has no authentication, so it listens on the loopback address; put a gateway before it to open it.
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
from prectr.labelling.config import LabelConfig
from prectr.labelling.engines.contract import Question, replica_gpus
from prectr.labelling.engines.interactive import TooLong
from prectr.labelling.teacher_scorer import Judgement, TeacherScorer, prepare_scorer
from prectr.metrics.level_calibration import Calibration
from prectr.reports import TEMPLATES
from serve_apps.api_docs import add_docs

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2_000)]
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'"
}


class AppArguments(BaseModel):
    """Arguments of the Ray Serve application."""

    model_config = ConfigDict(extra="forbid")

    teacher: str
    """Checkpoint directory, name of a model on the Hugging Face hub, or URL of an OpenAI-compatible server."""
    labels: str | None = None
    """Artifact of `label` whose calibration is used. Null: probabilities are not calibrated."""
    label: LabelConfig = LabelConfig()
    """Settings of labelling: prompt, engine, and `replicas` with the number and resources of replicas."""
    max_ongoing_requests: int = 100
    """Most requests that Ray Serve sends to one replica at a time. At Ray's default of 5, throughput collapses."""


class JudgeRequest(BaseModel):
    """A pair of query and title. Category and brand are used only if the teacher's prompt shows them."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"query": "nokia 3310", "title": "Nokia 3310, blue"}]}
    )

    query: Text
    title: Text
    category: str | None = Field(None, max_length=2_000)
    brand: str | None = Field(None, max_length=2_000)


class Level(BaseModel):
    """One grade of the rubric with its probability."""

    grade: int
    definition: str
    probability: float = Field(description="calibrated")


class JudgeResponse(BaseModel):
    """The teacher's judgement of a pair, with its prompt."""

    grade: int = Field(description="most probable grade, 0..3")
    label: str = Field(description="token of the grade")
    definition: str
    levels: list[Level]
    raw_levels: list[float] = Field(description="probability of each grade before calibration")
    expected: float = Field(description="expected level, 0..1")
    outside_mass: float = Field(description="probability of answers that are not a label")
    prompt: str = Field(description="prompt as the teacher read it")
    prompt_version: str
    teacher: str


def build_app(arguments: AppArguments) -> Application:
    """Build one teacher as a Ray Serve application.

    Raises:
        UsageError: the teacher cannot answer, or the labels come from another teacher.
    """
    labels = None if arguments.labels is None else Path(arguments.labels)
    scorer, calibration = prepare_scorer(arguments.teacher, labels, arguments.label)
    http = FastAPI(title="PRECTR-V2 teacher", version=__version__, docs_url=None, redoc_url=None)
    add_docs(http)

    @serve.ingress(http)
    class Teacher:
        """One replica: a loaded teacher."""

        def __init__(self, question: Question, calibration: Calibration) -> None:
            self.scorer = TeacherScorer(question, calibration)

        @http.post("/judge")
        async def judge(self, request: JudgeRequest) -> JudgeResponse:
            """Grade one pair; returns the definition and probability of each grade."""
            pair = pl.DataFrame([request.model_dump()], schema=dict.fromkeys(JudgeRequest.model_fields, pl.String))
            try:
                (judgement,) = await self.scorer.judge(pair)
            except TooLong as error:
                problem = {"type": "too_long", "loc": ["body", "query"], "msg": str(error)}
                raise HTTPException(status_code=422, detail=[problem]) from None
            if judgement.error:
                raise HTTPException(status_code=502, detail=f"the teacher gave no answer: {judgement.error}")
            return _response(self.scorer.question, judgement)

        @http.get("/", response_class=HTMLResponse)
        def page(self) -> HTMLResponse:
            """Page with a form."""
            return HTMLResponse(render_page(self.scorer.question), headers=PAGE_HEADERS)

        @http.get("/health")
        def health(self) -> dict[str, Any]:
            """Health and loaded teacher."""
            question = self.scorer.question
            return {
                "status": "ok",
                "teacher": teacher_name(question),
                "engine": self.scorer.engine,
                "prompt_version": question.template.version,
                "calibrated": self.scorer.calibration != Calibration(),
            }

        async def check_health(self) -> None:
            """Check the engine; Serve replaces a replica that fails this check."""
            await self.scorer.check_health()

        def __del__(self) -> None:
            if hasattr(self, "scorer"):  # missing if the constructor failed
                self.scorer.close()

    replicas = scorer.question.config.replicas
    deployment: Any = serve.deployment(
        name="Teacher",
        **_replica_options(replicas.at_least, replicas.at_most),
        max_ongoing_requests=arguments.max_ongoing_requests,
        # A teacher that fails to load once fails again, so do not repeat it.
        max_constructor_retry_count=1,
        ray_actor_options=_actor_options(scorer.question, scorer.engine == "http"),
    )(Teacher)
    application: Application = deployment.bind(scorer.question, calibration)
    return application


def render_page(question: Question) -> str:
    """Render the page with the form, self-contained."""
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
    """Name of the teacher; for a directory only its last part, because clients need not see the server's paths."""
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


def _replica_options(at_least: int, at_most: int) -> dict[str, Any]:
    if at_least == at_most:
        return {"num_replicas": at_least}
    return {"autoscaling_config": {"min_replicas": at_least, "max_replicas": at_most, "target_ongoing_requests": 8}}


def _actor_options(question: Question, over_http: bool) -> dict[str, Any]:
    """Resources of one replica; a replica that asks a server over HTTP only waits and takes few."""
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
