"""Checkpoints of a training run: safetensors and JSON, verified by digests when read.

model.safetensors       weights of the ranker
best.safetensors        best weights by validation so far; absent before the first validation
optimiser.safetensors   moments of AdamW and of the row-wise Adam of ID tables
progress.json           position of the run (`Progress`), its learning curve, and the digest of each other file

No generator state is stored: a step seeds its random numbers with (seed, rank, step) and the order of rows with (seed,
epoch, shard), so both follow from the position of the run.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from prectr.core.artifacts import write_json
from prectr.core.errors import PrectrError, shorten

VERSION = 2
PROGRESS = "progress.json"


@dataclass
class Progress:
    """Position of a run: `row` rows of shard `shard` of epoch `epoch` (both from 0) are done, after `step` steps."""

    seed: int
    epoch: int = 0
    shard: int = 0
    row: int = 0
    step: int = 0
    best: dict[str, Any] = field(default_factory=dict)
    curve: list[dict[str, Any]] = field(default_factory=list)
    recent: list[float] = field(default_factory=list)
    """Losses since the last point of the curve."""


def write_checkpoint(folder: Path, progress: Progress, parts: dict[str, dict[str, Tensor]]) -> None:
    """Write `parts` (file stem -> named tensors) and, last, the position of the run."""
    from safetensors.torch import save_file

    digests = {}
    for stem, tensors in parts.items():
        file = folder / f"{stem}.safetensors"
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, file)
        digests[file.name] = _digest(file)
    write_json(folder / PROGRESS, {"version": VERSION, "digests": digests, **asdict(progress)})


def read_checkpoint(folder: Path) -> tuple[Progress, dict[str, dict[str, Tensor]]]:
    """Read a checkpoint that `write_checkpoint` wrote.

    Raises:
        PrectrError: a file is missing, truncated, changed or of another version; the message names it.
    """
    from safetensors.torch import load_file

    file = folder / PROGRESS
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        version, digests = content.pop("version"), content.pop("digests")
    except (OSError, ValueError, KeyError) as error:
        raise PrectrError(f"{file}: cannot read the checkpoint ({type(error).__name__}: {shorten(error)}).") from None
    if version != VERSION:
        raise PrectrError(f"{file}: checkpoint version {version} is not supported; this release reads {VERSION}.")
    parts = {}
    for name, digest in digests.items():
        part = folder / name
        if not part.is_file() or _digest(part) != digest:
            raise PrectrError(f"{part}: does not match the digest in {PROGRESS} (truncated or changed).")
        parts[part.stem] = load_file(part)
    return Progress(**content), parts


def newest_whole(folders: Iterable[Path], problems: list[str]) -> tuple[Progress, dict[str, dict[str, Tensor]]] | None:
    """Read the first intact checkpoint of `folders` (newest first), or None.

    Args:
        folders: folders of checkpoints, newest first.
        problems: receives one message for each checkpoint that cannot be read.
    """
    for folder in folders:
        try:
            return read_checkpoint(folder)
        except PrectrError as error:
            problems.append(str(error))
    return None


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").hexdigest()
