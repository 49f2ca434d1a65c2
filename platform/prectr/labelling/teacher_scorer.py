"""Scorer that grades a few pairs at a time with one loaded teacher, for the served teacher.

Prompts, token ids, decoding and calibration are those of `label`, so that an answer here equals the label that a run
would write, up to the engine's rounding. This module serves no HTTP, uses no Ray and writes nothing to the ledger.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl

from prectr.core.artifacts import require_artifact
from prectr.core.errors import UsageError
from prectr.labelling.config import LabelConfig, Language
from prectr.labelling.engines.choose import choose_engine
from prectr.labelling.engines.contract import Question
from prectr.labelling.engines.interactive import open_engine
from prectr.labelling.teacher import Teacher, prepare_teacher, template_for
from prectr.metrics.level_calibration import Calibration


@dataclass(frozen=True)
class Judgement:
    """The teacher's answer to one pair.

    Attributes:
        levels: calibrated probability of each grade, 0 first.
        raw_levels: probability of each grade before calibration, normalised over the labels.
        outside_mass: probability of any token that is no label.
        prompt: the prompt as the teacher read it; for a teacher behind a URL, as it was sent.
        error: reason why there is no answer; "" for a good answer.
    """

    levels: tuple[float, ...]
    raw_levels: tuple[float, ...]
    outside_mass: float
    prompt: str
    error: str = ""

    @property
    def grade(self) -> int:
        """The most probable grade."""
        return int(np.argmax(self.levels))

    @property
    def expected(self) -> float:
        """Expected level on the scale 0..1."""
        return float(np.dot(self.levels, np.arange(len(self.levels))) / (len(self.levels) - 1))


class TeacherScorer:
    """Judges pairs with one loaded teacher.

    Args:
        question: the question of the teacher that `prepare_scorer` returns.
        calibration: applied to the teacher's levels.
    """

    def __init__(self, question: Question, calibration: Calibration) -> None:
        self.question, self.calibration = question, calibration
        self.engine = choose_engine(question.config.engine, question.teacher)
        self._loaded_engine = open_engine(question, self.engine)

    async def judge(self, pairs: pl.DataFrame) -> list[Judgement]:
        """Grade pairs; return one judgement per row.

        Args:
            pairs: string columns query, title, category, brand; null counts as "".

        Raises:
            TooLong: a prompt does not fit even without its title.
        """
        answers = await self._loaded_engine.answer(pairs)
        levels = self.calibration.apply(answers.levels.astype(np.float64))
        return [
            Judgement(tuple(calibrated), tuple(raw), outside, prompt, error)
            for calibrated, raw, outside, prompt, error in zip(
                levels.tolist(), answers.levels.tolist(), answers.outside_mass.tolist(), answers.prompts, answers.errors
            )
        ]

    async def check_health(self) -> None:
        """Raise if the engine has died and can answer no more questions."""
        await self._loaded_engine.check_health()

    def close(self) -> None:
        """Release the engine's resources."""
        self._loaded_engine.close()


def prepare_scorer(teacher: str | Path, labels: Path | None, config: LabelConfig) -> tuple[Teacher, Calibration]:
    """Check that the teacher can answer, and read its calibration. Loads no model.

    Args:
        teacher: a checkpoint directory, a model's name on the hub, or the URL of an OpenAI-compatible server.
        labels: an artifact of `label`, which gives the calibration and, with language `auto`, the prompt's language.
            None leaves the teacher's probabilities uncalibrated.
        config: settings of prompt and engine.

    Raises:
        UsageError: the teacher cannot answer, or another teacher, prompt or decoding made the labels.
    """
    if labels is None:
        template = template_for(config.prompt, config.language, pl.Series(dtype=pl.String))
        return prepare_teacher(teacher, config, template), Calibration()
    manifest = require_artifact(labels, "label")
    language = config.language
    if language == "auto":
        language = cast(Language, manifest["prompt"].rpartition("-")[0].rpartition(".")[2])
    prepared = prepare_teacher(teacher, config, template_for(config.prompt, language, pl.Series(dtype=pl.String)))
    context = prepared.context
    if manifest["context"] != context.identity:
        raise UsageError(
            f"{labels}: its calibration is not for this teacher: the labels were made by {manifest['teacher']} with "
            f"prompt {manifest['prompt']} and decoding {manifest['decoding']}, this is {context.teacher} with "
            f"{context.prompt} and {context.decoding}. Give the same teacher and label.* settings, or no labels."
        )
    fitted: dict[str, Any] = manifest["calibration"]
    return prepared, Calibration(fitted["scale"], tuple(fitted["bias"]))
