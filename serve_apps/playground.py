"""The playground at `/`: a page to try a ranker by hand, and the routes that serve its data.

    GET /                            the page, self-contained
    GET /v1/playground/start         example users and queries
    GET /v1/playground/search        candidates of a query
    GET /v1/playground/preferences   mined preferences of a query

For scores, events and models the page uses the public API: /v1/score, /v1/events, /v1/models. The lists come from the
state of the default model, or from the state in its bundle if the published state is in Redis.
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
"""Entries that are read at once; requests are scored between two chunks."""
LISTED_USERS, LISTED_QUERIES = 2_000, 5_000
"""Users and queries that the examples are chosen from."""
_REQUESTS = USER_NAMES.index("requests")
_ACTIVE_REQUESTS = 10
_COMPARED_USERS = 100
_HEAD_QUERIES, _TAIL_QUERIES = 4, 1
QueryText = Annotated[str, Query(min_length=1, max_length=MAX_TEXT)]


class ExampleUser(BaseModel):
    """A made-up user, or one in the state if `serve.playground_users` allows that."""

    user_id: str
    kind: Literal["active", "picky", "tolerant", "new"] = Field(
        description="active: most requests; picky, tolerant: highest and lowest threshold of active users; "
        "new: at most three requests"
    )
    earlier_requests: int
    tolerance: Tolerance


class ExampleQuery(BaseModel):
    """A query in the state."""

    query: str
    users: float
    kind: Literal["frequent", "rare"]


class StartAnswer(BaseModel):
    """Examples to start with."""

    users: list[ExampleUser]
    cold_user: str = Field(description="id of an unknown user, random in each answer")
    queries: list[ExampleQuery]
    models: list[str]
    default_model: str


class FoundItem(BaseModel):
    """A candidate of a query."""

    item_id: str
    title: str
    price: float | None
    source: Literal["seen", "words"] = Field(
        description="seen: logged with the query; words: its title shares words with it"
    )


class SearchAnswer(BaseModel):
    """Candidates of a query: items logged with it, then items whose titles share words with it."""

    query: str
    candidates: list[FoundItem]
    catalogue_items: int = Field(description="items that were searched for words")
    catalogue_cut: bool = Field(description="true: the catalogue has more items, which were not searched")


def add_playground(app: FastAPI, service: ScoringService, real_users: bool = False) -> None:
    """Add the page and its routes to an application; with `real_users` it offers users of the state."""
    page = PAGE.read_text(encoding="utf-8")
    headers = {"Content-Security-Policy": content_policy(page), "Referrer-Policy": "no-referrer"}
    examples = Examples(service, real_users)
    problems: dict[int | str, dict[str, Any]] = {401: {"description": "a valid bearer token is required"}}

    @app.get("/", include_in_schema=False)
    async def playground() -> HTMLResponse:
        """The page."""
        return HTMLResponse(page, headers=headers)

    @app.get("/v1/playground/start", responses=problems)
    async def start() -> StartAnswer:
        """Example users and queries, and the served models."""
        return await examples.start()

    @app.get("/v1/playground/search", responses=problems)
    async def search(query: QueryText, limit: Annotated[int, Query(ge=1, le=MOST_CANDIDATES)] = 100) -> SearchAnswer:
        """Candidates of a query. The first call indexes the catalogue in chunks, between which requests are scored."""
        return await examples.search(query, limit)

    @app.get("/v1/playground/preferences", responses=problems)
    async def preferences(query: QueryText) -> QueryPreference:
        """Mined preferences of a query: smoothed click rate, share of clicks and impressions by level; tolerance."""
        return await service.run(examples.preference, query)


def content_policy(page: str) -> str:
    """Content-Security-Policy that allows only the page's own script and style."""
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


