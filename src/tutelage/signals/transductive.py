"""Classes for a whole batch of rows at once, from a few labelled ones and the shape of the data.

Over queries and support p with vectors f_p (centred by their mean, length 1), prototypes c_k and soft assignments
z_p (fixed one-hot for the support) minimise s sum_p z_p . u_p + sum_p z_p . ln z_p - (l / 2) sum_pq W_pq z_p .
z_q, u_pk = |f_p - c_k|^2, W the symmetrised graph of the k nearest neighbours (1 / k for each). In turn c_k =
sum_p z_pk f_p / sum_p z_pk (start: means of the support; a class that nothing chooses keeps its prototype) and,
up to 20 times, z_p = softmax(-s u_p + l (W z)_p). For a positive semi-definite W the objective never rises; with
another the best state is kept and the run ends where it rises. `hard` assigns the likeliest class: with l = 0,
k-means. The paper has no scale s: at length 1, s = 1 makes assignments nearly even, so ours is 10. l is chosen
among 0, 0.1, 0.5, 1 and 3 by the support rows left out one per class, or is 1 where a class has one row. The
result depends on which rows are classified together, and `transductive` marks it.
"""

from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.labels import LabelSpace
from tutelage.core.method import Inputs, Scorer, State
from tutelage.core.vectors import vector_column
from tutelage.signals._neighbours import neighbours, unit

CARD = {
    "name": "signals.transductive",
    "paper": {
        "title": "Transductive Few-Shot Learning: Clustering is All You Need?",
        "identifier": "arXiv:2106.09516",
    },
    "summary": "Classes for a batch of rows at once, from a few labelled rows, by clustering an embedding column.",
    "reads": ["{column}"],
    "writes": ["predicted", "predicted_probs", "classes", "confidence", "transductive"],
    "inputs": {
        "support": "the labelled rows, with the same embedding",
        "labels?": "rows with the classes: label, description, aliases",
    },
    "cost": "one product of all vectors with themselves, then seconds",
    "baseline": "signals.class_probabilities",
    "headline": "much with one label per class, little or nothing with eight; assumes that classes are clusters",
    "version": 1,
}

COUPLINGS = (0.0, 0.1, 0.5, 1.0, 3.0)
INNER, OUTER, TOLERANCE = 20, 50, 1e-5


def objective(z: np.ndarray, u: np.ndarray, graph: Any, coupling: float, scale: float) -> float:
    """The value to be minimised, for assignments z [n, C] and squared distances u [n, C]."""
    value = scale * (z * u).sum() + (z * np.log(np.maximum(z, 1e-300))).sum()
    return float(value - (0.5 * coupling * (z * (graph @ z)).sum() if coupling else 0.0))


def distances(vectors: np.ndarray, prototypes: np.ndarray) -> np.ndarray:
    """[n, C] squared distances."""
    found = (vectors**2).sum(axis=1)[:, None] - 2.0 * vectors @ prototypes.T + (prototypes**2).sum(axis=1)
    return np.maximum(found, 0.0)


def cluster(
    vectors: np.ndarray,
    prototypes: np.ndarray,
    fixed: np.ndarray,
    graph: Any,
    coupling: float,
    *,
    scale: float = 1.0,
    hard: bool = False,
) -> tuple[np.ndarray, list[float]]:
    """(z [n, C], the objective after every step) from the `prototypes` [C, d]; `fixed` int [n] is the class of a
    support row, -1 for the others."""
    classes = len(prototypes)
    support = np.flatnonzero(fixed >= 0)
    anchor = np.eye(classes)[fixed[support]]
    z = np.zeros((len(vectors), classes))
    z[support] = anchor
    history: list[float] = []
    best = z
    for _ in range(OUTER):
        u = distances(vectors, prototypes)
        before = len(history)
        for _ in range(INNER):
            scores = -scale * u + (coupling * (graph @ z) if coupling else 0.0)
            if hard:
                z = np.eye(classes)[scores.argmax(axis=1)]
            else:
                z = np.exp(scores - scores.max(axis=1, keepdims=True))
                z /= z.sum(axis=1, keepdims=True)
            z[support] = anchor
            now = objective(z, u, graph, coupling, scale)
            if history and now > history[-1] + 1e-9 * abs(history[-1]):
                return best, history
            best = z
            history.append(now)
            if not coupling or (len(history) > 1 and history[-2] - now <= TOLERANCE * abs(now)):
                break
        mass = z.sum(axis=0)[:, None]
        prototypes = np.where(mass > 1e-9, z.T @ vectors / np.maximum(mass, 1e-9), prototypes)
        if before and history[before - 1] - history[-1] <= 1e-8 * abs(history[-1]):
            break
    return best, history


