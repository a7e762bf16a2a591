"""A model's own predictions on unlabelled rows as labels to train on: which rows, which targets, which weights.

A row is selected when all conditions that are set hold: its confidence max q is above `confidence_over`; it is
among the `top_share` most confident of its predicted class; more than `agreement_over` of its neighbours agree,
and on the same class (`signals.neighbour_agreement`). Then no class keeps more than `class_cap` times the rows of
the smallest class selected, the most confident first. Targets: the predicted class (hard), q (soft), or q^(1/T) /
sum (sharpened). Weights: w = `weight`, with `class_weights` times cw_c / 5, cw_c = 10 / (1 + exp(-(m - n_c) /
n_c)) for n_c selected rows of class c and m = floor(selected / C), so that a class with its even share counts 1;
then all are scaled down until sum w <= `weight_cap` times the sum of the weights of the gold rows in the input
`gold`.
"""

from collections import Counter
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.labels import GOLD
from tutelage.core.method import Inputs, Transform
from tutelage.core.text.duplicates import shared_ids
from tutelage.core.text.rows import text_rows
from tutelage.data._predictions import probabilities
from tutelage.data.label._shared import Columns, rewritten

CARD = {
    "name": "data.label.pseudo",
    "paper": {
        "title": "Self-Training for Sample-Efficient Active Learning for Text Classification with Pre-Trained "
        "Language Models",
        "identifier": "arXiv:2406.09206",
    },
    "summary": "Makes training rows of a model's own predictions: chosen, balanced, weighted against gold rows.",
    "reads": ["predicted_probs", "classes", "label?", "neighbour_agreement?", "neighbour_label?"],
    "writes": ["label", "label_source", "label_probs", "label_weight"],
    "inputs": {
        "gold?": "the labelled rows these are trained with: weights are held against theirs, copies are left out",
    },
    "cost": "one sort",
    "baseline": "data.label.adopt",
    "headline": "helps a model that is mostly right already, and confirms the errors of one that is not",
    "version": 1,
}

PLAIN = 5.0  # the class weight of a class with its even share


def class_weight(selected: np.ndarray) -> np.ndarray:
    """cw [C] for `selected` [C] rows per class; a class without rows has none (0)."""
    counts = np.maximum(selected, 1)
    even = selected.sum() // len(selected)
    return np.where(selected > 0, 10.0 / (1.0 + np.exp(-(even - selected) / counts)), 0.0)


def sharpened(probs: np.ndarray, temperature: float) -> np.ndarray:
    """q^(1/T) / sum, rows of [n, C]."""
    powers = (probs / probs.max(axis=1, keepdims=True)) ** (1.0 / temperature)
    return powers / powers.sum(axis=1, keepdims=True)


def best_of_each(chosen: np.ndarray, labels: np.ndarray, confidence: np.ndarray, most: np.ndarray) -> np.ndarray:
    """`chosen` bool [n] with at most most[c] rows of each class left: the most confident, the first of equals."""
    order = np.flatnonzero(chosen)
    order = order[np.argsort(-confidence[order], kind="stable")]
    kept = np.zeros(len(chosen), dtype=bool)
    for label, limit in enumerate(most):
        kept[order[labels[order] == label][: int(limit)]] = True
    return kept


def monitors(
    classes: list[str], counts: np.ndarray, confidence: np.ndarray, gold: Dataset | None
) -> dict[str, Any]:
    """What tells a run that goes wrong: classes selected, and how far their shares are from those of gold."""
    found: dict[str, Any] = {"by_class": dict(zip(classes, counts.tolist()))}
    found["mean_confidence"] = float(confidence.mean()) if len(confidence) else None
    if gold is None or "label" not in gold.column_names or not counts.sum():
        return {**found, "kl_from_gold": None}
    known = Counter(gold.column("label").to_pylist())
    # One row more of every class: a class that gold lacks must not make the distance infinite.
    prior = np.array([known[name] + 1.0 for name in classes])
    share, prior = counts / counts.sum(), prior / prior.sum()
    seen = share > 0
    return {**found, "kl_from_gold": float((share[seen] * np.log(share[seen] / prior[seen])).sum())}


