"""How much each row looks like the positive rows rather than the negative ones: a linear model of hashed n-grams.

x = counts of hashed words and word pairs (2^20 buckets) / length of that vector; z = w x + b by logistic
regression with balanced classes, fitted on all but a held-out share of the given rows (drawn by hash of the text:
copies stay on one side). p_positive = 1 / (1 + exp(-(s z + o))) with slope s >= 0 and offset o fitted on the
held-out rows, to Platt's smoothed targets and with equal weight of both classes: p is for equally many of both
kinds, other shares multiply the odds. Two measures of the held-out rows stand beside every score: classifier_auc,
and classifier_auc_same_length over the pairs of a positive and a negative of which neither has over a tenth more
n-grams, because such classifiers often learn length, the boilerplate of a source, or language. Rows without a word
have no score. In place of fastText's trained word vectors the n-grams themselves are the features.
"""

import warnings
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.method import Inputs, Scorer, State
from tutelage.core.text.hashing import uniform
from tutelage.core.text.rows import text_array

CARD = {
    "name": "signals.text_classifier",
    "paper": {"title": "Bag of Tricks for Efficient Text Classification", "identifier": "arXiv:1607.01759"},
    "summary": "Calibrated probability that a row is of the positive kind, by a linear model of hashed n-grams.",
    "reads": ["text"],
    "writes": ["p_positive", "classifier_auc", "classifier_auc_same_length"],
    "inputs": {"positives": "rows of the wanted kind", "negatives": "rows of the other kind"},
    "needs": ["train"],
    "cost": "one pass over the bytes and one logistic regression",
    "baseline": "signals.similarity_tfidf",
    "headline": "strong filters of web text are this simple; look at the AUC at equal length before trusting one",
    "version": 1,
}

NEAR = 1.1  # two texts of equal length: neither has more than this many times the words of the other
WEAK = 0.6  # an AUC below which the classifier warns that it has learnt next to nothing


def platt(scores: np.ndarray, positive: np.ndarray) -> tuple[float, float]:
    """(slope >= 0, offset) of 1 / (1 + exp(-(slope z + offset))) for `scores` z [n] and `positive` bool [n]: the
    least cross-entropy against Platt's targets (n+ + 1) / (n+ + 2) and 1 / (n- + 2), both classes of equal weight.
    """
    from scipy.optimize import minimize

    counts = np.bincount(positive, minlength=2)
    target = np.where(positive, (counts[1] + 1) / (counts[1] + 2), 1 / (counts[0] + 2))
    weight = 0.5 / counts[positive.astype(int)]
    # Scaled to unit spread, the search does not depend on how strongly the model was regularised.
    scale = max(float(np.abs(scores).max()), 1e-12)
    z = scores / scale

    def loss(at: np.ndarray) -> tuple[float, np.ndarray]:
        logits = at[0] * z + at[1]
        error = weight * (1 / (1 + np.exp(-np.clip(logits, -500, 500))) - target)
        value = weight @ (np.logaddexp(0, logits) - target * logits)
        return float(value), np.array([error @ z, error.sum()])

    found = minimize(loss, [1.0, 0.0], jac=True, method="L-BFGS-B", bounds=[(0, None), (None, None)])
    return float(found.x[0] / scale), float(found.x[1])


def auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Share of (positive, negative) pairs in which the positive scores higher; ties count half."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(positive, scores))


def auc_same_length(scores: np.ndarray, positive: np.ndarray, lengths: np.ndarray) -> float:
    """`auc` over the pairs with lengths within a factor of `NEAR`; NaN when there is none."""
    order = np.argsort(lengths[~positive], kind="stable")
    sizes, others = lengths[~positive][order], scores[~positive][order]
    first = np.searchsorted(sizes, lengths[positive] / NEAR, side="left")
    last = np.searchsorted(sizes, lengths[positive] * NEAR, side="right")
    won = 0.0
    for score, a, b in zip(scores[positive], first, last):
        won += np.count_nonzero(score > others[a:b]) + 0.5 * np.count_nonzero(score == others[a:b])
    pairs = int((last - first).sum())
    return float(won / pairs) if pairs else float("nan")


