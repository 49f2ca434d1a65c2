"""Coverage of two rules that combine the error of users with that of seeds, on simulated differences.

    hypot           sqrt((z e_users)^2 + (t_{s-1} e_seeds)^2)            the rule of `prectr.metrics.comparison`
    Satterthwaite   t_df sqrt(e_users^2 + e_seeds^2),   df = (s - 1) (e_users^2 + e_seeds^2)^2 / e_seeds^4

e_users is the standard error for other users, e_seeds the spread over s seeds divided by sqrt(s); z and t are
quantiles of the normal and of Student's distribution. Errors are normal, and the variance of the mean over seeds is 1:
`share` is the part of it that seeds have. Coverage is the share of the intervals that hold the true difference; 0.95 is
nominal. Width is half of an interval on average. The product computes the first rule, from resamples that are the
quantiles of a normal distribution. The ratio is the least coverage of the first rule over that of the second.

    make bench-intervals
    .venv/bin/python tests/benchmarks/intervals.py --tries 2000
"""

import argparse
from typing import Any

import numpy as np
from _smallest import parse_options, print_result
from scipy.special import ndtri, stdtrit

from prectr.metrics.comparison import DrawnModels, Interval

LEVEL = 0.95
SEEDS = (2, 3, 5, 10)
SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
RESAMPLES = ndtri((np.arange(400) + 0.5) / 400)


def hypot(by_seed: np.ndarray, users_error: float) -> Interval:
    """The interval of the product; `by_seed` are the measured differences, [s]."""
    zeros = np.zeros((len(RESAMPLES), len(by_seed)))
    drawn = DrawnModels(
        {"base": zeros[0], "model": by_seed},
        {"base": zeros, "model": by_seed + users_error * RESAMPLES[:, None]},
    )
    comparison = drawn.figures("base", level=LEVEL)["model"].against_base
    assert comparison is not None
    return comparison.difference.both


def satterthwaite(by_seed: np.ndarray, users_error: float) -> Interval:
    """The interval of the other rule; arguments as `hypot`."""
    of_users, of_seeds = users_error**2, float(by_seed.var(ddof=1)) / len(by_seed)
    both, value = of_users + of_seeds, float(by_seed.mean())
    quantile = (
        stdtrit((len(by_seed) - 1) * (both / of_seeds) ** 2, (1 + LEVEL) / 2) if of_seeds else -ndtri((1 - LEVEL) / 2)
    )
    return Interval(value - float(quantile) * both**0.5, value + float(quantile) * both**0.5)


def coverage(seeds: int, share: float, tries: int, random: np.random.Generator) -> dict[str, float]:
    """Coverage and mean half width of both rules; the true difference is 0."""
    users_error = (1 - share) ** 0.5
    covered, width = {"hypot": 0, "satterthwaite": 0}, {"hypot": 0.0, "satterthwaite": 0.0}
    for _ in range(tries):
        by_seed = random.normal(0, users_error) + random.normal(0, (share * seeds) ** 0.5, seeds)
        for rule in (hypot, satterthwaite):
            interval = rule(by_seed, users_error)
            covered[rule.__name__] += interval.low <= 0 <= interval.high
            width[rule.__name__] += (interval.high - interval.low) / 2
    figures = {f"{rule}_coverage": round(count / tries, 4) for rule, count in covered.items()}
    return figures | {f"{rule}_width": round(total / tries, 3) for rule, total in width.items()}


def main() -> None:
    """Print the table and the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=4_000, help="simulated differences of each line")
    chosen = parse_options(parser, None, {"tries": 20})
    random = np.random.default_rng(1)
    print("seeds  share   hypot  width   Satterthwaite  width")
    lines: list[dict[str, Any]] = []
    for seeds in SEEDS:
        for share in SHARES:
            line = coverage(seeds, share, chosen.tries, random)
            lines.append({"seeds": seeds, "share": share, **line})
            print(
                f"{seeds:5}  {share:5.2f}  {line['hypot_coverage']:.4f}  {line['hypot_width']:5.2f}"
                f"   {line['satterthwaite_coverage']:13.4f}  {line['satterthwaite_width']:5.2f}",
                flush=True,
            )
    least = {rule: min(line[f"{rule}_coverage"] for line in lines) for rule in ("hypot", "satterthwaite")}
    result = {"ratio_of_least_coverage": round(least["hypot"] / least["satterthwaite"], 3), "least_coverage": least}
    print_result(result | {"tries": chosen.tries, "lines": lines}, chosen.smallest)


if __name__ == "__main__":
    main()
