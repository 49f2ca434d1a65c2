"""One labelling run: plan which questions the ledger does not answer, ask the teacher, commit the answers in shards.

A question is a row with `key`, `query`, `title` and the further fields that the prompt shows. This module reads no
tables and writes no artifact.
"""

import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import polars as pl

from prectr.core import progress
from prectr.core.artifacts import package_versions
from prectr.core.errors import PrectrError, shorten
from prectr.core.ray_errors import find_user_error
from prectr.core.ray_session import RayConfig, ray_session
from prectr.labelling.config import LabelConfig, ReplicaConfig
from prectr.labelling.engines.choose import answer, stop_signal
from prectr.labelling.engines.contract import UNASKED, EngineName, Question
from prectr.labelling.ledger import ERRORS, LABELS, ContextLedger, new_run

REPEAT = "#again"
"""Suffix of the key of a question that is asked a second time."""
_ANSI_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_ERROR_NAME = re.compile(r"[\w.]+(Error|Exception|Exit)\b")
_MIN_FAILURES_TO_STOP = 10
"""A run stops early only above this number of failures. A small run with a few bad rows goes on to its end."""

_VLLM_BLOCK_FACTOR = 4
"""Largest block for vLLM, in multiples of `label.batch_size`."""
_BLOCKS_PER_REPLICA = 8
"""Blocks per replica, at least, if there are enough questions: replicas then finish at about the same time."""


@dataclass(frozen=True)
class AskingPlan:
    """The questions that a run will ask, and how long that should take.

    Attributes:
        pairs: number of pairs to label.
        questions: number of distinct questions among them.
        cached: number of questions that the ledger already answers.
        failed_before: number of questions that failed in an earlier run and are not asked again.
        missing: questions to ask.
        repeats: questions to ask a second time, for the flip rate.
        rate: questions per second of the last run with this teacher; None if there was no run.
        start_seconds: seconds that the last run waited for its first answer.
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
        """Number of questions that go to the teacher, repeats included."""
        return len(self.missing) + len(self.repeats)

    def seconds(self) -> float | None:
        """Estimated seconds of the run at the last run's speed; None if there was no run."""
        return None if self.rate is None else self.start_seconds + self.asked / self.rate

    def describe(self, engine: EngineName) -> str:
        """Describe the plan in one line for the terminal."""
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
    """Format seconds as `45 s`, `12 min` or `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def make_plan(
    pairs: int, questions: pl.DataFrame, ledger: ContextLedger, repeats: int, retry_errors: bool
) -> AskingPlan:
    """Compare the questions with the ledger. Reads only the ledger's keys and the records of its runs.

    Args:
        pairs: number of pairs behind the questions, for `AskingPlan.describe`.
        questions: column key and the texts, distinct by key.
        ledger: answers under this run's context.
        repeats: number of questions to ask twice in all. They are the ones with the smallest keys. Keys are hashes, so
            this is a random sample, and it hardly changes when questions are added.
        retry_errors: ask again the questions that failed in an earlier run.
    """
    answered_keys = ledger.answered_keys(questions["key"])
    failed_keys = pl.Series("key", [], dtype=pl.String)
    if not retry_errors:
        failed_keys = ledger.errors(questions["key"])["key"]
    askable = questions.join(failed_keys.to_frame(), on="key", how="anti")
    missing = questions.join(answered_keys.to_frame(), on="key", how="anti").join(
        failed_keys.to_frame(), on="key", how="anti"
    )
    sample = askable.sort("key").head(repeats)
    unrepeated = sample.join(ledger.answered_keys(sample["key"], "repeats").to_frame(), on="key", how="anti")
    last_run = [run for run in ledger.runs() if run.get("questions_per_second")][-1:]
    return AskingPlan(
        pairs=pairs,
        questions=len(questions),
        cached=len(answered_keys),
        failed_before=len(failed_keys),
        missing=missing,
        repeats=unrepeated,
        rate=last_run[0]["questions_per_second"] if last_run else None,
        start_seconds=last_run[0].get("first_answer_seconds", 0.0) if last_run else 0.0,
    )


def ask(
    plan: AskingPlan, question: Question, engine: EngineName, ledger: ContextLedger, ray_config: RayConfig | None
) -> dict[str, Any]:
    """Ask the plan's questions and commit the answers as they arrive. The caller must hold `ledger.writing()`.

    Returns:
        The record of the run: engine, versions, settings, counts and speed. It is also stored in the ledger.

    A run that stops, because too much failed or by a signal, first awaits and commits the answers to questions that a
    server has already got.

    Raises:
        PrectrError: more than `max_error_share` of the plan's questions failed, or the engine failed for good. Answers
            that arrived before are committed.
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
    max_failures = max(config.max_error_share * plan.questions, _MIN_FAILURES_TO_STOP)
    started = first_answer = time.perf_counter()
    with (
        ray_session(ray_config),
        _engine_errors(),
        _no_progress_limit(config.replicas),
        progress.track("label", total=len(texts), unit="questions") as bar,
        committer,
    ):
        stop = stop_signal(engine)
        answers = answer(_dataset(texts, engine, _block_rows(len(texts), engine, config)), question, engine, stop)
        with _stopped_by_signals(committer, stop):
            for batch in answers.iter_batches(batch_size=None, batch_format="pyarrow"):
                came = committer.add(pl.DataFrame(batch))
                if committer.answered == came:
                    first_answer, first_batch = time.perf_counter(), came
                bar.advance(came)
                if committer.failed > max_failures:
                    if stop is None:
                        break
                    stop.give.remote()
    now = time.perf_counter()
    # The first batch is left out of the speed: it includes the engine's start.
    later_answers = committer.answered - first_batch if committer.answered else 0
    record |= {
        "answered": committer.answered - committer.failed,
        "failed": committer.failed,
        "seconds": round(now - started, 2),
        "first_answer_seconds": round(first_answer - started, 2),
        "questions_per_second": round(later_answers / (now - first_answer), 3) if later_answers else None,
    }
    ledger.record_run(run, record)
    if committer.failed > max_failures:
        raise PrectrError(
            f"label: {committer.failed:,} of {plan.questions:,} questions failed, above label.max_error_share "
            f"({config.max_error_share:g}); the run was stopped. First error: {shorten(committer.first_error)}. The "
            f"{record['answered']:,} good answers are in the ledger: fix the cause, then run again with --retry-errors."
        )
    return {"run": run, **record}


