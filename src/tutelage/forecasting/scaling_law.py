"""The loss of a larger run from a ladder of small ones, and how to split its compute.

Rows (N, D, loss): N parameters without embeddings, D tokens (or steps S), all from one setup and one learning-rate
phase, at four sizes or more. Forms: `twovar` L = E + A/N^a + B/D^b; `trajectory` L = (Nc/N)^aN + (Sc/S)^aS;
`power2` A N^-a and `power3` E + A N^-a over N alone, for one run a size (at convergence, or at equal tokens per
parameter). Leave-largest-out decides between the two-variable forms: each size is predicted from the smaller
ones, beside the next smaller run and a straight line in logs through runs of like tokens per parameter. For
C = 6 N D the optimum of `twovar` is N* = (a A / (b B))^(1/(a+b)) (C/6)^(b/(a+b)). With runs at several batch sizes
to one loss, S = S_min + E_min / B gives the critical batch E_min / S_min. The extrapolation ratio is the larger of
those of N and of N D. Forms: arXiv:2001.08361 and arXiv:2203.15556; the ladder follows the paper below, the joint
fit and leave-largest-out are ours. Constants hold for one setup and are never carried to another.
"""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from tutelage.core.curve import BackTest, Curve, curve_of
from tutelage.core.errors import InputError
from tutelage.core.method import Forecaster, Inputs, State
from tutelage.core.stats.backtest import Held, straight_line, summarised
from tutelage.core.stats.curves import FormName, fit_curve
from tutelage.core.stats.robust_curves import fit_robust, predict_robust
from tutelage.forecasting._shared import LEVEL, check_reach, result_of, shown, table

if TYPE_CHECKING:
    from tutelage.core.dataset import Dataset
    from tutelage.core.records import Result

CARD = {
    "name": "forecasting.scaling_law",
    "paper": {
        "title": "Unraveling the Mystery of Scaling Laws: Part I",
        "identifier": "arXiv:2403.06563",
    },
    "summary": "Loss of a larger run from a ladder of small ones, and the best split of its compute.",
    "reads": ["{size}", "{data}", "{y}", "phase?", "run?"],
    "inputs": {"batches?": "runs to one loss at several batch sizes: columns batch, steps"},
    "cost": "statistics only; plan the ladder for a tenth of the run that it foresees",
    "baseline": "forecasting.learning_curve",
    "headline": "1M to 60M models foresee up to 33B, the paper reports; here one size is always held out",
    "version": 1,
}

MIN_SIZES, MIN_KNOWN = 4, 3


def optimal_size(constants: dict[str, float], compute: float) -> tuple[float, float]:
    """(N*, D*) of least loss for C = 6 N D under `twovar` constants."""
    a, b = constants["a"], constants["b"]
    size = (a * constants["A"] / (b * constants["B"])) ** (1 / (a + b)) * (compute / 6) ** (b / (a + b))
    return size, compute / 6 / size


def data_for(constants: dict[str, float], size: float, loss: float) -> float:
    """Tokens at which a model of `size` reaches `loss`; infinite where it never does."""
    left = loss - constants.get("E", 0.0) - constants["A"] * size ** -constants["a"]
    return float((constants["B"] / left) ** (1 / constants["b"])) if left > 0 else float("inf")


def critical_batch(batch: np.ndarray, steps: np.ndarray) -> dict[str, float]:
    """S_min, E_min and B_crit = E_min / S_min from steps to one loss at three or more batch sizes [n]."""
    if len(np.unique(batch)) < 3:
        raise InputError("too few batch sizes", where="batches", expected="3 or more", found=len(np.unique(batch)))
    design = np.stack([np.ones(len(batch)), 1 / batch], axis=1) / steps[:, None]
    s_min, e_min = np.linalg.lstsq(design, np.ones(len(batch)), rcond=None)[0]
    if min(s_min, e_min) <= 0:
        raise InputError(
            "the batches show no trade of steps for examples",
            where="batches",
            expected="fewer steps and more examples at larger batches",
            found=f"S_min {s_min:.4g}, E_min {e_min:.4g}",
        )
    return {"s_min": float(s_min), "e_min": float(e_min), "b_crit": float(e_min / s_min)}


