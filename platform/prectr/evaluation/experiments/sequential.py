"""Bounds that hold however often one looks: a confidence sequence of a normal mixture.

    |D_N - D| <= SE_N sqrt((1 + x) / x * ln((1 + x) / alpha^2)),   x = N rho^2     for all N at once
    rho^2     = (ln(1 - 2 ln alpha) - 2 ln alpha) / N*                              tightest near N*

| symbol | variable |
|---|---|
| D_N, SE_N | estimate and standard error after N users |
| N* | `tightest_at`, ExperimentConfig.sequential_users |
| alpha | 1 - `level` |

It is the mixture of Robbins (1970) in its asymptotic form: Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas,
"Time-uniform central limit theory and asymptotic confidence sequences", 2021, equations 9 and 161 of version 7. It
assumes that looks see more users, each complete. Where the same users come again and N stands still, the bound is a
multiple of SE that is at least 3.03 for alpha = 5 %; then looks may go on until the variance of the summed outcomes is
about 50 times that of the first look [ours, from the boundary crossing of Brownian motion], and further where users
differ for good, because then their days agree.
"""

from typing import Any

import numpy as np


def tuning(tightest_at: float, level: float) -> float:
    """rho^2."""
    alpha = 1.0 - level
    return float((np.log(1.0 - 2.0 * np.log(alpha)) - 2.0 * np.log(alpha)) / tightest_at)


def always_valid_reach(standard_error: Any, users: Any, level: float, tightest_at: float) -> Any:
    """Half the width of the bounds after so many users; arrays allowed, one look an element."""
    time = np.asarray(users, float) * tuning(tightest_at, level)
    alpha = 1.0 - level
    with np.errstate(divide="ignore", invalid="ignore"):
        return (standard_error * np.sqrt((1.0 + time) / time * np.log((1.0 + time) / alpha**2)))[()]
