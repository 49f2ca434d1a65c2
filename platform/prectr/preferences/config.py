"""Settings of `mine-preferences`."""

from typing import Literal

from pydantic import Field

from prectr.core.config import FrozenConfig


class PreferencesConfig(FrozenConfig):
    """Settings of tolerances and of statistics over users, which `mine-preferences` computes from the log."""

    half_life_days: float | None = Field(default=30.0, ge=0.5)
    """Age in days at which a logged row counts half. Null: rows of any age count in full."""
    holdout_days: int = Field(default=2, ge=0)
    """Days at the end of the log that parameters are not fitted on, because they are for validation and test. The
    parameters are the click curve (a, s, eps), the examination exponent, the priors and the strengths of back-off."""
    fit_rows: int = Field(default=60_000, ge=1)
    """Rows, approximately, of each of three samples that the click curve, the priors and the strengths of back-off are
    fitted on: of whole users, of whole queries and of whole items. A log of few users, queries or items gives more."""
    fit_window_rows: int = Field(default=10_000_000, ge=1)
    """Rows of the log that the fit reads: the latest training days that hold at least this many together, and at least
    one day."""
    examination: Literal["auto", "randomised", "logged", "fixed"] = "auto"
    """Rows that the examination exponent is estimated from. `randomised`: the randomised slice. `logged`: logged rows
    of a sample of queries, compared within a pair of query and item, or, where pairs were clicked at too few positions
    to tell, all logged rows, compared within a relevance level. `auto`: the randomised slice if it has at least
    `min_randomised_clicks` clicks, otherwise as `logged`. `fixed`: none, `examination_exponent` is used."""
    examination_exponent: float = Field(default=1.0, ge=0)
    """Exponent eta of the examination probability exam(position) = position^-eta. Used with `examination: fixed`, and
    if the log has no clicks. 0 means that users look at all positions."""
    min_randomised_clicks: int = 100
    """Clicks of the randomised slice from which `examination: auto` uses it instead of the logged rows. Logged
    rows are compared within pairs only if these have as many clicks."""
    alternate: bool = True
    """Correct the tolerance of users for the queries that they typed, and that of queries for the users who typed them
    [ours, once]. False: both are computed from uncorrected relevance."""
    parameters_from: str | None = None
    """Path of a preferences artifact whose fitted parameters are used unchanged. Null: fit them on this log."""
    late_days: Literal["alone", "renew"] = "alone"
    """What happens to later days after an earlier day was added or changed. `alone`: only that day is read again, and
    later days keep the tolerance corrections (`alternate`) of the time when they were mined. `renew`: later days are
    read again with the new corrections, which takes longer."""
    smoothing_clicks: float | None = Field(default=None, gt=0)
    """Prior clicks that smooth the click rates of users, queries, items and pairs towards a more general rate. More
    clicks smooth more strongly. Null: fit them for each kind of rate by maximum likelihood on the training days
    (`prectr.preferences.smoothing`)."""
    level_prior_clicks: float | None = Field(default=None, gt=0)
    """Prior clicks that smooth click rates by relevance level, from query to category to the whole log. Null: fit them
    for each level by maximum likelihood on the queries of the training days (`prectr.preferences.smoothing`)."""
    behaviours_per_query: int = Field(default=30, ge=1)
    """Behaviours of other users that a query's list S_q holds, at most. Rankers read them as a sequence."""
