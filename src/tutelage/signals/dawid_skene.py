"""Labels from several sources of unknown quality: how each errs is estimated together with the labels (EM).

Votes L [n, m], classes k. E: q_ik ~ pi_k prod_j T_j[k, L_ij] over the sources j that did not abstain.
M: T_j[k, l] = (a + sum_i q_ik 1[L_ij = l]) / (C a + sum_{i: L_ij >= 0} q_ik), pi_k = mean_i q_ik, or fixed to a
known `prior`. Start: q = shares of the votes; end: a relative change of the log-likelihood below 1e-6 or `rounds`.
With `abstention: outcome` silence is one more column of T_j and counts as evidence: a source that knows one class
only (a keyword) says something by voting and nothing by what it votes, so with `ignored` it has no effect at all.
`auto` takes `outcome` where there is such a source. Sources that agree on over 98 % of the rows on which either
votes, and vote together on at least 50, are merged first: a copy would be counted as evidence twice. Agreement on
shared votes alone would merge all keywords of one class.
"""

import warnings
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.method import Inputs, Scorer, State
from tutelage.signals._votes import ABSTAIN, given_prior, label_columns, one_hot, read_votes, votes_of_shard

CARD = {
    "name": "signals.dawid_skene",
    "paper": {
        "title": "Maximum Likelihood Estimation of Observer Error-Rates Using the EM Algorithm",
        "identifier": "doi:10.2307/2346806",
    },
    "summary": "One label per row from the votes of several sources, with the errors of each source estimated.",
    "reads": ["{column}", "vote_sources?"],
    "writes": ["vote_label", "vote_probs", "classes", "vote_tie", "vote_covered"],
    "inputs": {"labels?": "rows with the classes: label, description, aliases"},
    "cost": "some tens of passes over the votes",
    "baseline": "signals.majority_vote",
    "headline": "better than counting when sources differ and err independently; worse when they err together",
    "version": 1,
}

SAME, SHARED = 0.98, 50


def expectation(votes: Any, prior: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, float]:
    """(posterior q [n, C], log-likelihood) for one-hot `votes` [n, m * K] and `errors` T [m, C, K]."""
    tables = np.log(np.maximum(errors, 1e-300)).transpose(0, 2, 1).reshape(votes.shape[1], -1)
    joint = votes @ tables + np.log(np.maximum(prior, 1e-300))
    top = joint.max(axis=1, keepdims=True)
    scaled = np.exp(joint - top)
    total = scaled.sum(axis=1, keepdims=True)
    return scaled / total, float((top + np.log(total)).sum())


def maximisation(votes: Any, q: np.ndarray, outcomes: int, smoothing: float) -> np.ndarray:
    """T [m, C, K] for the posterior `q` [n, C]; a class that no vote speaks of has even errors."""
    counts = (votes.T @ q).reshape(-1, outcomes, q.shape[1]).transpose(0, 2, 1) + smoothing
    total = counts.sum(axis=2, keepdims=True)
    return np.where(total > 0, counts / np.maximum(total, 1e-300), 1 / outcomes)


