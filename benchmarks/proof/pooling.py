"""What pooling the variance between runs with reruns of the baseline gains, and when it deceives.

10,000 draws of every design. The method's variance between runs is the baseline's times a
factor: the same, drawn anew around it (a factor of two as standard deviation), or four times as large throughout,
which no one knows.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.proof.draws import DRAWS
from benchmarks.proof.simulated import CHUNK, design_of
from tutelage.core.stats import twoway
from tutelage.core.stats.pooled import moderated, seed_prior
from tutelage.core.stats.twoway import Components

SPREAD = 0.2  # of the baseline's runs; an item's own is 1


def rows() -> Iterator[dict[str, Any]]:
    for seeds in (3, 5):
        for reruns in (0, 5, 10, 20):
            for method in ("as stable", "drawn around it", "four times the variance"):
                yield {
                    "test": "two-way t" + (f", {reruns} reruns of the baseline pooled" if reruns else ""),
                    "seeds": seeds,
                    "items": "100 clusters of 4",
                    "method": method,
                    **simulated(seeds, reruns, method),
                }


def simulated(seeds: int, reruns: int, method: str) -> dict[str, Any]:
    design, index = design_of("100 clusters of 4")
    rng = np.random.default_rng([41, seeds, reruns, len(method)])
    t, errors, shares, df = [], [], [], 0.0
    for _ in range(DRAWS // CHUNK):
        ratio = {"as stable": np.ones(CHUNK), "four times the variance": np.full(CHUNK, 4.0)}.get(
            method, np.exp(np.log(2) * rng.standard_normal(CHUNK))
        )
        own = SPREAD * np.sqrt(ratio)[:, None, None] * rng.standard_normal((CHUNK, seeds, 1))
        other = SPREAD * rng.standard_normal((CHUNK, seeds, 1))
        d = own - other + 2**0.5 * rng.standard_normal((CHUNK, seeds, 400))
        d += (0.3 * rng.standard_normal((CHUNK, 1, 100)))[..., index]
        v_s, v_i, v_e = twoway.two_way(d, design)
        df = seeds - 1.0
        if reruns:
            runs = SPREAD * rng.standard_normal((CHUNK, reruns)) + rng.standard_normal((CHUNK, reruns)) / 20
            pooled = [moderated(v, seeds, seed_prior(r)) for v, r in zip(v_s, runs, strict=True)]
            v_s, df = np.array([v for v, _ in pooled]), pooled[0][1]
        between, items = twoway.seed_and_item_parts(v_s, v_i, v_e)
        total = between + items
        t.append(d.mean(axis=(1, 2)) / np.sqrt(total))
        errors.append(np.sqrt(total))
        shares.append(between / total)
    score, error, share = (np.concatenate(part) for part in (t, errors, shares))
    grid = np.linspace(0, 1, 101)
    critical = np.interp(share, grid, twoway.critical_value(grid, df, design.df))
    coarse = np.linspace(0, 1, 26)
    stated = [twoway.detectable_effect(Components(w, 1 - w, 0.0, df, design.df)) for w in coarse]
    effect = float((np.interp(share, coarse, stated) * error).mean())
    return {
        "df_seeds": round(df, 2),
        "t_needed": round(float(stats.t.isf(0.025, df)), 2),
        "false_better": float((score > critical).mean()),
        "false_worse": float((score < -critical).mean()),
        "coverage": float((np.abs(score) <= critical).mean()),
        "power": float((score + effect / error > critical).mean()),
        "effect": effect,
    }
