"""A stopped `prectr serve` leaves no process, port or temporary file, whatever got the signal, and in ten seconds."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest

from prectr.core.processes import has_ended
from tests.prectr.bundle_world import World
from tests.processes import free_port, with_code

SECONDS = 10.0
BODY = {"user_id": "u0", "query": "nokia 3310", "candidates": [f"i{number}" for number in range(5)]}


def _haproxy_folders() -> set[Path]:
    return set(Path("/tmp").glob("hp-*"))


@dataclass
class Server:
    """A running `prectr serve` in a session and a temporary directory of its own."""

    process: subprocess.Popen[bytes]
    url: str
    temporary: Path
    said: Path
    tree: set[psutil.Process] = field(default_factory=set)
    ports: set[int] = field(default_factory=set)

    def look(self) -> None:
        """Note all processes and ports."""
        top = psutil.Process(self.process.pid)
        for process in (top, *top.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                self.tree.add(process)
                self.ports |= {one.laddr.port for one in process.net_connections("tcp") if one.status == "LISTEN"}

    def left(self) -> list[str]:
        """Processes of the tree and of the session that are alive."""
        alive = {process for process in self.tree if not has_ended(process)}
        for process in psutil.process_iter():
            with suppress(psutil.NoSuchProcess, ProcessLookupError):
                if os.getsid(process.pid) == self.process.pid and not has_ended(process):
                    alive.add(process)
        return [str(process) for process in alive]

    def listening(self) -> set[int]:
        """Its ports that something still listens on."""
        pids = {None, *(process.pid for process in self.tree)}
        connections = [one for one in psutil.net_connections("tcp") if one.status == "LISTEN" and one.pid in pids]
        return self.ports & {one.laddr.port for one in connections}


@contextmanager
def _serving(bundle: Path, *options: str) -> Iterator[Server]:
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as folder:  # short, for the paths of Ray's sockets
        temporary, said = Path(folder) / "t", Path(folder) / "said"
        temporary.mkdir()
        command = [sys.executable, "-m", "jobs.cli", "serve", str(bundle), "--port", str(port), *options]
        with said.open("wb") as stream:
            process = subprocess.Popen(
                command,
                env=with_code() | {"TMPDIR": str(temporary)},
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
        server = Server(process, f"http://127.0.0.1:{port}", temporary, said)
        try:
            deadline = time.monotonic() + 120
            while "stop with Ctrl-C" not in said.read_text():
                assert process.poll() is None and time.monotonic() < deadline, said.read_text()
                time.sleep(0.1)
            server.look()
            yield server
        finally:
            for one in {psutil.Process(process.pid), *server.tree} if process.poll() is None else server.tree:
                with suppress(psutil.NoSuchProcess):
                    one.kill()
            process.wait()


def _stop(server: Server, number: signal.Signals, to_group: bool, again: bool = False) -> None:
    """Send the signal, and assert that nothing is left in time."""
    send = os.killpg if to_group else os.kill
    haproxy = _haproxy_folders()
    started = time.monotonic()
    send(server.process.pid, number)
    if again:
        time.sleep(0.5)
        with suppress(ProcessLookupError):
            send(server.process.pid, number)
    code = server.process.wait(timeout=2 * SECONDS)
    seconds = time.monotonic() - started
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", int(server.url.rpartition(":")[2])))
    left, listening = server.left(), server.listening()
    files = [str(path) for path in server.temporary.rglob("*")]
    own = [str(path) for path in haproxy & _haproxy_folders() if f"hp-{server.process.pid}-" in path.name]
    assert (left, listening, files, own) == ([], set(), [], []), server.said.read_text()
    assert seconds < SECONDS
    assert code == 0, server.said.read_text()


CASES = [(number, to_group) for number in (signal.SIGTERM, signal.SIGINT) for to_group in (False, True)]


@pytest.mark.parametrize(("number", "to_group"), CASES)
def test_a_plain_server_leaves_nothing(world: World, number: signal.Signals, to_group: bool) -> None:
    with _serving(world.bundle, "--plain") as server:
        _stop(server, number, to_group)


def test_slow_requests_and_a_second_signal_do_not_prolong_the_end_of_a_plain_server(world: World) -> None:
    with _serving(world.bundle, "--plain") as server:
        slow = [_slow_request(server.url) for _ in range(3)]
        _stop(server, signal.SIGTERM, to_group=True, again=True)
        assert all(slow)


def _slow_request(url: str) -> threading.Thread:
    """A request whose body never ends."""

    def chunks() -> Iterator[bytes]:
        while True:
            yield b" "
            time.sleep(0.1)

    def ask() -> None:
        with suppress(httpx.HTTPError):
            httpx.post(f"{url}/v1/score", content=chunks(), timeout=60)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    time.sleep(0.2)
    return thread


def test_a_server_on_ray_leaves_nothing_after_a_signal_to_its_group_while_it_answers(world: World) -> None:
    with _serving(world.bundle) as server:
        answers = _ask_all_the_time(server.url)
        time.sleep(1)
        _stop(server, signal.SIGTERM, to_group=True)
        assert answers and set(answers) == {200}, "requests before the end are answered"
        assert "statistics at port" in server.said.read_text()


def _ask_all_the_time(url: str) -> list[int]:
    """Statuses of requests, one after another until the first connection is refused."""
    answers: list[int] = []

    def ask() -> None:
        with suppress(httpx.HTTPError), httpx.Client(base_url=url, timeout=30) as client:
            while True:
                answers.append(client.post("/v1/score", json=BODY).status_code)

    threading.Thread(target=ask, daemon=True).start()
    return answers


@pytest.mark.slow
@pytest.mark.parametrize(("number", "to_group"), [case for case in CASES if case != (signal.SIGTERM, True)])
def test_a_server_on_ray_leaves_nothing(world: World, number: signal.Signals, to_group: bool) -> None:
    with _serving(world.bundle) as server:
        _stop(server, number, to_group, again=True)


@pytest.mark.slow
def test_a_server_on_ray_without_haproxy_leaves_nothing(world: World) -> None:
    with _serving(world.bundle, "--set", "serve.haproxy=false") as server:
        _stop(server, signal.SIGTERM, to_group=True)


@pytest.mark.slow
def test_nothing_is_left_if_the_signal_ends_ray_first(world: World) -> None:
    with _serving(world.bundle) as server:
        for process in server.tree:
            if process.pid != server.process.pid and not has_ended(process) and "haproxy" not in process.name():
                process.kill()
        _stop(server, signal.SIGTERM, to_group=False)
