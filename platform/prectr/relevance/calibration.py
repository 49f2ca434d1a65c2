"""Calibration of the student's levels on what coarse ranking hands over, not on judged pairs alone [ours].

Pairs are judged because somebody took them for worth a look, so that judged pairs are more relevant than the candidates
that were not shown. These are taken as a mixture of pairs like the judged ones and pairs like random ones:

    p(m) = pi p_judged(m) + (1 - pi) p_random(m),       m: match features

pi is found by expectation maximisation from a classifier of judged against random pairs (Saerens et al., Neural
Computation 2002). The calibration of `prectr.metrics.level_calibration` is then fitted to validation pairs, the judged
ones weighted by pi and the random ones, of grade 0, by 1 - pi. It is folded into the classifier's weights.
"""

from typing import Any

import numpy as np
import polars as pl
from scipy.special import softmax

from prectr.data.tables import Tables, with_normal_query
from prectr.metrics.level_calibration import fit_calibration, mixture_weights, negative_log_likelihood
from prectr.relevance.match_features import MatchTable
from prectr.relevance.tokenisation import PairTokens

SAMPLED = 20_000
"""Candidates that pi is estimated on, at most."""
_STEPS = 200


def share_of_judged(judged: np.ndarray, random: np.ndarray, candidates: np.ndarray) -> float:
    """Estimate pi, the share of candidates that are like judged pairs: three arrays of match features [n, M]."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
    classifier.fit(np.concatenate([judged, random]), np.repeat([1, 0], [len(judged), len(random)]))
    odds = np.exp(classifier.decision_function(candidates).clip(-30, 30))
    share = 0.5
    for _ in range(_STEPS):
        share = float(np.mean(share * odds / (share * odds + 1 - share)))
    return share


def candidates_like_judged(
    tables: Tables, judged: np.ndarray, random: np.ndarray, matches: MatchTable, seed: int
) -> tuple[float | None, int]:
    """Estimate pi on a sample of the candidates that were not shown.

    Args:
        tables: canonical tables.
        judged, random: match features of judged and of random pairs [n, M].
        matches: computes those of the candidates.
        seed: of the sample.

    Returns:
        pi, and the number of candidates; None if there are no candidates, no judged or no random pairs.
    """
    candidates = unexposed_sample(tables, seed)
    if not (len(candidates) and len(judged) and len(random)):
        return None, len(candidates)
    features = matches.features(candidates["query"].to_list(), candidates["title"].to_list())
    return share_of_judged(judged, random, features), len(candidates)


def unexposed_sample(tables: Tables, seed: int) -> pl.DataFrame:
    """Take candidates that were not shown in their request, as coarse ranking handed them over.

    Returns:
        Columns query (normalised) and title: about `SAMPLED` candidates, evenly spaced; empty if the log has none.
    """
    files = [file for day in tables.days("candidates") for file in tables.day_files("candidates", day)]
    if not files:
        return pl.DataFrame(schema={"query": pl.String, "title": pl.String})
    rows = pl.scan_parquet(files, hive_partitioning=False).select("query", "item_id")
    step = -(-int(rows.select(pl.len()).collect().item()) // SAMPLED)
    kept = rows.gather_every(max(step, 1), seed % max(step, 1)).collect(engine="streaming")
    return (
        with_normal_query(kept).join(tables.items().select("item_id", "title"), on="item_id").select("query", "title")
    )


def calibrate_heads(
    encoder: Any, tokens: PairTokens, rows: np.ndarray, grades: np.ndarray, made: np.ndarray, share: float, marks: bool
) -> dict[str, Any]:
    """Fold a calibration into each classifier of an encoder.

    Args:
        encoder: a `TextEncoder`.
        tokens: token pairs.
        rows: int [n], validation rows of `tokens`.
        grades: int [n], their grades.
        made: boolean [n], which of them are random pairs.
        share: pi.
        marks: whether the student reads match marks.

    Returns:
        For `head` and `plain_head`: `scale` and `bias`, and the weighted mean of -log q[grade] in nats, before and
        after, on the same pairs.
    """
    import torch

    weights = np.empty(len(rows))
    weights[np.argsort(made, kind="stable")] = mixture_weights(int((~made).sum()), int(made.sum()), share)
    encoder.eval()
    facts: dict[str, Any] = {}
    for name, layer in (("head", encoder.classifier), ("plain_head", encoder.plain_classifier)):
        if name == "plain_head" and encoder.match_head is None:
            continue
        probabilities = softmax(_logits(encoder, tokens, rows, name == "plain_head", marks), axis=1)
        fitted = fit_calibration(probabilities, grades, weights)
        with torch.no_grad():
            layer.weight.mul_(fitted.scale)
            layer.bias.mul_(fitted.scale).add_(torch.tensor(fitted.bias, dtype=layer.bias.dtype))
        facts[name] = {
            "scale": round(fitted.scale, 4),
            "bias": [round(value, 4) for value in fitted.bias],
            "nll_before": round(negative_log_likelihood(probabilities, grades, weights), 4),
            "nll_after": round(negative_log_likelihood(fitted.apply(probabilities), grades, weights), 4),
        }
    return facts


def _logits(encoder: Any, tokens: PairTokens, rows: np.ndarray, plain: bool, marks: bool) -> np.ndarray:
    """Level logits of one head, float64 [n, k]; the plain head's of pairs without marks."""
    import torch

    parts = []
    with torch.inference_mode():
        for start in range(0, len(rows), 512):
            arrays = tokens.padded(rows[start : start + 512])
            if plain or not marks:
                arrays["token_type_ids"] %= 2
            inputs = {name: torch.from_numpy(array) for name, array in arrays.items()}
            parts.append(encoder.both_logits(**inputs)[int(plain)].double().numpy())
    return np.concatenate(parts)
