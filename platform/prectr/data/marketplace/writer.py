"""Writing of a simulated world and its log to Parquet, part by part, so that memory does not grow with the log."""

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from prectr.core.errors import UsageError
from prectr.data.marketplace import constants
from prectr.data.marketplace.config import MarketplaceConfig
from prectr.data.marketplace.log import day_date, draw_requests, simulate_part
from prectr.data.marketplace.users import users_table, users_truth
from prectr.data.marketplace.worlds import Marketplace

COLD_REQUESTS = 3  # a user with at most this many earlier requests is cold


def check_empty(out: Path) -> None:
    """Refuse a directory that is not empty.

    Raises:
        UsageError: `out` is a file or holds files.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out}: is not empty; name a new or empty directory for the tables.")


def write_marketplace(
    marketplace: Marketplace, config: MarketplaceConfig, out: Path, on_day: Callable[[date, int], None] | None
) -> dict[str, int | float]:
    """Simulate the log and write all tables. Returns the statistics; see `prectr.data.marketplace.simulate`."""
    world, sizes = marketplace.world, marketplace.sizes
    _write(marketplace.items, out / "items.parquet")
    _write(users_table(world.users), out / "users.parquet")
    _write(users_truth(world.users), out / "truth" / "users.parquet")
    _write(marketplace.queries_truth, out / "truth" / "queries.parquet")

    exposed = np.zeros(world.pools.item.shape, np.int64)
    earlier = np.zeros(sizes.users, np.int64)  # requests of each user before this day
    grades = np.zeros(4, np.int64)
    impressions = candidates = clicks = purchases = explored = 0
    expected_clicks = 0.0
    active_share = cold_share = 0.0
    for day in range(sizes.days):
        # The first days get the remainder, so that the total is exact.
        size = sizes.requests // sizes.days + (day < sizes.requests % sizes.days)
        requests = draw_requests(world, day, size)
        written = 0
        for part, start in enumerate(range(0, size, config.requests_per_file)):
            simulated = simulate_part(world, requests.part(start, start + config.requests_per_file), part)
            file = Path(f"date={day_date(day).isoformat()}") / f"part-{part:04d}.parquet"
            _write(simulated.impressions, out / "impressions" / file)
            _write(simulated.candidates, out / "candidates" / file)
            _write(simulated.impressions_truth, out / "truth" / "impressions" / file)
            _write(simulated.candidates_truth, out / "truth" / "candidates" / file)
            np.add.at(exposed, (simulated.shown_query, simulated.shown_slot), 1)
            grades += np.bincount(simulated.shown_grade, minlength=4)
            written += simulated.impressions.num_rows
            candidates += simulated.candidates.num_rows
            clicks += simulated.clicks
            purchases += simulated.purchases
            expected_clicks += simulated.expected_clicks
            explored += simulated.explored_requests
        active = np.unique(requests.user)
        active_share = len(active) / sizes.users
        cold_share = float(np.mean(earlier[active] <= COLD_REQUESTS)) if len(active) else 0.0
        earlier += np.bincount(requests.user, minlength=sizes.users)
        impressions += written
        if on_day is not None:
            on_day(day_date(day), written)

    judgments = marketplace.judgments(exposed)
    _write(judgments, out / "judgments.parquet")
    statistics: dict[str, int | float] = {
        "days": sizes.days,
        "items": sizes.items,
        "users": sizes.users,
        "users_seen": int(np.count_nonzero(earlier)),
        "queries": len(world.queries),
        "queries_seen": int(np.count_nonzero(exposed.sum(axis=1))),
        "requests": sizes.requests,
        "explore_requests": explored,
        "impressions": impressions,
        "candidates": candidates,
        "judgments": judgments.num_rows,
        "clicks": clicks,
        "purchases": purchases,
        "ctr": clicks / max(impressions, 1),
        "expected_ctr": expected_clicks / max(impressions, 1),
        "purchase_rate": purchases / max(clicks, 1),
        "last_day_active_share": active_share,
        "last_day_cold_share": cold_share,
    }
    statistics |= {f"shown_grade_{grade}_share": float(grades[grade] / max(impressions, 1)) for grade in range(4)}
    if world.pools.judged is not None:
        statistics["shown_judged_share"] = float(exposed[world.pools.judged].sum() / max(impressions, 1))
    judged = np.bincount(judgments["grade"].to_numpy(), minlength=4)
    statistics |= {f"judged_grade_{grade}": int(judged[grade]) for grade in range(4)}
    _write_json(
        {
            "config": config.model_dump(),
            "sizes": sizes._asdict(),
            "constants": constants.as_dict(),
            **marketplace.parameters,
        },
        out / "truth" / "params.json",
    )
    _write_json(statistics, out / "truth" / "stats.json")
    return statistics


def _write(table: pa.Table, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file, row_group_size=100_000)


def _write_json(value: dict[str, Any], file: Path) -> None:
    file.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
