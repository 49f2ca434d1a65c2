"""The playground at `/`: one page to try a ranker by hand, and what the page asks the server for.

    GET /                            the page; everything it needs is in it
    GET /v1/playground/start         users and queries to begin with
    GET /v1/playground/search        candidates of a query
    GET /v1/playground/preferences   what was mined for a query

The rest is the API that everybody uses: /v1/score, /v1/events, /v1/models. All that is listed comes from the state of
the default model; where that lies in Redis, from the bundle's own state.
"""

import asyncio
import base64
import hashlib
import re
import uuid
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, Field

from prectr.contracts.protocol import MAX_TEXT, Tolerance
from prectr.features.store import NamedEntry
from prectr.preferences.sums import USER_NAMES
from prectr.serving.query_preference import QueryPreference, query_preference
from prectr.serving.search import CatalogueIndex, seen_candidates
from prectr.serving.service import ScoringService

PAGE = Path(__file__).with_name("playground.html")
MOST_CANDIDATES = 200
CHUNK = 1_000
"""Entries that are listed in one go: requests are scored in between."""
LISTED_USERS, LISTED_QUERIES = 2_000, 5_000
"""That examples are chosen from."""
_REQUESTS = USER_NAMES.index("requests")
_ACTIVE_REQUESTS = 10
_COMPARED_USERS = 100
_HEAD_QUERIES, _TAIL_QUERIES = 4, 1
QueryText = Annotated[str, Query(min_length=1, max_length=MAX_TEXT)]


class ExampleUser(BaseModel):
    """A user that the state knows."""

    user_id: str
    kind: Literal["active", "picky", "tolerant", "new"] = Field(
        description="of the active ones: the most active, the highest and the lowest threshold; new: one request or few"
    )
    earlier_requests: int
    tolerance: Tolerance


class ExampleQuery(BaseModel):
    """A query that the state knows."""

    query: str
    users: float
    kind: Literal["frequent", "rare"]


class StartAnswer(BaseModel):
    """What to begin with."""

    users: list[ExampleUser]
    cold_user: str = Field(description="a name that nothing is known of; another one each time")
    queries: list[ExampleQuery]
    models: list[str]
    default_model: str


class FoundItem(BaseModel):
    """A candidate."""

    item_id: str
    title: str
    price: float | None
    source: Literal["seen", "words"] = Field(description="seen with the query, or shares words with it")


class SearchAnswer(BaseModel):
    """Candidates of a query: those that were seen with it, then those that share words with it."""

    query: str
    candidates: list[FoundItem]
    catalogue_items: int = Field(description="that were searched for words")
    catalogue_cut: bool = Field(description="the catalogue holds more items, which were not searched")


def add_playground(app: FastAPI, service: ScoringService) -> None:
    """Add the page and its routes."""
    page = PAGE.read_text(encoding="utf-8")
    headers = {"Content-Security-Policy": content_policy(page), "Referrer-Policy": "no-referrer"}
    offers = Offers(service)
    refused: dict[int | str, dict[str, Any]] = {401: {"description": "a bearer token is asked for"}}

    @app.get("/", include_in_schema=False)
    async def playground() -> HTMLResponse:
        """The page."""
        return HTMLResponse(page, headers=headers)

    @app.get("/v1/playground/start", responses=refused)
    async def start() -> StartAnswer:
        """Users, queries and models to begin with."""
        return await offers.start()

    @app.get("/v1/playground/search", responses=refused)
    async def search(query: QueryText, limit: Annotated[int, Query(ge=1, le=MOST_CANDIDATES)] = 100) -> SearchAnswer:
        """Candidates of a query. The first call reads the catalogue, in pieces between which others are scored."""
        return await offers.search(query, limit)

    @app.get("/v1/playground/preferences", responses=refused)
    async def preferences(query: QueryText) -> QueryPreference:
        """What was mined for a query: by level the smoothed click rate, share of clicks, impressions; tolerance."""
        return await service.run(offers.preference, query)


