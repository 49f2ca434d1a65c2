"""At the end of a command no process below it is left, nor anything that one holds."""

import json
import socket
import subprocess
import sys

import pytest

from tests.processes import with_code

HOLDER = """
import ctypes, signal, socket, sys, threading, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
listener = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=time.sleep, args=(60,)).start()
print(listener.getsockname()[1], flush=True)
"""
"""Listens on a port, heeds no SIGTERM, and prints the port."""
LEADER_ENDS = HOLDER + "ctypes.CDLL(None).pthread_exit(None)"
"""Its first thread ends before the others, so that the process table shows a zombie."""
ORPHANED = f"""
import os, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {HOLDER!r}])
time.sleep(60)
"""
"""Ends at SIGTERM, and leaves a child that holds a port."""
OWNER = """
import json, subprocess, sys, time
from prectr.core.processes import adopt_orphans, children, end_children, has_ended
adopt_orphans()
held = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE, text=True)
port = int(held.stdout.readline())
time.sleep(0.2)
import psutil
status = psutil.Process(held.pid).status()
ended = has_ended(psutil.Process(held.pid))
started = time.monotonic()
left = end_children(5)
json.dump({"port": port, "status": status, "ended": ended, "left": len(left), "seen": len(children())}, sys.stdout)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="orphans are adopted on Linux only")
@pytest.mark.parametrize(("program", "status"), [(HOLDER, "sleeping"), (LEADER_ENDS, "zombie"), (ORPHANED, "sleeping")])
def test_ended_processes_hold_no_port(program: str, status: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", OWNER, program], env=with_code(), stdout=subprocess.PIPE, timeout=60, check=True
    )
    answer = json.loads(run.stdout)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", answer.pop("port")))
    assert answer == {"status": status, "ended": False, "left": 0, "seen": 0}
