"""Will more of this pretraining data help the downstream metric? Two fits and a test of whether to believe them.

Rows (D, cross-entropy, metric) after identical fine-tuning from checkpoints at pretraining sizes D. Cross-entropy
follows E + A D^-a, the metric (ln(A D^a))^b, defined only where A D^a > 1. Both need alignment of pretraining and
task: if the metric falls significantly between adjacent D (one-sided Welch test over seeds, Holm over the pairs,
5 %) while the cross-entropy does not rise, the verdict is `misaligned` and the metric is not extrapolated. Beside
the forecast: the metric as a rising function of the cross-entropy (isotonic, never beyond what was seen), and the
benefit over the model that was not pretrained, which must exceed 0. The isotonic step and the test are ours.
"""

from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field
from scipy import optimize, stats

from tutelage.core.curve import Curve, curve_of
from tutelage.core.errors import InputError
from tutelage.core.method import Forecaster, Inputs, State
from tutelage.core.stats.families import holm
from tutelage.forecasting._shared import forecast_curve, result_of, table

if TYPE_CHECKING:
    from tutelage.core.dataset import Dataset
    from tutelage.core.records import Result

CARD = {
    "name": "forecasting.downstream_law",
    "paper": {
        "title": "Scaling Laws for Downstream Task Performance of Large Language Models",
        "identifier": "arXiv:2402.04177",
    },
    "summary": "Downstream metric and cross-entropy at more pretraining data, if data and task are aligned.",
    "reads": ["{x}", "{y}", "{cross_entropy}", "se?", "seed?", "phase?"],
    "inputs": {"scratch?": "the same fine-tuning without pretraining: rows with the metric"},
    "cost": "statistics only; the points cost one fine-tuning for each checkpoint and seed",
    "baseline": "forecasting.learning_curve",
    "headline": "good forecasts of BLEU where pretraining and task are aligned, none where not, the paper finds",
    "version": 1,
}

LEVEL = 0.05


def falls(curve: Curve) -> list[tuple[float, float, float, float]]:
    """(D before, D after, change of the metric, Holm-adjusted one-sided p) for adjacent D with two seeds each, or
    with standard errors."""
    x, y = np.asarray(curve.x), np.asarray(curve.y) * curve.direction
    found = []
    for first, second in zip(curve.distinct, curve.distinct[1:]):
        before, after = y[x == first], y[x == second]
        if min(len(before), len(after)) > 1:
            spread = before.var(ddof=1) + after.var(ddof=1)
            p = (
                stats.ttest_ind(after, before, equal_var=False, alternative="less").pvalue
                if spread > 1e-18 * max(abs(before.mean()), abs(after.mean())) ** 2
                else float(after.mean() >= before.mean())
            )
        elif curve.se is not None:
            errors = np.asarray(curve.se)
            error = np.hypot(errors[x == first][0], errors[x == second][0])
            p = stats.norm.cdf((after.mean() - before.mean()) / error)
        else:
            continue
        found.append((float(first), float(second), float(after.mean() - before.mean()), float(p)))
    adjusted = holm([p for *_, p in found]).tolist() if found else []
    return [(*row[:3], p) for row, p in zip(found, adjusted)]


def isotonic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """[n] least-squares rising values of y in the order of x."""
    order = np.argsort(x, kind="stable")
    result = np.empty(len(y))
    result[order] = optimize.isotonic_regression(y[order]).x
    return result


