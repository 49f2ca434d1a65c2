"""int8 forms of ONNX encoders, and what they cost in quality, always measured beside them.

Weights of the matrix products and tables become 8-bit integers, activations are quantised as they come; the rest stays
float32. Only encoders are worth it: a ranker is small, and its inputs are numbers that do not like to be rounded.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from prectr.relevance.encoder_session import RelevanceEncoder
from prectr.relevance.tokenisation import PairTokens


def quantise(source: Path, target: Path) -> None:
    """Write the int8 form of an ONNX encoder.

    One scale an output channel; 7 of the 8 bits are used, because processors without VNNI overflow on all 8.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(source)
    # The exporter leaves shapes of transposed weights there that contradict the graph.
    model.graph.ClearField("value_info")
    advice = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)  # it recommends a pre-processing that changes nothing here
    try:
        quantize_dynamic(model, target, weight_type=QuantType.QInt8, per_channel=True, reduce_range=True)
    finally:
        logging.getLogger().setLevel(advice)


def encoder_figures(directory: Path, tokens: PairTokens, rows: np.ndarray, gold: np.ndarray) -> dict[str, Any]:
    """What int8 costs an encoder artifact on held-back pairs: cross-entropy and accuracy of both forms, and the rank
    correlation of their expected levels.

    Args:
        directory: the artifact, which holds both forms.
        tokens: pairs.
        rows: int [n], which of them are held back.
        gold: int [n], their levels.
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
