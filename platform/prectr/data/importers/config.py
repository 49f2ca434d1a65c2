"""What a user decides about a published source. Light imports only: every command reads it at start."""

from typing import Literal

from pydantic import Field, model_validator

from prectr.core.config import FrozenConfig


class EsciConfig(FrozenConfig):
    """Shopping Queries (ESCI)."""

    locale: str = "us"
    """us, es or jp: product ids are unique inside a locale only."""


class DigineticaConfig(FrozenConfig):
    """Diginetica (CIKM Cup 2016)."""

    sessions_as_users: bool = False
    """Most requests have no user. False leaves them out; true makes each of their sessions a user of its own."""


class KuaiSearchConfig(FrozenConfig):
    """KuaiSearch publishes neither positions nor times: impressions are made only where both are assumed here."""

    position: int | None = Field(None, ge=1)
    """The position that all shown items are given, e.g. 1: all were examined alike."""
    time_unit: Literal["s", "m", "h", "d"] | None = None
    """What `time_index` counts; it is taken to count from 1970-01-01T00:00Z."""

    @model_validator(mode="after")
    def _both_or_none(self) -> "KuaiSearchConfig":
        if (self.position is None) != (self.time_unit is None):
            raise ValueError("set position and time_unit together: impressions need both")
        return self


class ImportConfig(FrozenConfig):
    """Settings section `importing`."""

    esci: EsciConfig = EsciConfig()
    diginetica: DigineticaConfig = DigineticaConfig()
    kuaisearch: KuaiSearchConfig = KuaiSearchConfig()
