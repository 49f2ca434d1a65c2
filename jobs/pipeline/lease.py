"""Who works on a workspace at a URI, where a lock of the file system reaches one machine only."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prectr.core.errors import UsageError
from prectr.core.locks import this_process
from prectr.core.mirror import uri_of
from prectr.core.object_storage import Storage

LEASE = ".pipeline.lease"
REFRESH_SECONDS = 30.0
DEAD_SECONDS = 150.0
"""A lease that was not refreshed for so long is a dead driver's. Clocks of machines may differ by a minute."""
SETTLE_SECONDS = 2.0
"""After which a driver looks whether another came at the same moment: of two, the one that wrote last has it."""


@contextmanager
def lease(workspace: Path) -> Iterator[None]:
    """Hold the workspace for the block; nothing for a path on a disk. A driver that was killed loses it by itself.

    Raises:
        UsageError: another driver holds it; or the storage cannot be written.
    """
    uri = uri_of(workspace)
    if uri is None:
        yield
        return
    storage, me = Storage(uri), this_process()

    def require_free() -> None:
        held = json.loads(storage.read(LEASE) or b"{}")
        age = time.time() - held.get("refreshed", 0.0)
        if held and held["holder"] != me and age < DEAD_SECONDS:
            raise UsageError(
                f"{uri}: another pipeline works there ({held['holder']}, last heard of {age:.0f} s ago); wait for it "
                f"or stop it, or use another workspace. One that was killed is forgotten after {DEAD_SECONDS:.0f} s."
            )

    def refresh() -> None:
        storage.write(LEASE, json.dumps({"holder": me, "refreshed": time.time()}).encode())

    def keep() -> None:
        while not done.wait(REFRESH_SECONDS):
            with suppress(UsageError):  # the storage may be back the next time
                refresh()

    require_free()
    refresh()
    time.sleep(SETTLE_SECONDS)
    require_free()
    done = threading.Event()
    keeper = threading.Thread(target=keep, daemon=True)
    keeper.start()
    try:
        yield
    finally:
        done.set()
        keeper.join()
        storage.delete(LEASE)
