"""Bare ONNX Runtime loops over tokenised pairs: `python _relevance_bare.py SIDE TABLES ENCODER LABELS BATCH OUT`.

SIDE is `processes` (two processes of one thread each, which get every other batch) or `session` (one session with two
threads). Tokens, their types, match features and the order by length are made outside the clock, which holds padding
and the encoder only; it starts when every session has answered something. Leaves `figures.json`, and `expected.npy`:
the expected level of each pair, 0..1, by pair number.
"""

import json
import multiprocessing
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from prectr.data.tables import Tables
from prectr.relevance.batch_scoring import pairs_to_score
from prectr.relevance.config import ScoreConfig
from prectr.relevance.encoder_session import ONNX_FILE, RelevanceEncoder
from prectr.relevance.pair_encoder import onnx_session
from prectr.relevance.tokenisation import PairTokens

SHAPES = {"processes": (2, 1), "session": (1, 2)}
"""Processes, and threads of each."""


def score(
    file: Path, threads: int, tokens: PairTokens, parts: list[np.ndarray], barrier: Any
) -> tuple[float, float, np.ndarray]:
    """When the loop began and ended (seconds since the epoch), and the level logits of the parts' rows in order."""
    session = onnx_session(file, threads)
    names = {node.name for node in session.get_inputs()}

    def run(rows: np.ndarray) -> Any:
        feed = {name: array for name, array in tokens.padded(rows).items() if name in names}
        return session.run(["text", "level_logits"], feed)[1]

    for rows in (parts[0], parts[-1]):
        run(rows)
    barrier.wait()
    started = time.time()
    logits = [run(rows) for rows in parts]
    return started, time.time(), np.concatenate(logits)


def one_process(arguments: tuple[Any, ...], answers: Any) -> None:
    """A process of its own."""
    answers.put((arguments[-1], score(*arguments[:-1])))


def main() -> None:
    """Be one side."""
    side, tables, encoder, labels, batch_size, out = sys.argv[1:]
    pairs = pairs_to_score(Tables(Path(tables)), Path(labels), ScoreConfig())
    queries, titles = pairs["query"].to_list(), pairs["title"].to_list()
    session = RelevanceEncoder(Path(encoder))
    tokens = session.tokeniser.encode(queries, titles).with_match(session.matches.features(queries, titles))
    assert len(tokens.token_types) == len(tokens.values)  # worked out here, once
    order = np.argsort(tokens.lengths, kind="stable")
    parts = [order[start : start + int(batch_size)] for start in range(0, len(order), int(batch_size))]
    processes, threads = SHAPES[side]
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(processes), context.Queue()
    file = Path(encoder) / ONNX_FILE
    workers = [
        context.Process(
            target=one_process, args=((file, threads, tokens, parts[number::processes], barrier, number), answers)
        )
        for number in range(processes)
    ]
    for worker in workers:
        worker.start()
    found = dict(answers.get() for _ in workers)
    for worker in workers:
        worker.join()
    seconds = max(ended for _, ended, _ in found.values()) - min(started for started, _, _ in found.values())
    expected = np.empty(len(pairs), np.float32)
    for number, (_, _, logits) in found.items():
        rows = np.concatenate(parts[number::processes])
        expected[rows] = softmax(logits, axis=1) @ (np.arange(4, dtype=np.float32) / 3)
    np.save(Path(out) / "expected.npy", expected)
    (Path(out) / "figures.json").write_text(json.dumps({"pairs_per_second": len(pairs) / seconds}), encoding="utf-8")


if __name__ == "__main__":
    main()
