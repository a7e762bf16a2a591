"""Whether stated confidence means anything: what it says against what came true, and how well it ranks.

Item i states probabilities p_ik, its confidence is c_i = max_k p_ik, y_i says whether that answer is right and
t_i which option was. Brier = mean sum_k (p_ik - [k = t_i])^2, NLL = mean -ln p_(i,t_i), overconfidence = mean
c_i - y_i. The expected calibration error (10 bins of equal mass) is never shown without the one that a
perfectly calibrated model would have on these very items: with n = 200 that is about .07. Ranking: AUROC of c
for y, the risk-coverage curve, its area and how much of that an oracle order would save. Remedy: the
temperature that gives other items (`dev`) the least NLL, and beside it isotonic regression of y on c.
Definitions are common practice, the defaults ours. With confidences alone (no distribution) Brier is (c - y)^2
and NLL that of right against wrong.
"""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field
from scipy import special

from tutelage.core.errors import InputError
from tutelage.core.method import Inputs, Task
from tutelage.core.stats import calibration as measure
from tutelage.core.stats.intervals import wilson
from tutelage.evaluation._classes import require_classifier
from tutelage.evaluation._labels import clusters_of
from tutelage.evaluation._logs import Derived, log_of, one_run
from tutelage.evaluation._shared import Measurement
from tutelage.evaluation._stated import Stated, from_classifier, from_log, from_rows

if TYPE_CHECKING:
    from tutelage.core.dataset import Dataset
    from tutelage.core.records import Result

CARD = {
    "name": "evaluation.calibration",
    "paper": {"title": "On Calibration of Modern Neural Networks", "identifier": "arXiv:1706.04599"},
    "summary": "Whether stated probabilities come true: calibration error beside chance, Brier, NLL, abstention.",
    "inputs": {
        "model?": "the classifier that is measured on labelled rows",
        "measured?": "a multiple-choice result, instead of rows",
        "dev?": "other items of the same kind, from which temperature and threshold are fitted",
    },
    "cost": "one prediction for each row, none for a result",
    "baseline": None,
    "headline": "tells a calibration error that means something from the one that a small sample always shows",
    "version": 1,
}
FLOOR = 1e-12
# ECEs drawn under perfect calibration.
DRAWS = 500