def leave_largest_out(x: np.ndarray, y: np.ndarray, form: FormName, robust: bool = False) -> tuple[BackTest, ...]:
    """Every size beyond the third predicted from the smaller ones; x [n, 2] (size, data) and y [n]."""
    held: list[Held] = []
    sizes = np.unique(x[:, 0])
    for size in sizes[MIN_KNOWN:]:
        known = x[:, 0] < size
        if known.sum() <= 5 and form == "twovar":
            continue
        _, said = _law(x[known], y[known], form, robust)
        for row, measured in zip(x[x[:, 0] == size], y[x[:, 0] == size]):
            value, interval = said(row, True)
            last, line = naive(x[known], y[known], row)
            bounds = interval or (None, None)
            held.append(Held(_ratio(row, x[known], form), float(measured), value, last, line, *bounds))
    return summarised(held)


def naive(x: np.ndarray, y: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """(the next smaller run, a straight line in logs) among runs of like tokens per parameter, one a size."""
    share = np.log(x[:, 1] / x[:, 0]) - np.log(target[1] / target[0])
    sizes = np.unique(x[:, 0])
    near = [min(np.flatnonzero(x[:, 0] == size), key=lambda i: (abs(share[i]), i)) for size in sizes]
    curve = Curve(x=tuple(x[near].prod(axis=1)), y=tuple(y[near]))
    return float(y[near[-1]]), float(straight_line(curve, [float(target.prod())])[0])


def _ratio(target: np.ndarray, x: np.ndarray, form: str) -> float:
    """How far a run lies beyond the known ones: in its size, or in its compute where that is further."""
    compute = _amount(target[None], form)[0] / _amount(x, form).max()
    return float(max(1.0, target[0] / x[:, 0].max(), compute))


def _amount(x: np.ndarray, form: str) -> np.ndarray:
    return x.prod(axis=1) if form in ("twovar", "trajectory") else x[:, 0]


def _law(x: np.ndarray, y: np.ndarray, form: FormName, robust: bool) -> tuple[dict[str, float], Any]:
    """(constants, a function of ([2], whether a new run is meant) -> (value, interval or None))."""
    wide = form in ("twovar", "trajectory")
    if robust:
        constants = fit_robust(x if wide else x[:, 0], y)
        rows = (lambda row: row[None]) if wide else (lambda row: row[:1])
        return constants, lambda row, new: (float(predict_robust(constants, rows(row))[0]), None)
    fit = fit_curve(form, x if wide else x[:, 0], y)

    def said(row: np.ndarray, new: bool) -> tuple[float, tuple[float, float] | None]:
        at = row.tolist() if wide else float(row[0])
        return float(fit.predict(at)[0]), fit.interval(at, LEVEL, new=new) if fit.df > 0 else None

    return fit.parameters, said


class ScalingLaw(Forecaster):
    """`size`, `data`, `y`: columns of N, D (or steps) and loss. A step's `at` is the size of the run that is
    planned, `at_data` its tokens (null: as many for each parameter as the largest run had). `form` auto: the
    better of the two-variable forms in its back-test. `robust`: Huber on logs, for ladders with bad runs (`twovar`
    and `power3`; no interval). `force` as in `forecasting.learning_curve`."""

    size: str = "size"
    data: str = "x"
    y: str = "y"
    at_data: float | None = Field(default=None, gt=0)
    form: Literal["auto", "twovar", "trajectory", "power2", "power3"] = "auto"
    robust: bool = False
    force: bool = False

    def fit(self, points: "Dataset", inputs: Inputs) -> State:
        """The ladder and its back-tests. Raises InputError for fewer than four sizes, mixed learning-rate phases
        and what `core.curve` refuses."""
        data, size = (
            curve_of(points, x=name, y=self.y, direction=-1, several=True) for name in (self.data, self.size)
        )
        order = np.argsort(points.numpy(self.size), kind="stable")
        x = np.stack([points.numpy(self.size), points.numpy(self.data)], axis=1)[order].astype(float)
        y = points.numpy(self.y)[order].astype(float)
        if len(size.distinct) < MIN_SIZES:
            raise InputError(
                "too few sizes for a scaling law",
                where=f"column {self.size!r}",
                expected=f"{MIN_SIZES} different sizes",
                found=f"{len(size.distinct)}: {', '.join(f'{n:g}' for n in size.distinct)}",
                remedy="train smaller models too; they are cheap",
            )
        forms: list[Any] = [self.form] if self.form != "auto" else ["twovar", "trajectory"]
        if self.robust:
            forms = [form for form in forms if form in ("twovar", "power3")]
        if not forms:
            raise InputError(
                "a robust fit has an offset", where="form", expected="twovar, power3", found=self.form
            )
        tests = {form: leave_largest_out(x, y, form, self.robust) for form in forms}
        batches = inputs.get("batches")
        return {
            "x": x,
            "y": y,
            "tests": tests,
            "metric": data.metric,
            "batch": None if batches is None else critical_batch(batches.numpy("batch"), batches.numpy("steps")),
        }

    def predict(self, state: State, at: float | None) -> "Result":
        """The loss at (`at`, `at_data`); `extra` has the optimum for the same compute and the critical batch."""
        assert at is not None
        x, y, tests = state["x"], state["y"], state["tests"]
        form = min(tests, key=lambda name: _typical(tests[name]))
        largest = x[x[:, 0] == x[:, 0].max()][:, 1].max() / x[:, 0].max()
        target = np.array([at, self.at_data or at * largest])
        amounts = _amount(x, form)
        unit = f"{self.size} * {self.data}" if form in ("twovar", "trajectory") else self.size
        ratio = _ratio(target, x, form)
        _, far = check_reach(ratio * float(amounts.max()), float(amounts.max()), unit, self.force)
        constants, said = _law(x, y, form, self.robust)
        value, interval = said(target, False)
        curve = Curve(x=tuple(amounts), y=tuple(y), metric=state["metric"], x_unit=unit, direction=-1)
        last, line = naive(x, y, target)
        path = [target * share for share in np.geomspace(0.05, 1, 20)]
        forecast = shown(
            curve,
            at=float(_amount(target[None], form)[0]),
            ratio=ratio,
            value=value,
            interval=interval,
            form=form,
            parameters=constants,
            tested=tests[form],
            drawn=[(float(_amount(row[None], form)[0]), said(row, False)[0]) for row in path],
            last=last,
            line=line,
            notes=[f"target: {self.size} {target[0]:.4g}, {self.data} {target[1]:.4g}", *far],
            force=self.force,
        )
        extra, tables = self._split(constants, form, target, value)
        if state["batch"] is not None:
            extra |= state["batch"]
        without = "a robust fit has no profile interval" if self.robust else "as many parameters as points"
        return result_of(self, forecast, curve, extra=extra, tables=tables, without=without)

    def _split(
        self, constants: dict[str, float], form: str, target: np.ndarray, loss: float
    ) -> tuple[dict[str, float], list[dict[str, Any]]]:
        if form != "twovar" or min(constants["A"], constants["B"]) <= 0:
            return {}, []
        best = optimal_size(constants, 6 * float(target.prod()))
        rows = []
        for share in (0.25, 0.5, 1.0, 2.0, 4.0):
            needed = data_for(constants, share * target[0], loss)
            rows.append([f"{share * target[0]:.4g}", f"{needed:.4g}", f"{6 * share * target[0] * needed:.4g}"])
        caption = f"Equal loss {loss:.4g}: what each size needs, if the law held"
        extra = {"optimal_size": best[0], "optimal_data": best[1]}
        return extra, [table(caption, [self.size, self.data, "6 N D"], rows)]


def _typical(tests: tuple[BackTest, ...]) -> float:
    """Mean error over all held-out points, infinite without any."""
    count = sum(test.points for test in tests)
    return sum(test.error * test.points for test in tests) / count if count else float("inf")
