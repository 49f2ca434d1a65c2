"""Asking the teacher: what is missing from the ledger, stated as a plan, then asked and committed shard by shard.

A question is a row of `key`, `query`, `title` and what else the prompt shows. Nothing here knows tables or artifacts.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import polars as pl

from prectr.core import progress
from prectr.core.artifacts import package_versions
from prectr.core.errors import PrectrError
from prectr.core.ray_errors import find_user_error
from prectr.core.ray_session import RayConfig, ray_session
from prectr.labelling.config import LabelConfig, ReplicaConfig
from prectr.labelling.engines.choose import answer
from prectr.labelling.engines.contract import EngineName, Question
from prectr.labelling.ledger import ERRORS, LABELS, ContextLedger, new_run

REPEAT = "#again"
"""Ends the key of a question that is asked a second time."""
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_NAMED_ERROR = re.compile(r"[\w.]+(Error|Exception|Exit)\b")
_LEAST_FAILED = 10
"""So many failures, at least, stop a run early: a few bad rows of a small run are told at its end."""

_LONGER_BLOCKS = 4
"""vLLM's blocks over `label.batch_size`, at most."""
_BLOCKS_A_REPLICA = 8
"""So many, at least, keep replicas equally busy, if there are questions enough."""


@dataclass(frozen=True)
class Plan:
    """What a run will do, stated before it does it.

    Attributes:
        pairs: pairs that are to have a label.
        questions: distinct questions among them.
        cached: questions that the ledger answers.
        failed_before: questions that failed earlier and are left alone.
        missing: the questions to ask.
        repeats: the questions to ask a second time, for the flip rate.
        rate: questions a second of the last run with this teacher; None if there was none.
        start_seconds: what that run waited for its first answer.
    """

    pairs: int
    questions: int
    cached: int
    failed_before: int
    missing: pl.DataFrame
    repeats: pl.DataFrame
    rate: float | None
    start_seconds: float

    @property
    def asked(self) -> int:
        """Questions that go to the teacher."""
        return len(self.missing) + len(self.repeats)

    def seconds(self) -> float | None:
        """How long it will take, by the last run's speed."""
        return None if self.rate is None else self.start_seconds + self.asked / self.rate

    def describe(self, engine: EngineName) -> str:
        """One line for people."""
        parts = [
            f"{self.pairs:,} pairs, {self.questions:,} distinct questions",
            f"{self.cached:,} answered in the ledger",
            f"{len(self.missing):,} to ask ({engine})",
        ]
        if len(self.repeats):
            parts.append(f"{len(self.repeats):,} a second time")
        if self.failed_before:
            parts.append(f"{self.failed_before:,} failed earlier and are left alone (--retry-errors asks them again)")
        if self.asked:
            seconds = self.seconds()
            parts.append(
                "time unknown: first run with this teacher"
                if seconds is None
                else f"about {duration(seconds)} at {self.rate:,.0f}/s as in the last run"
            )
        return "; ".join(parts)