def _block_rows(questions: int, engine: EngineName, config: LabelConfig) -> int:
    """Number of questions that a replica gets at once.

    vLLM idles at the end of a block, so its blocks are longer, as long as every replica still gets several.
    """
    if engine != "vllm" or config.vllm.through != "actors":
        return config.batch_size
    share = questions // (_BLOCKS_PER_REPLICA * config.replicas.at_most)
    return max(config.batch_size, min(share, _VLLM_BLOCK_FACTOR * config.batch_size))


def _dataset(texts: pl.DataFrame, engine: EngineName, rows: int) -> Any:
    """Cut the questions into blocks of `rows`, in an order that suits the engine.

    transformers pads prompts, so neighbours have similar lengths. For the other engines neighbours begin with the same
    words, which a prefix cache computes once, and repeats are far from the first askings, in other batches.
    """
    import ray.data

    columns = [column for column in texts.columns if column != "key"]
    if engine == "transformers":
        length = pl.sum_horizontal(pl.col(column).str.len_chars() for column in columns)
        ordered = texts.sort(length, "key")
    else:
        ordered = texts.sort(pl.col("key").str.ends_with(REPEAT), "title", "query", "key")
    table = ordered.to_arrow()
    # `from_arrow` would run a one-CPU task for every block, which would start all machines of a teacher group in vain.
    return ray.data.from_blocks([table.slice(start, rows) for start in range(0, len(table), rows)])


