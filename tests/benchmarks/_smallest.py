"""`--smallest`: every part of a benchmark, at a size that takes seconds to about a minute.

It shows that a benchmark still runs; its figures mean nothing, and the last line says so. `tests/test_benchmarks.py`
runs every benchmark this way. A part that needs what is not installed is left out, with the reason in the last line.

    make bench-NAME BENCH_OPTIONS=--smallest
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

MARKETPLACE = {"users": 50, "items": 800, "queries": 60, "days": 5}
"""Sizes of the simulated marketplace: so few users and queries that most of them come again."""
ROWS = 2_000
"""Impressions of a log that is simulated with a made-up relevance."""
REQUESTS = 500
"""Requests of a log that is taken through the jobs."""
SETTINGS = (
    *(f"simulate.{name}={size}" for name, size in MARKETPLACE.items()),
    f"simulate.requests={REQUESTS}",
    *(f"teacher.{name}={size}" for name, size in (("width", 32), ("heads", 1), ("layers", 1), ("feed_forward", 32))),
    *("teacher.vocabulary=400", "teacher.warm_start_pairs=200", "teacher.epochs=1", "teacher.batch_size=64"),
    *("selection.budget=300", "label.repeat_sample=20", "label.engine=transformers", "distill.epochs=1"),
    "distill.encoder={layers: 1, width: 32, heads: 2, feed_forward: 32, vocabulary: 500, max_length: 24}",
)
"""Settings of the jobs for such a log."""


def parse_options(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None, smallest: Mapping[str, Any]
) -> argparse.Namespace:
    """Parse a benchmark's options, to which `--smallest` is added.

    Args:
        parser: with the benchmark's own options.
        arguments: of the command line; None: those of this process.
        smallest: option -> its default where `--smallest` is given.
    """
    parser.add_argument("--smallest", action="store_true", help="run everything, tiny: the figures mean nothing")
    given = sys.argv[1:] if arguments is None else arguments
    if "--smallest" in given:
        parser.set_defaults(**smallest)
    return parser.parse_args(given)


def print_result(result: dict[str, Any], smallest: bool) -> None:
    """Print the last line: one JSON object, the ratio first."""
    first = next(iter(result))
    assert "ratio" in first, f"the first figure must be a ratio, not '{first}'"
    print(json.dumps(result | ({"size": "smallest: the figures mean nothing"} if smallest else {})), flush=True)