def fit(
    votes: Any, q: np.ndarray, outcomes: int, smoothing: float, rounds: int, fixed: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """(q, prior, T, rounds used) by EM from the posterior `q`; `fixed` is a known prior."""
    before, done = -np.inf, 0
    while done < rounds:
        done += 1
        prior = q.mean(axis=0) if fixed is None else fixed
        errors = maximisation(votes, q, outcomes, smoothing)
        q, likelihood = expectation(votes, prior, errors)
        if abs(likelihood - before) < 1e-6 * abs(likelihood):
            break
        before = likelihood
    return q, prior, errors, done


def copies(matrix: np.ndarray) -> np.ndarray:
    """[m]: the first source that each source repeats, itself where it repeats none."""
    first = np.arange(matrix.shape[1])
    for later in range(matrix.shape[1]):
        for earlier in range(later):
            a, b = matrix[:, earlier], matrix[:, later]
            either = (a != ABSTAIN) | (b != ABSTAIN)
            both = (a != ABSTAIN) & (b != ABSTAIN)
            if both.sum() >= SHARED and (a == b)[either].mean() > SAME:
                first[later] = first[earlier]
                break
    return first


def merged(matrix: np.ndarray, first: np.ndarray) -> np.ndarray:
    """One column for each group of copies: the first vote that one of them gives."""
    columns = []
    for group in np.unique(first):
        column = matrix[:, group].copy()
        for other in np.flatnonzero(first == group):
            column = np.where(column == ABSTAIN, matrix[:, other], column)
        columns.append(column)
    return np.stack(columns, axis=1)


class DawidSkene(Scorer):
    """`column` holds the votes, names with null or numbers with -1; `smoothing` is a; `prior` known shares of the
    classes, kept fixed; at most `rounds` of EM; `abstention` says whether silence is evidence."""

    column: str = "votes"
    abstention: Literal["auto", "ignored", "outcome"] = "auto"
    smoothing: float = Field(default=0.01, ge=0)
    prior: dict[str, float] | None = None
    rounds: int = Field(default=100, ge=1)

    def fit(self, dataset: Dataset, inputs: Inputs) -> State:
        votes = read_votes(dataset, self.column, inputs)
        names, classes = votes.sources, len(votes.classes)
        first = copies(votes.matrix)
        for later in np.flatnonzero(first != np.arange(len(first))):
            self._warn(f"source {names[later]!r} repeats {names[first[later]]!r}: the two are one source here")
        matrix = merged(votes.matrix, first)
        known = given_prior(self.prior, votes.classes, self.name)
        if matrix.shape[1] < 3 and known is None:
            self._warn(
                f"{matrix.shape[1]} sources: who of them is right is not identifiable without a known prior"
            )
        single = [len(np.unique(column[column >= 0])) == 1 for column in matrix.T]
        silence = self.abstention == "outcome" or (self.abstention == "auto" and any(single))
        if any(single) and not silence:
            kept = [names[g] for g, alone in zip(np.unique(first), single) if alone]
            self._warn(f"sources that vote for one class only have no effect: {', '.join(kept)}")
        state: State = {"sources": list(names), "classes": list(votes.classes), "first": first, "silence": silence}
        coded = self._coded(votes.matrix, state)
        start = one_hot(matrix, classes) @ np.tile(np.eye(classes), (matrix.shape[1], 1))
        total = start.sum(axis=1, keepdims=True)
        q = np.where(total > 0, start / np.maximum(total, 1), start.sum(axis=0) / start.sum())
        q, prior, errors, done = fit(coded, q, classes + silence, self.smoothing, self.rounds, known)
        diagonal = errors[:, range(classes), range(classes)] / np.maximum(
            errors[:, :, :classes].sum(axis=2), 1e-300
        )
        if diagonal.mean() < 1 / classes - 1e-6:
            self._warn(
                f"label switching suspected: by this fit the sources are right in {diagonal.mean():.0%} of their "
                f"votes, below the {1 / classes:.0%} of guessing; give a prior, or take signals.majority_vote"
            )
        return {**state, "prior": prior, "errors": errors, "rounds": done}

    def score(self, shard: pa.Table, state: State, inputs: Inputs) -> dict[str, Any]:
        matrix = votes_of_shard(shard, self.column, state)
        prior = np.asarray(state["prior"])
        q, _ = expectation(self._coded(matrix, state), prior, np.asarray(state["errors"]))
        return label_columns(q, matrix, state["classes"], prior)

    def _coded(self, matrix: np.ndarray, state: State) -> Any:
        """One-hot votes of the merged sources; silence is the last outcome where it counts."""
        matrix, classes = merged(matrix, np.asarray(state["first"])), len(state["classes"])
        if not state["silence"]:
            return one_hot(matrix, classes)
        return one_hot(np.where(matrix == ABSTAIN, classes, matrix), classes + 1)

    def _warn(self, message: str) -> None:
        warnings.warn(f"{self.name}: {message}", stacklevel=3)
