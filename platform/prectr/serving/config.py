"""Settings of serving, and the assignment of users to models. Pydantic only: the command line imports this module."""

from pathlib import Path
from typing import Self

from pydantic import Field, field_validator, model_validator

from prectr.contracts.schema import NULL_IDS
from prectr.core.config import FrozenConfig
from prectr.core.mirror import LocalOrUri
from prectr.core.text import hash_fraction


class BatchConfig(FrozenConfig):
    """Batching of requests that arrive together."""

    requests: int = Field(8, ge=1)
    """Most requests of one batch."""
    candidates: int = Field(1000, ge=1)
    """Most candidates of one batch, over all of its requests; this limits the time of a batch. A larger request is a
    batch of its own and is not split."""
    wait_ms: float = Field(0.0, ge=0)
    """Milliseconds that an idle replica waits for more requests before it scores a batch. Requests also gather while a
    batch is scored, so 0 costs no throughput."""


class ExperimentSplit(FrozenConfig):
    """A/B test between served models.

    A hash of the user, the experiment's name and its salt places each user on [0, 1); nothing is stored. With m
    treatments each has a lane of width 1/m. A treatment takes the first part of its lane, as wide as its share, and the
    default model gets the rest. So users keep their model while the settings do not change, and raising a share moves
    users from the default model only.
    """

    name: str = Field("experiment", min_length=1, max_length=100)
    """Name of the experiment. Another name draws other users."""
    salt: str = ""
    """Text that changes the draw of users. Do not change it while the experiment runs."""
    shares: dict[str, float] = Field(default_factory=dict)
    """Name of a model -> share of the users who see it, from 0 to 1 / number of models; the rest see `default_model`.
    Raising a share moves users from the default model only."""

    @field_validator("shares")
    @classmethod
    def _check_shares(cls, shares: dict[str, float]) -> dict[str, float]:
        for name, share in shares.items():
            if not 0 <= share <= 1 / len(shares):
                raise ValueError(
                    f"the share of {name!r} is {share:g}; with {len(shares)} treatments a share must be from 0 to "
                    f"{1 / len(shares):g}, so that raising it takes no user from another treatment"
                )
        return shares

    def treatment_of(self, user_id: str) -> str | None:
        """Name of the treatment that a user is assigned to, or None.

        >>> split = ExperimentSplit(name="first", salt="2026", shares={"challenger": 0.5})
        >>> [split.treatment_of(user) for user in ("u4", "u5")]
        [None, 'challenger']
        """
        lanes = len(self.shares)
        position = hash_fraction(user_id, self.name, self.salt) * lanes
        lane = int(position)
        name, share = list(self.shares.items())[lane]
        return name if (position - lane) / lanes < share else None


class ShadowConfig(FrozenConfig):
    """Shadow model: it scores requests in the background, and only the exposure log receives its answers."""

    model: str
    """Name of the model, one of `bundles`."""
    share: float = Field(1.0, gt=0, le=1)
    """Share of requests that the shadow model scores."""


class ModelsConfig(FrozenConfig):
    """Served models and the users who see them. A server can change these settings while it answers requests."""

    bundles: dict[str, LocalOrUri] = Field(default_factory=dict)
    """Name of a model -> directory of its bundle. Clients name models, never paths."""
    default_model: str | None = None
    """Model of all users outside an experiment. Null: the first of `bundles`."""
    experiment: ExperimentSplit = ExperimentSplit()
    """A/B test between the models. Without shares no experiment runs."""
    shadow: ShadowConfig | None = None
    """Model that scores requests in the background for the exposure log. Null: none."""

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        for setting, names in (
            ("default_model", [self.default_model] if self.default_model else []),
            ("experiment.shares", list(self.experiment.shares)),
            ("shadow.model", [self.shadow.model] if self.shadow else []),
        ):
            for name in names:
                if self.bundles and name not in self.bundles:
                    raise ValueError(
                        f"{setting} names {name!r}, which is not among bundles ({', '.join(self.bundles)})"
                    )
        if self.control in self.experiment.shares:
            raise ValueError(
                f"experiment.shares names the default model {self.control!r}, which gets the remaining users; "
                "remove it from the shares"
            )
        return self

    @property
    def control(self) -> str | None:
        """Name of the model of all users outside a treatment; None without bundles."""
        return self.default_model or next(iter(self.bundles), None)

    def assigned_model(self, user_id: str) -> tuple[str, str | None]:
        """Name of the model that a user sees, and the variant: the same name, or None if no experiment runs."""
        assert self.control is not None
        if not self.experiment.shares:
            return self.control, None
        name = self.experiment.treatment_of(user_id) or self.control
        return name, name


