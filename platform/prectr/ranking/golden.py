"""Golden requests: a few requests of made-up users, with the bundle's scores at publication.

A server scores them again at start and refuses a bundle whose scores differ (a changed file, another ONNX Runtime) by
more than a tolerance. Another processor, thread count or batch rounds differently, by far less. They are scored with
the state in the bundle, whichever store a server reads features from. `prectr.serving.golden_requests` writes them.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from prectr.contracts.protocol import ScoreRequest
from prectr.core.errors import PrectrError, quoted, shorten
from prectr.ranking.bundle import GOLDEN_FILE
from prectr.ranking.ranking import Ranking

TOLERANCE = 1e-3
"""Largest allowed difference of a click logit. Processors add numbers in different orders."""
INT8_TOLERANCE = 0.1
"""Largest allowed difference of the int8 form. No processor overflows (it uses 7 of 8 bits), but an activation between
two whole numbers is rounded up on one and down on the other."""


class GoldenScores(BaseModel):
    """Content of `golden.json`."""

    requests: list[ScoreRequest]
    users: dict[str, dict[str, Any]]
    """Made-up user -> its entry, as the online state holds those of real users."""
    click_logits: list[list[float]]
    """Logits of each request's candidates, in the request's order."""
    int8_click_logits: list[list[float]] | None = None


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
        ranking: the bundle, opened with the state in it and the golden users.
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
