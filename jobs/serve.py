"""serve: serve rankers over HTTP, with Ray Serve behind HAProxy, or with `--plain` in one process under uvicorn."""

import math
import os
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from jobs.cluster.serve_host import (
    ServerHost,
    free_ports,
    require_free_port,
    require_loopback,
    serving_application,
    wait_for_interrupt,
)
from jobs.options import PATH, PORT, command
from prectr.core import progress
from prectr.core.config import load_config
from prectr.core.errors import PrectrError, UsageError
from prectr.core.processes import take_stop_signals
from prectr.core.ray_session import RayConfig, metrics_url, ray_session
from prectr.ranking.bundle import Bundle, require_bundle
from prectr.ranking.golden import golden_scores
from prectr.serving.config import ModelsConfig, ServeConfig
from prectr.serving.publish import REDIS_URLS
from prectr.serving.redis_client import RedisGuard
from prectr.serving.states import LmdbState, RedisState, require_readable
from prectr.serving.tokens import BearerTokens, ImpressionKeys

SELF_TEST_REQUESTS = 60
METRICS_PORT, STATS_PORT = "RAY_SERVE_HAPROXY_METRICS_PORT", "RAY_SERVE_HAPROXY_STATS_PORT"
REPLICA_PORTS = 200
"""Number of ports reserved for the replicas of one server on one machine."""


@command("serve", shortcuts=PORT, as_json=False)
def run(
    *,
    rankers: Annotated[
        list[Path] | None, typer.Argument(help="Bundles to serve; the first one is what everybody gets.", **PATH)
    ] = None,
    config: ServeConfig,
    ray_config: RayConfig | None = None,
    plain: Annotated[bool, typer.Option("--plain", help="One process under uvicorn, without Ray.")] = False,
    watch: Annotated[
        Path | None,
        typer.Option("--models", help="YAML file with the content of serve.models; may be changed while serving."),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen on an address that other machines reach without tokens.")
    ] = False,
) -> None:
    """Serve until interrupted.

    Args:
        rankers: bundles, each under the name of its directory; none: those of `config.models`.
        config: of serving.
        ray_config: of an embedded Ray.
        plain: without Ray.
        watch: a YAML file with the content of `serve.models`; the server follows its changes.
        insecure: accept an address of `config.host` that other machines reach although there are no tokens.

    Raises:
        UsageError: no bundle, published features of other samples, tokens that cannot be read, or none although other
            machines reach the address.
        PrectrError: the port is taken, or the application did not come up.
    """
    rankers = rankers or []
    if watch is not None:
        if rankers:
            raise UsageError("serve: name rankers, or a file of models with --models, not both.")
        config = config.model_copy(update={"models": load_config(ModelsConfig, watch)})
    config = with_rankers(config, rankers)
    require_servable(config)  # before Ray starts
    if not insecure and not BearerTokens(config.security, os.environ):
        names = f"{config.security.tokens_environment} or serve.security.tokens_file"
        require_loopback(config, f"put tokens (`openssl rand -hex 32`) into {names}, or pass --insecure.")
    require_free_port(config)
    if not plain and config.metrics_port is not None:
        require_free_port(config, "metrics_port")
    with ServerHost() as host:
        if config.events is None and not os.environ.get("RAY_ADDRESS"):
            config = config.model_copy(update={"events": host.temporary_folder("prectr-events")})
        if plain:
            _serve_plain(config, watch, host)
            return
        haproxy = _prepare_haproxy(config, host)
        with ray_session(ray_config, host.shut_down, serves=True, metrics_port=config.metrics_port):
            take_stop_signals()  # Ray has set its own handlers
            with serving_config(config, watch, host) as url:
                _announce(url, config, metrics_url())
                if haproxy:
                    _announce_ports()
                wait_for_interrupt()


@contextmanager
def serving(ranker: Path, config: ServeConfig) -> Iterator[str]:
    """Serve one bundle on the running Ray for the block; yields the base URL once requests are answered.

    Raises:
        UsageError: no bundle there, or no int8 form of its encoders.
        PrectrError: the port is taken, or the application did not come up.
    """
    config = with_rankers(config, [ranker])
    require_servable(config)
    with serving_config(config) as url:
        yield url


@contextmanager
def serving_config(config: ServeConfig, watch: Path | None = None, host: ServerHost | None = None) -> Iterator[str]:
    """Serve a configuration on the running Ray for the block, which `host` ends in time; yields the base URL."""
    from serve_apps.ranker import AppArguments, build_app  # Ray Serve reads what `_prepare_haproxy` exports

    arguments = AppArguments(
        serve=config.model_dump(mode="json"), watch=None if watch is None else str(watch.resolve())
    )
    with serving_application("ranker", lambda: build_app(arguments), config, health="/readyz", host=host) as url:
        yield url


def with_rankers(config: ServeConfig, rankers: Sequence[Path]) -> ServeConfig:
    """The configuration with the bundles of the command line, each under the name of its directory.

    Raises:
        UsageError: two bundles have one name, or there is no bundle.
    """
    if not rankers:
        if not config.models.bundles:
            raise UsageError("serve: name a ranker, or some in serve.models.bundles.")
        bundles = config.models.bundles
    else:
        bundles = {path.resolve().name: path for path in rankers}
        if len(bundles) < len(rankers):
            raise UsageError("serve: two rankers have one name; give them names with serve.models.bundles.")
    absolute = {name: path.resolve() for name, path in bundles.items()}
    models = ModelsConfig.model_validate(config.models.model_dump() | {"bundles": absolute})
    paths = {
        name: None if value is None else value.resolve()
        for name, value in (("events", config.events), ("log", config.log))
    }
    return config.model_copy(update={"models": models, **paths})