class Pseudo(Transform):
    """The fields are those of the module's text; `temperature` is T of sharpened targets. `source` is the name
    after `pseudo:` in `label_source`."""

    confidence_over: float | None = Field(default=None, ge=0, lt=1)
    top_share: float | None = Field(default=None, gt=0, le=1)
    agreement_over: float | None = Field(default=None, ge=0, lt=1)
    target: Literal["hard", "soft", "sharpened"] = "hard"
    temperature: float = Field(default=0.5, gt=0)
    class_cap: float | None = Field(default=3.0, ge=1)
    class_weights: bool = False
    weight: float = Field(default=1.0, gt=0)
    weight_cap: float | None = Field(default=1.0, gt=0)
    source: str = Field(default="model", min_length=1)

    def apply(self, dataset: Dataset, inputs: Inputs) -> Dataset:
        """Raises InputError for a row that has a gold label already. Nothing selected is no error: the dataset is
        empty, and `status` in its report says why."""
        ids, gold = dataset.ids(), inputs.get("gold")
        self._refuse_gold(dataset, ids, gold)
        classes, probs = probabilities(dataset)
        labels = probs.argmax(axis=1) if len(ids) else np.zeros(0, dtype=np.int64)
        confidence = probs.max(axis=1, initial=0.0)
        reasons: dict[int, str] = {}

        def leave(where: np.ndarray, reason: str) -> None:
            reasons.update((int(row), f"pseudo: {reason}") for row in np.flatnonzero(where) if row not in reasons)

        constant = len(ids) > 1 and len(classes) > 1 and len(set(labels.tolist())) == 1
        if constant:
            leave(np.ones(len(ids), dtype=bool), "all predictions are one class")
        if gold is not None and gold.num_rows:
            same = set(shared_ids(text_rows(dataset), text_rows(gold)))
            leave(np.array([identifier in same for identifier in ids], dtype=bool), "the text of a gold row")
        if self.confidence_over is not None:
            leave(~(confidence > self.confidence_over), "confidence")
        if self.agreement_over is not None:
            leave(~self._agrees(dataset, [classes[label] for label in labels], self.agreement_over), "neighbours")
        open_rows = np.array([row not in reasons for row in range(len(ids))], dtype=bool)
        by_id = np.argsort(np.array(ids, dtype=object), kind="stable")
        if self.top_share is not None:
            most = np.ceil(self.top_share * np.bincount(labels, minlength=len(classes)))
            kept = self._by_id(by_id, open_rows, labels, confidence, most)
            leave(open_rows & ~kept, "top share of its class")
            open_rows = kept
        if self.class_cap is not None and open_rows.any():
            counts = np.bincount(labels[open_rows], minlength=len(classes))
            most = np.full(len(classes), np.floor(self.class_cap * counts[counts > 0].min()))
            kept = self._by_id(by_id, open_rows, labels, confidence, most)
            leave(open_rows & ~kept, "class cap")
            open_rows = kept
        counts = np.bincount(labels[open_rows], minlength=len(classes))
        weights = self.weight * (class_weight(counts) / PLAIN if self.class_weights else np.ones(len(classes)))
        total, held = float(weights @ counts), self._gold_weight(gold)
        scale = 1.0
        if self.weight_cap is not None and held is not None and total > 0:
            scale = min(1.0, self.weight_cap * held / total)
        status = "selected" if open_rows.any() else "constant" if constant else "no_candidates"
        report = {
            "method": self.name,
            "status": status,
            "candidates": len(ids),
            "selected": int(open_rows.sum()),
            "weight_sum": total * scale,
            "gold_weight_sum": held,
            **monitors(classes, counts, confidence[open_rows], gold),
        }
        targets = sharpened(probs, self.temperature) if self.target == "sharpened" else probs
        rows = {
            identifier: (classes[labels[row]], float(weights[labels[row]] * scale), targets[row].tolist())
            for row, identifier in enumerate(ids)
            if open_rows[row]
        }
        return self._written(dataset.keep(open_rows, reasons), report, rows)

    def _written(
        self, kept: Dataset, report: dict[str, Any], rows: dict[str, tuple[str, float, list[float]]]
    ) -> Dataset:
        def change(shard: pa.Table) -> Columns:
            given = [rows[identifier] for identifier in shard.column("id").to_pylist()]
            soft = [None if self.target == "hard" else target for _, _, target in given]
            return {
                "label": [label for label, _, _ in given],
                "label_source": [f"pseudo:{self.source}"] * len(shard),
                "label_weight": pa.array([weight for _, weight, _ in given], pa.float64()),
                "label_probs": pa.array(soft, pa.list_(pa.float64())),
            }

        made = rewritten(kept, change)
        for row in kept.dropped.to_pylist():
            made.drop(row["id"], row["reason"])
        return made.finish(report)

    def _refuse_gold(self, dataset: Dataset, ids: list[str], gold: Dataset | None) -> None:
        labelled = set() if gold is None else set(gold.ids())
        if "label" in dataset.column_names:
            for row in dataset.rows([n for n in ("id", "label", "label_source") if n in dataset.column_names]):
                if row["label"] is not None and (row.get("label_source") or GOLD) == GOLD:
                    labelled.add(row["id"])
        taken = next((identifier for identifier in ids if identifier in labelled), None)
        if taken is not None:
            raise InputError(
                f"id {taken} already has a gold label",
                where=f"row {taken}",
                expected="unlabelled rows",
                found="a row that a person has labelled",
                remedy="leave the labelled rows out first (data.filter.without)",
            )

    def _agrees(self, dataset: Dataset, predicted: list[str], least: float) -> np.ndarray:
        share = dataset.numpy("neighbour_agreement").astype(np.float64)
        return (share > least) & np.array(
            [a == b for a, b in zip(dataset.column("neighbour_label").to_pylist(), predicted)], dtype=bool
        )

    def _by_id(
        self, by_id: np.ndarray, chosen: np.ndarray, labels: np.ndarray, confidence: np.ndarray, most: np.ndarray
    ) -> np.ndarray:
        kept = np.empty(len(chosen), dtype=bool)
        kept[by_id] = best_of_each(chosen[by_id], labels[by_id], confidence[by_id], most)
        return kept

    def _gold_weight(self, gold: Dataset | None) -> float | None:
        if gold is None:
            return None
        rows = gold.rows([n for n in ("id", "label_source", "label_weight") if n in gold.column_names])
        weights = [row.get("label_weight") for row in rows if (row.get("label_source") or GOLD) == GOLD]
        return float(sum(1.0 if weight is None else weight for weight in weights))