def content_policy(page: str) -> str:
    """Content-Security-Policy under which the page runs its own script and style and nothing else."""
    script, style = (
        " ".join(f"'sha256-{_digest(text)}'" for text in re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL))
        for tag in ("script", "style")
    )
    return (
        f"default-src 'none'; script-src {script}; style-src {style}; img-src data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


class Offers:
    """What the page lets people choose from. Worked out on first use, and anew when another state is served.

    Models and states belong to the service's thread, so all that touches them runs there, in small pieces.
    """

    def __init__(self, service: ScoringService) -> None:
        self._service = service
        self._starting, self._indexing = asyncio.Lock(), asyncio.Lock()
        self._examples: tuple[str, list[ExampleUser], list[ExampleQuery]] | None = None
        self._index, self._index_of, self._indexed_to = CatalogueIndex(), "", ""
        self._complete = False

    async def start(self) -> StartAnswer:
        """Users, queries and models to begin with."""
        version = self._service.default.state.info.version
        async with self._starting:
            if self._examples is None or self._examples[0] != version:
                self._examples = (version, await self._choose_users(), await self._choose_queries())
        _, users, queries = self._examples
        served = self._service.describe()
        return StartAnswer(
            users=users,
            cold_user=f"new-{uuid.uuid4().hex[:8]}",
            queries=queries,
            models=list(served.models),
            default_model=served.default_model,
        )

    async def search(self, query: str, limit: int) -> SearchAnswer:
        """Candidates of a query."""
        async with self._indexing:
            while not await self._service.run(self._index_more):
                pass
        return await self._service.run(self._find, query, limit)

    def preference(self, query: str) -> QueryPreference:
        """In the service's thread: what was mined for a query."""
        model = self._service.default
        return query_preference(model.state, model.bundle.preferences, query)

    def _find(self, query: str, limit: int) -> SearchAnswer:
        """In the service's thread."""
        state, index = self._service.default.state, self._index
        seen = dict.fromkeys(seen_candidates(state, query, limit), "seen")
        names = (seen | dict.fromkeys(index.search(query, limit), "words") | seen) if len(seen) < limit else seen
        items = state.get_many("item", names)
        found = [
            FoundItem(item_id=name, title=item["title"], price=item["price"], source=source)
            for (name, source), item in zip(names.items(), items, strict=True)
            if item is not None
        ]
        return SearchAnswer(query=query, candidates=found[:limit], catalogue_items=len(index), catalogue_cut=index.cut)

    def _index_more(self) -> bool:
        """In the service's thread: whether the index is complete."""
        state = self._service.default.state
        if self._index_of != state.info.version:
            self._index, self._index_of, self._indexed_to, self._complete = (
                CatalogueIndex(),
                state.info.version,
                "",
                False,
            )
        if not self._complete:
            chunk = state.scan("item", after=self._indexed_to, most=CHUNK)
            self._index.extend(chunk)
            self._complete = len(chunk) < CHUNK or self._index.cut
            self._indexed_to = chunk[-1][0] if chunk else ""
        return self._complete

    async def _list(self, kind: str, most: int) -> list[NamedEntry]:
        found: list[NamedEntry] = []
        while len(found) < most:
            chunk = await self._service.run(self._scan, kind, found[-1][0] if found else "")
            found += chunk
            if len(chunk) < CHUNK:
                break
        return found

    def _scan(self, kind: str, after: str) -> list[NamedEntry]:
        """In the service's thread; of users the sums only, the rest of them is large."""
        chunk = self._service.default.state.scan(kind, after=after, most=CHUNK)
        kept = {"user": ("sums",), "query": ("users",)}[kind]
        return [(name, {key: value.get(key) for key in kept}) for name, value in chunk]

    async def _choose_users(self) -> list[ExampleUser]:
        requests = {
            name: entry["sums"][_REQUESTS] for name, entry in await self._list("user", LISTED_USERS) if entry["sums"]
        }
        ordered = sorted(requests, key=lambda name: (-requests[name], name))
        count = sum(number >= _ACTIVE_REQUESTS for number in requests.values())
        active = ordered[: min(max(count, 3), _COMPARED_USERS)]
        fresh = [name for name in reversed(ordered) if 0 < requests[name] <= 3 and name not in active[:1]][:1]
        tolerances = await self._service.run(self._tolerances, [*active, *fresh])
        by_tolerance = sorted(active, key=lambda name: tolerances[name].mean)
        kinds: dict[str, Any] = dict.fromkeys(active[:1], "active")
        for kind, names in (("picky", by_tolerance[::-1]), ("tolerant", by_tolerance), ("new", fresh)):
            kinds |= dict.fromkeys([name for name in names if name not in kinds][:1], kind)
        return [
            ExampleUser(user_id=name, kind=kind, earlier_requests=int(requests[name]), tolerance=tolerances[name])
            for name, kind in kinds.items()
        ]

    def _tolerances(self, names: list[str]) -> dict[str, Tolerance]:
        """In the service's thread."""
        features = self._service.default.ranking.features
        found = {name: features.tolerance_of(name) for name in names}
        return {name: Tolerance(mean=mean, deviation=deviation) for name, (mean, deviation) in found.items()}

    async def _choose_queries(self) -> list[ExampleQuery]:
        users = {name: entry["users"] or 0.0 for name, entry in await self._list("query", LISTED_QUERIES)}
        ordered = sorted(users, key=lambda name: (-users[name], name))
        frequent, rare = ordered[:_HEAD_QUERIES], ordered[_HEAD_QUERIES:][-_TAIL_QUERIES:]
        return [
            ExampleQuery(query=name, users=users[name], kind="frequent" if name in frequent else "rare")
            for name in [*frequent, *rare]
        ]