class SecurityConfig(FrozenConfig):
    """Limits on clients: bearer tokens, size of requests, and origins."""

    tokens_file: Path | None = None
    """File of bearer tokens, one per line, each with its scopes after a blank: `score`, `events`, `admin`; without any,
    `score`. Blank lines and lines that begin with # are ignored. The file may change while the server runs. Null:
    `tokens_environment` holds the tokens."""
    tokens_environment: str = "PRECTR_SERVE_TOKENS"
    """Environment variable with bearer tokens and their scopes, separated by commas; used if there is no `tokens_file`.
    If it is unset, the server requires no token."""
    impression_keys_file: Path | None = None
    """File of the keys that sign impression tokens, one per line, the newest first. All of them are valid, and the file
    may change while the server runs. Null: `impression_keys_environment` holds the keys."""
    impression_keys_environment: str = "PRECTR_IMPRESSION_KEYS"
    """Environment variable with the keys of impression tokens, separated by commas. If it is unset, the server makes a
    key when it starts; servers that share users need the same keys."""
    impression_hours: float = Field(24.0, gt=0, le=1_000)
    """Hours after which an impression token expires: for so long clients may report the clicks of a list."""
    max_body_bytes: int = Field(2_000_000, ge=1_000)
    """Largest body of a request in bytes; the server answers larger ones with 413."""
    max_header_bytes: int = Field(16_384, ge=1_000)
    """Largest head (request line and headers) of a request in bytes; `--plain` answers larger ones with 431. HAProxy
    has a limit of the same size."""
    header_seconds: float = Field(10.0, gt=0)
    """Seconds in which a client must send the head of a request. Then the server closes the connection."""
    body_seconds: float = Field(30.0, gt=0)
    """Seconds in which a client must send the body of a request. Then `--plain` answers 408. HAProxy closes the
    connection if the client sends nothing for this time."""
    cors_origins: tuple[str, ...] = ()
    """Web origins whose pages may call the API. Empty: browsers allow only the server's own page."""


class AutoscaleConfig(FrozenConfig):
    """When Ray Serve adds and removes replicas; used if `replicas` is a range."""

    target_ongoing_requests: float = Field(8.0, gt=0)
    """Target number of requests in a replica, waiting ones included. About half of the queue that leads to 429 works
    well."""
    upscale_delay_seconds: float = Field(5.0, ge=0)
    """Seconds of high load before Ray Serve adds replicas."""
    downscale_delay_seconds: float = Field(120.0, ge=0)
    """Seconds of low load before Ray Serve removes replicas."""


