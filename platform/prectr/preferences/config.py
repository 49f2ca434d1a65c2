"""Settings of `mine-preferences`."""

from typing import Literal

from prectr.configuration import FrozenConfig


class PreferencesConfig(FrozenConfig):
    """How tolerances and cross-user statistics are mined."""

    holdout_days: int = 2
    """Last days that the parameters (a, s, eps, examination, priors) are not fitted on: validation and test."""
    fit_rows: int = 60_000
    """Rows that the parameters are fitted on; whole users are drawn."""
    examination: Literal["auto", "randomised", "logged", "fixed"] = "auto"
    """Where exam(position) comes from: the randomised slice (`auto` falls back to the logged rows where there is none
    or it has too few clicks), the logged rows, or the fixed exponent below."""
    examination_exponent: float = 1.0
    min_randomised_clicks: int = 100
    alternate: bool = True
    """Correct users for the queries they typed and queries for the users who typed them [ours, once]."""
    smoothing_clicks: float = 2.0
    """Strength of the empirical-Bayes back-off: prior clicks that one level above contributes."""
    behaviours_per_query: int = 30
    shards: int = 4
    """Blocks that partial aggregates are shuffled into."""
