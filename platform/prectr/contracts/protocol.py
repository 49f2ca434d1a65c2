"""The scoring protocol: what a client sends and gets, over HTTP or as JSON lines. Pydantic only."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

MAX_CANDIDATES = 500
MAX_TEXT = 2_000
MAX_SHOWN = 500
ItemId = Annotated[str, Field(min_length=1, max_length=200)]
UserId = Annotated[str, Field(max_length=200)]
Seconds = Annotated[float, Field(ge=0, le=4e9, allow_inf_nan=False)]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class CandidateItem(_Message):
    """An item that the catalogue does not hold, or whose fields the client knows better."""

    item_id: ItemId
    title: str | None = Field(None, max_length=MAX_TEXT)
    category: str | None = Field(None, max_length=MAX_TEXT)
    brand: str | None = Field(None, max_length=MAX_TEXT)
    price: float | None = Field(None, ge=0, le=1e15, allow_inf_nan=False)


class Context(_Message):
    """Circumstances of a request."""

    ts: Seconds | None = Field(None, description="seconds since 1970 of the request; now if absent")
    request_id: str | None = Field(
        None, min_length=1, max_length=200, description="joins events to this request; one is made if absent"
    )


class ScoreRequest(_Message):
    """One query of one user, with the candidates to order."""

    user_id: UserId
    query: str = Field(min_length=1, max_length=MAX_TEXT)
    candidates: list[ItemId | CandidateItem] = Field(min_length=1, max_length=MAX_CANDIDATES)
    context: Context = Context()
    top_k: int | None = Field(None, ge=1, description="return only the best so many")
    explain: bool = Field(False, description="add to each candidate what its score is made of")
    model: str | None = Field(
        None, max_length=100, description="one of GET /v1/models; by default the one that the user is assigned to"
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
                    "context": {"ts": 1767225600.0, "request_id": "r1"},
                    "explain": True,
                },
            ]
        },
    )

    def plain_candidates(self) -> list[str | dict[str, Any]]:
        """Candidates as ids and dicts of the fields that were given."""
        return [entry if isinstance(entry, str) else entry.model_dump(exclude_none=True) for entry in self.candidates]


class Explanation(_Message):
    """What a click probability is made of: `sum_i P(level = i) P(click | level = i)`, moved by tau on the logit."""

    level_click_probabilities: list[float] = Field(description="click probability if the level were known")
    without_tau: float = Field(description="click probability without the personal incentive")
    acceptance: float = Field(description="what user's and query's tolerance alone make of the item: P(click) of the "
                                          "fitted click curve")  # fmt: skip
    above_threshold: float = Field(description="relevance (0..1) minus the tolerance of this user for this query")
    rates: dict[str, float] = Field(description="smoothed click rates: user, query, item, pair, user_brand, "
                                                "user_category")  # fmt: skip
    price_above_usual: float | None = Field(description="log price over what the user usually clicks; null: unknown")


class ScoredCandidate(_Message):
    """What the ranker says of one candidate."""

    rank: int = Field(description="place in the final order, from 1")
    item_id: str
    title: str
    price: float | None
    score: float = Field(description="what the order goes by: the click logit, position-free")
    click_probability: float = Field(description="position-free: as if shown where it is certainly looked at")
    level_probabilities: list[float] = Field(description="irrelevant, weak, relevant, strong")
    expected_level: float = Field(description="0..3")
    tau: float = Field(description="personal relevance incentive, on the logit scale")
    relevance_source: str = Field(description="judgment, teacher or encoder")
    in_catalogue: bool = Field(description="false: an item that only this request describes")
    explanation: Explanation | None = None


class Tolerance(_Message):
    """A relevance tolerance posterior: results below this relevance (0..1) tend not to be accepted."""

    mean: float
    deviation: float


class ScoreResponse(_Message):
    """The scored candidates, best first, and what was known."""

    request_id: str
    model: str = Field(description="name under which the model is served")
    version: str = Field(description="identity of its bundle")
    variant: str | None = Field(None, description="of the experiment; null where the user takes part in none")
    user_known: bool = Field(description="false: the user was scored from the priors")
    query_known: bool = Field(description="false: the query's numbers back off to category and whole log")
    earlier_requests: int
    user_tolerance: Tolerance
    query_tolerance: Tolerance
    results: list[ScoredCandidate]
    unscored: list[str] = Field(
        default_factory=list, description="candidates that neither the catalogue nor the request describes"
    )
    degraded: list[str] = Field(default_factory=list, description="what could not be had: `features`, `events`")
    state_age_seconds: float | None = Field(None, description="since the day that the features are of began")
    seconds: dict[str, float] = Field(description="time spent waiting, on features and on the model")


class ShownItem(_Message):
    """One item of a shown list."""

    item_id: ItemId
    position: int = Field(ge=1, le=10_000, description="from 1")
    clicked: bool = False
    purchased: bool | None = None
    price: float | None = Field(None, ge=0, le=1e15, allow_inf_nan=False, description="at exposure")
    title: str | None = Field(None, max_length=MAX_TEXT, description="of an item that the catalogue does not hold")


class Event(_Message):
    """A list that was shown to a user, and what was clicked of it.

    A list may be sent again under its request_id, with clicks that came since: what was told before is not counted
    twice.
    """

    request_id: str = Field(min_length=1, max_length=200)
    user_id: str = Field(min_length=1, max_length=200)
    query: str = Field(min_length=1, max_length=MAX_TEXT)
    shown: list[ShownItem] = Field(min_length=1, max_length=MAX_SHOWN)
    ts: Seconds | None = Field(None, description="seconds since 1970 when the list was shown; now if absent")

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


class EventsRequest(_Message):
    """Lists that were shown."""

    events: list[Event] = Field(min_length=1, max_length=100)


class EventsResponse(_Message):
    """What became of the events."""

    accepted: int = Field(description="events that were new or told something new")
    tolerances: dict[str, Tolerance] = Field(description="user_id -> the user's tolerance from now on")
    degraded: list[str] = Field(default_factory=list)
