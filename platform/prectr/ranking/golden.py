"""Golden requests: a few requests with the bundle's scores at publication.

A server scores them again at start and refuses a bundle whose scores differ (a changed file, another ONNX Runtime) by
more than a tolerance. Another processor, thread count or batch rounds differently, by far less. They are scored with
the state in the bundle, whichever store a server reads features from.
"""

import json
from pathlib import Path

import numpy as np
import polars as pl
from pydantic import BaseModel

from prectr.contracts.protocol import Context, ScoreRequest
from prectr.core.artifacts import write_json
from prectr.core.errors import PrectrError, quoted, shorten
from prectr.features.load import Samples, split_days
from prectr.ranking.bundle import GOLDEN_FILE, INT8_ENCODER_FILE, Bundle
from prectr.ranking.ranking import Ranking
from prectr.relevance.encoder_session import INT8_FILE

CANDIDATES = 20
"""Largest number of candidates of a golden request."""
TOLERANCE = 1e-3
"""Largest allowed difference of a click logit. Processors add numbers in different orders."""
INT8_TOLERANCE = 0.1
"""Largest allowed difference of the int8 form. No processor overflows (it uses 7 of 8 bits), but an activation between
two whole numbers is rounded up on one and down on the other."""


class GoldenScores(BaseModel):
    """Content of `golden.json`."""

    requests: list[ScoreRequest]
    click_logits: list[list[float]]
    """Logits of each request's candidates, in the request's order."""
    int8_click_logits: list[list[float]] | None = None


def write_golden(bundle: Path, samples: Path) -> None:
    """Score golden requests of the validation day with an unpublished bundle, and write `golden.json`."""
    requests = choose_requests(Samples.open(samples))
    int8 = any((bundle / name).is_file() for name in (INT8_ENCODER_FILE, Path("relevance") / INT8_FILE))
    forms = {form: _logits(bundle, requests, form) for form in ((False, True) if int8 else (False,))}
    golden = GoldenScores(requests=requests, click_logits=forms[False], int8_click_logits=forms.get(True))
    write_json(bundle / GOLDEN_FILE, golden.model_dump(mode="json"))


def choose_requests(samples: Samples) -> list[ScoreRequest]:
    """Choose requests of the validation day's most and least active user, and make one of an unknown user."""
    _, day, _ = split_days(samples.days())
    rows = samples.frame([day], ["request_id", "user_id", "query", "item_id", "ts", "user_requests", "position"])
    of_request = rows.group_by("ts", "request_id", maintain_order=True).agg(
        pl.col("user_id", "query", "user_requests").first(), pl.col("item_id").head(CANDIDATES)
    )
    ordered = of_request.sort("user_requests", "request_id")
    chosen = [ordered.row(place, named=True) for place in (-1, 0)]
    requests = [
        ScoreRequest(
            user_id=row["user_id"],
            query=row["query"],
            candidates=row["item_id"],
            context=Context(ts=row["ts"].timestamp()),
        )
        for row in chosen
    ]
    first = requests[0]
    item = {"item_id": "golden-unseen", "title": first.query, "price": 10.0}
    unknown = {"user_id": "golden-nobody", "query": f"{first.query} golden", "candidates": [*first.candidates, item]}
    return [*requests, ScoreRequest.model_validate(unknown | {"context": first.context})]


def golden_scores(bundle: Path) -> GoldenScores:
    """Read the golden requests and scores of a bundle.

    Raises:
        PrectrError: the file is missing or cannot be read.
    """
    try:
        return GoldenScores.model_validate(json.loads((bundle / GOLDEN_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise PrectrError(
            f"{bundle / GOLDEN_FILE}: cannot be read ({shorten(error)}); train the bundle again."
        ) from None


def require_golden(golden: GoldenScores, ranking: Ranking, int8: bool, name: str) -> None:
    """Check that a bundle scores its golden requests as at publication.

    Args:
        golden: the golden requests and scores.
        ranking: the bundle, opened with the state in it.
        int8: whether `ranking` runs the int8 form.
        name: name of the bundle for the message.

    Raises:
        PrectrError: a score differs by more than the tolerance; the message names the request and both scores.
    """
    published = golden.int8_click_logits if int8 else golden.click_logits
    if published is None:
        raise PrectrError(f"{name}: {GOLDEN_FILE} holds no int8 scores; train the bundle again.")
    tolerance = INT8_TOLERANCE if int8 else TOLERANCE
    for number, (request, expected) in enumerate(zip(golden.requests, published, strict=True)):
        logits = ranking.click_logits(request)
        difference = np.abs(logits - np.array(expected))
        if not (difference <= tolerance).all():  # refuses NaN, too
            worst = int(np.nanargmax(np.where(np.isnan(difference), np.inf, difference)))
            raise PrectrError(
                f"{name}: golden request {number + 1} ({quoted(request.query)}) scores {logits[worst]:.5f}, but "
                f"{expected[worst]:.5f} was published (allowed difference {tolerance:g}); a file of the bundle or ONNX "
                "Runtime has changed. Copy the bundle again, or train it again."
            )


def _logits(bundle: Path, requests: list[ScoreRequest], int8: bool) -> list[list[float]]:
    ranking = Ranking(Bundle.read(bundle, "unpublished"), int8=int8)
    try:
        return [[float(value) for value in ranking.click_logits(request)] for request in requests]
    finally:
        ranking.close()
