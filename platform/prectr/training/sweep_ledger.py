"""The trials of a sweep as files: what makes a sweep resumable, whatever happens to its driver.

Ray Tune saves its own state every ten seconds at best, so a driver that is killed forgets the trials that ended since.
Here each trial that comes to its end is one small file at once; the next driver tells Optuna and ASHA what they reached
and draws only what is missing.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prectr.core.artifacts import write_json

REACHED = "reached"
"""The best of the searched metric up to a validation: what Optuna and ASHA compare, because `train` keeps the best
state and not the last."""


@dataclass(frozen=True)
class Trial:
    """One trial of a sweep.

    Attributes:
        settings: setting of `train` (dotted) -> the value drawn for it.
        points: the figures of each validation, and `REACHED`.
        seconds: how long it took; None where it came to no validation.
        error: why it failed; None where it did not.
    """

    settings: dict[str, Any]
    points: list[dict[str, Any]]
    seconds: float | None
    error: str | None = None

    @property
    def best(self) -> float | None:
        """The searched metric of the best validation; None where it came to none."""
        return self.points[-1][REACHED] if self.points else None


class TrialLedger:
    """A folder of finished trials, one JSON file each, written whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, trial: Trial) -> None:
        """Keep a trial that came to its end, or was stopped early on purpose; failed ones are tried anew instead."""
        self._folder.mkdir(parents=True, exist_ok=True)
        write_json(self._folder / f"trial-{len(self._files()):05d}.json", asdict(trial))

    def read(self) -> list[Trial]:
        """All that were kept, in the order they ended."""
        return [Trial(**json.loads(file.read_text(encoding="utf-8"))) for file in self._files()]

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("trial-*.json"))
