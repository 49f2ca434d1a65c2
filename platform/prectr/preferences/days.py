"""The partial aggregates of each day, kept in the artifact so that a new or corrected day costs one day's work.

`days/date=D/` holds a folder of Parquet parts for every kind of partial and a `day.json` that says what they were made
of: the day's files, the fitted parameters, and the relevance of the pairs that the day shows. A day of which all this
is still so is taken over from the artifact that is being replaced.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from prectr.core.artifacts import file_digests, link_or_copy, write_json
from prectr.core.coding import code_column
from prectr.core.errors import PrectrError
from prectr.data.tables import Tables
from prectr.preferences.fit import PreferenceModel
from prectr.preferences.shown import ShownReader

FORMAT = 1
"""Raise it when what partials hold changes: days mined before are then mined again."""


@dataclass(frozen=True)
class KeptDay:
    """What `day.json` says.

    Attributes:
        source: hash of the files, the parameters and the settings that the partials depend on.
        relevance: hash of the relevance of the pairs shown.
        centres: hash of the tolerances that the second pass corrected for.
        samples: for each key column some evenly spaced keys, to cut the key space by.
    """

    source: str
    relevance: str
    centres: str
    samples: dict[str, list[str]]


def day_folder(artifact: Path, day: date) -> Path:
    """Where a day's partials lie."""
    return artifact / "days" / f"date={day}"


def read_day(artifact: Path, day: date) -> KeptDay | None:
    """A day's `day.json`; None where it is not there or of another version."""
    try:
        return KeptDay(**json.loads((day_folder(artifact, day) / "day.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write_day(artifact: Path, day: date, kept: KeptDay) -> None:
    """Write a day's `day.json`, last of all."""
    write_json(day_folder(artifact, day) / "day.json", vars(kept))


def take_over(old: Path, new: Path, day: date) -> None:
    """Bring a day's partials into a new artifact; they are linked, not copied, where the file system allows it."""
    shutil.copytree(day_folder(old, day), day_folder(new, day), copy_function=link_or_copy)


def source_hashes(
    tables: Tables, days: Sequence[date], model: PreferenceModel, settings: dict[str, Any]
) -> dict[date, str]:
    """`KeptDay.source` of each day.

    Raises:
        PrectrError: two files of a day are the same.
    """
    files = {day: tables.day_files("impressions", day) for day in days}
    digests = file_digests([file for of_day in files.values() for file in of_day])
    partials_read = {name: value for name, value in model.to_json().items() if "_clicks" not in name}
    basis = json.dumps([FORMAT, pl.__version__, partials_read, settings], sort_keys=True)
    hashes = {}
    for day, of_day in files.items():
        seen: dict[str, Path] = {}
        for file in of_day:
            twin = seen.setdefault(digests[file], file)
            if twin != file:
                raise PrectrError(
                    f"{file}: is the same as {twin.name} of that day, so its impressions would count twice. "
                    "Take one of the two away."
                )
        hashes[day] = _hash(basis, *sorted(seen))
    return hashes


def relevance_hash(reader: ShownReader, place: np.ndarray) -> int:
    """A hash of what is known of some pairs: their text, relevance, level and category.

    Hashes of single pairs are added up, so those of the parts of a day may be added too.

    Args:
        reader: knows the pairs.
        place: [m] distinct places in its index; a negative one is a pair that is not there.
    """
    index, catalogue = reader.index, reader.catalogue
    there = place[place >= 0]
    item = index.key[there] % max(len(index.items), 1)
    known = pl.DataFrame(
        [
            index.queries.gather(index.key[there] // max(len(index.items), 1)),
            index.items.gather(item),
            pl.Series("expected", index.expected[there]),
            pl.Series("level", index.level[there]),
            catalogue.categories.gather(catalogue.category[item]).alias("category"),
        ]
    )
    hashes = known.hash_rows(seed=0).to_numpy()
    return (int(np.sum(hashes, dtype=np.uint64)) + len(place) - len(there)) % 2**64


def kept_relevance(artifact: Path, day: date, reader: ShownReader) -> str:
    """`KeptDay.relevance` of a day's partials, by what the relevance artifact says now."""
    total = 0
    for file in (day_folder(artifact, day) / "pair").glob("*.parquet"):
        pairs = pl.read_parquet(file, columns=["query", "item_id"])
        place = reader.index.find(code_column(pairs["query"]), code_column(pairs["item_id"]))
        total += relevance_hash(reader, place)
    return str(total % 2**64)


def centres_hash(centres: dict[str, pl.DataFrame]) -> str:
    """`KeptDay.centres`: of a day's rows of `centres/user` and `centres/query`."""
    return _hash(*(np.asarray(frame.hash_rows(seed=0)).tobytes() for frame in centres.values()))


def _hash(*parts: str | bytes) -> str:
    total = hashlib.blake2b(digest_size=12)
    for part in parts:
        total.update(part.encode() if isinstance(part, str) else part)
        total.update(b"\x1f")
    return total.hexdigest()
