"""Measures of an experiment. Each measure is a ratio of two sums over users.

    R = sum over users of above / sum over users of below

This module imports no heavy library, because the configuration reads its names.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """One measure.

    Attributes:
        name: name in the configuration and the report.
        title: heading in tables.
        definition: definition for readers.
        above: sum of a user in the numerator (`SUMS`, or a derived sum).
        below: sum of a user in the denominator.
        needs: column of the exposures that the measure needs.
        bootstrap: whether the verdict uses the bootstrap interval; for amounts, whose tails are heavy.
    """

    name: str
    title: str
    definition: str
    above: str
    below: str
    needs: str | None = None
    bootstrap: bool = False


MEASURES = (
    Measure("ctr", "CTR", "clicks / impressions", "clicks", "impressions"),
    Measure("orders", "orders per capita", "purchased impressions / users", "orders", "users", "purchased"),
    Measure("conversion", "conversion", "users with an order / users", "converted", "users", "purchased"),
    Measure("gmv", "GMV per capita", "sum of the price of purchases / users", "amount", "users", "price", True),
)
SUMS = ("impressions", "clicks", "orders", "amount")
"""Sums over a user's rows. Two sums are derived: `users` is 1 for each user, `converted` is 1 with an order."""
