"""Seconds that metrics and their bootstrap take, one process, random data with tied scores.

    figure               rows   what
    auc                  5 M    one model
    gauc                 5 M    400 k users numbered by integers; asked for: under 2 s
    gauc_of_texts        5 M    the same users as texts
    ndcg, mrr, coverage  5 M    in 200 k lists
    bootstrap            200 k  1,000 resamples of 20 k users, AUC and GAUC of 2 models, paired

Best of `--rounds`, wall and processor seconds (which depend less on what else the machine does). Beside it,
scikit-learn's AUC of the same rows, with which ours is compared, and GAUC is compared with scikit-learn's AUC of the
first users one by one. The ratio is scikit-learn's time for an AUC over ours.

    make bench-metrics
    .venv/bin/python tests/benchmarks/metrics.py --rows 100000 --rounds 1
"""

import argparse
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from _smallest import parse_options, print_result
from sklearn.metrics import roc_auc_score

from prectr.metrics import auc, coverage, group_auc, mean_reciprocal_rank, ndcg
from prectr.metrics.bootstrap import UserRows
from prectr.metrics.comparison import compare

CLICK_RATE = 0.04
COMPARED_USERS = 300


def rows_of_users(rows: int, users: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """User (a few with many rows), label and score (of a thousand values, so that some tie) of random rows."""
    random = np.random.default_rng(seed)
    user = np.r_[np.arange(users), random.integers(users, size=rows - users) * random.random(rows - users) ** 0.5]
    user = random.permutation(user.astype(np.int64))
    clicked = random.random(rows) < CLICK_RATE
    return user, clicked, np.round(random.normal(size=rows) + clicked, 3)


def best(work: Callable[[], Any], rounds: int) -> dict[str, float]:
    """The least wall and processor seconds of some runs."""
    runs = []
    for _ in range(rounds):
        started, cpu = time.perf_counter(), time.process_time()
        work()
        runs.append((time.perf_counter() - started, time.process_time() - cpu))
    return {name: round(min(of_runs), 3) for name, of_runs in zip(("seconds", "cpu_seconds"), zip(*runs))}


def check(user: np.ndarray, clicked: np.ndarray, score: np.ndarray) -> None:
    """Refuse to time what is wrong.

    Raises:
        SystemExit: a figure differs from scikit-learn's.
    """
    kept = np.isin(user, np.arange(COMPARED_USERS))
    user, clicked_kept, score_kept = user[kept], clicked[kept], score[kept]
    areas, weights = [], []
    for number in range(COMPARED_USERS):
        own = user == number
        if 0 < clicked_kept[own].sum() < own.sum():
            areas.append(roc_auc_score(clicked_kept[own], score_kept[own]))
            weights.append(own.sum())
    pairs = {
        "AUC": (auc(clicked, score), roc_auc_score(clicked, score)),
        "GAUC": (group_auc(user, clicked_kept, score_kept).value, np.average(areas, weights=weights)),
    }
    for name, (ours, theirs) in pairs.items():
        if abs(ours - theirs) > 1e-9:
            raise SystemExit(f"{name}: {ours} is not scikit-learn's {theirs}.")


def main() -> None:
    """Time everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--bootstrap-rows", type=int, default=200_000)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parse_options(parser, None, {"rows": 20_000, "bootstrap_rows": 2_000, "resamples": 20, "rounds": 1})
    rows, users, lists = chosen.rows, max(chosen.rows * 2 // 25, COMPARED_USERS), max(chosen.rows // 25, 1)
    user, clicked, score = rows_of_users(rows, users, seed=1)
    check(user, clicked, score)
    text = np.char.add("user-", user.astype(str)).astype(object)
    of_list, grade = user % lists, np.random.default_rng(2).integers(0, 4, rows)
    work: dict[str, Callable[[], Any]] = {
        "auc": lambda: auc(clicked, score),
        "scikit_learn_auc": lambda: roc_auc_score(clicked, score),
        "gauc": lambda: group_auc(user, clicked, score),
        "gauc_of_texts": lambda: group_auc(text, clicked, score),
        "ndcg": lambda: ndcg(of_list, grade, score, 10),
        "mrr": lambda: mean_reciprocal_rank(of_list, grade >= 2, score),
        "coverage": lambda: coverage(of_list, user, grade >= 2, score),
    }
    took = {name: best(one, chosen.rounds) for name, one in work.items()}

    drawn_user, drawn_clicked, model = rows_of_users(chosen.bootstrap_rows, chosen.bootstrap_rows // 10, seed=3)
    base = model + np.random.default_rng(4).normal(size=len(model))
    sample = UserRows(drawn_user, drawn_clicked)

    def bootstrap(metric: str) -> dict[str, float]:
        measure = getattr(sample, metric)
        return best(lambda: compare(measure, sample.users, [model], [base], resamples=chosen.resamples), chosen.rounds)

    took |= {f"bootstrap_{metric}": bootstrap(metric) for metric in ("auc", "gauc")}
    result = {
        "ratio": round(took["scikit_learn_auc"]["seconds"] / max(took["auc"]["seconds"], 0.001), 2),
        "rows": rows,
        "users": users,
        "bootstrap_rows": chosen.bootstrap_rows,
        "bootstrap_users": sample.users,
        "resamples": chosen.resamples,
        "rounds": chosen.rounds,
        "took": took,
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }
    print_result(result, chosen.smallest)


if __name__ == "__main__":
    main()