def duration(seconds: float) -> str:
    """`45 s`, `12 min` or `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def make_plan(pairs: int, questions: pl.DataFrame, ledger: ContextLedger, repeats: int, retry_errors: bool) -> Plan:
    """Compare the questions with the ledger; reads keys only.

    Args:
        pairs: pairs behind the questions, for the statement.
        questions: column key and the texts, distinct by key.
        ledger: answers under this run's context.
        repeats: questions to ask twice in all. They are those of the smallest keys, which are hashes: a random sample
            that stays the same when questions are added.
        retry_errors: ask again what failed earlier.
    """
    known = ledger.known(questions["key"])
    failed = pl.Series("key", [], dtype=pl.String)
    if not retry_errors:
        failed = ledger.errors(questions["key"])["key"]
    left = questions.join(known.to_frame(), on="key", how="anti").join(failed.to_frame(), on="key", how="anti")
    sample = questions.join(failed.to_frame(), on="key", how="anti").sort("key").head(repeats)
    again = sample.join(ledger.known(sample["key"], "repeats").to_frame(), on="key", how="anti")
    last = [run for run in ledger.runs() if run.get("questions_per_second")][-1:]
    return Plan(
        pairs=pairs,
        questions=len(questions),
        cached=len(known),
        failed_before=len(failed),
        missing=left,
        repeats=again,
        rate=last[0]["questions_per_second"] if last else None,
        start_seconds=last[0].get("first_answer_seconds", 0.0) if last else 0.0,
    )


def ask(
    plan: Plan, question: Question, engine: EngineName, ledger: ContextLedger, ray_config: RayConfig | None
) -> dict[str, Any]:
    """Ask what the plan holds and commit the answers as they come; the caller holds `ledger.writing()`.

    Returns:
        the record of the run: engine, versions, flags, seed, counts and speed. It is also left in the ledger.

    Raises:
        PrectrError: more than `max_error_share` of the plan's questions failed, or the engine did for good; what came
            before is committed.
    """
    config, run = question.config, new_run()
    record: dict[str, Any] = {
        "engine": engine,
        "versions": package_versions(),
        "flags": config.model_dump(mode="json", exclude={"ledger"}),
        "asked": plan.asked,
    }
    ledger.record_run(run, record)
    texts = pl.concat([plan.missing, plan.repeats.with_columns(pl.col("key") + REPEAT)])
    committer = _Committer(ledger, texts, engine, run, config.shard_rows, config.shard_seconds)
    allowed = max(config.max_error_share * plan.questions, _LEAST_FAILED)
    started = first_answer = time.perf_counter()
    with (
        ray_session(ray_config),
        _engine_errors(),
        _patience(config.replicas),
        progress.track("label", total=len(texts), unit="questions") as bar,
        committer,
    ):
        answers = answer(_dataset(texts, engine, _block_rows(len(texts), engine, config)), question, engine)
        for batch in answers.iter_batches(batch_size=None, batch_format="pyarrow"):
            if not committer.answered:
                first_answer, first_batch = time.perf_counter(), len(batch)
            committer.add(pl.DataFrame(batch))
            bar.advance(len(batch))
            if committer.failed > allowed:
                break
    now = time.perf_counter()
    rest = committer.answered - first_batch if committer.answered else 0
    record |= {
        "answered": committer.answered - committer.failed,
        "failed": committer.failed,
        "seconds": round(now - started, 2),
        "first_answer_seconds": round(first_answer - started, 2),
        "questions_per_second": round(rest / (now - first_answer), 3) if rest else None,
    }
    ledger.record_run(run, record)
    if committer.failed > allowed:
        raise PrectrError(
            f"label: {committer.failed:,} of {plan.questions:,} questions failed, above label.max_error_share "
            f"({config.max_error_share:g}); the run was stopped. First reason: {committer.first_error}. The "
            f"{record['answered']:,} good answers are in the ledger: mend the cause, run again with --retry-errors."
        )
    return {"run": run, **record}


def _block_rows(questions: int, engine: EngineName, config: LabelConfig) -> int:
    """Questions that a replica is given at once.

    vLLM runs dry at the end of a block, so its blocks are longer, as long as every replica still gets several.
    """
    if engine != "vllm" or config.vllm.through != "actors":
        return config.batch_size
    share = questions // (_BLOCKS_A_REPLICA * config.replicas.at_most)
    return max(config.batch_size, min(share, _LONGER_BLOCKS * config.batch_size))


def _dataset(texts: pl.DataFrame, engine: EngineName, rows: int) -> Any:
    """The questions as blocks of `rows`, in the order that suits the engine.

    Neighbours of one length waste no padding where prompts are padded. Elsewhere neighbours share their beginning, and
    so their place in a prefix cache; repeats come apart from their first answers, and in other company.
    """
    import ray.data

    columns = [column for column in texts.columns if column != "key"]
    if engine == "transformers":
        length = pl.sum_horizontal(pl.col(column).str.len_chars() for column in columns)
        ordered = texts.sort(length, "key")
    else:
        ordered = texts.sort(pl.col("key").str.ends_with(REPEAT), "title", "query", "key")
    table = ordered.to_arrow()
    # `from_arrow` would run a task of a CPU for every block, which wakes all machines of a teacher group for nothing.
    return ray.data.from_blocks([table.slice(start, rows) for start in range(0, len(table), rows)])


class _Committer:
    """Collects answers and commits them to the ledger in shards; what is left is committed when the block ends."""

    def __init__(
        self, ledger: ContextLedger, texts: pl.DataFrame, engine: str, run: str, rows: int, seconds: float
    ) -> None:
        shown = [column for column in texts.columns if column not in ("key", "query", "title")]
        self._texts = texts.select(
            "key", "query", "title", shown=pl.concat_str(shown, separator=" | ") if shown else pl.lit("")
        )
        self._ledger, self._engine, self._run = ledger, engine, run
        self._rows, self._seconds = rows, seconds
        self._waiting: list[pl.DataFrame] = []
        self._committed = time.monotonic()
        self.answered = self.failed = 0
        self.first_error = ""

    def __enter__(self) -> "_Committer":
        return self

    def __exit__(self, *error: object) -> None:
        self._commit()

    def add(self, answers: pl.DataFrame) -> None:
        bad = answers.filter(pl.col("error") != "")
        if len(bad) and not self.first_error:
            self.first_error = str(bad["error"][0])
        self.answered += len(answers)
        self.failed += len(bad)
        self._waiting.append(answers)
        full = sum(map(len, self._waiting)) >= self._rows
        if full or time.monotonic() - self._committed >= self._seconds:
            self._commit()

    def _commit(self) -> None:
        if not self._waiting:
            return
        answers, self._waiting = pl.concat(self._waiting), []
        told = answers.join(self._texts, on="key", how="inner", maintain_order="left").with_columns(
            engine=pl.lit(self._engine),
            run=pl.lit(self._run),
            again=pl.col("key").str.ends_with(REPEAT),
            key=pl.col("key").str.strip_suffix(REPEAT),
        )
        good = pl.col("error") == ""
        self._ledger.append("labels", told.filter(good & ~pl.col("again")).select(list(LABELS)))
        self._ledger.append("repeats", told.filter(good & pl.col("again")).select(list(LABELS)))
        self._ledger.append("errors", told.filter(~good & ~pl.col("again")).select(list(ERRORS)))
        self._committed = time.monotonic()


@contextmanager
def _engine_errors() -> Iterator[None]:
    """Turn Ray's account of an engine that cannot start, or has died too often, into one line for the user."""
    from ray.exceptions import RayError

    try:
        yield
    except RayError as error:
        told = find_user_error(error)
        if told is not None:
            raise told from None
        raise PrectrError(
            f"label: the teacher's engine failed: {last_words(str(error))}. What was answered is in the ledger: mend "
            "the cause, then run the same command again; -v shows what the engine says."
        ) from error


