"""The built-in marketplace: it simulates the log of a second-hand search engine whose truth is known.

Files in reading order: `config`, `constants`, `vocabulary`, `catalogue`, `queries`, `relevance`, `retrieval`, `users`,
`log`, `worlds`, `writer`; for a log on a real catalogue also `text_match`, `real_relevance`, `real_catalogue`. The data
card is docs/marketplace.md. The marketplace only writes tables: it must not know mining, models or metrics. All results
on its logs are labelled "simulated".
"""

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from prectr.data.marketplace.config import MarketplaceConfig

if TYPE_CHECKING:
    from prectr.data.marketplace.worlds import Marketplace

__all__ = ["MarketplaceConfig", "prepare", "simulate"]


def prepare(config: MarketplaceConfig, catalogue: Path | None = None) -> "Marketplace":
    """Make a marketplace without its log. Argument `catalogue` and errors as in `simulate`."""
    if catalogue is None:
        from prectr.data.marketplace.worlds import invent  # heavy: numpy, pyarrow, scipy

        return invent(config)
    from prectr.data.marketplace.real_catalogue import read_marketplace  # heavier: polars, scikit-learn

    return read_marketplace(config, catalogue)


def simulate(
    config: MarketplaceConfig,
    out: Path,
    on_day: Callable[[date, int], None] | None = None,
    catalogue: Path | None = None,
) -> dict[str, int | float]:
    """Simulate a marketplace: write its canonical tables under `out`, and the truth under `out/truth`.

    The same configuration writes the same bytes on one machine and build. Memory grows with `config.requests_per_file`,
    not with the log.

    Args:
        config: scale, seed, placebo, and sizes that override the scale's.
        out: a directory that does not exist or is empty.
        on_day: called after each day with its date and its number of impressions.
        catalogue: validated tables whose items, queries and judgments replace the invented ones.

    Returns:
        Row counts, click-through rate and shares, as in `truth/stats.json`.

    Raises:
        UsageError: `out` is not empty, the vocabulary cannot word that many queries, or `config` sets a size that the
            catalogue determines.
        PrectrError: the catalogue lacks data that a log needs.
    """
    from prectr.data.marketplace.writer import check_empty, write_marketplace  # heavy

    check_empty(out)
    return write_marketplace(prepare(config, catalogue), config, out, on_day)