class TextClassifier(Scorer):
    """`ngrams` 2 adds word pairs; `C` is the inverse strength of the L2 penalty; `held_out` the share of the given
    rows that calibrates and measures."""

    ngrams: int = Field(default=2, ge=1, le=3)
    C: float = Field(default=10.0, gt=0)
    held_out: float = Field(default=0.2, gt=0, lt=1)
    seed: int = Field(default=0, ge=0)

    def fit(self, dataset: Dataset, inputs: Inputs) -> State:
        from scipy import sparse
        from sklearn.linear_model import LogisticRegression

        from tutelage.signals._tfidf import FEATURES

        parts, chances = [], []
        for name in ("negatives", "positives"):
            counts, chance = self._read(inputs[name], name)
            parts.append(counts)
            chances.append(chance)
        counts = sparse.vstack(parts, format="csr")
        positive = np.repeat([False, True], [part.shape[0] for part in parts])
        held = np.concatenate(chances) < self.held_out
        cells = {
            f"{name}, {use}": int(((positive == kind) & (held == later)).sum())
            for name, kind in (("positive", True), ("negative", False))
            for use, later in (("fitted", False), ("held out", True))
        }
        if not all(cells.values()):
            raise InputError(
                f"{self.name}: there are too few rows of both kinds to fit and to check",
                where="inputs",
                expected="different positive and negative rows on both sides of the split",
                found=", ".join(f"{count} {cell}" for cell, count in cells.items()),
                remedy="give more rows with text, or change held_out",
            )
        # Only columns that occur are given to the solver, whose working memory grows with them.
        used = np.unique(counts.indices)
        matrix = unit_rows(counts)[:, used]
        model = LogisticRegression(C=self.C, class_weight="balanced", max_iter=1000)
        model.fit(matrix[~held], positive[~held])
        scores = matrix[held] @ model.coef_[0] + model.intercept_[0]
        slope, offset = platt(scores, positive[held])
        weights = np.zeros(FEATURES)
        weights[used] = model.coef_[0]
        lengths = np.asarray(counts[held].sum(axis=1)).ravel()
        found = {
            "classifier_auc": auc(scores, positive[held]),
            "classifier_auc_same_length": auc_same_length(scores, positive[held], lengths),
        }
        if not min(found.values()) >= WEAK:
            warnings.warn(
                f"{self.name}: the AUC on held-out rows is {found['classifier_auc']:.2f}, and "
                f"{found['classifier_auc_same_length']:.2f} among texts of equal length: what it tells apart may "
                "be length, or nothing at all",
                stacklevel=2,
            )
        state: State = {"weights": weights, "intercept": float(model.intercept_[0]), "rows": cells}
        return {**state, "slope": slope, "offset": offset, **found}

    def score(self, shard: pa.Table, state: State, inputs: Inputs) -> dict[str, np.ndarray]:
        from scipy.special import expit

        from tutelage.signals._tfidf import count_matrix

        counts = count_matrix(text_array(shard), self.ngrams)
        z = unit_rows(counts) @ np.asarray(state["weights"]) + state["intercept"]
        found = expit(state["slope"] * z + state["offset"])
        found[np.diff(counts.indptr) == 0] = np.nan
        measures = ("classifier_auc", "classifier_auc_same_length")
        return {"p_positive": found, **{name: np.full(len(shard), state[name]) for name in measures}}

    def _read(self, dataset: Dataset, name: str) -> tuple[Any, np.ndarray]:
        """(counts of the rows that hold a word, the number in (0, 1) that draws each) of one input."""
        from scipy import sparse

        from tutelage.signals._tfidf import count_matrix

        counts, chances = [], []
        for shard in dataset.shards():
            texts = text_array(shard)
            part = count_matrix(texts, self.ngrams)
            filled = np.flatnonzero(np.diff(part.indptr))
            counts.append(part[filled])
            chances.append(uniform(self.seed, texts.to_pylist())[filled])
        if not sum(part.shape[0] for part in counts):
            raise InputError(
                f"{self.name}: one kind of rows is missing, so there is nothing to tell apart",
                where=f"inputs.{name}",
                expected="rows with at least one word",
                found=f"{dataset.num_rows} rows, none with a word",
            )
        return sparse.vstack(counts, format="csr"), np.concatenate(chances)


def unit_rows(counts: Any) -> Any:
    """Counts (CSR) divided by the length of their row, float64; rows without a word stay zero."""
    from scipy import sparse

    squares = np.asarray(counts.multiply(counts).sum(axis=1)).ravel()
    return sparse.csr_matrix(sparse.diags_array(1 / np.sqrt(np.maximum(squares, 1e-12))) @ counts)
