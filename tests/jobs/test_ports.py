"""Ports that a server chooses for itself: nothing else takes them between the choice and the start."""

import socket
from pathlib import Path

import pytest

from jobs.cluster import serve_host
from jobs.cluster.serve_host import QUIET_PORTS, free_port, free_ports

GIVEN_OUT = Path("/proc/sys/net/ipv4/ip_local_port_range")


@pytest.mark.skipif(not GIVEN_OUT.exists(), reason="Linux only")
def test_no_chosen_port_is_one_that_the_system_gives_out() -> None:
    first, last = (int(bound) for bound in GIVEN_OUT.read_text().split())
    chosen = {free_port() for _ in range(50)} | set(free_ports(203))
    assert len(chosen) > 200 and not any(first <= port <= last for port in chosen)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_taken_port_is_not_chosen(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    while True:
        start = free_ports(6).start
        try:
            taken = [socket.create_server((host, port)) for port in (start, start + 5)]
            break
        except OSError:
            continue
    try:
        monkeypatch.setattr(serve_host, "QUIET_PORTS", range(start, start + 2))
        assert {free_port() for _ in range(20)} == {start + 1}
        monkeypatch.setattr(serve_host, "QUIET_PORTS", range(start + 1, start + 10))
        assert free_ports(4) == range(start + 1, start + 5), "the next four begin with a taken port"
    finally:
        for one in taken:
            one.close()
    assert QUIET_PORTS.start > 1_024