class Calibration(Task):
    """Three sources, one at a time: a result of multiple choice (`inputs: {measured: step}`); rows with `text` and
    `label` and a classifier as model; rows with `probs` (over `classes`) and `label`, or `confidence` and
    `correct`. `metric` carries the interval, all else is beside it. `coverage`: share of items to answer."""

    metric: Literal["brier", "nll", "overconfidence"] = "brier"
    probs: str = "predicted_probs"
    confidence: str = "confidence"
    correct: str = "correct"
    bins: int = Field(default=10, ge=2)
    coverage: float = Field(default=0.8, gt=0, le=1)
    seed: int = Field(default=0, ge=0)

    def evaluate(self, model: Any, dataset: "Dataset | None", inputs: Inputs) -> "Result":
        """The mean of `metric` per item, smaller is better (overconfidence: nearer to 0). `extra`: all measures;
        `ece_if_calibrated` is the mean ECE under perfection and `ece_p` the share of perfect draws that look as
        bad (left out where items share clusters: they are then no independent draws). `system` holds the
        reliability diagram and the risk-coverage curve. Items without probabilities are counted in `unstated`.

        Raises InputError for probabilities that do not add up and for dev items that are measured too.
        """
        work, stated, lost = self._source(model, dataset, inputs, "measured")
        values = self._values(stated)
        for row, value, p in zip(work.rows, values[self.metric], stated.given):
            kept = {name: row[name] for name in ("prediction", "target") if name in row}
            work.add(row, score=float(value), p_correct=float(p), **kept)
        extra = {name: float(found.mean()) for name, found in values.items()}
        extra |= {"accuracy": float(stated.right.mean()), "confidence": float(stated.confidence.mean())}
        place = measure.equal_mass_bins(stated.confidence, self.bins)
        extra |= self._gaps(stated, place, clusters_of(work.rows))
        risks = measure.risks_by_coverage(stated.confidence, stated.right)
        best = measure.risks_by_coverage(stated.right, stated.right)
        extra |= {"aurc": float(risks.mean()), "aurc_excess": float(risks.mean() - best.mean())}
        answered = max(1, round(self.coverage * len(risks)))
        extra |= {"coverage": self.coverage, "accuracy_at_coverage": 1 - float(risks[answered - 1])}
        extra |= {"auroc": measure.auroc(stated.confidence, stated.right), "unstated": float(lost)}
        if inputs.get("dev") is not None:
            extra |= self._repaired(stated, work, model, inputs)
        # What does not exist is left out: AUROC where every answer is right.
        extra = {name: value for name, value in extra.items() if value == value}
        shown = {"reliability": _diagram(stated, place), "risk_coverage": _curve(risks)}
        direction: Literal[1, -1] = -1
        return work.result(self.metric, direction=direction, extra=extra, system=shown)

    def _source(
        self, model: Any, dataset: "Dataset | None", inputs: Inputs, name: str
    ) -> tuple[Measurement, Stated, int]:
        given = inputs.get(name)
        if given is not None and not hasattr(given, "rows"):
            if name == "measured" and dataset is not None:
                raise InputError(
                    "rows and a result were given",
                    where=f"{self.name}: from, inputs.measured",
                    expected="one of them",
                    found="both",
                    remedy="leave `from` out to measure the result",
                )
            rows = one_run(log_of(given, f"inputs.{name}"), f"inputs.{name}")
            kept, stated = from_log(rows, f"inputs.{name}")
            return Derived(self, kept, inputs, getattr(given, "system", {})), stated, len(rows) - len(kept)
        dataset = dataset if name == "measured" else given
        if dataset is None:
            raise InputError(
                "there is nothing whose calibration could be measured",
                where=f"{self.name}: from, inputs.measured",
                expected="labelled rows, or a result of multiple choice",
                found="neither",
                remedy="name rows in `from`, or a step in `inputs: {measured: ...}`",
            )
        if getattr(model, "kind", "") == "classifier":
            require_classifier(model, self.name)
            work = Measurement(self, model, dataset, inputs, identity=("text", "label"))
            return work, from_classifier(model, work.rows, work.where), 0
        work = Measurement(self, None, dataset, inputs)
        return work, from_rows(self, work.rows, work.where), 0

    def _values(self, stated: Stated) -> dict[str, np.ndarray]:
        squares = (stated.probs**2).sum(axis=1) - 2 * stated.given + 1
        return {
            "brier": squares / 2 if stated.alone else squares,
            "nll": -np.log(np.maximum(stated.given, FLOOR)),
            "overconfidence": stated.confidence - stated.right,
        }

    def _gaps(self, stated: Stated, place: np.ndarray, clusters: np.ndarray) -> dict[str, float]:
        ece = measure.binned_gap(stated.confidence, stated.right, place)
        perfect = measure.gaps_if_calibrated(stated.confidence, place, DRAWS, self.seed)
        found = {"ece": ece, "ece_if_calibrated": float(perfect.mean())}
        found["squared_gap"] = measure.squared_gap(stated.confidence, stated.right, place)
        if len(set(clusters.tolist())) == len(clusters):
            found["ece_p"] = float((1 + (perfect >= ece).sum()) / (1 + len(perfect)))
        return found

    def _repaired(self, stated: Stated, work: Measurement, model: Any, inputs: Inputs) -> dict[str, float]:
        """What a temperature and a threshold fitted on the dev items do for these."""
        other, dev, _ = self._source(model, None, inputs, "dev")
        both = set(work.keys) & set(other.keys)
        if both:
            raise InputError(
                "items that are measured on were to fit the repair",
                where="inputs.dev",
                expected="other items",
                found=f"{len(both)} of {len(work.keys)}, first {min(both)}",
                remedy="split the items first (data.split.by_group)",
            )
        found: dict[str, float] = {"dev_items": float(len(other.keys))}
        ordered = np.sort(dev.confidence)[::-1]
        threshold = ordered[max(1, round(self.coverage * len(ordered))) - 1]
        answered = stated.confidence >= threshold
        found |= {"threshold": float(threshold), "answered": float(answered.mean())}
        found["accuracy_answered"] = float(stated.right[answered].mean()) if answered.any() else float("nan")
        with np.errstate(divide="ignore"):
            logits, ours = np.log(dev.probs), np.log(stated.probs)
        found["temperature"] = measure.fit_temperature(logits, dev.truth)
        probs = special.softmax(ours / found["temperature"], axis=1)
        after = Stated(probs, stated.truth, stated.alone)
        found |= {f"{name}_after": float(value.mean()) for name, value in self._values(after).items()}
        place = measure.equal_mass_bins(after.confidence, self.bins)
        found["ece_after"] = measure.binned_gap(after.confidence, after.right, place)
        # Of any shape, where one temperature is too stiff; needs hundreds of dev items.
        bent = measure.isotonic(dev.confidence, dev.right, stated.confidence)
        found["ece_isotonic"] = measure.binned_gap(bent, stated.right, measure.equal_mass_bins(bent, self.bins))
        return found


def _diagram(stated: Stated, place: np.ndarray) -> list[dict[str, float]]:
    """The reliability diagram: one point for each bin, the share that came true with Wilson's interval."""
    points = []
    for number in np.unique(place):
        here = place == number
        share, size = float(stated.right[here].mean()), int(here.sum())
        bounds = wilson(round(share * size), size)
        mean = float(stated.confidence[here].mean())
        points.append({"confidence": mean, "right": share, "lo": bounds.lo, "hi": bounds.hi, "n": float(size)})
    return points


def _curve(risks: np.ndarray, points: int = 20) -> list[dict[str, float]]:
    """Risk at evenly spaced coverages."""
    n = len(risks)
    at = sorted({max(1, round(n * step / points)) for step in range(1, points + 1)})
    return [{"coverage": k / n, "risk": float(risks[k - 1])} for k in at]
