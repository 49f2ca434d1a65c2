"""The teacher asked about a few pairs at a time, as the served teacher does: the same scorer as the batch job's.

Prompts, token ids, decoding and calibration are those of `label`, so that an answer here is the label that a run would
write (up to how an engine rounds). Nothing here knows HTTP or Ray, and nothing is written to the ledger.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl

from prectr.core.artifacts import require_artifact
from prectr.core.errors import UsageError
from prectr.labelling.calibration import Calibration
from prectr.labelling.config import LabelConfig, Language
from prectr.labelling.engines.choose import choose_engine
from prectr.labelling.engines.contract import Question
from prectr.labelling.engines.interactive import open_engine
from prectr.labelling.teacher import Teacher, prepare_teacher, template_for


@dataclass(frozen=True)
class Judgement:
    """The teacher's answer to one pair.

    Attributes:
        levels: calibrated probability of each grade, 0 first.
        raw_levels: the same before calibration, normalised over the labels.
        outside_mass: probability of any token that is no label.
        prompt: as the teacher read it; of a teacher behind a URL, as its server got it.
        error: why there is no answer, else empty.
    """

    levels: tuple[float, ...]
    raw_levels: tuple[float, ...]
    outside_mass: float
    prompt: str
    error: str = ""

    @property
    def grade(self) -> int:
        """The likeliest grade."""
        return int(np.argmax(self.levels))

    @property
    def expected(self) -> float:
        """Expected level on the scale 0..1."""
        return float(np.dot(self.levels, np.arange(len(self.levels))) / (len(self.levels) - 1))


class TeacherScorer:
    """Judges pairs with one loaded teacher.

    Args:
        question: as `prepare_scorer` makes it.
        calibration: applied to the teacher's levels.
    """

    def __init__(self, question: Question, calibration: Calibration) -> None:
        self.question, self.calibration = question, calibration
        self.engine = choose_engine(question.config.engine, question.teacher)
        self._asked = open_engine(question, self.engine)

    async def judge(self, pairs: pl.DataFrame) -> list[Judgement]:
        """One judgement a row.

        Args:
            pairs: string columns query, title, category, brand; null stands for "".

        Raises:
            TooLong: a prompt does not fit even without its title.
        """
        found = await self._asked.answer(pairs)
        levels = self.calibration.apply(found.levels.astype(np.float64))
        return [
            Judgement(tuple(calibrated), tuple(raw), outside, prompt, error)
            for calibrated, raw, outside, prompt, error in zip(
                levels.tolist(), found.levels.tolist(), found.outside_mass.tolist(), found.prompts, found.errors
            )
        ]

    async def check_health(self) -> None:
        """Raise if the engine is gone and will answer nothing any more."""
        await self._asked.check_health()

    def close(self) -> None:
        """Give back what the engine holds."""
        self._asked.close()


def prepare_scorer(teacher: str | Path, labels: Path | None, config: LabelConfig) -> tuple[Teacher, Calibration]:
    """Check that the teacher can answer, and read the calibration that belongs to it; loads no model.

    Args:
        teacher: a checkpoint directory, a model's name on the hub, or the URL of an OpenAI-compatible server.
        labels: an artifact of `label`, for its calibration and, unless configured, its language; None: as it answers.
        config: how to ask.

    Raises:
        UsageError: the teacher cannot answer, or the labels are not its own under this prompt and decoding.
    """
    if labels is None:
        template = template_for(config.prompt, config.language, pl.Series(dtype=pl.String))
        return prepare_teacher(teacher, config, template), Calibration()
    manifest = require_artifact(labels, "label")
    language = config.language
    if language == "auto":
        language = cast(Language, manifest["prompt"].rpartition("-")[0].rpartition(".")[2])
    ready = prepare_teacher(teacher, config, template_for(config.prompt, language, pl.Series(dtype=pl.String)))
    if manifest["context"] != ready.context.identity:
        raise UsageError(
            f"{labels}: its calibration is not for this teacher: the labels were made by {manifest['teacher']} with "
            f"prompt {manifest['prompt']} and decoding {manifest['decoding']}, this is {ready.context.teacher} with "
            f"{ready.context.prompt} and {ready.context.decoding}. Give the same teacher and label.* settings, or no "
            "labels."
        )
    fitted: dict[str, Any] = manifest["calibration"]
    return ready, Calibration(fitted["scale"], tuple(fitted["bias"]))
