"""What the marketplace leaves to learn: the oracle with each user's and query's tolerance against the oracle without.

Both know the true r, attraction and examination of every impression of the last day; one knows the threshold T_uq, the
other only how thresholds are spread. Beside them, single columns and how far plain word matching gets on the judgments:
TF-IDF cosine (the inverse document frequencies are those of the titles) and an isotonic map to the grade, five folds
split by query. Simulated data: these say how hard the simulator is, nothing about a real log.

    make bench-marketplace
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from _smallest import MARKETPLACE, REQUESTS, parse_options, print_result
from scipy.special import expit
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from prectr.core.text import hash_fraction
from prectr.data.marketplace import MarketplaceConfig, constants, simulate

SEEDS = (7, 1, 2)
FOLDS = 5


def click_figures(tables: Path) -> dict[str, float]:
    """AUCs against `clicked` on the last day."""
    logged = pl.read_parquet(sorted(tables.glob("impressions/*/*.parquet")), hive_partitioning=True)
    truth = pl.read_parquet(sorted(tables.glob("truth/impressions/*/*.parquet")))
    rows = pl.concat([logged, truth.drop("request_id", "item_id")], how="horizontal")
    last = rows.filter(pl.col("date") == pl.col("date").max())
    clicked = last["clicked"].to_numpy()
    r, attraction, examined = (last[name].to_numpy() for name in ("r", "attraction", "p_exam"))
    spread = np.quantile(rows["threshold"].to_numpy(), (np.arange(64) + 0.5) / 64)
    accepted = [expit((r - threshold) / constants.ACCEPTANCE_SLOPE) for threshold in spread]
    floor = constants.ACCEPTANCE_FLOOR
    without_tolerance = (floor + (1 - floor) * np.mean(accepted, axis=0)) * attraction

    def auc(score: npt.NDArray[np.float64]) -> float:
        return float(roc_auc_score(clicked, score))

    return {
        "oracle_auc": auc(last["p_click"].to_numpy()),
        "oracle_without_tolerance_auc": auc(examined * without_tolerance),
        "oracle_position_free_auc": auc(last["p_click_given_exam"].to_numpy()),
        "oracle_without_tolerance_position_free_auc": auc(without_tolerance),
        "position_auc": auc(examined),
        "attraction_auc": auc(attraction),
        "relevance_auc": auc(r),
    }


def lexical_figures(tables: Path) -> dict[str, float]:
    """Quadratic kappa and AUC of grade >= 2 of TF-IDF on the judgments, by folds of queries."""
    pairs = pl.read_parquet(tables / "judgments.parquet").join(pl.read_parquet(tables / "items.parquet"), on="item_id")
    vectoriser = TfidfVectorizer(token_pattern=r"\S+").fit(pairs["title"].unique())
    cosine = np.asarray(
        vectoriser.transform(pairs["query"]).multiply(vectoriser.transform(pairs["title"])).sum(axis=1)
    ).ravel()
    queries = pairs["query"].unique().to_list()
    folds = {query: int(hash_fraction("fold", query) * FOLDS) for query in queries}
    fold = pairs["query"].replace_strict(folds).to_numpy()
    grade = pairs["grade"].to_numpy()
    predicted = np.zeros(len(grade))
    for held_out in range(FOLDS):
        rest = fold != held_out
        fitted = IsotonicRegression(out_of_bounds="clip").fit(cosine[rest], grade[rest])
        predicted[~rest] = fitted.predict(cosine[~rest])
    return {
        "lexical_quadratic_kappa": float(cohen_kappa_score(np.rint(predicted).astype(int), grade, weights="quadratic")),
        "lexical_auc_grade_2": float(roc_auc_score(grade >= 2, predicted)),
    }


def main() -> None:
    """Simulate `small` for each seed and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given = parse_options(parser, None, {})
    sizes = {"requests": REQUESTS, **MARKETPLACE} if given.smallest else {}
    print("oracle with tolerances vs oracle without, last day of `small`; medians over seeds", SEEDS)
    runs: list[dict[str, float]] = []
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            statistics = simulate(MarketplaceConfig(seed=seed, **sizes), Path(folder) / "tables")
            seconds = time.perf_counter() - started
            figures = click_figures(Path(folder) / "tables") | lexical_figures(Path(folder) / "tables")
            runs.append({**figures, "ctr": statistics["ctr"], "cold_share": statistics["last_day_cold_share"],
                         "seconds": seconds})  # fmt: skip
        print(f"seed {seed}: " + ", ".join(f"{name} {value:.4f}" for name, value in runs[-1].items()))
    medians = {name: round(float(np.median([run[name] for run in runs])), 4) for name in runs[0]}
    ratio = medians["oracle_auc"] / medians["oracle_without_tolerance_auc"]
    result: dict[str, Any] = {"ratio": round(ratio, 4), **medians, "seeds": list(SEEDS), "data": "simulated"}
    print_result(result, given.smallest)


if __name__ == "__main__":
    main()
