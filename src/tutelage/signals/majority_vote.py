"""The class that most sources voted for, every source counted alike or with a weight of its own.

s_ik = sum_j w_j 1[L_ij = k] over the sources j that did not abstain; vote_probs_i = s_i / sum_k s_ik and
vote_label_i the largest. Equally many votes go to the class with the larger prior (`prior`, else the share of each
class among all votes) and are marked in `vote_tie`. A row without votes has the prior as its probabilities, no
label, and `vote_covered` false.
"""

from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.errors import unknown
from tutelage.core.method import Inputs, Scorer, State
from tutelage.signals._votes import given_prior, label_columns, one_hot, read_votes, votes_of_shard

CARD = {
    "name": "signals.majority_vote",
    "paper": {"title": "Common practice", "identifier": ""},
    "summary": "One label per row from the votes of several sources: what most of them say.",
    "reads": ["{column}", "vote_sources?"],
    "writes": ["vote_label", "vote_probs", "classes", "vote_tie", "vote_covered"],
    "inputs": {"labels?": "rows with the classes: label, description, aliases"},
    "cost": "one pass over the votes",
    "baseline": "signals.constant",
    "headline": "hard to beat when sources are alike; counts a copied source twice",
    "version": 1,
}


def shares(matrix: np.ndarray, classes: int, weights: np.ndarray) -> np.ndarray:
    """Weighted votes per class [n, C] divided by their sum; rows without votes (or weight) are zero."""
    spread = np.zeros((matrix.shape[1] * classes, classes))
    for source, weight in enumerate(weights):
        spread[source * classes : (source + 1) * classes] = weight * np.eye(classes)
    counted = one_hot(matrix, classes) @ spread
    return counted / np.maximum(counted.sum(axis=1, keepdims=True), 1e-300)


class MajorityVote(Scorer):
    """`column` holds the votes, names with null or numbers with -1; `weights` of sources that do not count 1;
    `prior` the shares of the classes, to decide ties."""

    column: str = "votes"
    weights: dict[str, float] = Field(default_factory=dict)
    prior: dict[str, float] | None = None

    def fit(self, dataset: Dataset, inputs: Inputs) -> State:
        votes = read_votes(dataset, self.column, inputs)
        wrong = next((name for name in self.weights if name not in votes.sources), None)
        if wrong is not None:
            raise unknown(f"{self.name}: no source has this name", "weights", wrong, votes.sources)
        counted = np.bincount(votes.matrix[votes.matrix >= 0], minlength=len(votes.classes))
        prior = given_prior(self.prior, votes.classes, self.name)
        return {
            "sources": list(votes.sources),
            "classes": list(votes.classes),
            "weights": np.array([self.weights.get(name, 1.0) for name in votes.sources]),
            "prior": counted / counted.sum() if prior is None else prior,
        }

    def score(self, shard: pa.Table, state: State, inputs: Inputs) -> dict[str, Any]:
        matrix = votes_of_shard(shard, self.column, state)
        weights, prior = np.asarray(state["weights"]), np.asarray(state["prior"])
        matrix = np.where(weights > 0, matrix, -1)
        probs = shares(matrix, len(state["classes"]), weights)
        probs[probs.sum(axis=1) == 0] = prior
        return label_columns(probs, matrix, state["classes"], prior)
