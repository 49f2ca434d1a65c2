"""Messages of the scoring service, over HTTP or as JSON lines. Pydantic only."""

from collections.abc import Collection, Iterator
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, field_validator

from prectr.core.text import is_blank
from prectr.core.times import parse_time

MAX_CANDIDATES = 500
"""Most candidates of a request."""
MAX_TEXT = 2_000
"""Most characters of a text."""
MAX_SHOWN = 500
"""Most items of a shown list."""


def _visible(text: str) -> str:
    if is_blank(text):
        raise ValueError("is blank")
    return text


_VISIBLE = AfterValidator(_visible)
_SOME_CHARACTER = {"pattern": r"\S"}
Id = Annotated[str, Field(min_length=1, max_length=200, json_schema_extra=_SOME_CHARACTER), _VISIBLE]
"""An id that shows something. `require_ids` also refuses words that stand for a missing one."""
QueryText = Annotated[str, Field(min_length=1, max_length=MAX_TEXT, json_schema_extra=_SOME_CHARACTER), _VISIBLE]
Path = tuple[str | int, ...]
"""Place of a field in a message: names and positions, from the outside."""
Seconds = Annotated[
    float,
    Field(ge=0, le=4e9),
    BeforeValidator(parse_time),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "format": "date-time"}]}),
]
"""Seconds since 1970. Clients may also write ISO 8601 text with its zone, or milli-, micro- or nanoseconds."""

_TIME = "as ISO 8601 text with its zone, or a number of seconds, milli-, micro- or nanoseconds since 1970"


