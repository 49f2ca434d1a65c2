"""Ledger of a sweep: one file per finished trial, so that a killed sweep resumes without loss.

Ray Tune saves its state every ten seconds at best, so a killed driver forgets the trials that ended since. The ledger
writes a small file as soon as a trial ends. The next driver passes the results to Optuna and ASHA and runs only the
missing trials.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prectr.core.artifacts import write_json

REACHED = "reached"
"""Key of the best value of the searched metric so far. Optuna and ASHA compare it, because `train` keeps the best
state, not the last."""


@dataclass(frozen=True)
class Trial:
    """One trial of a sweep.

    Attributes:
        settings: dotted name of a setting of `train` -> value of the trial.
        points: metrics of each validation, with `REACHED`.
        seconds: duration; None without a validation.
        error: reason of the failure; None if it did not fail.
    """

    settings: dict[str, Any]
    points: list[dict[str, Any]]
    seconds: float | None
    error: str | None = None

    @property
    def best(self) -> float | None:
        """Best value of the searched metric; None without a validation."""
        return self.points[-1][REACHED] if self.points else None


class TrialLedger:
    """A folder of finished trials, one JSON file each, written atomically."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, trial: Trial) -> None:
        """Add a trial that ended or was stopped early. Do not add failed trials: a resumed sweep runs them again."""
        self._folder.mkdir(parents=True, exist_ok=True)
        write_json(self._folder / f"trial-{len(self._files()):05d}.json", asdict(trial))

    def read(self) -> list[Trial]:
        """Read all trials, in the order in which they ended."""
        return [Trial(**json.loads(file.read_text(encoding="utf-8"))) for file in self._files()]

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("trial-*.json"))