class ServeConfig(FrozenConfig):
    """Settings of `serve`."""

    host: str = "127.0.0.1"
    """Address to listen on. The default accepts connections of this machine only; see `security` before you open it."""
    port: int = Field(8000, ge=1, le=65535)
    """TCP port of the API."""
    models: ModelsConfig = ModelsConfig()
    """Served models and the users who see them."""
    replicas: int | tuple[int, int] = 1
    """Replicas of the ranker: a number, or a range (fewest, most) in which Ray Serve scales."""
    autoscale: AutoscaleConfig = AutoscaleConfig()
    """When Ray Serve adds and removes replicas."""
    cpus: float = Field(1, gt=0)
    """CPUs of a replica."""
    memory_gib: float | None = Field(None, gt=0)
    """Memory in GiB that Ray reserves for a replica. Null: Ray reserves none."""
    haproxy: bool = True
    """Put HAProxy before the replicas and use Ray Serve's throughput mode. False: Ray Serve's Python proxy."""
    threads: int = Field(1, ge=0)
    """Threads of ONNX Runtime for one call."""
    int8: bool = False
    """Run the bundle's encoders in the int8 form that `distill.int8` produced, in `serve` and `score`. The bundle's
    model card states the loss of quality."""
    batch: BatchConfig = BatchConfig()
    """Batching of requests in a replica."""
    max_ongoing_requests: int = Field(200, ge=1)
    """Most requests that Ray Serve sends to one replica at a time. At Ray's default of 5, throughput collapses."""
    max_queued_requests: int = Field(32, ge=0)
    """Most requests that wait in one replica. The replica answers further ones at once with 429 and Retry-After."""
    retry_after_seconds: int = Field(1, ge=1)
    """Value of Retry-After in an answer with 429, in seconds."""
    deadline_ms: float = Field(2000.0, gt=0)
    """Milliseconds that a request may wait. After them it is answered with 504 and not scored. The header
    `x-request-timeout-seconds` sets a shorter time for one request."""
    cache_text_mib: float = Field(128.0, ge=0)
    """Memory in MiB for text vectors of the most recently used pairs of query and title, in each model of a replica. 0:
    none."""
    cache_pools_mib: float = Field(256.0, ge=0)
    """Memory in MiB for the most recently used candidate lists with their features, except those of the user, in each
    model of a replica. 0: none."""
    cache_items_mib: float = Field(192.0, ge=0)
    """Memory in MiB for the most recently used items of the catalogue, in each model of a replica. 0: none."""
    features: str | None = None
    """Features that `prectr publish` wrote: a directory, or redis://HOST:PORT/DB. Null: the state in each bundle."""
    redis_timeout_ms: float = Field(50.0, gt=0)
    """Milliseconds to wait for an answer of Redis. After a timeout, `redis_retry_ms` pass without another attempt, so a
    request waits once at most."""
    redis_retry_ms: float = Field(1000.0, gt=0)
    """Milliseconds after a failure of Redis before the next attempt."""
    events: Path | None = None
    """Directory of the user updates from `POST /v1/events` (LMDB, shared by the replicas of a machine). Null: a
    temporary directory that is deleted with the server. If `features` is in Redis, so are the updates."""
    null_ids: tuple[str, ...] = NULL_IDS
    """Words that mean a missing id, whatever their case. `serve` and `score` refuse a user, request or item of such an
    id; a blank id is always refused."""
    event_ahead_hours: float | None = Field(1.0, ge=0)
    """Hours by which an event's time may be ahead of the server's clock. A later one is refused, so that a wrong clock
    of a client moves no user's state. Null: no limit, as for the replay of a log."""
    event_window_days: float | None = Field(8.0, gt=0, le=60)
    """Days by which an event's time may be behind the server's clock. An older one is ignored and counted. Null: no
    limit, and of each user the newest 8 days are kept."""
    event_items: int = Field(5_000, ge=1)
    """Most shown items of one `POST /v1/events`, over all of its events; more get 422."""
    event_bytes: int = Field(500_000, ge=1_000)
    """Largest body of `POST /v1/events` in bytes; larger ones get 413, because reading them would delay scores."""
    event_queue_items: int = Field(20_000, ge=1)
    """Most shown items of events that wait in a replica; events beyond them get 429. Scores go before events."""
    unproved_lists_per_minute: int | None = Field(30, ge=0)
    """Most new lists of one user within a minute that come without an impression token. Null: any number."""
    log: Path | None = None
    """Directory of the exposure log, which `analyze-experiment` reads. Null: no log."""
    log_flush_seconds: float = Field(10.0, gt=0)
    """Seconds between writes of the exposure log. A killed replica loses the rows since the last write."""
    log_days: int | None = Field(None, ge=1)
    """Days that files of the exposure log are kept; older ones are deleted once an hour. Null: all are kept."""
    request_log: bool = False
    """Write a line of JSON for each scoring request, with a pseudonym of the user and without the query: to standard
    error, or with Ray to the replicas' log files. The key of the pseudonyms is in `PRECTR_REQUEST_LOG_KEY`; without it
    each process has a random one."""
    metrics_port: int | None = Field(None, ge=1, le=65535)
    """TCP port at which the embedded Ray exports metrics. Null: a free port, which `serve` prints. Nodes of a cluster
    have their own (`ray start --metrics-export-port`), and without Ray metrics are at `/metrics` of the API's port."""
    security: SecurityConfig = SecurityConfig()
    """Bearer tokens, size of requests, and origins."""
    playground: bool = True
    """Serve the playground, a page to try the ranker by hand, at `/`."""
    playground_users: bool = False
    """Let the playground offer real users, by their ids. False: it offers made-up users, who have a history of their
    own in every bundle."""
    drain_seconds: float = Field(15.0, ge=0)
    """Seconds that a replica may take to finish its requests when it is removed. When the whole server stops, requests
    get about five seconds at most, so that it ends within ten."""
    unready_seconds: float = Field(0.0, ge=0)
    """Seconds between the signal to stop and the closing of the port of a server without Ray. Meanwhile `/readyz`
    answers 503, so that load balancers send new requests elsewhere, and all requests are still answered."""

    @field_validator("null_ids")
    @classmethod
    def _fold_words(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(word.strip().lower() for word in words)

    @field_validator("replicas")
    @classmethod
    def _check_replicas(cls, replicas: int | tuple[int, int]) -> int | tuple[int, int]:
        least, most = (replicas, replicas) if isinstance(replicas, int) else replicas
        if not 1 <= least <= most:
            raise ValueError(f"replicas must be at least 1, with the fewest before the most, got {replicas}")
        return replicas


class ScoreLinesConfig(FrozenConfig):
    """Ray actors of `score`, which scores requests from a file."""

    actors: int = Field(1, ge=1)
    """Ray actors that score requests."""
    cpus: float = Field(1, gt=0)
    """CPUs of an actor."""
    memory_gib: float | None = Field(None, gt=0)
    """Memory in GiB that Ray reserves for an actor. Null: Ray reserves none."""
