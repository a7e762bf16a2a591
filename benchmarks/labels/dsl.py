"""Whether intervals from machine labels and few gold ones cover what they promise, over simulated studies.

A study: N rows with a covariate x, P(y = 1 | x) logistic; a machine that calls a quarter of the negatives
positive and more of them the larger x is, which biases the mean and the logistic coefficient from its labels
alone, and the linear coefficient hardly; gold labels for a random tenth. Covered is the true value, not that of
the sample. Beside evaluation.dsl: the gold labels alone, and the machine's labels taken at face value. All
estimates see the same studies."""

import warnings
from typing import Any

import numpy as np
from scipy import special

from tutelage.core.dataset import Dataset
from tutelage.core.stats.intervals import wilson
from tutelage.evaluation.dsl import Dsl

STUDIES, ROWS, GOLD = 500, 2000, 200
ESTIMANDS: dict[str, dict[str, Any]] = {
    "mean": {},
    "linear": {"estimand": "linear", "covariates": ("x",)},
    "logistic": {"estimand": "logistic", "covariates": ("x",)},
}


def study(seed: int) -> Dataset:
    """One drawn population with its machine labels and gold sample."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=ROWS)
    y = rng.random(ROWS) < special.expit(0.3 + 0.8 * x)
    wrong = ~y & (rng.random(ROWS) < 0.5 * special.expit(x))
    drawn = np.isin(np.arange(ROWS), rng.choice(ROWS, GOLD, replace=False))
    return Dataset.from_rows(
        {
            "id": f"r{i}",
            "label": float(y[i]) if drawn[i] else None,
            "teacher_label": float(y[i] or wrong[i]),
            "inclusion": GOLD / ROWS,
            "x": float(x[i]),
        }
        for i in range(ROWS)
    )


def truths() -> dict[str, float]:
    """The true values, by integration over x."""
    points, weights = np.polynomial.hermite_e.hermegauss(200)
    weights = weights / weights.sum()
    p = special.expit(0.3 + 0.8 * points)
    return {"mean": float(weights @ p), "linear": float(weights @ (points * p)), "logistic": 0.8}


def dsl() -> dict[str, Any]:
    """The section `dsl` of the benchmark of labels: coverage, error and width of every estimate."""
    found: dict[str, Any] = {"studies": STUDIES, "rows": ROWS, "gold": GOLD, "level": 0.95}
    # The forest is fitted 5 times a study rather than 50: what it costs is time, and its coverage is the question.
    learners: dict[str, dict[str, Any]] = {
        "linear": {"learner": "linear"},
        "forest": {"learner": "forest", "splits": 1},
    }
    for learner, fields in learners.items():
        for name, estimand in ESTIMANDS.items():
            if learner == "forest" and name != "mean":
                continue
            found[f"{name}, {learner} g"] = _coverage(Dsl(**{"splits": 10, **fields, **estimand}), truths()[name])
    return found


def _coverage(task: Dsl, truth: float) -> dict[str, Any]:
    estimates: dict[str, list[tuple[float, float]]] = {"dsl": [], "gold_only": [], "machine_only": []}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for seed in range(STUDIES):
            result = task.evaluate(None, study(seed), {})
            estimates["dsl"].append((result.estimate, result.extra["se"]))
            for name in ("gold_only", "machine_only"):
                estimates[name].append((result.extra[name], result.extra[f"{name}_se"]))
    rows = {}
    for name, pairs in estimates.items():
        value, error = np.array(pairs).T
        covered = int((np.abs(value - truth) <= 1.959964 * error).sum())
        interval = wilson(covered, STUDIES)
        rows[name] = {
            "coverage": covered / STUDIES,
            "coverage_interval": [round(interval.lo, 4), round(interval.hi, 4)],
            "bias": round(float(value.mean() - truth), 5),
            "rmse": round(float(np.sqrt(((value - truth) ** 2).mean())), 5),
            "mean_width": round(float(2 * 1.959964 * error.mean()), 5),
        }
    return {"truth": round(truth, 5), **rows}
