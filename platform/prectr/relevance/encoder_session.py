"""The distilled encoder in ONNX Runtime, with its tokenizer: files of the artifact, and `RelevanceEncoder`.

Offline scoring and serving share this class, so that both give the same scores. It must not import torch.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.special import softmax

from prectr.core.errors import UsageError
from prectr.relevance.match_features import MATCH_FILE, MatchTable
from prectr.relevance.pair_encoder import PairEncoder
from prectr.relevance.tokenisation import TOKENIZER_FILE, PairTokeniser, PairTokens

ONNX_FILE, INT8_FILE = "relevance.onnx", "relevance.int8.onnx"
SETTINGS_FILE = "relevance.json"


def encoder_file(directory: Path, int8: bool = False) -> Path:
    """Find the ONNX file of an encoder artifact, or of the encoder in a bundle's `relevance/`.

    Raises:
        UsageError: the directory lacks a file of the artifact, or has no int8 version.
    """
    model = INT8_FILE if int8 else ONNX_FILE
    if int8 and not (directory / model).is_file():
        raise UsageError(
            f"{directory}: has no int8 encoder ({model}); make one with `prectr distill --set distill.int8=true`, "
            "which `prectr train` then bundles."
        )
    missing = [name for name in (model, SETTINGS_FILE, TOKENIZER_FILE, MATCH_FILE) if not (directory / name).is_file()]
    if missing:
        raise UsageError(
            f"{directory}: no encoder here ({', '.join(missing)} missing); make one with `prectr distill`."
        )
    return directory / model


class RelevanceEncoder:
    """Scores pairs of query and title with an encoder artifact.

    Args:
        directory: the artifact of `distill` (relevance.onnx, relevance.json, tokenizer.json, match.parquet).
        threads: ONNX Runtime threads of one call; 0 = all cores.
        batch_size: pairs of one call of the model, at most.
        int8: run the int8 version.
        cache_bytes: memory for outputs of pairs; 0 caches none.

    Raises:
        UsageError: the directory lacks a file of the artifact, or has no int8 version.
    """

    def __init__(
        self, directory: Path, threads: int = 0, batch_size: int = 256, int8: bool = False, cache_bytes: int = 0
    ) -> None:
        model = encoder_file(directory, int8)
        settings = json.loads((directory / SETTINGS_FILE).read_text(encoding="utf-8"))
        self.max_length: int = settings["max_length"]
        self.width: int = settings["width"]
        self.tokeniser = PairTokeniser.load(directory, self.max_length)
        self.matches = MatchTable.load(directory / MATCH_FILE)
        self.pairs = PairEncoder(model, ("text", "level_logits"), threads, batch_size, cache_bytes)

    def score(self, queries: Sequence[str], titles: Sequence[str]) -> tuple[np.ndarray, np.ndarray, PairTokens]:
        """Score n pairs: level probabilities float32 [n, k], text vectors float32 [n, d], and the token pairs.

        Queries should be in normal form (`prectr.core.text.normalise_query`).
        """
        tokens = self.tokeniser.encode(queries, titles).with_match(self.matches.features(queries, titles))
        logits, text = self.score_tokens(tokens)
        return softmax(logits, axis=1), text, tokens

    def score_tokens(self, tokens: PairTokens, rows: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Score token pairs, or those of `rows` in their order: level logits float32 [n, k], text vectors [n, d]."""
        text, logits = self.pairs.encode(tokens, np.arange(len(tokens)) if rows is None else rows)
        return logits, text
