"""Writing the golden requests of a bundle: frequent queries of the validation day, asked by made-up users.

No person is in them. The made-up users have a history of lists that were never shown, which goes through the same code
as events. A server with a playground also offers them there.
"""

from pathlib import Path
from typing import Any

import polars as pl

from prectr.contracts.protocol import Context, Event, ScoreRequest, ShownItem
from prectr.core.artifacts import write_json
from prectr.features.load import Samples, split_days
from prectr.ranking.bundle import GOLDEN_FILE, INT8_ENCODER_FILE, Bundle
from prectr.ranking.golden import GoldenScores
from prectr.ranking.ranking import Ranking
from prectr.relevance.encoder_session import INT8_FILE
from prectr.serving.user_delta import EventReader, SeenItem, UserRecord, add_list, merged

CANDIDATES = 20
"""Largest number of candidates of a golden request."""
HISTORIES = {"golden-active": 12, "golden-picky": 12, "golden-tolerant": 12, "golden-new": 1}
"""Made-up user -> lists of its history."""


def write_golden(bundle: Path, samples: Path) -> None:
    """Score golden requests with an unpublished bundle, and write `golden.json`."""
    opened = Bundle.read(bundle, "unpublished")
    requests = choose_requests(Samples.open(samples))
    users = _made_up_users(opened, requests)
    int8 = any((bundle / name).is_file() for name in (INT8_ENCODER_FILE, Path("relevance") / INT8_FILE))
    forms = {form: _logits(opened, requests, users, form) for form in ((False, True) if int8 else (False,))}
    golden = GoldenScores(requests=requests, users=users, click_logits=forms[False], int8_click_logits=forms.get(True))
    write_json(bundle / GOLDEN_FILE, golden.model_dump(mode="json"))


def choose_requests(samples: Samples) -> list[ScoreRequest]:
    """Choose the two queries that most users of the validation day typed, and make one that nobody typed."""
    _, day, _ = split_days(samples.days())
    rows = samples.frame([day], ["user_id", "query", "item_id", "ts"])
    queries = (
        rows.group_by("query")
        .agg(pl.col("user_id").n_unique(), pl.col("item_id").unique().sort().head(CANDIDATES))
        .sort("user_id", "query", descending=[True, False])
    )
    moment = Context(ts=rows["ts"].max().timestamp())  # type: ignore[union-attr]
    chosen = [queries.row(number, named=True) for number in (0, min(1, queries.height - 1))]
    requests = [
        ScoreRequest(user_id=user, query=row["query"], candidates=row["item_id"], context=moment)
        for user, row in zip(("golden-active", "golden-new"), chosen, strict=True)
    ]
    first = requests[0]
    item = {"item_id": "golden-unseen", "title": first.query, "price": 10.0}
    unknown = {"user_id": "golden-nobody", "query": f"{first.query} golden", "candidates": [*first.candidates, item]}
    return [*requests, ScoreRequest.model_validate(unknown | {"context": moment})]


def _made_up_users(bundle: Bundle, requests: list[ScoreRequest]) -> dict[str, dict[str, Any]]:
    """Entries of the made-up users, as if they had been shown the first requests' candidates again and again."""
    ranking = Ranking(bundle)
    reader, users = EventReader(bundle, ranking.features), {}
    try:
        for user, lists in HISTORIES.items():
            record = UserRecord()
            for number in range(lists):
                request = requests[number % 2]
                names = [str(name) for name in request.candidates]
                first = number % len(names)
                shown = [
                    ShownItem(item_id=name, position=place)
                    for place, name in enumerate((names[first:] + names[:first])[:10], start=1)
                ]
                moment = (request.context.ts or 0.0) - 3600 * (lists - number)
                event = Event(request_id=str(number), user_id=user, query=request.query, shown=shown, ts=moment)
                seen = reader.read(event, moment)
                clicked = _clicked(user, seen.items)
                event = event.model_copy(
                    update={
                        "shown": [item.model_copy(update={"clicked": item.item_id in clicked}) for item in event.shown]
                    }
                )
                record, _ = add_list(
                    UserRecord(record.delta, record.lists),
                    reader.read(event, moment),
                    reader.table,
                    bundle.state_identity,
                    now=moment,
                )
            users[user] = merged(None, record.delta, bundle.state_identity, 0.0) or {}
    finally:
        ranking.close()
    return users


def _clicked(user: str, items: list[SeenItem]) -> set[str]:
    """Items that a made-up user clicks: the picky one the most relevant item, the tolerant one the least relevant."""
    by_relevance = [item.item_id for item in sorted(items, key=lambda item: (-item.steps, item.item_id))]
    if user == "golden-picky":
        return set(by_relevance[:1])
    return set(by_relevance[-3:]) if user == "golden-tolerant" else {item.item_id for item in items[::3]}


def _logits(
    bundle: Bundle, requests: list[ScoreRequest], users: dict[str, dict[str, Any]], int8: bool
) -> list[list[float]]:
    ranking = Ranking(bundle, int8=int8, users=users.get)
    try:
        return [[float(value) for value in ranking.click_logits(request)] for request in requests]
    finally:
        ranking.close()
