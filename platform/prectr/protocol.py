"""The scoring protocol: what a client sends and gets, over HTTP or as JSON lines. Pydantic only."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

MAX_CANDIDATES = 500
MAX_TEXT = 2_000
ItemId = Annotated[str, Field(min_length=1, max_length=200)]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class CandidateItem(_Message):
    """An item that the catalogue does not hold, or whose fields the client knows better."""

    item_id: ItemId
    title: str | None = Field(None, max_length=MAX_TEXT)
    category: str | None = Field(None, max_length=MAX_TEXT)
    brand: str | None = Field(None, max_length=MAX_TEXT)
    price: float | None = Field(None, ge=0, allow_inf_nan=False)


class ScoreRequest(_Message):
    """One query of one user, with the candidates to order."""

    user_id: str = Field(max_length=200)
    query: str = Field(min_length=1, max_length=MAX_TEXT)
    candidates: list[ItemId | CandidateItem] = Field(min_length=1, max_length=MAX_CANDIDATES)
    top_k: int | None = Field(None, ge=1, description="return only the best so many")
    ts: float | None = Field(None, description="seconds since 1970 of the request; now if absent")

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"user_id": "u1", "query": "nokia 3310", "candidates": ["i1", "i2"]}]},
    )

    def plain_candidates(self) -> list[str | dict[str, Any]]:
        """Candidates as ids and dicts of the fields that were given."""
        return [entry if isinstance(entry, str) else entry.model_dump(exclude_none=True) for entry in self.candidates]


class ScoredCandidate(_Message):
    """What the ranker says of one candidate."""

    rank: int = Field(description="place in the final order, from 1")
    item_id: str
    title: str
    click_probability: float = Field(description="position-free: as if shown where it is certainly looked at")
    level_probabilities: list[float] = Field(description="irrelevant, weak, relevant, strong")
    expected_level: float = Field(description="0..3")
    incentive: float = Field(description="tau, the personal relevance incentive on the logit scale")
    relevance_source: str = Field(description="judgment, teacher or encoder")


class Tolerance(_Message):
    """A relevance tolerance posterior: results below this relevance (0..1) tend not to be accepted."""

    mean: float
    deviation: float


class ScoreResponse(_Message):
    """The scored candidates, best first, and what was known."""

    model: str
    version: str
    user_known: bool
    query_known: bool
    earlier_requests: int
    user_tolerance: Tolerance
    query_tolerance: Tolerance
    results: list[ScoredCandidate]
    seconds: dict[str, float] = Field(description="time spent on features and on the model")