class _Message(BaseModel):
    """Base class of all messages; it refuses unknown fields."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class InvalidField(Exception):
    """A field that the server's settings refuse.

    Attributes:
        path: place of the field in the message.
    """

    def __init__(self, path: Path, message: str) -> None:
        super().__init__(message)
        self.path = path


class CandidateItem(_Message):
    """An item that the catalogue lacks, or whose fields the client overrides."""

    item_id: Id
    title: str | None = Field(None, max_length=MAX_TEXT)
    category: str | None = Field(None, max_length=MAX_TEXT)
    brand: str | None = Field(None, max_length=MAX_TEXT)
    price: float | None = Field(None, ge=0, le=1e15, allow_inf_nan=False)


class Context(_Message):
    """Time and id of a request."""

    ts: Seconds | None = Field(None, description=f"time of the request, {_TIME}; default: now")
    request_id: Id | None = Field(None, description="id by which events refer to this request; default: a new id")


class ScoreRequest(_Message):
    """A query of a user, and the candidates to rank."""

    user_id: Id
    query: QueryText
    candidates: list[Id | CandidateItem] = Field(min_length=1, max_length=MAX_CANDIDATES)
    context: Context = Context()
    top_k: int | None = Field(None, ge=1, description="number of results to return; default: all")
    explain: bool = Field(False, description="add to each candidate an explanation of its score")
    model: str | None = Field(
        None, max_length=100, description="a name of GET /v1/models; default: the model that the user is assigned to"
    )

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"user_id": "u1", "query": "nokia 3310", "candidates": ["i1", "i2"], "top_k": 10},
                {
                    "user_id": "somebody new",
                    "query": "nokia 3310",
                    "candidates": ["i1", {"item_id": "new", "title": "nokia 3310 blue", "price": 25.0}],
                    "context": {"ts": "2026-01-01T00:00:00Z", "request_id": "r1"},
                    "explain": True,
                },
            ]
        },
    )

    def plain_candidates(self) -> list[str | dict[str, Any]]:
        """Candidates as ids, or as dicts of the fields that the client set."""
        return [entry if isinstance(entry, str) else entry.model_dump(exclude_none=True) for entry in self.candidates]

    def ids(self) -> Iterator[tuple[Path, str]]:
        """All ids with their places."""
        yield ("user_id",), self.user_id
        if self.context.request_id is not None:
            yield ("context", "request_id"), self.context.request_id
        for number, entry in enumerate(self.candidates):
            if isinstance(entry, str):
                yield ("candidates", number), entry
            else:
                yield ("candidates", number, "item_id"), entry.item_id


class Explanation(_Message):
    """Parts of a click probability: `sum_i P(level = i) P(click | level = i)`, with tau added to its logit."""

    level_click_probabilities: list[float] = Field(description="click probability given each level")
    without_tau: float = Field(description="click probability without the personal incentive")
    acceptance: float = Field(description="P(click) of the fitted click curve: the estimate from the tolerance of user "
                                          "and query alone")  # fmt: skip
    above_threshold: float = Field(description="relevance (0..1) minus the tolerance of this user for this query")
    rates: dict[str, float] = Field(description="smoothed click rates: user, query, item, pair, user_brand, "
                                                "user_category")  # fmt: skip
    price_above_usual: float | None = Field(description="log of price over the user's usual price; null: unknown")


class ScoredCandidate(_Message):
    """Scores of one candidate."""

    rank: int = Field(description="place in the final order, from 1")
    item_id: str
    title: str
    price: float | None
    score: float = Field(description="click logit without position bias; the order follows it")
    click_probability: float = Field(description="click probability if the item is certainly looked at")
    level_probabilities: list[float] = Field(description="probabilities of irrelevant, weak, relevant, strong")
    expected_level: float = Field(description="mean of the level distribution, 0..3")
    tau: float = Field(description="personal relevance incentive, on the logit scale")
    relevance_source: str = Field(description="origin of the level probabilities: judgment, teacher or encoder")
    in_catalogue: bool = Field(description="false: only this request describes the item")
    explanation: Explanation | None = None


class Tolerance(_Message):
    """Posterior of a relevance tolerance (0..1): results of lower relevance are mostly not accepted."""

    mean: float
    deviation: float


class ScoreResponse(_Message):
    """The scored candidates, best first, and what the service knew of user and query."""

    request_id: str
    model: str = Field(description="name of the served model")
    version: str = Field(description="identity of the model's bundle")
    variant: str | None = Field(None, description="variant of the experiment; null: the user takes part in none")
    user_known: bool = Field(description="false: the user was scored with prior values")
    query_known: bool = Field(description="false: values of the category or of the whole log stand for the query's")
    earlier_requests: int
    user_tolerance: Tolerance
    query_tolerance: Tolerance
    results: list[ScoredCandidate]
    unscored: list[str] = Field(
        default_factory=list, description="ids of candidates that neither the catalogue nor the request describes"
    )
    degraded: list[str] = Field(default_factory=list, description="parts that were unavailable: `features`, `events`")
    impression_token: str | None = Field(
        None,
        description="proof of this list for `POST /v1/events`; it expires. Null from `prectr score`",
    )
    state_age_seconds: float | None = Field(None, description="seconds since the start of the day of the features")
    seconds: dict[str, float] = Field(description="seconds spent waiting, on features and on the model")


class ShownItem(_Message):
    """One item of a shown list."""

    item_id: Id
    position: int = Field(ge=1, le=10_000, description="position in the list, from 1")
    clicked: bool = False
    purchased: bool | None = None
    price: float | None = Field(None, ge=0, le=1e15, allow_inf_nan=False, description="price when it was shown")
    title: str | None = Field(None, max_length=MAX_TEXT, description="title of an item that the catalogue lacks")

    def merged(self, later: "ShownItem") -> "ShownItem":
        """This row with what a later row of the same item adds."""
        told = [row.purchased for row in (self, later) if row.purchased is not None]
        added = {
            "clicked": self.clicked or later.clicked,
            "purchased": any(told) if told else None,
            "price": later.price if self.price is None else self.price,
            "title": later.title if self.title is None else self.title,
        }
        return self.model_copy(update=added)


class Event(_Message):
    """A list that was shown to a user, with its clicks.

    A client may send a list again under its request_id, with later clicks. Nothing is counted twice. An item that is
    twice in a list is one item at its first position: clicked or purchased if either row says so, with the first price
    that is given.
    """

    request_id: Id
    user_id: Id
    query: QueryText
    shown: list[ShownItem] = Field(min_length=1, max_length=MAX_SHOWN)
    ts: Seconds | None = Field(None, description=f"time when the list was shown, {_TIME}; default: now")
    impression_token: str | None = Field(
        None,
        max_length=4_000,
        description="the one of the response that ranked the list. With it anyone may report the returned items, or "
        "some of them, at the positions where they were shown; without it the bearer token needs the scope `events`",
    )

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "request_id": "r1",
                    "user_id": "u1",
                    "query": "nokia 3310",
                    "shown": [{"item_id": "i2", "position": 1, "clicked": True}, {"item_id": "i1", "position": 2}],
                }
            ]
        },
    )

    @field_validator("shown")
    @classmethod
    def _merge_items(cls, shown: list[ShownItem]) -> list[ShownItem]:
        items: dict[str, ShownItem] = {}
        at: dict[int, str] = {}
        for item in shown:
            other = at.setdefault(item.position, item.item_id)
            if other != item.item_id:
                raise ValueError(f"position {item.position} holds two items: {other!r} and {item.item_id!r}")
            first = items.get(item.item_id)
            items[item.item_id] = item if first is None else first.merged(item)
        return list(items.values())

    def ids(self) -> Iterator[tuple[Path, str]]:
        """All ids with their places."""
        yield ("request_id",), self.request_id
        yield ("user_id",), self.user_id
        for number, item in enumerate(self.shown):
            yield ("shown", number, "item_id"), item.item_id


def require_ids(message: ScoreRequest | Event, words: Collection[str]) -> None:
    """Refuse words that stand for a missing id; in queries and titles they are plain text.

    Args:
        message: whose ids.
        words: the words, in lower case: a setting of the server, so no validator of the message can know them.

    Raises:
        InvalidField: an id is such a word.
    """
    for path, text in message.ids():
        if text.strip().lower() in words:  # blank ids are refused by the messages themselves
            raise InvalidField(path, f"{text!r} stands for a missing id (serve.null_ids), so it names nothing")


class EventsRequest(_Message):
    """Shown lists."""

    events: list[Event] = Field(min_length=1, max_length=100)


class EventsResponse(_Message):
    """Result of sending events."""

    accepted: int = Field(description="events that were new or had new clicks")
    ignored: int = Field(0, description="events whose time is before the window of serve.event_window_days")
    limited: int = Field(0, description="events of users who have sent too many lists; they may be sent again later")
    tolerances: dict[str, Tolerance] = Field(description="user_id -> updated tolerance of the user")
    degraded: list[str] = Field(default_factory=list, description="parts that were unavailable")
