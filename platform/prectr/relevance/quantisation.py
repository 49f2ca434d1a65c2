"""int8 versions of ONNX encoders, and their loss of quality.

Weights of matrix products and embedding tables become 8-bit integers, and activations are quantised at run time. The
rest stays float32. Only encoders are quantised: a ranker is small, and rounding its numeric inputs costs accuracy.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from prectr.relevance.encoder_session import RelevanceEncoder
from prectr.relevance.tokenisation import PairTokens


def quantise(source: Path, target: Path) -> None:
    """Write the int8 version of an ONNX encoder.

    Each output channel has its own scale. Only 7 of the 8 bits are used, because processors without VNNI overflow on 8.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(source)
    # The exporter leaves shapes of transposed weights here that contradict the graph.
    model.graph.ClearField("value_info")
    log_level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)  # it recommends a pre-processing that changes nothing here
    try:
        quantize_dynamic(model, target, weight_type=QuantType.QInt8, per_channel=True, reduce_range=True)
    finally:
        logging.getLogger().setLevel(log_level)


def encoder_figures(directory: Path, tokens: PairTokens, rows: np.ndarray, gold: np.ndarray) -> dict[str, Any]:
    """Measure what int8 costs an encoder artifact on judged pairs.

    Args:
        directory: the artifact, which holds both versions.
        tokens: token pairs.
        rows: int [n], rows of `tokens` to measure on, which the encoder was not trained on.
        gold: int [n], judged grades of these rows.

    Returns:
        `float32` and `int8`, each with `validation_loss` (cross-entropy in nats) and `validation_accuracy`, and
        `rank_correlation` of the two versions' expected levels.
    """
    from scipy.stats import spearmanr

    expected = {}

    def figures(int8: bool) -> dict[str, float]:
        probabilities = softmax(RelevanceEncoder(directory, int8=int8).score_tokens(tokens, rows)[0], axis=1)
        expected[int8] = probabilities @ np.arange(probabilities.shape[1])
        return {
            "validation_loss": float(-np.log(probabilities[np.arange(len(gold)), gold]).mean()),
            "validation_accuracy": float((probabilities.argmax(axis=1) == gold).mean()),
        }

    both = {"float32": figures(False), "int8": figures(True)}
    return {**both, "rank_correlation": float(spearmanr(expected[False], expected[True])[0])}