class Examples:
    """Example users, queries and candidates for the page, computed on first use and again for a new state.

    Models and states belong to the service's thread, so all code that uses them runs there, in small chunks.
    """

    def __init__(self, service: ScoringService, real_users: bool) -> None:
        self._service, self._real_users = service, real_users
        self._examples_lock, self._index_lock = asyncio.Lock(), asyncio.Lock()
        self._examples: tuple[str, list[ExampleUser], list[ExampleQuery]] | None = None
        """Version of the state, users, queries."""
        self._index, self._index_version, self._last_item = CatalogueIndex(), "", ""
        self._complete = False

    async def start(self) -> StartAnswer:
        """Example users and queries, and the served models."""
        version = self._service.default.state.info.version
        async with self._examples_lock:
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
        async with self._index_lock:
            while not await self._service.run(self._index_more):
                pass
        return await self._service.run(self._find, query, limit)

    def preference(self, query: str) -> QueryPreference:
        """Mined preferences of a query. Runs in the service's thread."""
        model = self._service.default
        return query_preference(model.state, model.bundle.preferences, query)

    def _find(self, query: str, limit: int) -> SearchAnswer:
        """Candidates of a query. Runs in the service's thread."""
        state, index = self._service.default.state, self._index
        seen = dict.fromkeys(seen_candidates(state, query, limit), "seen")
        names = (seen | dict.fromkeys(index.search(query, limit), "words") | seen) if len(seen) < limit else seen
        items = state.get_many("item", names)
        candidates = [
            FoundItem(item_id=name, title=item["title"], price=item["price"], source=source)
            for (name, source), item in zip(names.items(), items, strict=True)
            if item is not None
        ]
        return SearchAnswer(
            query=query, candidates=candidates[:limit], catalogue_items=len(index), catalogue_cut=index.cut
        )

    def _index_more(self) -> bool:
        """Add a chunk to the index; returns whether it is complete. Runs in the service's thread."""
        state = self._service.default.state
        if self._index_version != state.info.version:
            self._index, self._index_version = CatalogueIndex(), state.info.version
            self._last_item, self._complete = "", False
        if not self._complete:
            chunk = state.scan("item", after=self._last_item, most=CHUNK)
            self._index.extend(chunk)
            self._complete = len(chunk) < CHUNK or self._index.cut
            self._last_item = chunk[-1][0] if chunk else ""
        return self._complete

    async def _list(self, kind: str, most: int) -> list[NamedEntry]:
        """The first entries of a kind, about `most` of them."""
        entries: list[NamedEntry] = []
        while len(entries) < most:
            chunk = await self._service.run(self._scan, kind, entries[-1][0] if entries else "")
            entries += chunk
            if len(chunk) < CHUNK:
                break
        return entries

    def _scan(self, kind: str, after: str) -> list[NamedEntry]:
        """A chunk of entries with the fields that examples need. Runs in the service's thread."""
        chunk = self._service.default.state.scan(kind, after=after, most=CHUNK)
        fields = {"user": ("sums",), "query": ("users",)}[kind]
        return [(name, {key: value.get(key) for key in fields}) for name, value in chunk]

    async def _choose_users(self) -> list[ExampleUser]:
        if not self._real_users:
            return await self._service.run(self._made_up_users)
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

    def _made_up_users(self) -> list[ExampleUser]:
        """Users of the golden requests, `golden-KIND`. Runs in the service's thread."""
        users = self._service.default.golden.users
        tolerances = self._tolerances(list(users))
        return [
            ExampleUser(
                user_id=name,
                kind=name.removeprefix("golden-"),
                earlier_requests=int(entry["sums"][_REQUESTS]),
                tolerance=tolerances[name],
            )
            for name, entry in users.items()
        ]

    def _tolerances(self, names: list[str]) -> dict[str, Tolerance]:
        """Tolerances of users. Runs in the service's thread."""
        features = self._service.default.ranking.features
        moments = {name: features.tolerance_of(name) for name in names}
        return {name: Tolerance(mean=mean, deviation=deviation) for name, (mean, deviation) in moments.items()}

    async def _choose_queries(self) -> list[ExampleQuery]:
        users = {name: entry["users"] or 0.0 for name, entry in await self._list("query", LISTED_QUERIES)}
        ordered = sorted(users, key=lambda name: (-users[name], name))
        frequent, rare = ordered[:_HEAD_QUERIES], ordered[_HEAD_QUERIES:][-_TAIL_QUERIES:]
        return [
            ExampleQuery(query=name, users=users[name], kind="frequent" if name in frequent else "rare")
            for name in [*frequent, *rare]
        ]
