"""Two-variable and one-variable power laws with an offset, fitted so that single bad runs do not bend them.

Minimised over (e, log A, a[, log B, b]): the sum of Huber(log-sum-exp(e, log A - a ln N[, log B - b ln D]) - ln y)
with delta 1e-3, so that residuals above .1 % count linearly. Starts: a, b in {0, .5, 1, 1.5, 2}, e in
{-1, -.5, 0, .5, 1}, log A and log B in {0, 5, ..., 25}; L-BFGS from the `starts` best of them (None: from all,
4,500 for two variables), the best end is kept. Source: "Training Compute-Optimal Large Language Models"
(arXiv:2203.15556), section D.2, with the settings of its replication (arXiv:2404.10102). Descending from the best
60 starts only is our shortcut; the objective is not convex, so the result is a good end and no proven optimum.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np
from scipy import optimize

from tutelage.core.errors import InputError

DELTA = 1e-3


def fit_robust(
    x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray, *, starts: int | None = 60
) -> dict[str, float]:
    """Constants E, A, a (and B, b when x is [n, 2]) of y [n]; raises InputError where x or y is not positive."""
    points = np.asarray(x, dtype=float)
    points = points.reshape(len(points), -1)
    values = np.asarray(y, dtype=float)
    if not (
        (points > 0).all() and (values > 0).all() and np.isfinite(values).all() and len(values) == len(points)
    ):
        raise InputError(
            "a robust fit takes logarithms",
            expected="positive x and y, one x for every y",
            found=f"smallest x {points.min():g}, smallest y {values.min():g}",
        )
    logs, target = np.log(points), np.log(values)
    grid = _starts(points.shape[1])
    if starts is not None:
        first = [_loss(start, logs, target)[0] for start in grid]
        grid = grid[np.argsort(first, kind="stable")[:starts]]
    ends = [
        optimize.minimize(
            _loss, start, args=(logs, target), jac=True, method="L-BFGS-B", options={"maxiter": 1000}
        )
        for start in grid
    ]
    best = min(ends, key=lambda end: end.fun).x
    found = {"E": float(np.exp(best[0]))}
    for number, (name, exponent) in enumerate(_names(points)):
        found |= {name: float(np.exp(best[1 + 2 * number])), exponent: float(best[2 + 2 * number])}
    return found


def predict_robust(constants: dict[str, float], x: Sequence[float] | np.ndarray) -> np.ndarray:
    """[r] values of fitted constants at x ([r] or [r, 2])."""
    points = np.asarray(x, dtype=float)
    points = points.reshape(-1, 2 if "b" in constants else 1)
    values = np.full(len(points), constants["E"])
    for number, (name, exponent) in enumerate(_names(points)):
        values += constants[name] * points[:, number] ** -constants[exponent]
    return values


def _names(points: np.ndarray) -> list[tuple[str, str]]:
    return [("A", "a"), ("B", "b")][: points.shape[1]]


def _starts(variables: int) -> np.ndarray:
    powers, offsets, amounts = np.arange(0, 2.5, 0.5), np.arange(-1, 1.5, 0.5), np.arange(0, 30, 5.0)
    return np.array(list(product(offsets, *([amounts, powers] * variables))))


def _loss(constants: np.ndarray, logs: np.ndarray, target: np.ndarray) -> tuple[float, np.ndarray]:
    """(sum of Huber losses, its gradient)."""
    terms = np.concatenate(
        [np.full((len(logs), 1), constants[0]), constants[1::2] - constants[2::2] * logs], axis=1
    )
    top = terms.max(axis=1, keepdims=True)
    parts = np.exp(terms - top)
    total = parts.sum(axis=1, keepdims=True)
    residual = (top + np.log(total))[:, 0] - target
    size = np.abs(residual)
    loss = np.where(size <= DELTA, residual**2 / 2, DELTA * (size - DELTA / 2)).sum()
    pull = np.clip(residual, -DELTA, DELTA)[:, None] * parts / total
    gradient = np.empty_like(constants)
    gradient[0] = pull[:, 0].sum()
    gradient[1::2] = pull[:, 1:].sum(axis=0)
    gradient[2::2] = -(pull[:, 1:] * logs).sum(axis=0)
    return float(loss), gradient
