"""The ranker over HTTP: `POST /score` answers from a bundle, `GET /healthz` scores nothing but proves it is loaded.

Deploy with `prectr serve RANKER`, with `serve run serve_apps.ranker:build_app bundle=DIR`, or from `ranker.yaml`.
"""

from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, ConfigDict
from ray import serve
from ray.serve import Application

from prectr import __version__
from prectr.protocol import ScoreRequest, ScoreResponse
from prectr.ranking import RankingService


class AppArguments(BaseModel):
    """Arguments of the application."""

    model_config = ConfigDict(extra="forbid")

    bundle: str
    replicas: int = 1
    threads: int = 1
    max_ongoing_requests: int = 100
    """Ray's default of 5 makes throughput collapse under concurrent requests (RAY.md section 5)."""
    int8: bool = False
    """Run the bundle's encoders in their int8 form."""


def build_app(arguments: AppArguments) -> Application:
    """One bundle as a Serve application."""
    # Made inside the function: Serve pickles the FastAPI object, which must not have served before.
    http = FastAPI(title="PRECTR-V2 ranker", version=__version__)

    @serve.ingress(http)
    class Ranker:
        """A replica: one loaded bundle."""

        def __init__(self, bundle: str, threads: int, int8: bool) -> None:
            self.service = RankingService(Path(bundle), threads=threads, int8=int8)

        @http.post("/score")
        def score(self, request: ScoreRequest) -> ScoreResponse:
            """Click probability, relevance levels, incentive and final order of a query's candidates."""
            try:
                return self.service.rank(request)
            except ValueError as error:
                raise HTTPException(status_code=422, detail=str(error)) from None

        @http.get("/healthz")
        def health(self) -> dict[str, Any]:
            """Which bundle is loaded."""
            bundle = self.service.scorer.bundle
            return {"status": "ok", "model": bundle.name, "version": bundle.version}

    deployment: Any = serve.deployment(
        name="Ranker",
        num_replicas=arguments.replicas,
        max_ongoing_requests=arguments.max_ongoing_requests,
        ray_actor_options={"num_cpus": 1},
    )(Ranker)
    application: Application = deployment.bind(arguments.bundle, arguments.threads, arguments.int8)
    return application
