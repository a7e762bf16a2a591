"""The risk that a machine's label is wrong, from features and other weak sources, without gold labels.

A logistic model h(z) = softmax(W z + b) of the vectors z of `column` is fitted to all votes at once. With source
losses l_ij = CE(h(z_i), L_ij) / m over the sources that voted (m sources; not renormalised over voters): minimise
mean_i G_i + ridge / 2 |W|^2 with G = a^2, a = sum_j l_ij (`square`), a (`linear`), sqrt(sum_j l_ij^2) (`norm`) or
max_j l_ij (`max`), by L-BFGS, stopped when the loss of a held-out tenth has not fallen for `patience` steps:
votes judge votes, gold is never seen. risk_i = 1 - h(z_i)[label of `machine`]. Below `folds_below` rows h(z_i) is
fitted without row i's fifth, equal texts together. Departures: the paper also trains encoders; its code stops
early on a vector handed in beside the votes.
"""

from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError, suggest
from tutelage.core.method import Inputs, Scorer, State
from tutelage.core.text.hashing import hash64_many, uniform
from tutelage.core.text.rows import texts
from tutelage.core.vectors import vector_column
from tutelage.signals._votes import read_votes, votes_of_shard

CARD = {
    "name": "signals.polar",
    "paper": {
        "title": "Pareto Optimal Learning for Estimating Large Language Model Errors",
        "identifier": "arXiv:2306.16564",
    },
    "summary": "The risk that a machine's label is wrong, from what other weak sources say of similar rows.",
    "reads": ["{votes}", "{column}", "vote_sources?"],
    "writes": ["label_risk", "repaired_label", "harmonised_probs", "classes"],
    "inputs": {"labels?": "rows with the classes: label, description, aliases"},
    "cost": "one to five small logistic regressions",
    "baseline": "signals.dawid_skene",
    "headline": "ranks machine labels by how likely they are wrong; no better than the sources beside the machine",
    "version": 1,
}

Scalar = Literal["square", "linear", "norm", "max"]
FOLDS = 5


def scalarised(losses: np.ndarray, votes: np.ndarray, sources: int, kind: Scalar) -> tuple[np.ndarray, np.ndarray]:
    """(G [n], dG / dCE [n, C]) for cross-entropies `losses` [n, C] and `votes` [n, C] per class of m `sources`."""
    each = losses / sources
    if kind == "norm":
        value = np.sqrt((votes * each**2).sum(axis=1))
        return value, votes * each / sources / np.maximum(value, 1e-300)[:, None]
    if kind == "max":
        top = np.where(votes > 0, each, -1.0).argmax(axis=1)
        picked = np.zeros_like(losses)
        picked[np.arange(len(top)), top] = (votes.sum(axis=1) > 0) / sources
        return (picked * losses).sum(axis=1), picked
    value = (votes * each).sum(axis=1)
    if kind == "linear":
        return value, votes / sources
    return value**2, 2.0 * value[:, None] * votes / sources


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def harmonise(
    vectors: np.ndarray,
    votes: np.ndarray,
    sources: int,
    kind: Scalar = "square",
    ridge: float = 0.0,
    *,
    held: np.ndarray | None = None,
    patience: int = 5,
) -> np.ndarray:
    """[d + 1, C]: W above b, for `vectors` [n, d] and `votes` [n, C] per class; rows without votes do not count.

    `held` bool [n] are the rows that decide when to stop; without them it runs to the optimum.
    """
    from scipy.optimize import minimize

    voted = votes.sum(axis=1) > 0
    fitted = voted if held is None else voted & ~held
    inputs = np.hstack([vectors, np.ones((len(vectors), 1))]).astype(np.float64)
    shape = (inputs.shape[1], votes.shape[1])

    def loss(flat: np.ndarray, rows: np.ndarray, penalty: float) -> tuple[float, np.ndarray]:
        weights = flat.reshape(shape)
        logs = log_softmax(inputs[rows] @ weights)
        value, slope = scalarised(-logs, votes[rows], sources, kind)
        towards = slope.sum(axis=1, keepdims=True) * np.exp(logs) - slope
        decay = penalty * weights
        decay[-1] = 0.0
        gradient = inputs[rows].T @ towards / len(value) + decay
        return float(value.mean() + 0.5 * (decay * weights).sum()), gradient.ravel()

    best, least, since = np.zeros(shape).ravel(), np.inf, 0

    def watch(flat: np.ndarray) -> None:
        nonlocal best, least, since
        now = loss(flat, held & voted, 0.0)[0]
        since = 0 if now < least - 1e-9 else since + 1
        if now < least:
            best, least = flat.copy(), now
        if since >= patience:
            raise StopIteration

    stops = held is not None and bool((held & voted).any())
    options = {"maxiter": 1000, "maxfun": 4000, "ftol": 1e-13, "gtol": 1e-9}
    found = minimize(
        loss, best, args=(fitted, ridge), jac=True, method="L-BFGS-B", options=options,
        callback=watch if stops else None,
    )  # fmt: skip
    return (best if stops else found.x).reshape(shape)


