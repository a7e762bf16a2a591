"""Make a classifier's probabilities mean what they say, and find where it had better abstain.

Temperature scaling: p = softmax(logits / T) with the T that gives labelled rows the least negative
log-likelihood. The rows are those of `from`, none of which the classifier may have been fitted on; without them
its own out-of-fold scores serve. With a wanted `precision`, answers are given where the top probability reaches a
threshold: fixed-sequence testing ("Learn then Test: Calibrating Predictive Algorithms to Achieve Risk Control")
goes through the rows from the most confident one downwards, starting with as many as can show it at all, and stops
before the first count whose one-sided Clopper-Pearson lower bound on the share of right answers falls below
`precision`; so the promise holds with probability `confidence`, whichever threshold comes out.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import Field

from tutelage.adapters._heads import text_hash
from tutelage.core.errors import ConfigError, InputError
from tutelage.core.method import Adapter, Inputs
from tutelage.core.stats.calibration import expected_calibration_error, fit_temperature
from tutelage.core.text.rows import text_rows
from tutelage.models.classifier import Calibration, Classifier, softmax

CARD = {
    "name": "adapters.calibrate",
    "paper": {"title": "On Calibration of Modern Neural Networks", "identifier": "arXiv:1706.04599"},
    "summary": "Calibrate a classifier by its temperature and choose where it abstains for a wanted precision.",
    "reads": ["text?", "label?"],
    "inputs": {"model": "the classifier"},
    "needs": ["train"],
    "cost": "one number fitted; one prediction for each row given",
    "baseline": None,
    "headline": "one number repairs most over-confidence and never changes a decision",
    "version": 1,
}


def abstain_threshold(confidence: np.ndarray, right: np.ndarray, precision: float, level: float) -> float | None:
    """The lowest threshold on `confidence` [n] above which the share of `right` (bool [n]) is at least `precision`
    with probability `level`, by fixed-sequence testing; None when these rows cannot show it."""
    from scipy.stats import beta

    order = np.argsort(-confidence, kind="stable")
    sorted_confidence, hits = confidence[order], np.cumsum(right[order])
    # Fewer right answers in a row than this cannot bring the bound to `precision`.
    start = int(np.ceil(np.log(1 - level) / np.log(precision))) if precision < 1 else len(order) + 1
    found = None
    for n in range(start, len(order) + 1):
        if n < len(order) and sorted_confidence[n] == sorted_confidence[n - 1]:
            continue  # rows of equal confidence are answered together
        k = int(hits[n - 1])
        if (beta.ppf(1 - level, k, n - k + 1) if k else 0.0) < precision:
            break
        found = float(sorted_confidence[n - 1])
    return found


class Calibrate(Adapter):
    """`precision`: share of right answers wanted where the classifier answers (null: it always answers), promised
    with probability `confidence`."""

    precision: float | None = Field(default=None, gt=0, lt=1)
    confidence: float = Field(default=0.9, gt=0.5, lt=1)

    def convert(self, models: Mapping[str, Any], dataset: Any, inputs: Inputs) -> Any:
        """The classifier with a calibration and, where it can be shown, a threshold.

        Raises InputError for rows that it was fitted on, ConfigError where there is nothing to calibrate on.
        """
        model = models["base"]
        if not isinstance(model, Classifier):
            raise ConfigError(
                "only a classifier can be calibrated", where=f"{self.name}: model", found=f"kind {model.kind}"
            )
        if model.multi_label:
            raise ConfigError(
                "a classifier of several labels is not calibrated by one temperature over its classes",
                where=f"{self.name}: model",
                expected="a classifier that gives each text one class",
                found=model.name,
            )
        logits, labels, held_out = self._scores(model, dataset)
        temperature = fit_temperature(logits, labels)
        before, after = (softmax(logits / t) for t in (1.0, temperature))
        right = after.argmax(axis=1) == labels
        top = after.max(axis=1)
        calibration = Calibration(
            temperature=temperature,
            rows=len(labels),
            held_out=held_out,
            ece_before=expected_calibration_error(before.max(axis=1), right),
            ece_after=expected_calibration_error(top, right),
        )
        threshold = None
        if self.precision is not None:
            threshold = abstain_threshold(top, right, self.precision, self.confidence)
            if threshold is None:
                warnings.warn(
                    f"{self.name}: {len(labels)} rows cannot show a precision of {self.precision:g} with "
                    f"probability {self.confidence:g} (right in {right.mean():.0%} of them): no "
                    "threshold is set; label more rows, or ask for less",
                    stacklevel=2,
                )
        made = model.calibrated(calibration, threshold)
        wanted = {"precision": self.precision, "confidence": self.confidence, "reached": threshold is not None}
        made.facts = {**model.facts, "abstention": None if self.precision is None else wanted}
        return made

    def _scores(self, model: Classifier, dataset: Any) -> tuple[np.ndarray, np.ndarray, str]:
        """(logits [n, C], labels [n], where they are from)."""
        if dataset is None:
            if model.out_of_fold is None:
                raise ConfigError(
                    "there is nothing to calibrate on",
                    where=f"{self.name}: from",
                    expected="labelled rows, or a classifier that kept out-of-fold scores",
                    found="neither",
                    remedy="give rows that the classifier was not fitted on",
                )
            kept = model.out_of_fold
            return np.array(kept.logits), np.array(kept.labels), "out of fold"
        dataset.require("label")
        rows = list(text_rows(dataset))
        for identifier, text in rows:
            if text_hash(text) in model.fitted_on:
                raise InputError(
                    "the classifier was fitted on a row that is to calibrate it",
                    where=f"row {identifier}",
                    expected="rows that it has not seen",
                    remedy="hold rows out, or leave `from` away to use out-of-fold scores",
                )
        labels = [
            model.labels.index(row["label"], f"row {row['id']}, field label")
            for row in dataset.rows(["id", "label"])
        ]
        if len(labels) < 2:
            raise InputError("there are too few rows to calibrate on", where=self.name, found=len(labels))
        logits = np.maximum(model.logits([text for _, text in rows]), -50.0)
        return logits, np.array(labels), "held-out rows"
