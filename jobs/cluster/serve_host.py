"""Serve an application on the running Ray for the length of a block; shared by `serve` and `teacher serve`.

`ServerHost` owns the processes and temporary files of a server command and ends them within `END_SECONDS`, also when a
signal reached Ray's processes too.
"""

import atexit
import ipaddress
import logging
import os
import random
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import psutil

from prectr.core import progress
from prectr.core.errors import PrectrError, UsageError, shorten
from prectr.core.locks import LockedError, exclusive
from prectr.core.processes import (
    adopt_orphans,
    attempt,
    children,
    end_children,
    has_ended,
    ignore_stop_signals,
    stop_signals_kept,
    take_stop_signals,
)
from prectr.core.ray_errors import find_user_error
from prectr.core.ray_session import remove_session_folder, session_folders
from prectr.serving.config import ServeConfig

HEALTH_TIMEOUT_SECONDS = 120
END_SECONDS = 7.0
"""Seconds for an orderly end of the server and of Ray. Then their processes are killed, which takes about a second."""
_KILL_SECONDS = 1.5
QUIET_PORTS = range(20_000, 32_000)
"""Ports below those that Linux gives out by itself (from 32,768), and above those of a Ray cluster's workers."""
_OWNER = "owner.lock"
"""Lock file that the owner of a temporary directory holds."""


