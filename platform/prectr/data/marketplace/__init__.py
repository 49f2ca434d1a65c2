"""The built-in marketplace: a second-hand search log with known truth, generated, labelled "simulated" wherever shown.

Files in reading order: `config`, `constants`, `vocabulary`, `catalogue`, `queries`, `relevance`, `retrieval`, `users`,
`log`, `judgments`, `worlds`, `writer`; for a log on a real catalogue `text_match`, `real_relevance`,
`real_catalogue`. It only makes tables; it must know nothing of mining, models or metrics. The data card is
docs/marketplace.md.
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
    """All of a marketplace but its log; `catalogue` and errors as in `simulate`."""
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
    """Write the canonical tables of a simulated marketplace under `out`, with the truth under `out/truth`.

    The same configuration writes the same bytes. Memory is bounded by `config.requests_per_file`, not by the log.

    Args:
        config: scale, seed, placebo, and overrides of the sizes.
        out: a directory that is missing or empty.
        on_day: called after each day with its date and the impressions written for it.
        catalogue: validated tables whose items, queries and judgments take the place of the invented ones.

    Returns:
        Row counts, click-through rate and shares; the same as `truth/stats.json`.

    Raises:
        UsageError: `out` holds something, more distinct queries are asked for than the vocabulary can make, or
            `config` sizes what a catalogue brings along.
        PrectrError: the catalogue lacks what a log needs.
    """
    from prectr.data.marketplace.writer import check_empty, write_marketplace  # heavy

    check_empty(out)
    return write_marketplace(prepare(config, catalogue), config, out, on_day)