class Polar(Scorer):
    """`machine` names the source whose labels are judged; `votes` and `column` the columns of votes and vectors;
    `loss` is G. Where the risk is above `repair_over`, `repaired_label` is the model's class."""

    machine: str = ""
    votes: str = "votes"
    column: str = "embedding"
    loss: Scalar = "square"
    ridge: float = Field(default=1e-6, ge=0)
    patience: int = Field(default=5, ge=1)
    folds_below: int = Field(default=2000, ge=0)
    repair_over: float = Field(default=0.5, ge=0, le=1)
    seed: int = Field(default=0, ge=0)

    def fit(self, dataset: Dataset, inputs: Inputs) -> State:
        found = read_votes(dataset, self.votes, inputs)
        if self.machine not in found.sources:
            raise ConfigError(
                f"{self.name} needs the source whose labels it judges",
                where="machine",
                expected=", ".join(found.sources),
                found=repr(self.machine),
                remedy=suggest(self.machine, found.sources),
            )
        if (found.matrix[:, found.sources.index(self.machine)] < 0).all():
            raise InputError(f"{self.name}: the machine has not labelled any row", where=self.machine)
        vectors = vector_column(dataset, self.column)
        classes = len(found.classes)
        counts = (found.matrix[:, :, None] == np.arange(classes)).sum(axis=1)
        keys = [key for shard in dataset.shards() for key in self._keys(shard)]
        held = uniform(self.seed + 1, keys) < 0.1
        count = FOLDS if len(keys) < self.folds_below else 1
        folds = self._folds(keys, count)
        weights = []
        for fold in range(count):
            used = (folds != fold) | (count == 1)
            given = (vectors[used], counts[used], len(found.sources), self.loss, self.ridge)
            weights.append(harmonise(*given, held=held[used], patience=self.patience))
        return {"sources": list(found.sources), "classes": list(found.classes), "weights": np.array(weights)}

    def score(self, shard: pa.Table, state: State, inputs: Inputs) -> dict[str, Any]:
        weights = np.asarray(state["weights"])
        vectors = vector_column(Dataset.from_table(shard), self.column)
        if vectors.shape[1] + 1 != weights.shape[1]:
            raise InputError(
                f"column {self.column!r} has vectors of another length than the fitted ones",
                where=self.column,
                expected=f"{weights.shape[1] - 1} numbers",
                found=f"{vectors.shape[1]} numbers",
                remedy="embed both datasets with one fitted signal",
            )
        matrix = votes_of_shard(shard, self.votes, state)
        label = matrix[:, list(state["sources"]).index(self.machine)]
        own = weights[self._folds(self._keys(shard), len(weights))]
        probs = np.exp(log_softmax(np.einsum("nd,ndc->nc", vectors, own[:, :-1]) + own[:, -1]))
        risk = np.where(label >= 0, 1.0 - probs[np.arange(len(label)), np.maximum(label, 0)], np.nan)
        repaired = np.where(risk > self.repair_over, probs.argmax(axis=1), label)
        names = np.array([*state["classes"], None], dtype=object)
        return {
            "label_risk": risk,
            "repaired_label": pa.array(names[np.where(label >= 0, repaired, -1)], pa.string()),
            "harmonised_probs": pa.array(list(probs), pa.list_(pa.float64())),
            "classes": pa.array([list(state["classes"])] * len(shard), pa.list_(pa.string())),
        }

    def _keys(self, shard: pa.Table) -> list[str]:
        """What decides a row's fold: its text, so that copies are in one, else its id."""
        return texts(shard) if "text" in shard.column_names else shard.column("id").to_pylist()

    def _folds(self, keys: list[str], count: int) -> np.ndarray:
        return (hash64_many(self.seed, keys) % np.uint64(count)).astype(np.int64)
