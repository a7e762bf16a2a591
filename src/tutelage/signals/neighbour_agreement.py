"""Whether the nearest rows have the same predicted class: the share of the k nearest that agree, and on what.

Vectors z of `column` at length 1; over a random sample of at most `sample` rows (drawn by hash of the id), for
row i the k nearest other rows of the sample by z_i . z_j, never itself: neighbour_label_i = the most frequent
`label_column` among them (ties: the first in the order of `classes`, else by name), neighbour_agreement_i = its
share. Rows outside the sample have neither. The paper's code asks for 15 neighbours including the row itself.
"""

from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.method import Inputs, Scorer, State
from tutelage.core.text.hashing import uniform
from tutelage.core.vectors import vector_column
from tutelage.signals._neighbours import neighbours, unit

CARD = {
    "name": "signals.neighbour_agreement",
    "paper": {
        "title": "Self-Training for Sample-Efficient Active Learning for Text Classification with Pre-Trained "
        "Language Models",
        "identifier": "arXiv:2406.09206",
    },
    "summary": "How many of a row's nearest neighbours have the same predicted class, and which class that is.",
    "reads": ["{column}", "{label_column}", "classes?"],
    "writes": ["neighbour_agreement", "neighbour_label"],
    "cost": "one product of the sample's vectors with themselves",
    "baseline": "signals.class_probabilities",
    "headline": "a second opinion on a prediction, as good as the embedding; blind to errors of whole clusters",
    "version": 1,
}


def agreement(labels: np.ndarray, near: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """(most frequent of `labels` [n] among the neighbours `near` [n, k], share), [n] each; ties: the first."""
    rows = np.repeat(np.arange(len(near)), near.shape[1])
    counts = np.bincount(rows * classes + labels[near].ravel(), minlength=len(near) * classes)
    counts = counts.reshape(len(near), classes)
    return counts.argmax(axis=1), counts.max(axis=1) / near.shape[1]


class NeighbourAgreement(Scorer):
    """`column` holds the vectors, `label_column` the predicted classes; `k` neighbours, the row itself left out;
    at most `sample` rows take part, which bounds the cost."""

    column: str = "embedding"
    label_column: str = "predicted"
    k: int = Field(default=14, ge=1)
    sample: int = Field(default=16_384, ge=2)
    seed: int = Field(default=0, ge=0)

    def fit(self, dataset: Dataset, inputs: Inputs) -> State:
        dataset.require(self.label_column)
        ids = dataset.ids()
        chosen = np.sort(np.argsort(-uniform(self.seed, ids), kind="stable")[: self.sample])
        if self.k >= len(chosen):
            raise InputError(
                f"{self.name}: there are too few rows for {self.k} neighbours",
                where="k",
                expected=f"more than {self.k} rows",
                found=f"{len(chosen)} rows",
                remedy="lower k",
            )
        given = dataset.column(self.label_column).to_pylist()
        names = self._classes(dataset, given)
        index = {name: number for number, name in enumerate(names)}
        missing = next((ids[row] for row in chosen if given[row] not in index), None)
        if missing is not None:
            raise InputError(
                f"column {self.label_column!r} holds no class that is known",
                where=f"row {missing}",
                expected=", ".join(map(str, names[:12])),
                found=repr(given[ids.index(missing)]),
                remedy="predict a class for every row first (signals.class_probabilities)",
            )
        vectors = unit(vector_column(dataset, self.column)[chosen])
        labels = np.array([index[given[row]] for row in chosen])
        best, share = agreement(labels, neighbours(vectors, self.k), len(names))
        return {"ids": [ids[row] for row in chosen], "label": [names[b] for b in best], "agreement": share}

    def score(self, shard: pa.Table, state: State, inputs: Inputs) -> dict[str, Any]:
        found = dict(zip(state["ids"], zip(state["label"], np.asarray(state["agreement"]).tolist())))
        pairs = [found.get(identifier, (None, float("nan"))) for identifier in shard.column("id").to_pylist()]
        return {
            "neighbour_agreement": np.array([share for _, share in pairs]),
            "neighbour_label": pa.array([label for label, _ in pairs], pa.string()),
        }

    def _classes(self, dataset: Dataset, given: list[Any]) -> list[Any]:
        if "classes" in dataset.column_names and dataset.num_rows:
            return list(dataset.take([0]).column("classes")[0].as_py() or [])
        return sorted({name for name in given if name is not None})
