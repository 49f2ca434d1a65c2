"""The partial aggregates of each day in a preferences artifact, so that a new or changed day costs one day's work.

`days/date=D/` holds a folder of Parquet parts for every kind of partial. Its `day.json` holds hashes of their inputs:
the day's files, the fitted parameters, and the relevance of the pairs that the day shows. If none of them changed, a
new artifact reuses the day's partials.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from prectr.core.artifacts import file_digests, link_or_copy, write_json
from prectr.core.coding import code_column
from prectr.core.errors import PrectrError
from prectr.core.text import NORMAL_FORM
from prectr.data.tables import Tables
from prectr.preferences.fit import PreferenceModel
from prectr.preferences.shown import ShownReader

CALIBRATION_TOLERANCE = 1e-3
"""Largest difference of two calibrations of labels that count as one. It moves a relevance by less than a lattice step.
A calibration that another processor fitted differs in its last digits."""
FORMAT = 1
"""Version of the partials' contents. Raise it when they change; earlier days are then mined again."""


@dataclass(frozen=True)
class KeptDay:
    """Content of `day.json`.

    Attributes:
        source: hash of the files, the parameters and the settings that the partials depend on.
        relevance: hash of what the relevance of the day's pairs was computed from.
        centres: hash of the tolerances that the second pass corrected for.
        samples: evenly spaced keys of each key column; the driver splits the key space by them.
        calibration: `calibration_of` the relevance artifact.
    """

    source: str
    relevance: str
    centres: str
    samples: dict[str, list[str]]
    calibration: tuple[float, ...] = ()


def day_folder(artifact: Path, day: date) -> Path:
    """Folder of a day's partials."""
    return artifact / "days" / f"date={day}"


def read_day(artifact: Path, day: date) -> KeptDay | None:
    """Read a day's `day.json`; None if it is missing or has other fields."""
    try:
        return KeptDay(**json.loads((day_folder(artifact, day) / "day.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write_day(artifact: Path, day: date, content: KeptDay) -> None:
    """Write a day's `day.json`. Call it last: the file marks the day as complete."""
    write_json(day_folder(artifact, day) / "day.json", vars(content))


def take_over(old: Path, new: Path, day: date) -> None:
    """Reuse a day's partials in a new artifact: link the files, or copy them if the file system has no links."""
    shutil.copytree(day_folder(old, day), day_folder(new, day), copy_function=link_or_copy)


def source_hashes(
    tables: Tables, days: Sequence[date], model: PreferenceModel, settings: dict[str, Any]
) -> dict[date, str]:
    """Compute `KeptDay.source` of each day.

    Raises:
        PrectrError: two files of a day have the same content.
    """
    files = {day: tables.day_files("impressions", day) for day in days}
    digests = file_digests([file for day_files in files.values() for file in day_files])
    # Prior clicks smooth rates after the days are merged: partials do not depend on them.
    parameters = {name: value for name, value in model.to_json().items() if "_clicks" not in name}
    common = json.dumps([FORMAT, NORMAL_FORM, pl.__version__, parameters, settings], sort_keys=True)
    hashes = {}
    for day, day_files in files.items():
        first_files: dict[str, Path] = {}
        for file in day_files:
            first = first_files.setdefault(digests[file], file)
            if first != file:
                raise PrectrError(
                    f"{file}: has the same content as {first.name} of the same day, so its impressions would count "
                    "twice. Remove one of the two files."
                )
        hashes[day] = _hash(common, *sorted(first_files))
    return hashes


def calibration_of(relevance: Mapping[str, Any]) -> tuple[float, ...]:
    """Read the scale and the biases that calibrated a teacher's labels from a relevance artifact's manifest."""
    fitted = (relevance.get("labels") or {}).get("calibration")
    return (fitted["scale"], *fitted["bias"]) if fitted else ()


def same_calibration(one: Sequence[float], other: Sequence[float]) -> bool:
    """Tell whether two calibrations are equal up to `CALIBRATION_TOLERANCE`."""
    return len(one) == len(other) and bool(np.allclose(one, other, rtol=0, atol=CALIBRATION_TOLERANCE))


def relevance_hash(reader: ShownReader, index_row: np.ndarray) -> int:
    """Hash what the relevance of some pairs was computed from, and their category.

    For a labelled pair that is its judgment or its teacher, and the most probable level; for all others, the encoder's
    artifact and the texts that it read. The probabilities are left out: another processor rounds them differently, and
    no day is mined again for that. The result is the sum of the pairs' hashes, so the results of the parts of a day can
    be added.

    Args:
        reader: holds the index of pairs and the catalogue.
        index_row: [m] distinct rows of the index; negative for a pair that is not in it.
    """
    index, catalogue = reader.index, reader.catalogue
    indexed = index_row[index_row >= 0]
    item = index.key[indexed] % max(len(index.items), 1)
    label = index.label(indexed)
    pairs = pl.DataFrame(
        [
            index.queries.gather(index.key[indexed] // max(len(index.items), 1)),
            index.items.gather(item),
            pl.Series("label", label),
            pl.Series("title", np.where(label == 0, catalogue.title[item], np.uint64(0))),
            catalogue.categories.gather(catalogue.category[item]).alias("category"),
        ]
    )
    pairs = pairs.with_columns(encoder=pl.when(pl.col("label") == 0).then(pl.lit(index.encoder)))
    hashes = pairs.hash_rows(seed=0).to_numpy()
    return (int(np.sum(hashes, dtype=np.uint64)) + len(index_row) - len(indexed)) % 2**64


def kept_relevance(artifact: Path, day: date, reader: ShownReader) -> str:
    """Compute `KeptDay.relevance` of a day's partials from the present relevance artifact."""
    total = 0
    for file in (day_folder(artifact, day) / "pair").glob("*.parquet"):
        pairs = pl.read_parquet(file, columns=["query", "item_id"])
        index_row = reader.index.find(code_column(pairs["query"]), code_column(pairs["item_id"]))
        total += relevance_hash(reader, index_row)
    return str(total % 2**64)


def centres_hash(centres: dict[str, pl.DataFrame]) -> str:
    """Compute `KeptDay.centres` from a day's rows of `centres/user` and `centres/query`."""
    return _hash(*(np.asarray(frame.hash_rows(seed=0)).tobytes() for frame in centres.values()))


def _hash(*parts: str | bytes) -> str:
    digest = hashlib.blake2b(digest_size=12)
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
        digest.update(b"\x1f")
    return digest.hexdigest()
