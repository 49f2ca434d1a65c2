"""The Scorer, which scores logged rows offline and requests online with ONNX Runtime. It does not import torch."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import expit, softmax

from prectr.features.inputs import INPUT_NAMES, PairArrays, RowArrays, ranker_inputs
from prectr.ranking.bundle import ENCODER_FILE, INT8_ENCODER_FILE, RANKER_FILE, Bundle
from prectr.relevance.encoder_session import RelevanceEncoder
from prectr.relevance.pair_encoder import PairEncoder, onnx_session
from prectr.relevance.tokenisation import PairTokens

ROW_BATCH = 4096


@dataclass(frozen=True)
class Scores:
    """Position-free scores of n rows."""

    click_logit: np.ndarray  # float32 [n]
    level_probabilities: np.ndarray  # float32 [n, k]
    level_click_probabilities: np.ndarray  # float32 [n, k] click probability given the level
    incentive: np.ndarray  # float32 [n] tau

    @property
    def click_probability(self) -> np.ndarray:
        """Click probability, float64 [n]."""
        return expit(self.click_logit.astype(np.float64))

    @property
    def expected_level(self) -> np.ndarray:
        """Expected relevance level on 0..k-1, [n]."""
        return self.level_probabilities @ np.arange(self.level_probabilities.shape[1])

    def slice(self, start: int, end: int) -> "Scores":
        """Select the scores of rows `start` to `end`."""
        parts = (self.click_logit, self.level_probabilities, self.level_click_probabilities, self.incentive)
        return Scores(*(part[start:end] for part in parts))


class Scorer:
    """Scores rows with a bundle.

    Args:
        bundle: the bundle, or its directory.
        threads: ONNX Runtime threads of one call; 0 = all cores.
        int8: run the encoders in their int8 form.
        cache_bytes: memory for text vectors of pairs; an encoder tuned with the ranker takes half of it. 0 caches none.

    Raises:
        UsageError: the directory holds no bundle, one of another schema version, or one without int8 encoders.
        PrectrError: a file of the bundle is missing, incomplete or changed.

    Example::

        samples = Samples.open(Path("work/samples"))
        rows = samples.rows(samples.frame([samples.days()[-1]]))
        scores = Scorer(Path("work/bundle")).score(rows, samples.pairs, samples.tokens)
        scores.click_probability  # [n], in the order of the rows
    """

    def __init__(self, bundle: Path | Bundle, threads: int = 0, int8: bool = False, cache_bytes: int = 0) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        path = self.bundle.path
        tuned = path / (INT8_ENCODER_FILE if int8 else ENCODER_FILE)
        encoder_bytes = cache_bytes // 2 if tuned.is_file() else cache_bytes
        self.relevance = RelevanceEncoder(path / "relevance", threads, int8=int8, cache_bytes=encoder_bytes)
        self._ranker = onnx_session(path / RANKER_FILE, threads)
        self._ranker_inputs = {node.name for node in self._ranker.get_inputs()}
        tuned_pairs = PairEncoder(tuned, ("text",), threads, cache_bytes=encoder_bytes) if tuned.is_file() else None
        self.text = tuned_pairs or self.relevance.pairs
        """Text encoder of the ranker: the one tuned with it, or the distilled encoder."""

    def score(self, rows: RowArrays, pairs: PairArrays, tokens: PairTokens) -> Scores:
        """Score rows.

        Args:
            rows: n rows; `rows.pair` is an index of `pairs` and `tokens`.
            pairs: features of the pairs.
            tokens: token ids of the same pairs.
        """
        text = self._text(rows.pair, tokens)
        outputs = []
        for start in range(0, len(rows), ROW_BATCH):
            part = rows.take(np.arange(start, min(start + ROW_BATCH, len(rows))))
            arrays = ranker_inputs(part, pairs, "user_behaviours" in self._ranker_inputs)
            feed = {name: arrays[name] for name in INPUT_NAMES if name in self._ranker_inputs}
            if "text" in self._ranker_inputs:
                feed["text"] = text[start : start + ROW_BATCH]
            names = ["click_logit", "level_logits", "level_click_logits", "incentive"]
            outputs.append(self._ranker.run(names, feed))
        logit, levels, level_clicks, incentive = (np.concatenate(part) for part in zip(*outputs))
        return Scores(logit, softmax(levels, axis=1), expit(level_clicks), incentive)

    def with_position(self, click_logit: np.ndarray, position: np.ndarray) -> np.ndarray:
        """Add the bias of logged positions (from 1) to click logits, [n]; for offline metrics only."""
        table = np.array(self.bundle.position_logits)
        bias = table[np.minimum(position, len(table)) - 1]
        if self.bundle.position_form == "additive":
            return click_logit + bias
        probability = expit(click_logit) * np.exp(bias)
        return np.log(probability) - np.log1p(-probability)

    def _text(self, pair: np.ndarray, tokens: PairTokens) -> np.ndarray:
        """Encode the text of the rows' pairs, float32 [n, d]; each distinct pair is encoded once."""
        if "text" not in self._ranker_inputs:
            return np.zeros((len(pair), 0), np.float32)
        distinct, code = np.unique(pair, return_inverse=True)
        return np.asarray(self.text.encode(tokens, distinct)[0][code])
