"""A typed client of the scoring API, with connections that are kept open; needs httpx and pydantic only.

    with Client("http://127.0.0.1:8000") as ranker:
        response = ranker.score("u1", "nokia 3310", ["i1", "i2"])
        ranker.tell(shown(response, "u1", "nokia 3310", clicked={"i2"}))

`AsyncClient` has the same methods, to be awaited.
"""

from collections.abc import Collection, Sequence
from typing import Any, Self

import httpx

from prectr.contracts.protocol import (
    CandidateItem,
    Context,
    Event,
    EventsRequest,
    EventsResponse,
    ScoreRequest,
    ScoreResponse,
    ShownItem,
)
from prectr.core.errors import PrectrError

DEFAULT_TIMEOUT_SECONDS = 10.0
Candidate = str | CandidateItem


class RankerError(PrectrError):
    """The server refused a request or could not answer it.

    Attributes:
        status: HTTP status code.
        retry_after: seconds after which to try again, where the server says so (429).
    """

    def __init__(self, status: int, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"the ranker answered {status}: {message}")
        self.status, self.retry_after = status, retry_after


class Client:
    """Talks to one server.

    Args:
        url: of the server, such as http://127.0.0.1:8000.
        token: bearer token, where the server asks for one.
        timeout: seconds of one answer.
    """

    def __init__(self, url: str, token: str | None = None, timeout: float = DEFAULT_TIMEOUT_SECONDS) -> None:
        self._http = httpx.Client(base_url=url, headers=_headers(token), timeout=timeout)

    def score(self, user_id: str, query: str, candidates: Sequence[Candidate], **options: Any) -> ScoreResponse:
        """Score and order candidates.

        Args:
            user_id: an unknown user is scored from the priors.
            query: as typed.
            candidates: item ids, or `CandidateItem`s for what the catalogue does not hold.
            options: `top_k`, `explain`, `model`, `ts`, `request_id` (see `ScoreRequest`).

        Raises:
            RankerError: the server refused or could not answer.
            httpx.HTTPError: there is no server, or it did not answer in time.
        """
        request = _request(user_id, query, candidates, options)
        return _read(self._http.post("/v1/score", **_body(request)), ScoreResponse)

    def tell(self, *events: Event) -> EventsResponse:
        """Tell shown lists and clicks; errors as `score`."""
        return _read(self._http.post("/v1/events", **_body(EventsRequest(events=list(events)))), EventsResponse)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient:
    """As `Client`, for asyncio."""

    def __init__(self, url: str, token: str | None = None, timeout: float = DEFAULT_TIMEOUT_SECONDS) -> None:
        self._http = httpx.AsyncClient(base_url=url, headers=_headers(token), timeout=timeout)

    async def score(self, user_id: str, query: str, candidates: Sequence[Candidate], **options: Any) -> ScoreResponse:
        """Score and order candidates; arguments and errors as `Client.score`."""
        request = _request(user_id, query, candidates, options)
        return _read(await self._http.post("/v1/score", **_body(request)), ScoreResponse)

    async def tell(self, *events: Event) -> EventsResponse:
        """Tell shown lists and clicks; errors as `score`."""
        return _read(await self._http.post("/v1/events", **_body(EventsRequest(events=list(events)))), EventsResponse)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def shown(response: ScoreResponse, user_id: str, query: str, clicked: Collection[str] = ()) -> Event:
    """The event that a response's list was shown in its order, and what was clicked of it."""
    items = [
        ShownItem(item_id=entry.item_id, position=entry.rank, clicked=entry.item_id in clicked, price=entry.price)
        for entry in response.results
    ]
    return Event(request_id=response.request_id, user_id=user_id, query=query, shown=items)


def _request(user_id: str, query: str, candidates: Sequence[Candidate], options: dict[str, Any]) -> ScoreRequest:
    context = Context(ts=options.pop("ts", None), request_id=options.pop("request_id", None))
    return ScoreRequest(user_id=user_id, query=query, candidates=list(candidates), context=context, **options)


def _headers(token: str | None) -> dict[str, str]:
    return {} if token is None else {"authorization": f"Bearer {token}"}


def _body(message: ScoreRequest | EventsRequest) -> dict[str, Any]:
    return {
        "content": message.model_dump_json(exclude_none=True),
        "headers": {"content-type": "application/json"},
    }


def _read(answer: httpx.Response, kind: Any) -> Any:
    if answer.is_success:
        return kind.model_validate_json(answer.content)
    try:
        detail = answer.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = answer.text[:200]
    after = answer.headers.get("retry-after")
    raise RankerError(answer.status_code, str(detail), None if after is None else float(after))
