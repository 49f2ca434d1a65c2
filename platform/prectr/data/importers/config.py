"""Settings of the published sources. It must not import heavy libraries, because every command imports it at start."""

from typing import Literal

from pydantic import Field, model_validator

from prectr.core.config import FrozenConfig


class EsciConfig(FrozenConfig):
    """Settings of Shopping Queries (ESCI)."""

    locale: str = "us"
    """Locale to import: us, es or jp. Product ids are unique inside a locale only, so one locale is imported."""


class DigineticaConfig(FrozenConfig):
    """Settings of Diginetica (CIKM Cup 2016)."""

    sessions_as_users: bool = False
    """How to import requests without a user, which are most of them. False leaves them out; true makes each of their
    sessions a user."""


class KuaiSearchConfig(FrozenConfig):
    """Settings of KuaiSearch. It publishes neither positions nor times, so impressions need assumptions about both."""

    position: int | None = Field(None, ge=1)
    """Position of every shown item, e.g. 1, which assumes that all were examined alike. Null: import no impressions."""
    time_unit: Literal["s", "m", "h", "d"] | None = None
    """Unit of `time_index`: s, m, h or d (seconds to days) since 1970-01-01T00:00Z. Null: import no impressions."""

    @model_validator(mode="after")
    def _check_both_or_none(self) -> "KuaiSearchConfig":
        if (self.position is None) != (self.time_unit is None):
            raise ValueError("set position and time_unit together, because impressions need both")
        return self


class ImportConfig(FrozenConfig):
    """Settings of the sources (settings section `importing`)."""

    esci: EsciConfig = EsciConfig()
    """Settings of Shopping Queries (ESCI)."""
    diginetica: DigineticaConfig = DigineticaConfig()
    """Settings of Diginetica."""
    kuaisearch: KuaiSearchConfig = KuaiSearchConfig()
    """Settings of KuaiSearch."""
