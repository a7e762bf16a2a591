"""Curves with few parameters, fitted to few points, with intervals that hold for few points.

For points x [n, d] (d = 1; size and data for two-variable forms) and y [n], direction-aware:
  power3      y = E + A x^-a                    losses; A, E >= 0
  sat3        y = c - b x^-a                    scores; b >= 0, c <= upper
  power2      y = A x^-a
  loglin      y = u + v ln x
  loglaw      y = (ln(A x^a))^b                 only where A x^a > 1
  twovar      y = E + A N^-a + B D^-b
  trajectory  y = A N^-a + B S^-b               with A = Nc^a and B = Sc^b
  loglog      ln y = u + v ln x                 the straight line, a baseline
  last        the mean of y at the largest x    the other baseline

Separable least squares: on a grid of exponents (.02, .03, ..., 1.20; pairs of every third for two variables) the
linear part is solved exactly with its signs, the best cell is refined (bounded search, or a simplex for pairs). No
starting values, no local minima between cells. Residuals are weighted by 1/se, or by 1/|y| (relative errors,
floored at a tenth of the median |y|).

Interval of a linear functional P of the linear part (a value at x*, or a gain between two x): for every exponent
the residual sum is a quadratic in P, so the profile is the union over the grid of
{P: RSS(P) <= RSS_min (1 + F_{level;1,n-p} / (n-p))}, p all parameters. It covers the noise of the points about the
curve, never the choice of the form. `new=True` adds the noise of one new point at x*.
Sources: variable projection (Golub and Pereyra 1973); the forms: arXiv:2001.08361, arXiv:2203.15556,
arXiv:2402.04177. Profile instead of bootstrap: with 5 to 8 points percentile bootstraps cover 80 to 90 %.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
from scipy import optimize, stats

from tutelage.core.errors import InputError

EXPONENTS = np.arange(2, 121) / 100
PAIRS = np.array(list(product(EXPONENTS[::3], EXPONENTS[::3])))
# Closer looks at where pairs of exponents fit, at most; exponents of each kind in one; pairs that are enough.
ZOOMS, FINE, ENOUGH = 8, 25, 60
FormName = Literal["power3", "sat3", "power2", "loglin", "loglaw", "twovar", "trajectory", "loglog", "last"]
FORMULAS = {
    "power3": "E + A x^-a",
    "sat3": "c - b x^-a",
    "power2": "A x^-a",
    "loglin": "u + v ln x",
    "loglaw": "(ln(A x^a))^b",
    "twovar": "E + A N^-a + B D^-b",
    "trajectory": "A N^-a + B S^-b",
    "loglog": "exp(u) x^v",
    "last": "last value",
}


@dataclass(frozen=True)
class _Form:
    """How a form is solved: `columns(theta [m, q], z [r, d]) -> [m, r, k]` with z = x / smallest x; `free` columns
    may have either sign."""

    grid: np.ndarray
    columns: Callable[[np.ndarray, np.ndarray], np.ndarray]
    free: tuple[bool, ...]
    variables: int = 1


def _powers(theta: np.ndarray, z: np.ndarray) -> np.ndarray:
    return np.exp(-theta[:, None, :] * np.log(z)[None])  # an infinite z gives 0


def _with_constant(columns: np.ndarray) -> np.ndarray:
    return np.concatenate([np.ones((*columns.shape[:2], 1)), columns], axis=2)


def _log_line(theta: np.ndarray, z: np.ndarray) -> np.ndarray:
    return np.broadcast_to(np.stack([np.ones(len(z)), np.log(z[:, 0])], axis=1), (len(theta), len(z), 2))


def _log_power(theta: np.ndarray, z: np.ndarray) -> np.ndarray:
    # s (t + ln z)^b, which is (ln(A x^a))^b with a = s^(1/b); t > 0 keeps A x^a > 1 at the smallest x.
    return ((theta[:, 0, None] + np.log(z[:, 0])) ** theta[:, 1, None])[:, :, None]


_ONE = EXPONENTS[:, None]
_NONE = np.zeros((1, 0))
_LOG_GRID = np.array(list(product(np.geomspace(0.01, 100, 41), np.geomspace(0.1, 8, 39))))
_FORMS = {
    "power3": _Form(_ONE, lambda t, z: _with_constant(_powers(t, z)), (False, False)),
    "sat3": _Form(_ONE, lambda t, z: _with_constant(_powers(t, z)), (False, False)),
    "power2": _Form(_ONE, _powers, (False,)),
    "loglin": _Form(_NONE, _log_line, (True, True)),
    "loglog": _Form(_NONE, _log_line, (True, True)),
    "loglaw": _Form(_LOG_GRID, _log_power, (False,)),
    "twovar": _Form(PAIRS, lambda t, z: _with_constant(_powers(t, z)), (False, False, False), 2),
    "trajectory": _Form(PAIRS, _powers, (False, False), 2),
    "last": _Form(_NONE, lambda t, z: np.ones((len(t), len(z), 1)), (True,)),
}


@dataclass(frozen=True)
class Fit:
    """A fitted curve. `theta` are its exponents, `beta` its linear part over z = x / `scale`; `flat`: no change
    with x was found, so that no exponent is identified; `edge`: an exponent lies at the end of the grid."""

    form: FormName
    x: np.ndarray
    y: np.ndarray
    weights: np.ndarray
    scale: np.ndarray
    upper: float | None
    theta: np.ndarray
    beta: np.ndarray
    rss: float
    flat: bool
    edge: bool

    @property
    def n_parameters(self) -> int:
        return len(self.theta) + len(self.beta)

    @property
    def df(self) -> int:
        """Points minus parameters; no interval without any."""
        return len(self.y) - self.n_parameters

    @property
    def parameters(self) -> dict[str, float]:
        """The constants as the formula writes them, in the units of x."""
        beta, theta, scale = self.beta, self.theta, self.scale
        with np.errstate(over="ignore"):
            if self.form in ("loglin", "loglog"):
                return {"u": float(beta[0] - beta[1] * np.log(scale[0])), "v": float(beta[1])}
            if self.form == "last":
                return {"value": float(beta[0])}
            if self.form == "loglaw":
                t, b = theta
                a = float(beta[0] ** (1 / b))
                return {"A": float(np.exp(a * (t - np.log(scale[0])))), "a": a, "b": float(b)}
            amounts = beta[-len(theta) :] * scale**theta
        if self.form == "sat3":
            return {"c": float(self._back(beta[0])), "b": float(amounts[0]), "a": float(theta[0])}
        found = {"E": float(beta[0])} if len(beta) > len(theta) else {}
        for name, exponent, amount, power in zip("AB", "ab", amounts, theta):
            found |= {name: float(amount), exponent: float(power)}
        return found

    def predict(self, x: float | Sequence[float] | np.ndarray) -> np.ndarray:
        """[r] values at x ([r], or [r, 2] for two-variable forms); x may be infinite where there is a limit."""
        rows = _FORMS[self.form].columns(self.theta[None], self._z(x))[0]
        return self._back(rows @ self.beta)

    def interval(self, x: float | Sequence[float], level: float = 0.95, new: bool = False) -> tuple[float, float]:
        """Profile interval of the value at one x (with `new`, of one more point measured there)."""
        value = float(self.predict(x)[0])
        noise = self._noise(value) if new else 0.0
        lo, hi = self._profile(self._z(x), None, noise, level)
        found = self._back(np.array([lo, hi]))
        lo, hi = min(float(found.min()), value), max(float(found.max()), value)
        if self.form in ("power3", "power2", "twovar", "trajectory", "loglaw"):
            lo = max(lo, 0.0)
        if self.form == "sat3" and self.upper is not None:
            hi = min(hi, self.upper)
        return lo, hi

    def gain(self, start: float, end: float, level: float = 0.95) -> tuple[float, float, float]:
        """(change of y from `start` to `end`, lower, upper bound), both on the curve; `end` may be infinite."""
        sign = -1.0 if self.form == "sat3" else 1.0
        value = float(np.diff(self.predict([start, end]))[0])
        lo, hi = self._profile(self._z(end), self._z(start), 0.0, level)
        bounds = sorted((sign * lo, sign * hi))
        return value, min(bounds[0], value), max(bounds[1], value)

    @property
    def _variables(self) -> int:
        return _FORMS[self.form].variables

    def _z(self, x: float | Sequence[float] | np.ndarray) -> np.ndarray:
        return np.asarray(x, dtype=float).reshape(-1, self._variables) / self.scale

    def _back(self, values: np.ndarray) -> np.ndarray:
        if self.form == "loglog":
            return np.exp(values)
        return values if self.form != "sat3" else (self.upper or 0.0) - values

    def _noise(self, value: float) -> float:
        # Residual variance of a new point relative to that of the weighted residuals.
        typical = np.median(1 / self.weights)
        relative = np.median(1 / (self.weights * np.maximum(np.abs(self.y), 1e-300)))
        return float(typical**2 if self.form == "loglog" else min(typical, relative * abs(value)) ** 2)

    def _profile(self, z: np.ndarray, minus: np.ndarray | None, noise: float, level: float) -> tuple[float, float]:
        """Bounds of row . beta, row = columns(z) - columns(minus), in the units of the linear part."""
        if self.df < 1:
            return -np.inf, np.inf
        grid = _FORMS[self.form].grid
        pairs = len(self.theta) == 2
        low, high = grid.min(axis=0), grid.max(axis=0)
        theta = grid if not len(self.theta) else np.linspace(low, high, 4 * (len(EXPONENTS) - 1) + 1)
        factor = 1 + stats.f.ppf(level, 1, self.df) / self.df
        for _ in range(ZOOMS if pairs else 1):
            if pairs:
                theta = np.array(list(product(*(np.geomspace(a, b, FINE) for a, b in zip(low, high)))))
            theta = np.concatenate([self.theta[None], theta])
            rss, value, variance = self._quadratics(theta, z, minus)
            limit = rss.min() * factor
            inside = rss <= limit
            if inside.sum() >= ENOUGH:
                break
            # Pairs of exponents trade off along a narrow ridge: look closer, one step around where it runs.
            step = (high / low) ** (1 / (FINE - 1))
            low, high = theta[inside].min(axis=0) / step, theta[inside].max(axis=0) * step
            low, high = np.maximum(low, grid.min(axis=0)), np.minimum(high, grid.max(axis=0))
        half = np.sqrt(np.maximum(limit - rss, 0.0) * (variance + noise))
        return float((value - half)[inside].min()), float((value + half)[inside].max())

    def _quadratics(
        self, theta: np.ndarray, z: np.ndarray, minus: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For each row of exponents [m]: RSS_min, and value and unscaled variance of the functional."""
        columns = _FORMS[self.form].columns
        design = columns(theta, self.x / self.scale) * self.weights[:, None]
        row = columns(theta, z)[:, 0]
        row = row if minus is None else row - columns(theta, minus)[:, 0]
        target = _target(self.form, self.y, self.upper) * self.weights
        size = np.sqrt((design**2).sum(axis=1))
        scaled, row = design / size[:, None], row / size
        inverse = np.linalg.pinv(scaled)  # [m, k, n]
        beta = inverse @ target
        rss = ((target - np.einsum("mnk,mk->mn", scaled, beta)) ** 2).sum(axis=1)
        return rss, (row * beta).sum(axis=1), (np.einsum("mk,mkn->mn", row, inverse) ** 2).sum(axis=1)


