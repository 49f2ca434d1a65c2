"""The distilled encoder at work: ONNX Runtime and a tokenizer, no torch. Offline and online share this class."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from prectr.errors import UsageError
from prectr.relevance.tokenisation import PairTokeniser, PairTokens

ONNX_FILE = "relevance.onnx"
SETTINGS_FILE = "relevance.json"


def onnx_session(file: Path, threads: int) -> Any:
    """An ONNX Runtime session on the CPU; `threads` of one call, 0 = all cores."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


class RelevanceEncoder:
    """Scores pairs of query and title with an encoder artifact.

    Args:
        directory: the artifact of `distill` (relevance.onnx, relevance.json, tokenizer.json).
        threads: ONNX Runtime threads of one call; 0 = all cores.
        batch_size: pairs of one call of the model; batches hold similar lengths.

    Raises:
        UsageError: the directory lacks a file of the artifact.
    """

    def __init__(self, directory: Path, threads: int = 0, batch_size: int = 256) -> None:
        missing = [name for name in (ONNX_FILE, SETTINGS_FILE, "tokenizer.json") if not (directory / name).is_file()]
        if missing:
            raise UsageError(
                f"{directory}: no encoder here ({', '.join(missing)} missing); make one with `prectr distill`."
            )
        settings = json.loads((directory / SETTINGS_FILE).read_text(encoding="utf-8"))
        self.max_length: int = settings["max_length"]
        self.width: int = settings["width"]
        self.tokeniser = PairTokeniser.load(directory, self.max_length)
        self._session = onnx_session(directory / ONNX_FILE, threads)
        self._inputs = {node.name for node in self._session.get_inputs()}
        self._batch_size = batch_size

    def score(self, queries: Sequence[str], titles: Sequence[str]) -> tuple[np.ndarray, np.ndarray, PairTokens]:
        """Level probabilities float32 [n, k], text vectors float32 [n, d], and the token pairs.

        Queries should be in normal form (`prectr.text.normalise_query`).
        """
        tokens = self.tokeniser.encode(queries, titles)
        logits, text = self.score_tokens(tokens)
        return softmax(logits, axis=1), text, tokens

    def score_tokens(self, tokens: PairTokens) -> tuple[np.ndarray, np.ndarray]:
        """Level logits float32 [n, k] and text vectors float32 [n, d] of token pairs, in their order."""
        text = np.empty((len(tokens), self.width), np.float32)
        logits = np.empty((len(tokens), 4), np.float32)
        order = np.argsort(tokens.lengths, kind="stable")
        for start in range(0, len(order), self._batch_size):
            rows = order[start : start + self._batch_size]
            feed = {name: array for name, array in tokens.padded(rows).items() if name in self._inputs}
            text[rows], logits[rows] = self._session.run(["text", "level_logits"], feed)
        return logits, text

    def text_vectors(self, padded: dict[str, np.ndarray]) -> np.ndarray:
        """Text vectors float32 [P, d] of padded token pairs."""
        feed = {name: array for name, array in padded.items() if name in self._inputs}
        text: np.ndarray = self._session.run(["text"], feed)[0]
        return text