def require_servable(config: ServeConfig) -> None:
    """Check a configuration before replicas start.

    Raises:
        UsageError: no bundle, no int8 form, features of other samples, tokens that cannot be read.
        PrectrError: Redis does not answer.
    """
    for path in config.models.bundles.values():
        require_bundle(path, config.int8)
    BearerTokens(config.security, os.environ)
    ImpressionKeys(config.security, os.environ)
    if config.features is None:
        return
    bundles = [Bundle.open(path) for path in config.models.bundles.values()]
    if config.features.startswith(REDIS_URLS):
        guard = RedisGuard(config.features, timeout_seconds=5.0, retry_seconds=0.0)
        state: RedisState | LmdbState = RedisState(config.features, guard)
    else:
        state = LmdbState(Path(config.features))
    for bundle in bundles:
        require_readable(state, bundle, config.features)
    state.close()


def _serve_plain(config: ServeConfig, watch: Path | None, host: ServerHost) -> None:
    from serve_apps.plain import make_server

    server = make_server(config, watch)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()

    def stop() -> None:
        server.should_exit = True
        thread.join()

    try:
        while not server.started:
            if not thread.is_alive():
                raise PrectrError(f"{config.host}:{config.port}: the server did not start.")
            time.sleep(0.05)
        url = f"http://{config.host}:{config.port}"
        _announce(url, config, f"{url}/metrics")
        wait_for_interrupt()
        application: Any = server.config.app
        application.state.service.begin_shutdown()
        time.sleep(config.unready_seconds)
    finally:
        host.shut_down(stop)


def _announce(url: str, config: ServeConfig, metrics: str | None) -> None:
    """Run the self-test, and print it with the server's address and that of its metrics."""
    names = ", ".join(config.models.bundles)
    progress.say(f"self-test: {self_test(url, config)}")
    progress.say(f"metrics: {metrics or 'none, because RAY_enable_metrics_collection is 0'}")
    progress.say(f"serving {names} at {url}  (playground {url}/, API {url}/docs; stop with Ctrl-C)")


def self_test(url: str, config: ServeConfig) -> str:
    """Score the golden requests of each model over HTTP, then time single requests; returns the result as text.

    Raises:
        PrectrError: a request is not answered with all its candidates.
    """
    tokens = BearerTokens(config.security, os.environ)
    token = tokens.first_with("score")
    if tokens and token is None:
        return "left out, because no token has the scope `score`"
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    seconds, candidates = [], 0
    with httpx.Client(base_url=url, headers=headers, timeout=30) as http:
        for name, path in config.models.bundles.items():
            for request in golden_scores(path).requests:
                answer = http.post("/v1/score", json=request.model_dump(exclude_none=True) | {"model": name})
                if answer.status_code != 200 or len(answer.json()["results"]) != len(request.candidates):
                    raise PrectrError(
                        f"{url}: {name} answers a golden request with {answer.status_code}: {answer.text[:500]}"
                    )
        body = golden_scores(next(iter(config.models.bundles.values()))).requests[0].model_dump(exclude_none=True)
        for _ in range(SELF_TEST_REQUESTS):
            started = time.perf_counter()
            http.post("/v1/score", json=body).raise_for_status()
            seconds.append(time.perf_counter() - started)
        candidates = len(body["candidates"])
    quantiles = statistics.quantiles(seconds[SELF_TEST_REQUESTS // 6 :], n=20)
    return (
        f"golden requests answered; one request after another, {candidates} candidates: median "
        f"{1000 * statistics.median(seconds):.1f} ms, 95th percentile {1000 * quantiles[-1]:.1f} ms"
    )


def _prepare_haproxy(config: ServeConfig, host: ServerHost) -> bool:
    """Set the environment variables that Ray Serve reads on import, here and in every process that it starts.

    Each server has its own HAProxy files and ports, so that several run on one machine. The user's own variables win.

    Returns:
        Whether this machine's HAProxy is used.
    """
    if not config.haproxy or os.environ.get("RAY_ADDRESS"):
        return False
    # HAProxy takes paths of sockets up to 97 characters, and Ray puts a node's id of 56 into them.
    folder = host.temporary_folder("hp", Path("/tmp"))
    *replica_ports, fallback, metrics, statistics_ = free_ports(REPLICA_PORTS + 3)
    wanted = {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{folder}/haproxy.cfg",
        "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{folder}/admin.sock",
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{folder}/server-state",
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": f"{folder}/metrics.sock",
        # Replicas of two servers on one machine must not try the same ports: HAProxy would ask the other's.
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(replica_ports[0]),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(replica_ports[-1]),
        # Ray's template sets no time for the head alone: this one is for any part of a request that does not come.
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(math.ceil(config.security.body_seconds)),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(fallback),
        METRICS_PORT: str(metrics),
        STATS_PORT: str(statistics_),
    }
    for name, value in wanted.items():
        os.environ.setdefault(name, value)
    return True


def _announce_ports() -> None:
    """Print HAProxy's ports for metrics and statistics, which Ray's template opens on all interfaces."""
    metrics, statistics_ = os.environ[METRICS_PORT], os.environ[STATS_PORT]
    progress.say(f"HAProxy: metrics at port {metrics}, statistics at port {statistics_}")
    if "KUBERNETES_SERVICE_HOST" not in os.environ:
        progress.say(
            "warning: both ports listen on all interfaces and require no token; close them with a firewall, or serve "
            "without HAProxy (--set serve.haproxy=false)"
        )