class ServerHost:
    """Owner of what a server command starts: at the end of the block no process and no temporary file is left.

    A signal to the whole process group may end Ray before the server, so the end depends on no answer of Ray. A Ray
    that runs already, or a cluster that a submitted job joins, is not touched.
    """

    def __enter__(self) -> Self:
        adopt_orphans()
        self._others = children()
        self._other_sessions = session_folders()
        self._embedded = not os.environ.get("RAY_ADDRESS")
        self._deadline: float | None = None
        self._complete = True
        self._ray: list[psutil.Process] = []
        self._stack = ExitStack()
        self._stack.enter_context(stop_signals_kept())
        take_stop_signals()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        ignore_stop_signals()
        if left := end_children(_KILL_SECONDS, self._others):
            progress.say(f"serving: these processes did not end: {', '.join(str(one.pid) for one in left)}")
        if self._embedded and progress.verbosity() < 1:
            for folder in session_folders() - self._other_sessions:
                remove_session_folder(folder)
        self._stack.close()
        if not self._complete:  # Ray's own clean-up at exit would wait for processes that are gone
            stopped = error is None or isinstance(error, KeyboardInterrupt)
            atexit.register(_leave, 0 if stopped else getattr(error, "exit_code", 1))

    def temporary_folder(self, prefix: str, parent: Path | None = None) -> Path:
        """Create a directory that is deleted at the end of the block.

        Directories of the same prefix whose owner was killed are deleted first.
        """
        parent = Path(tempfile.gettempdir()) if parent is None else parent
        for abandoned in parent.glob(f"{prefix}-*/{_OWNER}"):
            with suppress(LockedError, OSError), exclusive(abandoned):
                shutil.rmtree(abandoned.parent, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{prefix}-{os.getpid()}-", dir=parent))
        self._stack.callback(shutil.rmtree, folder, ignore_errors=True)
        self._stack.enter_context(exclusive(folder / _OWNER))
        return folder

    def shut_down(self, work: Callable[[], Any]) -> None:
        """Run a step of the orderly end. All steps together take `END_SECONDS` at most, on a cluster any time.

        Steps are left out once Ray's own processes end by themselves, because they would wait for Ray in vain.
        """
        ignore_stop_signals()
        if not self._embedded:
            work()
            return
        if self._deadline is None:
            self._deadline = time.monotonic() + END_SECONDS
            self._ray = children(self._others)
        if self._is_ray_gone():
            self._complete = False
            return
        self._complete &= attempt(work, self._deadline - time.monotonic(), self._is_ray_gone)

    def _is_ray_gone(self) -> bool:
        """Whether a signal ended Ray; one process alone may have crashed long before."""
        return sum(map(has_ended, self._ray)) > 1


def _leave(exit_code: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(exit_code)


@contextmanager
def serving_application(
    name: str,
    build: Callable[[], Any],
    config: ServeConfig,
    *,
    health: str,
    host: ServerHost | None = None,
) -> Iterator[str]:
    """Serve an application for the block; gives the base URL once requests are answered.

    Args:
        name: of the application, also for messages.
        build: makes the Serve application.
        config: host and port.
        health: path that answers 200 once the application is up.
        host: limits the time of the end; None: no limit.

    Raises:
        PrectrError: the port is taken, or the application did not come up.
    """
    require_free_port(config)
    from ray import serve

    if progress.verbosity() < 1:
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
    url = f"http://{config.host}:{config.port}"
    serve.start(http_options={"host": config.host, "port": config.port}, logging_config=_quiet_logging())
    try:
        application = build()
        try:
            serve.run(application, name=name, route_prefix="/", logging_config=_quiet_logging())
        except RuntimeError as error:  # Serve tells in words only what the replica raised
            raise find_user_error(error) or PrectrError(f"the {name} cannot be served: {shorten(error)}") from error
        _wait_until_healthy(url + health, name)
        yield url
    finally:
        if host is None:
            serve.shutdown()
        else:
            host.shut_down(serve.shutdown)


def wait_for_interrupt() -> None:
    """Return when the user, or a supervisor with SIGTERM, stops the server, which is how one ends and no failure."""
    with suppress(KeyboardInterrupt):
        take_stop_signals()
        while True:  # a wait without end is not woken when one of Ray's threads receives the signal
            time.sleep(0.5)
    progress.say("serving: stopped")


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to an address that a server listens on."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def require_loopback(config: ServeConfig, how: str) -> None:
    """Refuse to listen on other machines' networks without a check of who asks.

    Args:
        config: the address to listen on.
        how: what the user can do instead, for the message.

    Raises:
        UsageError: the address is not a loopback address.
    """
    if not is_loopback(config.host):
        raise UsageError(f"serve.host {config.host}: other machines could use the server without a token; {how}")


def require_free_port(config: ServeConfig, setting: str = "port") -> None:
    """Refuse a port that something else listens on.

    Args:
        config: host and ports.
        setting: of the port.

    Raises:
        PrectrError: it is taken, or may not be opened.
    """
    port = getattr(config, setting)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((config.host, port))
        except OSError as error:
            raise PrectrError(
                f"{config.host}:{port}: cannot listen there ({error.strerror}); give another serve.{setting}."
            ) from None


def free_port() -> int:
    """A port that nobody listens on at this moment, on any interface.

    It is none of those that a system gives to connections that go out, and to servers that name no port. Ray's own
    processes take such ports while they start, and could take this one before its server opens it.
    """
    while not _is_free(port := random.randrange(QUIET_PORTS.start, QUIET_PORTS.stop)):
        pass
    return port


def free_ports(count: int) -> range:
    """Ports side by side, chosen as by `free_port`."""
    while True:
        first = random.randrange(QUIET_PORTS.start, QUIET_PORTS.stop - count + 1, count)
        if all(map(_is_free, ports := range(first, first + count))):
            return ports


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def _quiet_logging() -> dict[str, Any]:
    return {"log_level": "ERROR" if progress.verbosity() < 1 else "INFO", "enable_access_log": progress.verbosity() > 0}


def _wait_until_healthy(url: str, name: str) -> None:
    """Poll: the proxy may answer 404 for a moment after an application was deployed."""
    import httpx

    deadline = time.monotonic() + HEALTH_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        with suppress(httpx.HTTPError):
            if httpx.get(url, timeout=5).status_code == 200:
                return
        time.sleep(0.2)
    raise PrectrError(f"{url}: the {name} did not answer within {HEALTH_TIMEOUT_SECONDS} s; run again with -v.")