def last_words(account: str, longest: int = 500) -> str:
    """What a traceback ends with: the last line that names an error, and what follows, on one line."""
    lines = [line.strip() for line in _COLOURS.sub("", account).splitlines() if line.strip()]
    named = [place for place, line in enumerate(lines) if _NAMED_ERROR.match(line)]
    return " ".join(lines[named[-1] if named else -1 :])[:longest] if lines else "no reason given"


@contextmanager
def _patience(replicas: ReplicaConfig) -> Iterator[None]:
    """How long Ray Data may see no progress: a group of machines that starts from zero takes its time.

    Raises:
        PrectrError: no answer came for `wait_seconds`.
    """
    import ray.data
    from ray.data.exceptions import ExecutionTimeoutError

    context = ray.data.DataContext.get_current()
    before = context.execution_no_progress_timeout_s
    context.execution_no_progress_timeout_s = replicas.wait_seconds
    try:
        yield
    except ExecutionTimeoutError as error:
        wanted = {"CPU": replicas.cpus, "GPU": replicas.gpus, **replicas.resources}
        told = ", ".join(f"{name}: {amount:g}" for name, amount in wanted.items() if amount)
        raise PrectrError(
            f"label: no answer came for {duration(replicas.wait_seconds)} (label.replicas.wait_seconds). Replicas want "
            f"{{{told}}}: see with `ray status` whether a machine has that or can start, or wait longer. What was "
            "answered is in the ledger."
        ) from error
    finally:
        context.execution_no_progress_timeout_s = before
