"""Configuration of serving. Pydantic only: the command line imports this."""

from pathlib import Path
from typing import Self

from pydantic import Field, field_validator, model_validator

from prectr.core.config import FrozenConfig
from prectr.core.mirror import LocalOrUri


class BatchConfig(FrozenConfig):
    """How requests that arrive together are scored in one call."""

    requests: int = Field(8, ge=1)
    """Of one call at most."""
    candidates: int = Field(1000, ge=1)
    """Of one call at most, over all of its requests: this bounds how long a call takes. One request is never cut."""
    wait_ms: float = Field(0.0, ge=0)
    """How long a call waits for company. While one is being scored others gather anyway, so 0 costs no throughput."""


class ExperimentSplit(FrozenConfig):
    """An A/B test between the models that are served."""

    name: str = Field("experiment", min_length=1, max_length=100)
    salt: str = ""
    """Another salt is another draw of users. Keep it for as long as the experiment runs."""
    shares: dict[str, float] = Field(default_factory=dict)
    """Share of the users that see each model; the rest see `default_model`. Raising a share moves users from the
    default to that model only, so a ramp takes nobody out of a treatment."""

    @field_validator("shares")
    @classmethod
    def _check_shares(cls, shares: dict[str, float]) -> dict[str, float]:
        for name, share in shares.items():
            if not 0 <= share <= 1 / len(shares):
                raise ValueError(
                    f"the share of {name!r} is {share:g}; with {len(shares)} treatments each has room for 0 to "
                    f"{1 / len(shares):g}, so that a ramp of one moves nobody out of another"
                )
        return shares


class ShadowConfig(FrozenConfig):
    """A model that scores along, unseen: its answers are logged beside those that were given."""

    model: str
    share: float = Field(1.0, gt=0, le=1)
    """Of requests."""


class ModelsConfig(FrozenConfig):
    """What is served, and to whom. The part of serving that may change while requests are answered."""

    bundles: dict[str, LocalOrUri] = Field(default_factory=dict)
    """Name -> directory of a bundle. A client names a model, never a path."""
    default_model: str | None = None
    """Of all users outside an experiment; the first bundle if absent."""
    experiment: ExperimentSplit = ExperimentSplit()
    shadow: ShadowConfig | None = None

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        for what, names in (
            ("default_model", [self.default_model] if self.default_model else []),
            ("experiment.shares", list(self.experiment.shares)),
            ("shadow.model", [self.shadow.model] if self.shadow else []),
        ):
            for name in names:
                if self.bundles and name not in self.bundles:
                    raise ValueError(f"{what} names {name!r}, which is not among bundles ({', '.join(self.bundles)})")
        if self.control in self.experiment.shares:
            raise ValueError(f"experiment.shares names the default model {self.control!r}; it gets what is left")
        return self

    @property
    def control(self) -> str | None:
        """The model of all who are in no treatment."""
        return self.default_model or next(iter(self.bundles), None)


class SecurityConfig(FrozenConfig):
    """Who may ask, and for how much."""

    tokens_file: Path | None = None
    """Bearer tokens, one a line; blank lines and those that begin with # do not count. A token protects all of /v1."""
    tokens_environment: str = "PRECTR_SERVE_TOKENS"
    """Variable with tokens, separated by commas; used where there is no file. Neither: no token is asked for."""
    max_body_bytes: int = Field(2_000_000, ge=1_000)
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may call; none by default, so that browsers refuse all but the server's own page."""


class AutoscaleConfig(FrozenConfig):
    """When Ray Serve adds and takes away replicas (used where `replicas` is a range)."""

    target_ongoing_requests: float = Field(8.0, gt=0)
    """Requests in a replica, waiting ones included, that it is scaled for; about half of what is queued before 429."""
    upscale_delay_seconds: float = Field(5.0, ge=0)
    downscale_delay_seconds: float = Field(120.0, ge=0)


class ServeConfig(FrozenConfig):
    """How `serve` answers."""

    host: str = "127.0.0.1"
    """Ports are opened on the loopback address unless you say otherwise; see `security`."""
    port: int = Field(8000, ge=1, le=65535)
    models: ModelsConfig = ModelsConfig()
    replicas: int | tuple[int, int] = 1
    """Or a range (least, most), between which Ray Serve scales."""
    autoscale: AutoscaleConfig = AutoscaleConfig()
    cpus: float = Field(1, gt=0)
    """CPUs of a replica."""
    memory_gib: float | None = Field(None, gt=0)
    """Memory that Ray sets aside for a replica; null: not counted."""
    haproxy: bool = True
    """HAProxy before the replicas and Ray Serve's throughput mode. Off: Ray Serve's own proxy, in Python."""
    threads: int = Field(1, ge=0)
    """ONNX Runtime threads of one call."""
    int8: bool = False
    """`serve` and `score` run the bundle's encoders in the int8 form that `distill.int8` left; its model card says what
    that costs in quality."""
    batch: BatchConfig = BatchConfig()
    max_ongoing_requests: int = Field(200, ge=1)
    """In one replica. Ray's default of 5 makes throughput collapse (RAY.md section 5)."""
    max_queued_requests: int = Field(32, ge=0)
    """Waiting in one replica; what comes on top is answered 429 with Retry-After at once."""
    retry_after_seconds: int = Field(1, ge=1)
    deadline_ms: float = Field(2000.0, gt=0)
    """A request that waited longer is answered 504 and not scored; `x-request-timeout-seconds` asks for less."""
    cached_pairs: int = Field(100_000, ge=0)
    """Text vectors that each model of a replica keeps, of the pairs of query and title that were asked for last."""
    cached_pools: int = Field(1_000, ge=0)
    """Queries with their candidates, of which a replica keeps all that does not depend on the user."""
    features: str | None = None
    """What `prectr publish` wrote: a directory, or redis://HOST:PORT/DB. The bundle's own state if absent."""
    redis_timeout_ms: float = Field(50.0, gt=0)
    """Of one answer of Redis. A request waits for it once at most; then Redis is left alone for `redis_retry_ms`."""
    redis_retry_ms: float = Field(1000.0, gt=0)
    events: Path | None = None
    """Directory for what `POST /v1/events` tells of users (LMDB, shared by the replicas of a machine). Absent: one that
    lasts as long as the server; with features in Redis, they lie there and this is not used."""
    log: Path | None = None
    """Directory of the exposure log, which `analyze-experiment` reads. Absent: nothing is logged."""
    log_flush_seconds: float = Field(10.0, gt=0)
    security: SecurityConfig = SecurityConfig()
    playground: bool = True
    """The page at `/`."""
    drain_seconds: float = Field(15.0, ge=0)
    """How long a replica that is taken away may finish what it has."""

    @field_validator("replicas")
    @classmethod
    def _check_replicas(cls, replicas: int | tuple[int, int]) -> int | tuple[int, int]:
        least, most = (replicas, replicas) if isinstance(replicas, int) else replicas
        if not 1 <= least <= most:
            raise ValueError(f"replicas {replicas} must be at least 1, and a range must not fall")
        return replicas


class ScoreLinesConfig(FrozenConfig):
    """Who scores the lines that `score` reads."""

    actors: int = Field(1, ge=1)
    cpus: float = Field(1, gt=0)
    """Of an actor."""
    memory_gib: float | None = Field(None, gt=0)
    """That Ray sets aside for an actor; null: not counted."""
