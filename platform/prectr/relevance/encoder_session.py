"""The distilled encoder at work: ONNX Runtime and a tokenizer, no torch. Offline and online share this class."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from prectr.errors import PrectrError, UsageError
from prectr.relevance.tokenisation import TOKENIZER_FILE, PairTokeniser, PairTokens

ONNX_FILE, INT8_FILE = "relevance.onnx", "relevance.int8.onnx"
SETTINGS_FILE = "relevance.json"


def encoder_file(directory: Path, int8: bool = False) -> Path:
    """The model of an encoder artifact, or of the encoder in a bundle's `relevance/`.

    Raises:
        UsageError: the directory lacks a file of the artifact, or has no int8 form.
    """
    model = INT8_FILE if int8 else ONNX_FILE
    if int8 and not (directory / model).is_file():
        raise UsageError(
            f"{directory}: has no int8 encoder ({model}); make one with `prectr distill --set distill.int8=true`, "
            "which `prectr train` then bundles."
        )
    missing = [name for name in (model, SETTINGS_FILE, TOKENIZER_FILE) if not (directory / name).is_file()]
    if missing:
        raise UsageError(
            f"{directory}: no encoder here ({', '.join(missing)} missing); make one with `prectr distill`."
        )
    return directory / model


def onnx_session(file: Path, threads: int) -> Any:
    """An ONNX Runtime session on the CPU; `threads` of one call, 0 = all cores.

    Raises:
        PrectrError: the file is missing or no whole model.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no base of their own
        what = str(error).strip().splitlines()[0]
        raise PrectrError(
            f"{file}: is missing, cut short or no ONNX model ({what}); build its artifact again."
        ) from None


class RelevanceEncoder:
    """Scores pairs of query and title with an encoder artifact.

    Args:
        directory: the artifact of `distill` (relevance.onnx, relevance.json, tokenizer.json).
        threads: ONNX Runtime threads of one call; 0 = all cores.
        batch_size: most pairs of one call of the model.
        int8: run the int8 form.

    Raises:
        UsageError: the directory lacks a file of the artifact, or has no int8 form.
    """

    def __init__(self, directory: Path, threads: int = 0, batch_size: int = 256, int8: bool = False) -> None:
        model = encoder_file(directory, int8)
        settings = json.loads((directory / SETTINGS_FILE).read_text(encoding="utf-8"))
        self.max_length: int = settings["max_length"]
        self.width: int = settings["width"]
        self.tokeniser = PairTokeniser.load(directory, self.max_length)
        self._session = onnx_session(model, threads)
        self._inputs = {node.name for node in self._session.get_inputs()}
        self._batch_size = batch_size

    def score(self, queries: Sequence[str], titles: Sequence[str]) -> tuple[np.ndarray, np.ndarray, PairTokens]:
        """Level probabilities float32 [n, k], text vectors float32 [n, d], and the token pairs.

        Queries should be in normal form (`prectr.text.normalise_query`).
        """
        tokens = self.tokeniser.encode(queries, titles)
        logits, text = self.score_tokens(tokens)
        return softmax(logits, axis=1), text, tokens

    def score_tokens(self, tokens: PairTokens, rows: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Level logits float32 [n, k] and text vectors float32 [n, d] of token pairs, or of some of them, in order."""
        rows = np.arange(len(tokens)) if rows is None else rows
        text = np.empty((len(rows), self.width), np.float32)
        logits = np.empty((len(rows), 4), np.float32)
        for chosen in tokens.batches(rows, self._batch_size):
            feed = {name: array for name, array in tokens.padded(rows[chosen]).items() if name in self._inputs}
            text[chosen], logits[chosen] = self._session.run(["text", "level_logits"], feed)
        return logits, text

    def text_vectors(self, padded: dict[str, np.ndarray]) -> np.ndarray:
        """Text vectors float32 [P, d] of padded token pairs."""
        feed = {name: array for name, array in padded.items() if name in self._inputs}
        text: np.ndarray = self._session.run(["text"], feed)[0]
        return text
