"""Locks: one holder at a time, released when the holder is killed, never held on a removed file."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from prectr.core.locks import LockedError, exclusive, this_process
from tests.processes import with_code

HOLD = """
import sys
from pathlib import Path
from prectr.core.locks import exclusive

with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_is_refused_by_name_and_goes_away(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    with exclusive(file):
        with pytest.raises(LockedError, match=f"^{this_process()}$"), exclusive(file):
            raise AssertionError("two hold it")
        assert file.exists(), "who was refused takes nothing away"
    assert not file.exists()


def test_a_killed_process_gives_it_up(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    command = [sys.executable, "-c", HOLD, str(file)]
    environment = with_code()
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(LockedError, match=f"process {other.pid} on "), exclusive(file):
            raise AssertionError("two hold it")
        other.kill()
        other.wait()
        assert file.exists()
        with exclusive(file):
            pass


def test_of_many_that_wait_one_holds_it_at_a_time(tmp_path: Path) -> None:
    """The file goes away with each holder, and whoever waited for it must take the next one."""
    holders, most, waited = 0, 0, []

    def work() -> None:
        nonlocal holders, most
        for _ in range(20):
            with exclusive(tmp_path / "lock", waited.append):
                holders += 1
                most = max(most, holders)
                holders -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1 and waited and not (tmp_path / "lock").exists()
