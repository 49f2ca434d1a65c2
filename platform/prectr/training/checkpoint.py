"""Checkpoints of a training run: safetensors and JSON, whole or refused.

model.safetensors       the ranker as it is
best.safetensors        the best state by validation so far; absent before the first validation
optimiser.safetensors   moments of AdamW and of the tables' row-wise Adam
progress.json           where the run is (`Progress`), its learning curve, and the digest of each other file

Random numbers of a step are drawn from a generator seeded by (seed, rank, step), and the order of rows from (seed,
epoch, shard), so the position in the run is their state; nothing else has to be kept.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from prectr.core.artifacts import write_json
from prectr.core.errors import PrectrError

VERSION = 1
PROGRESS = "progress.json"


@dataclass
class Progress:
    """Where a run is: `row` rows of shard number `shard` of epoch `epoch` (from 0) are done, in `step` steps."""

    seed: int
    epoch: int = 0
    shard: int = 0
    row: int = 0
    step: int = 0
    best: dict[str, Any] = field(default_factory=dict)
    curve: list[dict[str, Any]] = field(default_factory=list)
    recent: list[float] = field(default_factory=list)
    """Losses since the last point of the curve."""


def write_checkpoint(folder: Path, state: Progress, parts: dict[str, dict[str, Tensor]]) -> None:
    """Write `parts` (file stem -> named tensors) and, last, where the run is."""
    from safetensors.torch import save_file

    digests = {}
    for stem, tensors in parts.items():
        file = folder / f"{stem}.safetensors"
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, file)
        digests[file.name] = _digest(file)
    write_json(folder / PROGRESS, {"version": VERSION, "digests": digests, **asdict(state)})


def read_checkpoint(folder: Path) -> tuple[Progress, dict[str, dict[str, Tensor]]]:
    """What `write_checkpoint` wrote.

    Raises:
        PrectrError: a file is missing, cut short or of another version; says which.
    """
    from safetensors.torch import load_file

    file = folder / PROGRESS
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        version, digests = content.pop("version"), content.pop("digests")
    except (OSError, ValueError, KeyError) as error:
        raise PrectrError(f"{file}: no whole checkpoint ({type(error).__name__}: {error}).") from None
    if version != VERSION:
        raise PrectrError(f"{file}: a checkpoint of version {version}, this project reads {VERSION}.")
    parts = {}
    for name, digest in digests.items():
        part = folder / name
        if not part.is_file() or _digest(part) != digest:
            raise PrectrError(f"{part}: is not what the checkpoint wrote (cut short or changed).")
        parts[part.stem] = load_file(part)
    return Progress(**content), parts


def newest_whole(
    folders: Iterable[Path], passed_over: list[str]
) -> tuple[Progress, dict[str, dict[str, Tensor]]] | None:
    """The first readable checkpoint of some, newest first; what is wrong with those before it goes to `passed_over`."""
    for folder in folders:
        try:
            return read_checkpoint(folder)
        except PrectrError as error:
            passed_over.append(str(error))
    return None


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").hexdigest()
