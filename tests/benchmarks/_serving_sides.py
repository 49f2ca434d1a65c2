"""What is served by whom: our server as a command, a bare FastAPI under uvicorn, and no server at all.

python _serving_sides.py fastapi BUNDLE PORT     the same scorer behind uvicorn and FastAPI, nothing else
python _serving_sides.py bare BUNDLE BODIES OUT  the same scorer in a loop; milliseconds of each call to OUT
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

from prectr.contracts.protocol import ScoreRequest, ScoreResponse
from prectr.ranking.ranking import Ranking
from prectr.ranking.scoring import Scorer


def ranking_of(bundle: Path) -> Ranking:
    """One thread, and nothing is remembered: every pair of every request is encoded."""
    return Ranking(Scorer(bundle, threads=1))


def fastapi(bundle: Path, port: int) -> None:
    """What somebody writes in an afternoon."""
    import uvicorn
    from fastapi import FastAPI

    ranking, app = ranking_of(bundle), FastAPI()

    @app.post("/score")
    async def score(request: ScoreRequest) -> ScoreResponse:
        return ranking.rank(request)  # in the loop: with one thread there is nothing to wait for

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


def bare(bundle: Path, bodies: Path, out: Path) -> None:
    """One call after another."""
    ranking = ranking_of(bundle)
    requests = [ScoreRequest.model_validate_json(line) for line in bodies.read_text(encoding="utf-8").splitlines()]
    for request in requests[:20]:
        ranking.rank(request)
    milliseconds = []
    for request in requests:
        started = time.perf_counter()
        ranking.rank(request)
        milliseconds.append(1000 * (time.perf_counter() - started))
    figures = {
        "requests_per_second": 1000 * len(milliseconds) / sum(milliseconds),
        "p50_ms": float(np.quantile(milliseconds, 0.5)),
        "p99_ms": float(np.quantile(milliseconds, 0.99)),
    }
    out.write_text(json.dumps(figures), encoding="utf-8")


if __name__ == "__main__":
    side, *given = sys.argv[1:]
    if side == "fastapi":
        fastapi(Path(given[0]), int(given[1]))
    else:
        bare(*map(Path, given))
