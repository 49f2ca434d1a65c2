"""Settings of reading users' files; every command that reads some shares them."""

from pydantic import Field

from prectr.contracts.schema import NULL_IDS
from prectr.core.config import FrozenConfig


class ValidateConfig(FrozenConfig):
    """Rules and limits for users' files (settings section `validation`)."""

    max_bad_share: float = Field(0.01, ge=0, le=1)
    """Largest share (0..1) of bad rows in each table. Above it the command fails and publishes nothing."""
    null_ids: tuple[str, ...] = NULL_IDS
    """Words that mean "no id" in a column of ids, in any case. Such rows are bad, like those with an empty id."""
    multiline_fields: bool = False
    """Whether a quoted CSV field may hold separators and line ends at once. False sets such fields aside, because a
    quote that was opened by mistake swallows rows in the same way."""
    request_minutes: float = Field(30, gt=0)
    """Longest time in minutes between the first and the last row of a request. Later rows of the same request_id,
    user and query are another request."""
    far_days: int = Field(3, ge=1)
    """Least number of days without rows that separates days from the bulk of the log. Rows beyond such a gap come from
    wrong clocks, and go to quarantine, if there are few of them (`far_share`) or the gap is long (`farthest_days`)."""
    far_share: float = Field(0.01, ge=0, le=1)
    """Largest share (0..1) of the rows of the bulk that days beyond a gap may have and still count as wrong clocks."""
    farthest_days: int = Field(366, ge=1)
    """Number of days without rows beyond which rows always count as wrong clocks, however many there are."""
    allow_no_clicks: bool = False
    """Whether a log without a single click is accepted. False refuses it, because its clicks were probably misread."""