class _Committer:
    """Collects answers and commits them to the ledger in shards. Leaving the context commits the last shard."""

    def __init__(
        self, ledger: ContextLedger, texts: pl.DataFrame, engine: str, run: str, rows: int, seconds: float
    ) -> None:
        further_fields = [column for column in texts.columns if column not in ("key", "query", "title")]
        shown = pl.concat_str(further_fields, separator=" | ") if further_fields else pl.lit("")
        self._texts = texts.select("key", "query", "title", shown=shown)
        self._ledger, self._engine, self._run = ledger, engine, run
        self._shard_rows, self._shard_seconds = rows, seconds
        self._pending: list[pl.DataFrame] = []
        self._lock = threading.Lock()
        self._last_commit = time.monotonic()
        self.answered = self.failed = 0
        self.first_error = ""

    def __enter__(self) -> "_Committer":
        return self

    def __exit__(self, *error: object) -> None:
        self.commit()

    def add(self, answers: pl.DataFrame) -> int:
        """Take what came and commit a full shard; returns the number of questions among it that were asked."""
        answers = answers.filter(pl.col("error") != UNASKED)
        failures = answers.filter(pl.col("error") != "")
        if len(failures) and not self.first_error:
            self.first_error = str(failures["error"][0])
        self.answered += len(answers)
        self.failed += len(failures)
        with self._lock:
            self._pending.append(answers)
        full = sum(map(len, self._pending)) >= self._shard_rows
        if full or time.monotonic() - self._last_commit >= self._shard_seconds:
            self.commit()
        return len(answers)

    def commit(self) -> None:
        """Commit what is not committed yet; any thread may do so."""
        with self._lock:
            self._commit()

    def _commit(self) -> None:
        if not self._pending:
            return
        answers, self._pending = pl.concat(self._pending), []
        rows = answers.join(self._texts, on="key", how="inner", maintain_order="left").with_columns(
            engine=pl.lit(self._engine),
            run=pl.lit(self._run),
            again=pl.col("key").str.ends_with(REPEAT),
            key=pl.col("key").str.strip_suffix(REPEAT),
        )
        good = pl.col("error") == ""
        self._ledger.append("labels", rows.filter(good & ~pl.col("again")).select(list(LABELS)))
        self._ledger.append("repeats", rows.filter(good & pl.col("again")).select(list(LABELS)))
        self._ledger.append("errors", rows.filter(~good & ~pl.col("again")).select(list(ERRORS)))
        self._last_commit = time.monotonic()


@contextmanager
def _stopped_by_signals(committer: _Committer, stop: Any) -> Iterator[None]:
    """Stop at SIGINT and SIGTERM by a `StopSignal`, and let the signal act when the block is left; a second one acts at
    once. Does nothing without `stop`, or outside the main thread, where Python allows no handlers."""
    if stop is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []

    def halt() -> None:
        progress.say("label: stopping after the answers to questions on their way; interrupt again to stop at once")
        stop.give.remote()
        committer.commit()

    def handle(number: int, _: object) -> None:
        received.append(number)
        restore()
        threading.Thread(target=halt).start()  # a handler may run amid any call, even into Ray or the committer

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    found = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before = {number: handler for number, handler in found.items() if handler not in (None, signal.SIG_IGN)}
    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        restore()
    if received:
        signal.raise_signal(received[0])


@contextmanager
def _engine_errors() -> Iterator[None]:
    """Turn Ray's error about an engine that cannot start, or died too often, into one line for the user."""
    from ray.exceptions import RayError

    try:
        yield
    except RayError as error:
        user_error = find_user_error(error)
        if user_error is not None:
            raise user_error from None
        raise PrectrError(
            f"label: the teacher's engine failed: {last_error(str(error))}. Answers so far are in the ledger: fix the "
            "cause, then run the same command again; -v shows the engine's own messages."
        ) from error


def last_error(traceback: str, max_length: int = 500) -> str:
    """The end of a traceback on one line: the last line that begins with an error's name, and all that follows."""
    lines = [line.strip() for line in _ANSI_COLOURS.sub("", traceback).splitlines() if line.strip()]
    error_lines = [index for index, line in enumerate(lines) if _ERROR_NAME.match(line)]
    return " ".join(lines[error_lines[-1] if error_lines else -1 :])[:max_length] if lines else "no reason given"


@contextmanager
def _no_progress_limit(replicas: ReplicaConfig) -> Iterator[None]:
    """Let Ray Data wait `wait_seconds` without progress, because a group of machines may have to start first.

    Raises:
        PrectrError: no answer arrived for `wait_seconds`.
    """
    import ray.data
    from ray.data.exceptions import ExecutionTimeoutError

    context = ray.data.DataContext.get_current()
    before = context.execution_no_progress_timeout_s
    context.execution_no_progress_timeout_s = replicas.wait_seconds
    try:
        yield
    except ExecutionTimeoutError as error:
        resources = {"CPU": replicas.cpus, "GPU": replicas.gpus, **replicas.resources}
        listed = ", ".join(f"{name}: {amount:g}" for name, amount in resources.items() if amount)
        raise PrectrError(
            f"label: no answer arrived for {duration(replicas.wait_seconds)} (label.replicas.wait_seconds). A replica "
            f"needs {{{listed}}}: check with `ray status` that a machine has that or can start, or raise the limit. "
            "Answers so far are in the ledger."
        ) from error
    finally:
        context.execution_no_progress_timeout_s = before
