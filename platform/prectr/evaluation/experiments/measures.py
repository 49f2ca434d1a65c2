"""What an experiment is judged by. Each measure is a sum over users divided by another.

    R = sum over users of above / sum over users of below

Light imports only: the configuration checks names against this list.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """One measure; `above` and `below` name sums of a user, `needs` a column of the exposures."""

    name: str
    title: str
    definition: str
    above: str
    below: str
    needs: str | None = None
    bootstrap: bool = False
    """Whether the verdict rests on the bootstrap interval: for amounts, whose tails are heavy."""


MEASURES = (
    Measure("ctr", "CTR", "clicks / impressions", "clicks", "impressions"),
    Measure("orders", "orders per capita", "purchased impressions / users", "orders", "users", "purchased"),
    Measure("conversion", "conversion", "users with an order / users", "converted", "users", "purchased"),
    Measure("gmv", "GMV per capita", "sum of the price of purchases / users", "amount", "users", "price", True),
)
SUMS = ("impressions", "clicks", "orders", "amount")
"""What is added up over a user's rows; `users` is 1 for everybody and `converted` is 1 with an order."""
