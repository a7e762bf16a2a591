"""What is measured of predicted classes, whichever rows they are of."""

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.core.errors import ConfigError, InputError
from tutelage.core.labels import GOLD
from tutelage.core.stats.calibration import brier_score, expected_calibration_error

if TYPE_CHECKING:
    from tutelage.core.records import Result
    from tutelage.evaluation._shared import Measurement


def require_gold(row: Mapping[str, Any], where: str) -> None:
    """Raise InputError for a row whose label no person gave."""
    source = row.get("label_source") or GOLD
    if source != GOLD:
        raise InputError(
            "a machine's label measures nothing",
            where=f"{where}, field label_source",
            expected=GOLD,
            found=source,
            remedy="measure on rows that people labelled; evaluation.dsl says what machine labels allow",
        )


def require_classifier(model: Any, task: str) -> None:
    """Raise ConfigError for a model of another kind, or one that gives a text several labels."""
    if getattr(model, "multi_label", False):
        raise ConfigError(
            "this is measured of one class for each text",
            where=f"{task}: model",
            expected="a classifier that gives each text one class",
            found=f"{model.name}, which may give several labels",
            remedy="evaluation.classification measures it on rows with labels",
        )
    if getattr(model, "kind", "") != "classifier":
        raise ConfigError(
            "only a classifier can be measured so",
            where=f"{task}: model",
            expected="a classifier (adapters.linear_head, adapters.tfidf_classifier ...)",
            found=f"kind {getattr(model, 'kind', type(model).__name__)}",
        )


def macro_f1(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Mean F1 over the classes that `labels` or `predicted` (int [n]) hold."""
    scores = []
    for kind in np.union1d(labels, predicted):
        both = np.count_nonzero((predicted == kind) & (labels == kind))
        either = np.count_nonzero(predicted == kind) + np.count_nonzero(labels == kind)
        scores.append(2 * both / either)
    return float(np.mean(scores))


def accuracy_of(work: "Measurement", model: Any, labels: np.ndarray, probs: np.ndarray) -> "Result":
    """The `Result` of probabilities [n, C] for the rows of `work` with the classes `labels` [n]: accuracy, and in
    `extra` macro F1, mean negative log-likelihood, Brier score, calibration error, and what abstaining gains."""
    predicted, top = probs.argmax(axis=1), probs.max(axis=1)
    right = predicted == labels
    names = model.labels.names
    for row, label, best, hit, p in zip(work.rows, labels, predicted, right, probs):
        work.add(row, score=float(hit), prediction=names[best], target=names[label], p_correct=float(p[label]))
    given = probs[np.arange(len(labels)), labels]
    extra = {
        "macro_f1": macro_f1(predicted, labels),
        "nll": float(-np.log(np.maximum(given, 1e-12)).mean()),
        "brier": brier_score(probs, labels),
        "ece": expected_calibration_error(top, right),
        "calibrated": float(model.calibration is not None),
    }
    if model.threshold is not None:
        answered = top >= model.threshold
        extra["answered"] = float(answered.mean())
        extra["precision_answered"] = float(right[answered].mean()) if answered.any() else float("nan")
    silent = [name for number, name in enumerate(names) if not (predicted == number).any()]
    if silent:
        warnings.warn(f"{model.name} never answers {', '.join(silent)}", stacklevel=3)
    return work.result("accuracy", direction=1, extra=extra)
