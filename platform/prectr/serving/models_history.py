"""Earlier contents of a file of models, kept beside it, so that `prectr rollout back` can return to them.

    models.yaml                              what servers watch
    .models.yaml.served/TIME-HASH.yaml       contents that a server has served, each under the time of its file

TIME is the file's time of modification in nanoseconds and HASH that of its content, so that all replicas that serve one
change write one entry, with equal bytes. A content that servers refuse is never kept.
"""

import hashlib
import os
import re
import uuid
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

KEPT = 50
"""Entries that are kept; older ones are deleted."""
_NAME = re.compile(r"(\d{20})-[0-9a-f]{12}\.yaml")


@dataclass(frozen=True)
class Entry:
    """A content of the file that was served.

    Attributes:
        path: the kept copy.
        served: when the file was written.
        text: its content.
    """

    path: Path
    served: datetime
    text: str


def folder_of(file: Path) -> Path:
    """Directory of the earlier contents of a file."""
    return file.with_name(f".{file.name}.served")


def record_served(file: Path, text: str) -> None:
    """Keep the content of a file that is served now. A directory that cannot be written is left alone."""
    with suppress(OSError):
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        folder = folder_of(file)
        folder.mkdir(mode=0o700, exist_ok=True)
        replace_file(folder / f"{file.stat().st_mtime_ns:020d}-{digest}.yaml", text)
        for entry in history(file)[:-KEPT]:
            entry.path.unlink(missing_ok=True)


def history(file: Path) -> list[Entry]:
    """Contents that were served, the oldest first."""
    found = []
    for path in sorted(folder_of(file).glob("*.yaml")):
        if match := _NAME.fullmatch(path.name):
            served = datetime.fromtimestamp(int(match[1]) / 1e9, UTC)
            found.append(Entry(path, served, path.read_text(encoding="utf-8")))
    return found


def earlier(file: Path) -> Entry | None:
    """The last served content that differs from the present one; None without one."""
    present = file.read_text(encoding="utf-8") if file.exists() else ""
    return next((entry for entry in reversed(history(file)) if entry.text != present), None)


def go_back(file: Path, entry: Entry) -> None:
    """Replace a file by an earlier content. Contents that were served after it leave the history.

    So going back again reaches what was before it, and never what was just left.
    """
    replace_file(file, entry.text)
    for later in history(file):
        if later.path.name > entry.path.name:
            later.path.unlink(missing_ok=True)


def replace_file(file: Path, text: str) -> None:
    """Write a file so that readers see the old or the new content, and never a part."""
    aside = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    try:
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, file)
    finally:
        aside.unlink(missing_ok=True)