class DownstreamLaw(Forecaster):
    """`x`: pretraining size; `y`: the metric, larger is better; `cross_entropy`: the downstream loss. `form`: the
    law of the metric (`loglin`: its case b = 1). `force` as in `forecasting.learning_curve`."""

    x: str = "x"
    y: str = "y"
    cross_entropy: str = "cross_entropy"
    form: str = Field(default="loglaw", pattern="^(loglaw|loglin)$")
    force: bool = False

    def fit(self, points: "Dataset", inputs: Inputs) -> State:
        """Both curves; raises InputError for a metric that is 0 everywhere, fewer than five D, mixed phases."""
        metric = curve_of(points, x=self.x, y=self.y, direction=1)
        loss = curve_of(points, x=self.x, y=self.cross_entropy, direction=-1)
        if not any(metric.y):
            raise InputError(
                "no signal: the metric is 0 everywhere",
                where=f"column {self.y!r}",
                expected="scores above 0 at some size",
                found="0 at every size",
                remedy="use an easier metric, or the cross-entropy alone with forecasting.learning_curve",
            )
        if min(metric.y) <= 0 and self.form == "loglaw":
            raise InputError(
                "the law of the metric holds only where it is above 0",
                where=f"column {self.y!r}",
                expected="positive scores",
                found=f"{min(metric.y):g} at {metric.x[int(np.argmin(metric.y))]:g}",
                remedy="leave out the sizes without any success, or use form: loglin",
            )
        scratch = inputs.get("scratch")
        bare = None if scratch is None else np.asarray(scratch.numpy(self.y), dtype=float)
        return {"metric": metric.require(), "loss": loss, "scratch": bare}

    def predict(self, state: State, at: float | None) -> "Result":
        """The metric at `at`; `extra` has `misaligned` (1 or 0), the cross-entropy there and the benefit."""
        assert at is not None
        metric, loss = state["metric"], state["loss"]
        dips = falls(metric)
        # A loss that rises over the same step would explain the fall: then the checkpoint is bad, not the match.
        rising = {(a, b) for a, b, change, p in falls(loss) if p < LEVEL}
        bad = [(a, b, change, p) for a, b, change, p in dips if p < LEVEL and (a, b) not in rising]
        forecast, _, curve = forecast_curve(metric, self.form, at, upper=None, force=self.force)  # type: ignore[arg-type]
        beside, _, _ = forecast_curve(loss, "power3", at, force=self.force)
        sentences = [
            f"cross-entropy there: {beside.shown:.4g} ({beside.status})",
            "aligned as far as these points tell" if dips else "alignment not tested: one run a size, no errors",
        ]
        if bad:
            forecast = forecast.model_copy(update={"status": "no skill", "shown": forecast.last})
            sentences[1] = "misaligned, do not extrapolate the metric: it falls " + ", ".join(
                f"from {a:g} to {b:g} (p {p:.2g})" for a, b, _, p in bad
            )
        extra = {"misaligned": float(bool(bad)), "cross_entropy": beside.shown}
        rises = isotonic(-np.asarray(loss.y), np.asarray(metric.y))
        extra["metric_of_loss"] = float(np.interp(-beside.shown, *_steps(-np.asarray(loss.y), rises)))
        if state["scratch"] is not None:
            extra |= self._benefit(metric, state["scratch"], sentences)
        rows = [[f"{a:g} to {b:g}", f"{change:+.4g}", f"{p:.3g}"] for a, b, change, p in dips]
        tables = [table("Alignment: change between adjacent sizes", ["sizes", "change", "p of a fall"], rows)]
        return result_of(
            self, forecast, curve, extra=extra, sentences=sentences, tables=tables if rows else [], more=[beside]
        )

    def _benefit(self, metric: Curve, bare: np.ndarray, sentences: list[str]) -> dict[str, float]:
        best = np.array([y for x, y in zip(metric.x, metric.y) if x == metric.distinct[-1]])
        gain = float(best.mean() - bare.mean())
        found = {"benefit": gain}
        if min(len(best), len(bare)) > 1 and best.var() + bare.var() > 0:
            low, high = stats.ttest_ind(best, bare, equal_var=False).confidence_interval(0.95)
            found |= {"benefit_lo": float(low), "benefit_hi": float(high)}
            sure = "" if low > 0 else ": no benefit of pretraining is shown"
            sentences.append(f"benefit of pretraining {gain:+.4g} [{low:+.4g}, {high:+.4g}]{sure}")
        else:
            sentences.append(f"benefit of pretraining {gain:+.4g}, without an interval: it takes two seeds")
        return found


def _steps(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(x, kind="stable")
    return x[order], y[order]