def fit_curve(
    form: FormName,
    x: Sequence[float] | np.ndarray,
    y: Sequence[float] | np.ndarray,
    *,
    se: Sequence[float] | np.ndarray | None = None,
    upper: float | None = 1.0,
) -> Fit:
    """Fit `form` to points; x [n] or [n, 2], positive. `upper` bounds the asymptote of `sat3` (None: no bound).

    Raises InputError for values that are no positive or finite numbers, or above `upper`.
    """
    known = _FORMS[form]
    points = np.asarray(x, dtype=float).reshape(-1, known.variables)
    values = np.asarray(y, dtype=float)
    if len(points) != len(values) or not len(values):
        raise InputError("no curve", expected="one x for every y", found=f"{len(points)} x, {len(values)} y")
    bad = ~(np.isfinite(points).all(axis=1) & (points > 0).all(axis=1) & np.isfinite(values))
    if form in ("loglog", "loglaw", "power2"):
        bad |= values <= 0
    if form == "sat3" and upper is not None:
        bad |= values > upper
    if bad.any():
        number = int(np.flatnonzero(bad)[0])
        raise InputError(
            f"a point cannot be on a curve of the form {FORMULAS[form]}",
            where=f"point {number + 1}",
            expected="positive x, finite y" + (f" up to {upper:g}" if form == "sat3" and upper else ""),
            found=f"x = {points[number].tolist()}, y = {values[number]}",
            remedy="set `upper` to the best score there can be" if form == "sat3" else "choose another form",
        )
    if form == "last":
        kept = points[:, 0] == points[:, 0].max()
        points, values = points[kept], values[kept]
        se = None if se is None else np.asarray(se, dtype=float)[kept]
    weights = _weights(values, se, form)
    scale = points.min(axis=0)
    target = _target(form, values, upper)
    free = (True, False) if form == "sat3" and upper is None else known.free

    def solved(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return _solve(known.columns(theta, points / scale), target, weights, free)

    beta, rss = solved(known.grid)
    best = int(rss.argmin())
    theta = known.grid[best]
    if len(theta):
        theta = _refine(lambda one: float(solved(one[None])[1][0]), theta, known.grid)
    beta, rss = solved(theta[None])
    slopes = beta[0][-len(theta) :] if len(theta) and form != "loglaw" else beta[0][1:]
    steady = float(np.ptp(values)) <= 1e-9 * float(np.abs(values).max())
    flat = form != "last" and (steady or (form not in ("power2", "loglaw") and not slopes.any()))
    edge = (
        bool(len(theta))
        and not flat
        and bool((np.isclose(theta, known.grid.min(axis=0)) | np.isclose(theta, known.grid.max(axis=0))).any())
    )
    return Fit(form, points, values, weights, scale, upper, theta, beta[0], float(rss[0]), bool(flat), edge)


def _target(form: str, y: np.ndarray, upper: float | None) -> np.ndarray:
    if form == "loglog":
        return np.log(y)
    return y if form != "sat3" else (upper or 0.0) - y


def _weights(y: np.ndarray, se: Sequence[float] | np.ndarray | None, form: str) -> np.ndarray:
    if form == "loglog":
        return np.ones(len(y))  # errors of logarithms are relative already
    if se is not None:
        errors = np.asarray(se, dtype=float)
        if not (np.isfinite(errors).all() and (errors > 0).all() and len(errors) == len(y)):
            raise InputError(
                "a standard error is not usable",
                expected="a positive number for every point",
                found=errors.tolist()[:8],
                remedy="leave them all out to weigh by relative errors",
            )
        return 1 / errors
    size = np.abs(y)
    return 1 / np.maximum(np.maximum(size, 0.1 * np.median(size)), 1e-12)


def _solve(
    columns: np.ndarray, y: np.ndarray, weights: np.ndarray, free: tuple[bool, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Least squares with signs for every row of exponents: ([m, k], [m] residual sums). The optimum is the best
    of the unsigned solutions on all subsets of columns that keep their signs."""
    m, _, k = columns.shape
    design, target = columns * weights[:, None], y * weights
    size = np.sqrt((design**2).sum(axis=1))
    design = design / size[:, None]
    if m == 1:
        # One row of exponents: active sets; a free column is the difference of two signed ones.
        signs = np.concatenate([np.eye(k), -np.eye(k)[:, np.flatnonzero(free)]], axis=1)
        found, norm = optimize.nnls(design[0] @ signs, target)
        return (signs @ found)[None] / size, np.array([norm**2])
    best, rss = np.zeros((m, k)), np.full(m, np.inf)
    for subset in product((True, False), repeat=k):
        used = [j for j in range(k) if subset[j]]
        if any(f and j not in used for j, f in enumerate(free)):
            continue
        beta = np.zeros((m, k))
        if used:
            beta[:, used] = np.linalg.pinv(design[:, :, used]) @ target
        found = ((target - np.einsum("mnk,mk->mn", design, beta)) ** 2).sum(axis=1)
        signed = np.array([not f for f in free])
        better = (found < rss) & (beta[:, signed] >= 0).all(axis=1)
        best[better], rss[better] = beta[better], found[better]
    return best / size, rss


def _refine(loss: Callable[[np.ndarray], float], start: np.ndarray, grid: np.ndarray) -> np.ndarray:
    low, high = grid.min(axis=0), grid.max(axis=0)
    if len(start) == 1:
        step = EXPONENTS[1] - EXPONENTS[0]
        bounds = (max(low[0], start[0] - step), min(high[0], start[0] + step))
        found = optimize.minimize_scalar(
            lambda a: loss(np.array([a])), bounds=bounds, method="bounded", options={"xatol": 1e-10}
        )
        better = np.array([found.x]) if found.fun < loss(start) else start
        return better
    # Residuals of rounding size end the search of an exact curve; a noisy one is flat long before that.
    options = {
        "initial_simplex": np.array([start, start * [1.05, 1.0], start * [1.0, 1.05]]),
        "xatol": 1e-7,
        "fatol": 1e-12 * loss(start),
        "maxiter": 600,
    }
    found = optimize.minimize(loss, start, method="Nelder-Mead", bounds=list(zip(low, high)), options=options)
    return found.x if found.fun < loss(start) else start
