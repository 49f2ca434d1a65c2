"""A typed client of the scoring API, with persistent connections; needs httpx and pydantic only.

`Client` blocks; `AsyncClient` has the same methods for asyncio.
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
        retry_after: seconds to wait before the next attempt, if the server states them (429).
    """

    def __init__(self, status: int, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"the ranker answered {status}: {message}")
        self.status, self.retry_after = status, retry_after


class Client:
    """Client of one server.

    Args:
        url: address of the server, such as http://127.0.0.1:8000.
        token: bearer token, if the server requires one.
        timeout: seconds to wait for an answer.

    Example::

        with Client("http://127.0.0.1:8000") as ranker:
            response = ranker.score("u1", "nokia 3310", ["i1", "i2"])
            print(response.results[0].item_id, response.results[0].click_probability)
            ranker.tell(shown(response, "u1", "nokia 3310", clicked={"i2"}))
    """

    def __init__(self, url: str, token: str | None = None, timeout: float = DEFAULT_TIMEOUT_SECONDS) -> None:
        self._http = httpx.Client(base_url=url, headers=_headers(token), timeout=timeout)

    def score(self, user_id: str, query: str, candidates: Sequence[Candidate], **options: Any) -> ScoreResponse:
        """Score and order candidates.

        Args:
            user_id: id of the user; an unknown user is scored from the priors.
            query: query as typed.
            candidates: item ids, or `CandidateItem`s for items that the catalogue does not hold.
            options: `top_k`, `explain`, `model`, `ts`, `request_id` (see `ScoreRequest`).

        Raises:
            RankerError: the server refused the request or could not answer it.
            httpx.HTTPError: no server listens at the URL, or it did not answer in time.
        """
        request = _request(user_id, query, candidates, options)
        return _read(self._http.post("/v1/score", **_body(request)), ScoreResponse)

    def tell(self, *events: Event) -> EventsResponse:
        """Send shown lists and clicks to the server; errors as `score`."""
        return _read(self._http.post("/v1/events", **_body(EventsRequest(events=list(events)))), EventsResponse)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient:
    """Client of one server for asyncio; arguments as `Client`."""

    def __init__(self, url: str, token: str | None = None, timeout: float = DEFAULT_TIMEOUT_SECONDS) -> None:
        self._http = httpx.AsyncClient(base_url=url, headers=_headers(token), timeout=timeout)

    async def score(self, user_id: str, query: str, candidates: Sequence[Candidate], **options: Any) -> ScoreResponse:
        """Score and order candidates; arguments and errors as `Client.score`."""
        request = _request(user_id, query, candidates, options)
        return _read(await self._http.post("/v1/score", **_body(request)), ScoreResponse)

    async def tell(self, *events: Event) -> EventsResponse:
        """Send shown lists and clicks to the server; errors as `score`."""
        return _read(await self._http.post("/v1/events", **_body(EventsRequest(events=list(events)))), EventsResponse)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def shown(response: ScoreResponse, user_id: str, query: str, clicked: Collection[str] = ()) -> Event:
    """Event of a response whose list was shown in the ranker's order.

    Args:
        response: answer of `score`.
        user_id: user of the request.
        query: query of the request.
        clicked: ids of the clicked items.
    """
    items = [
        ShownItem(item_id=entry.item_id, position=entry.rank, clicked=entry.item_id in clicked, price=entry.price)
        for entry in response.results
    ]
    return Event(
        request_id=response.request_id,
        user_id=user_id,
        query=query,
        shown=items,
        impression_token=response.impression_token,
    )


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


def _read(response: httpx.Response, message_class: Any) -> Any:
    if response.is_success:
        return message_class.model_validate_json(response.content)
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = response.text[:200]
    retry_after = response.headers.get("retry-after")
    raise RankerError(response.status_code, str(detail), None if retry_after is None else float(retry_after))
