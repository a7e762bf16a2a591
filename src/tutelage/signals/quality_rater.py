"""A rater that carries a judge's preferences over from a sample to a whole corpus, at the price of a linear model.

On judged pairs (a, b, p) of signals.pairwise_quality it fits w to minimise sum BCE(sigmoid(w . (x_a - x_b)), p) +
ridge / 2 |w|^2, which is logistic regression without intercept on differences; the rating of a row is w . x. x is
TF-IDF of words (cut into segments of `segment_words`; the rating of a long row is the mean over its segments,
weighted by their words), or with `embedding_column` the vector in that column of both datasets. A share `held_out`
of the pairs checks the rater: where it is right about no more of them than a coin would be, it warns, and so it
does where the ratings of the judged rows follow their length. Departure: the paper fine-tunes a language model.
"""

import itertools
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from tutelage.core.dataset import Dataset, embedding_matrix
from tutelage.core.errors import InputError
from tutelage.core.method import Inputs, Scorer, State
from tutelage.core.text.hashing import uniform
from tutelage.core.text.rows import text_rows, texts
from tutelage.signals._pairwise import fit_preferences

CARD = {
    "name": "signals.quality_rater",
    "paper": {
        "title": "QuRating: Selecting High-Quality Data for Training Language Models",
        "identifier": "arXiv:2402.09739",
    },
    "summary": "Rates every row by a linear model fitted to a judge's preferences on a sample.",
    "reads": ["text"],
    "writes": ["{column}"],
    "inputs": {"judged": "the sample, with the columns of signals.pairwise_quality"},
    "cost": "one pass over the bytes, the judge's calls apart",
    "baseline": "signals.length",
    "headline": "the paper finds sampling by such ratings better than taking the top; not verified here",
    "version": 1,
}

# From here on a rating says mostly how long a row is.
FOLLOWS_LENGTH = 0.7


