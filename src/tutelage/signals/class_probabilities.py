"""What a classifier says of every row, and how sure it is.

p = predict_proba(text), classes in the classifier's order; `confidence` = max p; `margin` = the largest p less the
second largest; `entropy` = -sum p log p / log C, in [0, 1]; `abstained` where the confidence is below the
classifier's threshold. Where a text may have several labels, `predicted` is the list of those with p > 1/2,
`confidence` that of the least sure label, max(p, 1 - p), `margin` = 2 confidence - 1, and `entropy` the mean over
labels of the entropy of (p, 1 - p) in bits.
"""

from typing import Any

import numpy as np
import pyarrow as pa

from tutelage.core.errors import ConfigError
from tutelage.core.method import Inputs, Scorer, State
from tutelage.core.text.rows import texts

CARD = {
    "name": "signals.class_probabilities",
    "paper": {"title": "Common practice", "identifier": ""},
    "summary": "The class that a classifier gives every row, with probabilities, confidence, margin and entropy.",
    "reads": ["text"],
    "writes": ["predicted", "predicted_probs", "classes", "confidence", "margin", "entropy", "abstained"],
    "inputs": {"model": "the classifier"},
    "needs": ["train"],
    "cost": "one prediction for each row",
    "baseline": None,
    "headline": "what active learning, pseudo-labels and label audits start from",
    "version": 1,
}


def uncertainty(probs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(confidence, margin, entropy / log C), each [n], of probabilities [n, C]; of one class all is certain."""
    if probs.shape[1] == 1:
        return probs[:, 0], probs[:, 0], np.zeros(len(probs))
    ordered = np.sort(probs, axis=1)
    logs = np.log(np.where(probs > 0, probs, 1.0))
    entropy = -(probs * logs).sum(axis=1) / np.log(probs.shape[1])
    return ordered[:, -1], ordered[:, -1] - ordered[:, -2], entropy


class ClassProbabilities(Scorer):
    """Nothing to configure."""

    def score(self, shard: pa.Table, state: State, inputs: Inputs) -> dict[str, Any]:
        model = inputs["model"]
        if getattr(model, "kind", "") != "classifier":
            raise ConfigError(
                "this model gives no classes",
                where=f"{self.name}: model",
                expected="a classifier (adapters.linear_head, adapters.tfidf_classifier ...)",
                found=f"kind {getattr(model, 'kind', type(model).__name__)}",
            )
        probs = model.predict_proba(texts(shard))
        if model.multi_label:
            pairs = np.stack([probs, 1 - probs], axis=2)
            confidence = pairs.max(axis=2).min(axis=1)
            margin, entropy = 2 * confidence - 1, uncertainty(pairs.reshape(-1, 2))[2].reshape(probs.shape).mean(1)
        else:
            confidence, margin, entropy = uncertainty(probs)
        names = model.labels.names
        unsure = np.zeros(len(probs), dtype=bool) if model.threshold is None else confidence < model.threshold
        return {
            "predicted": model.answers(probs)[0],
            "predicted_probs": pa.array(list(probs), pa.list_(pa.float64())),
            "classes": pa.array([list(names)] * len(probs), pa.list_(pa.string())),
            "confidence": confidence,
            "margin": margin,
            "entropy": entropy,
            "abstained": unsure,
        }
