"""Seed variance borrowed from reruns of the baseline: a moderated t for comparisons with few seeds.

Three seeds leave 2 degrees of freedom for the variance between runs, and t must exceed 4.3. A bed whose baseline
was run K more times knows more: with v the variance of those runs' mean scores, a difference of R paired runs has
the prior variance s0^2 = 2 v / R, and

    V_s* = (d0 s0^2 + (R - 1) V_s) / (d0 + R - 1)     with d0 + R - 1 degrees of freedom

takes the place of V_s in the two-way t (`twoway`). d0 says how far the baseline speaks for the method:

    trigamma(d0 / 2) = trigamma((K - 1) / 2) + tau^2,   tau = ln 2

The first term is how well K runs know v, tau how far the variance of another method lies from it: a standard
deviation of a factor of two, our own choice, which keeps d0 below 5.1 however many reruns there are. Runs in the
comparison are no reruns. Not for a method that is known to be less stable than the baseline: its
variance would be underestimated, and claims become too easy (measured in benchmarks/results/statistics.json).

Source: "Linear Models and Empirical Bayes Methods for Assessing Differential Expression in Microarray Experiments"
(Smyth 2004), whose prior comes from thousands of genes; the rule for d0 is ours.
"""

import numpy as np
from scipy import optimize, special

from tutelage.core.errors import ComparisonError
from tutelage.core.records import Record

MIN_RERUNS = 5
TAU = float(np.log(2.0))


class SeedPrior(Record):
    """What reruns of a baseline say: `variance` between the mean scores of runs, worth `df` degrees of freedom."""

    variance: float
    df: float
    runs: int


def seed_prior(run_means: np.ndarray, tau: float = TAU) -> SeedPrior:
    """The prior from the mean scores [K] of baseline runs outside the comparison; K of at least five.

    `tau` is the standard deviation of the log of the ratio between a method's and the baseline's variance.
    """
    runs = len(run_means)
    if runs < MIN_RERUNS:
        raise ComparisonError(
            "too few reruns of the baseline to pool their variance",
            expected=f"at least {MIN_RERUNS} runs that take no part in the comparison",
            found=runs,
            remedy="run the baseline with more seeds, or compare without pooling",
        )
    variance = float(np.var(run_means, ddof=1))
    if not np.isfinite(variance) or variance <= 0:
        raise ComparisonError("the reruns of the baseline do not differ", found=f"variance {variance:g}")
    spread = float(special.polygamma(1, (runs - 1) / 2)) + tau**2

    def excess(log_half: float) -> float:
        return float(special.polygamma(1, np.exp(log_half))) - spread

    return SeedPrior(variance=variance, df=2 * float(np.exp(optimize.brentq(excess, -7, 7))), runs=runs)


def moderated(v_s: np.ndarray, seeds: int, prior: SeedPrior) -> tuple[np.ndarray, float]:
    """(V_s*, its degrees of freedom) from V_s ([...]) of `seeds` paired runs."""
    own = seeds - 1.0
    before = 2 * prior.variance / seeds
    return (prior.df * before + own * np.asarray(v_s)) / (prior.df + own), prior.df + own
