"""Settings of `mine-preferences`."""

from typing import Literal

from pydantic import Field

from prectr.core.config import FrozenConfig


class PreferencesConfig(FrozenConfig):
    """How tolerances and cross-user statistics are mined."""

    half_life_days: float | None = Field(default=30.0, ge=0.5)
    """What was seen so many days ago counts half; null: nothing fades."""
    holdout_days: int = Field(default=2, ge=0)
    """Last days that the parameters (a, s, eps, examination, priors) are not fitted on: validation and test."""
    fit_rows: int = Field(default=60_000, ge=1)
    """Rows that the click curve and the priors are fitted on; whole users are drawn."""
    fit_window_rows: int = Field(default=10_000_000, ge=1)
    """The fit looks at the latest training days that hold so many rows, at least one day."""
    examination: Literal["auto", "randomised", "logged", "fixed"] = "auto"
    """Where exam(position) comes from: the randomised slice (`auto` falls back to the logged rows where there is none
    or it has too few clicks), the logged rows, or the fixed exponent below."""
    examination_exponent: float = Field(default=1.0, ge=0)
    min_randomised_clicks: int = 100
    alternate: bool = True
    """Correct users for the queries they typed and queries for the users who typed them [ours, once]."""
    parameters_from: str | None = None
    """Another preferences artifact whose fitted parameters are used as they are; null: fit them."""
    late_days: Literal["alone", "renew"] = "alone"
    """When a day was corrected: mine it alone, and leave the corrections (`alternate`) of the days after it as they
    were known then; or renew them too, at the cost of reading those days again."""
    smoothing_clicks: float = Field(default=2.0, gt=0)
    """Prior clicks that smooth the click rates of users, queries, items and pairs towards the one above."""
    level_prior_clicks: float | None = Field(default=None, gt=0)
    """Prior clicks of the back-off of rates by relevance level, query -> category -> whole log; null: for each level so
    many as make the clicks of the training days' queries most probable (`prectr.preferences.smoothing`)."""
    behaviours_per_query: int = Field(default=30, ge=1)