def neighbour_graph(vectors: np.ndarray, k: int) -> Any:
    """CSR [n, n]: (A + A^T) / 2 with A_pq = 1 / k for the k nearest q of p."""
    from scipy import sparse

    near = neighbours(vectors, k)
    rows = np.repeat(np.arange(len(near)), k)
    one = sparse.csr_matrix((np.full(near.size, 1.0 / k), (rows, near.ravel())), shape=(len(near), len(near)))
    return ((one + one.T) / 2).tocsr()


class Transductive(Scorer):
    """`column` holds the vectors of rows and support; `coupling` is l (null: chosen on the support), `scale` is s,
    `k` the neighbours; `hard` makes assignments one-hot."""

    column: str = "embedding"
    coupling: float | None = Field(default=None, ge=0)
    scale: float = Field(default=10.0, gt=0)
    k: int = Field(default=5, ge=1)
    hard: bool = False

    def fit(self, dataset: Dataset, inputs: Inputs) -> State:
        support: Dataset = inputs["support"]
        space = LabelSpace.of(support, inputs.get("labels"))
        known = dict(zip(support.ids(), support.column("label").to_pylist()))
        known = {identifier: space.index(label) for identifier, label in known.items() if label is not None}
        missing = [name for number, name in enumerate(space.names) if number not in known.values()]
        if missing:
            raise InputError(
                "a class has no labelled row",
                where="inputs.support",
                expected=f"a row of each class: {', '.join(space.names[:12])}",
                found=f"none of {', '.join(missing[:12])}",
                remedy="label one row of it, or take it out of the schema",
            )
        held, rows = vector_column(support, self.column), vector_column(dataset, self.column)
        if held.shape[1] != rows.shape[1]:
            raise InputError(
                f"{self.name}: the support has vectors of another length than the rows",
                where="inputs.support",
                expected=f"{rows.shape[1]} numbers in {self.column!r}",
                found=f"{held.shape[1]} numbers",
                remedy="embed both datasets with one fitted signal",
            )
        ids = dataset.ids()
        here = set(ids)
        apart = np.array([i in known and i not in here for i in support.ids()], dtype=bool)
        fixed = np.array([known.get(i, -1) for i in ids] + [known[i] for i, a in zip(support.ids(), apart) if a])
        vectors = np.vstack([rows, held[apart]]).astype(np.float64)
        vectors = unit(vectors - vectors.mean(axis=0))
        graph = neighbour_graph(vectors, min(self.k, len(vectors) - 1)) if self.coupling != 0 else None
        coupling = self._chosen(vectors, fixed, graph) if self.coupling is None else self.coupling
        z, _ = cluster(vectors, means(vectors, fixed), fixed, graph, coupling, scale=self.scale, hard=self.hard)
        return {"ids": ids, "probs": z[: len(ids)], "classes": list(space.names), "coupling": coupling}

    def score(self, shard: pa.Table, state: State, inputs: Inputs) -> dict[str, Any]:
        place = {identifier: row for row, identifier in enumerate(state["ids"])}
        ids = shard.column("id").to_pylist()
        foreign = next((identifier for identifier in ids if identifier not in place), None)
        if foreign is not None:
            raise InputError(
                f"{self.name}: a row was not in the batch that was classified together",
                where=f"row {foreign}",
                remedy="classify all rows in one step: the result depends on which rows are together",
            )
        probs = np.asarray(state["probs"])[[place[identifier] for identifier in ids]]
        names = list(state["classes"])
        return {
            "predicted": [names[best] for best in probs.argmax(axis=1)],
            "predicted_probs": pa.array(list(probs), pa.list_(pa.float64())),
            "classes": pa.array([names] * len(ids), pa.list_(pa.string())),
            "confidence": probs.max(axis=1),
            "transductive": np.ones(len(ids), dtype=bool),
        }

    def _chosen(self, vectors: np.ndarray, fixed: np.ndarray, graph: Any) -> float:
        """The coupling under which support rows that are left out, one of each class at a time, are best found."""
        rows = [np.flatnonzero(fixed == number) for number in range(int(fixed.max()) + 1)]
        turns = min(len(r) for r in rows)
        if turns < 2:
            return 1.0
        right = np.zeros(len(COUPLINGS))
        for turn in range(min(turns, 5)):
            out = np.array([r[turn] for r in rows])
            rest = fixed.copy()
            rest[out] = -1
            for number, coupling in enumerate(COUPLINGS):
                z, _ = cluster(
                    vectors, means(vectors, rest), rest, graph, coupling, scale=self.scale, hard=self.hard
                )
                right[number] += (z[out].argmax(axis=1) == fixed[out]).sum()
        return COUPLINGS[int(right.argmax())]


def means(vectors: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """Mean [C, d] of the support rows of every class."""
    return np.array([vectors[fixed == number].mean(axis=0) for number in range(int(fixed.max()) + 1)])
