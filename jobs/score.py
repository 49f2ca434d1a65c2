"""score: read requests as JSON lines, write responses as JSON lines in the same order, with the online scorer.

A line that cannot be scored gets the answer `{"line": n, "error": "..."}`, so that no line is lost.
"""

import json
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, TextIO

import pyarrow as pa
import typer
from pydantic import ValidationError

from jobs.options import PATH, command
from prectr.contracts.protocol import InvalidField, ScoreRequest, require_ids
from prectr.contracts.schema import NULL_IDS
from prectr.core.errors import PrectrError, shorten
from prectr.core.ray_session import RayConfig, memory_bytes, ray_session
from prectr.ranking.bundle import require_bundle
from prectr.ranking.ranking import Ranking
from prectr.serving.config import ScoreLinesConfig, ServeConfig

BLOCK_LINES = 256
CALL_LINES = 16
"""Requests of one call of the models."""


class ScoreLines:
    """Ray Data actor: request lines in, response lines out."""

    def __init__(self, bundle: str, int8: bool, null_ids: Collection[str]) -> None:
        self._service, self._null_ids = Ranking(Path(bundle), int8=int8), null_ids

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Answer every line of a block."""
        numbers, lines = batch["number"].to_pylist(), batch["line"].to_pylist()
        answers = [
            answer
            for start in range(0, len(lines), CALL_LINES)
            for answer in self._answers(numbers[start : start + CALL_LINES], lines[start : start + CALL_LINES])
        ]
        return pa.table(
            {
                "number": batch["number"],
                "answer": [answer for answer, _ in answers],
                "failed": [failed for _, failed in answers],
            }
        )

    def _answers(self, numbers: list[int], lines: list[str]) -> list[tuple[str, bool]]:
        """Answers of some lines, scored in one call, and whether each failed."""
        parsed = [_parsed(line, self._null_ids) for line in lines]
        scored = iter(self._service.rank_many([one for one in parsed if isinstance(one, ScoreRequest)]))
        answers = [next(scored) if isinstance(one, ScoreRequest) else one for one in parsed]
        return [
            (json.dumps({"line": number, "error": str(answer)}), True)
            if isinstance(answer, ValueError)
            else (answer.model_dump_json(), False)
            for number, answer in zip(numbers, answers, strict=True)
        ]


def _parsed(line: str, null_ids: Collection[str]) -> ScoreRequest | ValueError:
    try:
        request = ScoreRequest.model_validate_json(line)
        require_ids(request, null_ids)
        return request
    except InvalidField as error:
        return ValueError(f"{'.'.join(map(str, error.path))}: {error}")
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, entry['loc'])) or 'line'}: {entry['msg']}" for entry in error.errors()]
        return ValueError(shorten("; ".join(problems), 1000))


def run(
    *,
    ranker: Path,
    source: TextIO,
    target: TextIO,
    int8: bool = False,
    null_ids: Collection[str] = NULL_IDS,
    config: ScoreLinesConfig | None = None,
    ray_config: RayConfig | None = None,
) -> None:
    """Score all lines of `source` with the bundle `ranker` to `target`.

    Args:
        ranker: the bundle.
        source: one `ScoreRequest` a line.
        target: one answer a line, in the order of the requests.
        int8: score with the int8 form of the bundle's encoders.
        null_ids: words, in lower case, that mean a missing id; a line with such an id is not scored.
        config: of the actors.
        ray_config: of an embedded Ray.

    Raises:
        UsageError: no bundle there, or no int8 form of its encoders.
        PrectrError: after all lines were answered, if some of them could not be scored; or there were none.
    """
    require_bundle(ranker, int8)
    try:
        lines = [(number, line) for number, line in enumerate(source, start=1) if line.strip()]
    except UnicodeDecodeError as error:
        raise PrectrError(f"standard input is not UTF-8 text ({error.reason}); nothing was scored.") from None
    if not lines:
        raise PrectrError(
            "standard input holds no requests; give one JSON object a line, e.g. prectr score RANKER < f.jsonl"
        )
    with ray_session(ray_config):
        scorer = (str(ranker.resolve()), int8, tuple(null_ids))
        failed = _score(scorer, lines, target, config or ScoreLinesConfig())
    if failed:
        raise PrectrError(f"{failed:,} of {len(lines):,} lines could not be scored; their answers hold the error.")


@command("score", as_json=False)
def run_command(
    *,
    ranker: Annotated[Path, typer.Argument(help="The bundle to score with.", **PATH)],
    config: ScoreLinesConfig,
    serve: ServeConfig,
    ray_config: RayConfig,
) -> None:
    """`prectr score`: from standard input to standard output."""
    run(
        ranker=ranker,
        source=sys.stdin,
        target=sys.stdout,
        int8=serve.int8,
        null_ids=serve.null_ids,
        config=config,
        ray_config=ray_config,
    )


def _score(scorer: tuple[Any, ...], lines: list[tuple[int, str]], target: TextIO, config: ScoreLinesConfig) -> int:
    """Score lines with actors `ScoreLines(*scorer)`; returns how many failed."""
    import ray

    blocks: list[Any] = [
        pa.table({"number": [number for number, _ in part], "line": [line for _, line in part]})
        for part in (lines[start : start + BLOCK_LINES] for start in range(0, len(lines), BLOCK_LINES))
    ]
    # Answers come back in the order of the requests.
    ray.data.DataContext.get_current().execution_options.preserve_order = True
    answers = ray.data.from_arrow(blocks).map_batches(
        ScoreLines,
        fn_constructor_args=scorer,
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=config.actors),
        num_cpus=config.cpus,
        memory=memory_bytes(config.memory_gib),
    )
    failed = 0
    for batch in answers.iter_batches(batch_size=None, batch_format="pyarrow"):
        for answer in batch["answer"].to_pylist():
            target.write(answer + "\n")
        failed += sum(batch["failed"].to_pylist())
    target.flush()
    return failed
