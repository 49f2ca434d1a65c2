"""Write a small invented search log as three CSV files: the log of docs/tutorial.md.

    python examples/make_small_log.py FOLDER

The same seed writes the same files. The log is invented: it shows the format of the tables, not how people search.
"""

import csv
import random
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

SEED = 7
DAYS, REQUESTS_A_DAY, SHOWN = 5, 36, 6
USERS = [f"u{number}" for number in range(1, 25)]
BRANDS = ("nokia", "casio", "lego", "puma")
TYPES = {
    "phone": "electronics > phones",
    "phone charger": "electronics > accessories",
    "watch": "fashion > watches",
    "running shoes": "fashion > shoes",
    "toy car": "toys > cars",
}
COLOURS = ("black", "blue", "red")
CLICK_RATES = (0.02, 0.08, 0.3, 0.5)  # by grade, at the first position


def main(folder: Path) -> None:
    """Write items.csv, impressions.csv and judgments.csv."""
    draw = random.Random(SEED)
    items = [
        {
            "item_id": f"i{number}",
            "title": f"{brand} {kind} {colour}",
            "category": TYPES[kind],
            "brand": brand,
            "price": round(draw.uniform(5, 200), 2),
        }
        for number, (kind, brand, colour) in enumerate(
            ((kind, brand, colour) for kind in TYPES for brand in BRANDS for colour in COLOURS), start=1
        )
    ]
    queries = [*TYPES, *(f"{brand} {kind}" for brand in BRANDS for kind in TYPES)]
    # Each query finds the items that share a word with it, the best first, and a few others.
    found = {query: find(draw, query, items) for query in queries}
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "items.csv", items)
    write(folder / "impressions.csv", list(make_impressions(draw, found)))
    judged = [
        {"query": query, "item_id": item["item_id"], "grade": grade(query, item)}
        for query in queries
        for item in draw.sample(found[query], 8)
    ]
    write(folder / "judgments.csv", judged)


def grade(query: str, item: dict[str, Any]) -> int:
    """Relevance 0 to 3: the type and the brand asked for, the type only, the brand only, none."""
    brand = next((brand for brand in BRANDS if query.startswith(brand)), None)
    kind = query if brand is None else query.removeprefix(brand).strip()
    same_type = TYPES[kind] == item["category"]
    if same_type:
        return 3 if brand in (None, item["brand"]) else 2
    return 1 if brand == item["brand"] else 0


def find(draw: random.Random, query: str, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Twelve candidates for a query, better ones first, with some disorder."""
    return sorted(items, key=lambda item: grade(query, item) + draw.uniform(0, 2), reverse=True)[:12]


def make_impressions(draw: random.Random, found: dict[str, list[dict[str, Any]]]) -> Any:
    """Rows of requests: six of a query's candidates, clicked more often when relevant and near the top."""
    queries = list(found)
    for number in range(DAYS * REQUESTS_A_DAY):
        day, of_day = divmod(number, REQUESTS_A_DAY)
        moment = datetime(2026, 3, 1, 8, tzinfo=UTC) + timedelta(days=day, minutes=15 * of_day)
        user, query = draw.choice(USERS), draw.choice(queries)
        shown = sorted(draw.sample(range(12), SHOWN))
        for position, place in enumerate(shown, start=1):
            item = found[query][place]
            rate = CLICK_RATES[grade(query, item)] / position**0.5
            yield {
                "request_id": f"r{number}",
                "user_id": user,
                "ts": moment.isoformat(),
                "query": query,
                "item_id": item["item_id"],
                "position": position,
                "clicked": int(draw.random() < rate),
            }


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """One CSV file with a header."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/make_small_log.py FOLDER")
    main(Path(sys.argv[1]))