def cut(text: str, words: int) -> list[str]:
    """The text in pieces of near-equal size, at most `words` words each."""
    found = text.split()
    pieces = max(1, -(-len(found) // words))
    bounds = [len(found) * number // pieces for number in range(pieces + 1)]
    return [" ".join(found[a:b]) for a, b in itertools.pairwise(bounds)]


def accuracy(difference: np.ndarray, preference: np.ndarray) -> float:
    """Share of pairs whose better row has the larger rating; a tie counts half."""
    agrees = np.sign(difference) * np.sign(preference - 0.5)
    return float(((agrees + 1) / 2).mean())


class QualityRater(Scorer):
    """`column` is written; `ngrams` 2 adds word pairs."""

    column: str = "quality"
    embedding_column: str | None = None
    ridge: float = Field(default=0.1, gt=0)
    ngrams: int = Field(default=1, ge=1, le=3)
    segment_words: int = Field(default=400, ge=1)
    held_out: float = Field(default=0.1, ge=0, lt=1)
    seed: int = Field(default=0, ge=0)

    def fit(self, dataset: Dataset, inputs: Inputs) -> State:
        judged: Dataset = inputs["judged"]
        judged.require("judged_against", "judged_preference")
        ids, rows = (list(column) for column in zip(*text_rows(judged))) if judged.num_rows else ([], [])
        pairs, preference, names = _pairs(judged, ids)
        state: State = {}
        if self.embedding_column is None:
            features, state = self._vocabulary(rows)
        else:
            features = embedding_matrix(judged.column(self.embedding_column)).astype(np.float64)
        differences = features[pairs[:, 0]] - features[pairs[:, 1]]
        checked = uniform(self.seed, names) < self.held_out
        if checked.any() and not checked.all():
            trial = fit_preferences(differences[~checked], preference[~checked], self.ridge)
            right = accuracy(differences[checked] @ trial, preference[checked])
            if right <= 0.5:
                warnings.warn(
                    f"{self.name}: right about {right:.0%} of {int(checked.sum())} judged pairs that it had not "
                    "seen: its ratings do not carry the judge's preferences over",
                    stacklevel=2,
                )
        weights = fit_preferences(differences, preference, self.ridge)
        self._warn_of_length(np.asarray(features @ weights).ravel(), rows)
        return {**state, "weights": weights}

    def score(self, shard: pa.Table, state: State, inputs: Inputs) -> dict[str, Any]:
        if self.embedding_column is not None:
            vectors = embedding_matrix(shard.column(self.embedding_column)).astype(np.float64)
            if vectors.shape[1] != len(state["weights"]):
                raise InputError(
                    f"{self.name}: the vectors are of another size than those of the judged rows",
                    where=f"column {self.embedding_column!r}",
                    expected=f"{len(state['weights'])} numbers",
                    found=vectors.shape[1],
                    remedy="embed the corpus first, and draw the judged sample from it",
                )
            return {self.column: vectors @ state["weights"]}
        features = self._features(texts(shard), state["columns"], state["idf"])
        ratings = np.asarray(features @ state["weights"]).ravel()
        # A row without a known word was not rated: 0 would be an average rating.
        ratings[np.diff(features.indptr) == 0] = np.nan
        return {self.column: ratings}

    def _vocabulary(self, rows: list[str]) -> tuple[Any, State]:
        from tutelage.signals._tfidf import count_matrix, document_frequency, idf_weights

        counts = count_matrix(pa.array(rows, pa.large_string()), self.ngrams)
        frequency = document_frequency(counts)
        columns = np.flatnonzero(frequency)
        if not len(columns):
            raise InputError(f"{self.name}: the judged rows hold no word", where="inputs.judged")
        idf = idf_weights(frequency, len(rows))[columns]
        return self._features(rows, columns, idf), {"columns": columns, "idf": idf}

    def _features(self, rows: Sequence[str], columns: np.ndarray, idf: np.ndarray) -> Any:
        """[rows, columns]: the mean of the segments' TF-IDF vectors, weighted by their words."""
        from scipy import sparse

        from tutelage.signals._tfidf import count_matrix, weigh

        segments = [cut(text, self.segment_words) for text in rows]
        flat = [piece for pieces in segments for piece in pieces]
        owner = np.repeat(np.arange(len(rows)), [len(pieces) for pieces in segments])
        sizes = np.array([len(piece.split()) for piece in flat], dtype=np.float64)
        share = sizes / np.maximum(np.bincount(owner, sizes, len(rows)), 1)[owner]
        mean = sparse.csr_matrix((share, (owner, np.arange(len(flat)))), shape=(len(rows), len(flat)))
        vectors = weigh(count_matrix(pa.array(flat, pa.large_string()), self.ngrams)[:, columns], idf)
        return (mean @ vectors).tocsr()

    def _warn_of_length(self, ratings: np.ndarray, rows: list[str]) -> None:
        from scipy.stats import spearmanr

        lengths = [len(text) for text in rows]
        if len(set(lengths)) < 3 or np.ptp(ratings) == 0:
            return
        found = float(spearmanr(ratings, lengths).statistic)
        if abs(found) >= FOLLOWS_LENGTH:
            warnings.warn(
                f"{self.name}: the ratings follow the length of the rows (rank correlation {found:+.2f})",
                stacklevel=3,
            )


def _pairs(judged: Dataset, ids: list[str]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """(pairs int64 [P, 2], preferences [P], a name for each pair) as the judged rows hold them."""
    place = {identifier: row for row, identifier in enumerate(ids)}
    pairs, preference, names = [], [], []
    for row in judged.rows(["id", "judged_against", "judged_preference"]):
        for other, p in zip(row["judged_against"] or (), row["judged_preference"] or ()):
            # The partner may have been filtered out after it was judged.
            if other in place:
                pairs.append((place[row["id"]], place[other]))
                preference.append(p)
                names.append(f"{row['id']} {other}")
    if not pairs:
        raise InputError(
            "no pair of the judged rows is left",
            where="inputs.judged",
            expected="rows of signals.pairwise_quality, with their partners",
            found=f"{len(ids)} rows",
            remedy="hand over the judged rows as they are, unfiltered",
        )
    return np.array(pairs), np.array(preference), names
