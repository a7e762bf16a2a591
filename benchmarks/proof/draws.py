"""What the simulated and the real reruns share: from many draws of a comparison to the rates that are promised.

A draw is a comparison of a method with itself: its mean difference and the two variances the library makes of it.
All rates are of the library's own functions. `power` is the share of draws that find the mean smallest detectable
effect that the library states in these very draws, planted by adding it.
"""

from typing import Any

import numpy as np

from tutelage.core.stats import twoway
from tutelage.core.stats.twoway import Components

DRAWS = 10_000
# What is promised: false "better" at the two-sided 5 % level, coverage of the 95 % interval, power at the effect.
BETTER, COVERAGE, POWER = (0.021, 0.029), (0.942, 0.958), (0.77, 0.83)


def rates(
    mean: np.ndarray, seeds: np.ndarray, items: np.ndarray, df_seeds: float, df_items: float | np.ndarray
) -> dict[str, Any]:
    """The promised rates of [draws] mean differences with their variance parts over seeds and over items.

    `df_items` may differ from draw to draw: it is then taken to the nearest whole number.
    """
    total = seeds + items
    live = total > 0
    error = np.sqrt(np.where(live, total, 1.0))
    share = np.where(live, seeds, 0.0) / error**2
    at_5, at_10, stated = np.empty(len(mean)), np.empty(len(mean)), np.empty(len(mean))
    whole = np.full(len(mean), df_items) if np.ndim(df_items) == 0 else np.round(df_items)
    grid, coarse = np.linspace(0, 1, 101), np.linspace(0, 1, 26)
    for df in np.unique(whole):
        here = whole == df
        for level, into in ((0.05, at_5), (0.10, at_10)):
            into[here] = np.interp(share[here], grid, twoway.critical_value(grid, df_seeds, df, level))
        found = [twoway.detectable_effect(Components(w, 1 - w, 0.0, df_seeds, df)) for w in coarse]
        stated[here] = np.interp(share[here], coarse, found)
    effect = float((stated * error).mean())
    # No variance at all gives no interval and no verdict: it can claim nothing.
    t, planted = np.where(live, mean / error, 0.0), np.where(live, (mean + effect) / error, 0.0)
    rate = {
        "false_better": (t > at_5).mean(),
        "false_worse": (t < -at_5).mean(),
        "coverage": (np.abs(t) <= at_5).mean(),
        "power": (planted > at_5).mean(),
        "false_no_harm": (t > at_10).mean(),
        "effect": effect,
    }
    return {name: round(float(value), 5) for name, value in rate.items()}


def kept(row: dict[str, Any]) -> dict[str, bool]:
    """Which of the promises a row keeps; both tails of a comparison with itself estimate one rate, those of two
    recipes do not."""
    found = {}
    if "false_better" in row:
        tails = [row["false_better"], row.get("false_worse", row["false_better"])]
        tails = tails if row.get("against") == "short" else [sum(tails) / 2]
        found["false_better"] = all(BETTER[0] <= tail <= BETTER[1] for tail in tails)
    if "coverage" in row:
        found["coverage"] = COVERAGE[0] <= row["coverage"] <= COVERAGE[1]
    if "power" in row:
        found["power"] = POWER[0] <= row["power"] <= POWER[1]
    return found
