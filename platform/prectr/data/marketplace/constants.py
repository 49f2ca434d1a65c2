"""All constants of the simulated world; `truth/params.json` repeats them.

They were calibrated once on `small` (click-through rate, share of cold users, spread of the grades). They must never
change because of a model's results. Every upper-case name here counts as a constant.
"""

from datetime import date
from typing import Any, Final

FIRST_DAY: Final = date(2025, 3, 3)

# Log: lists that requests show, and candidates that they keep.
SHOWN: Final = 10  # impressions a request
LISTINGS_SEEN: Final = 1_500  # listings of its top category that a query can reach, at every scale
POOL: Final = 60  # candidates of a query after coarse ranking
EXPLORE_SHARE: Final = 0.05
CANDIDATE_REQUESTS: Final = 0.20  # share of requests that keep candidates that were not shown
CANDIDATES_KEPT: Final = 10
COARSE_RELEVANCE: Final = 0.50
COARSE_LEXICAL: Final = 0.30
COARSE_POPULARITY: Final = 0.15
COARSE_NOISE: Final = 0.20  # standard deviation of the coarse estimate's error, which is fixed for a (query, item)
TEMPERATURE: Final = 0.14  # of the Plackett-Luce draw that orders the list of a production request

# Users.
USER_ZIPF: Final = 0.65
ARRIVED_AT_START: Final = 0.40  # share present on the first day; the others arrive evenly over the days of the scale
TOLERANCE_BASE: Final = 0.58  # t0
TOLERANCE_USER_SD: Final = 0.18  # standard deviation of t_u
TOLERANCE_AGE: Final = 0.03  # change of t_u from one age band to the next
TOLERANCE_QUERY_SD: Final = 0.10  # standard deviation of the part of d_q that specificity does not explain
TOLERANCE_SPECIFICITY: Final = 0.20  # change of d_q for one unit of specificity (0 broad, 1 exact); d_q is centred
THRESHOLD_RANGE: Final = (0.0, 1.1)
TASTE_DIMENSIONS: Final = 4
FAVOURITE_QUERY: Final = 0.60  # share of a user's queries that fall into a favourite top category

# Queries.
QUERY_ZIPF: Final = 0.80
JUDGED_QUERIES: Final = 0.60
JUDGED_EXPOSED: Final = 12
JUDGED_POOL: Final = 12
JUDGED_RANDOM: Final = 6
JUDGMENT_NOISE: Final = 0.03  # share of grades moved by one step

# Relevance: band of r for each grade, and weights of the parts that place r in its band.
BANDS: Final = ((0.00, 0.20), (0.20, 0.50), (0.45, 0.75), (0.70, 1.00))
WITHIN_MATCH: Final = 0.30
WITHIN_COMPLETENESS: Final = 0.45
WITHIN_PAIR: Final = 0.25

# Clicks.
ACCEPTANCE_FLOOR: Final = 0.03  # eps
ACCEPTANCE_SLOPE: Final = 0.08  # s
ATTRACTION_BASE: Final = -1.7
ATTRACTION_QUALITY: Final = 0.5
ATTRACTION_PRICE: Final = 0.9
ATTRACTION_BARGAIN: Final = 3.0
ATTRACTION_TASTE: Final = 0.45
MARKDOWN_SHARE: Final = 0.3
MARKDOWN_MOST: Final = 0.25
PURCHASE_BASE: Final = -3.4
PURCHASE_RELEVANCE: Final = 2.0
PURCHASE_BARGAIN: Final = 3.0


def as_dict() -> dict[str, Any]:
    """All constants by name, as JSON types."""
    return {
        name: value.isoformat() if isinstance(value, date) else value
        for name, value in globals().items()
        if name.isupper()
    }
