"""Predict a measured influence for every row from a probed sample: ridge regression on words or on an embedding.

y = standardised influence of the n probed rows; w = argmin |Xc w - yc|^2 + p |w|^2 with Xc, yc centred, solved in
its dual form, w = X^T a, a = (Xc Xc^T + p I)^-1 yc, so that millions of word features cost n^2. X holds
TF-IDF vectors of hashed words, or a column of vectors. The penalty p, relative to mean diag(Xc Xc^T), is the
one of a grid whose predictions of held-out rows have the best Spearman correlation with what was measured; every
tenth of the probes is held out in turn, then all are used. `influence_hat` has the units of y. The paper tunes a
text encoder instead.
"""

import warnings
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from tutelage.core.dataset import Dataset, embedding_matrix
from tutelage.core.errors import InputError
from tutelage.core.method import Inputs, Scorer, State
from tutelage.core.text.hashing import uniform
from tutelage.core.text.rows import text_array

CARD = {
    "name": "signals.influence_regressor",
    "paper": {
        "title": "MATES: Model-Aware Data Selection for Efficient Pretraining with Data Influence Models",
        "identifier": "arXiv:2406.06046",
    },
    "summary": "Predicts a score that was measured on a sample for all rows, from their words or vectors.",
    "reads": ["text?", "{embedding_column}?"],
    "writes": ["influence_hat", "influence_hat_spearman"],
    "inputs": {"fit_on": "probed rows with the measured column, e.g. from signals.step_influence"},
    "cost": "one pass over the bytes; a linear system as large as the sample",
    "baseline": "signals.similarity_tfidf",
    "headline": "only as good as its held-out correlation, which is reported; below 0.1 it is noise",
    "version": 1,
}
PENALTIES = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)
FOLDS = 10
# Fewer probes cannot be split into ten parts that say anything.
LEAST = 10
NOISE = 0.1


def ridge(kernel: np.ndarray, y: np.ndarray, penalty: float) -> tuple[np.ndarray, float]:
    """(dual weights b [n], offset): a row whose products with the n rows are k is predicted as k . b + offset.

    `kernel` [n, n] holds the uncentred products; `penalty` is relative to the centred kernel's mean diagonal.
    """
    # Centred on one side only: the dual weights sum to 0 anyway, so the solution is the same.
    centred = kernel - kernel.mean(axis=0)
    scale = max(float(np.trace(centred)) / len(y), 1e-12)
    dual = np.linalg.solve(centred + penalty * scale * np.eye(len(y)), y - y.mean())
    return dual, float(y.mean() - kernel.mean(axis=0) @ dual)


def held_out(kernel: np.ndarray, y: np.ndarray, penalty: float, fold: np.ndarray) -> np.ndarray:
    """Predictions [n] of every row by a regression that did not see its fold, less the mean of what it saw: where
    held-out values are high, that mean is low. `fold` [n] numbers the folds."""
    found = np.empty(len(y))
    for number in np.unique(fold):
        out = fold == number
        dual, offset = ridge(kernel[np.ix_(~out, ~out)], y[~out], penalty)
        found[out] = kernel[np.ix_(out, ~out)] @ dual + offset - y[~out].mean()
    return found


class InfluenceRegressor(Scorer):
    """`column` is what was measured; `embedding_column` holds vectors to use instead of words, in both datasets;
    `ngrams` 2 adds word pairs."""

    column: str = "influence"
    embedding_column: str | None = None
    ngrams: int = Field(default=1, ge=1, le=3)
    seed: int = Field(default=0, ge=0)

    def fit(self, dataset: Dataset, inputs: Inputs) -> State:
        from scipy.stats import rankdata

        probes: Dataset = inputs["fit_on"]
        y = probes.numpy(self.column).astype(np.float64)
        usable = np.isfinite(y)
        if usable.sum() < LEAST or np.ptp(y[usable]) == 0:
            raise InputError(
                f"{self.name}: there is too little to learn from",
                where=f"inputs.fit_on, column {self.column!r}",
                expected=f"at least {LEAST} rows with different values",
                found=f"{int(usable.sum())} values of {probes.num_rows} rows",
                remedy="probe more rows",
            )
        idf = None if self.embedding_column else self._idf(dataset)
        parts = [self._features(shard, idf) for shard in probes.shards()]
        features = _stacked(parts)[np.flatnonzero(usable)]
        y = (y[usable] - y[usable].mean()) / y[usable].std()
        kernel = np.asarray(
            (features @ features.T).todense() if idf is not None else features @ features.T, np.float64
        )
        ids = [identifier for identifier, use in zip(probes.ids(), usable) if use]
        fold = np.argsort(np.argsort(uniform(self.seed, ids))) % FOLDS
        ranks = rankdata(y)
        found = [_correlation(rankdata(held_out(kernel, y, p, fold)), ranks) for p in PENALTIES]
        best = int(np.argmax(found))
        if found[best] < NOISE:
            warnings.warn(
                f"{self.name}: held-out Spearman correlation {found[best]:.2f}: what it selects is noise",
                stacklevel=2,
            )
        dual, offset = ridge(kernel, y, PENALTIES[best])
        weights = np.asarray(features.T @ dual).ravel().astype(np.float32)
        state: State = {"weights": weights, "offset": offset, "spearman": found[best]}
        return state if idf is None else {**state, "idf": idf}

    def score(self, shard: pa.Table, state: State, inputs: Inputs) -> dict[str, Any]:
        features = self._features(shard, state.get("idf"))
        found = np.asarray(features @ state["weights"], dtype=np.float64).ravel() + state["offset"]
        empty = np.diff(features.indptr) == 0 if "idf" in state else np.isnan(found)
        found[empty] = np.nan
        return {"influence_hat": found, "influence_hat_spearman": np.full(len(found), state["spearman"])}

    def _idf(self, dataset: Dataset) -> np.ndarray:
        from tutelage.signals._tfidf import FEATURES, count_matrix, document_frequency, idf_weights

        frequency = np.zeros(FEATURES, dtype=np.int64)
        for shard in dataset.shards():
            frequency += document_frequency(count_matrix(text_array(shard), self.ngrams))
        return idf_weights(frequency, dataset.num_rows)

    def _features(self, shard: pa.Table, idf: np.ndarray | None) -> Any:
        from tutelage.signals._tfidf import count_matrix, weigh

        if idf is not None:
            return weigh(count_matrix(text_array(shard), self.ngrams), idf)
        name = str(self.embedding_column)
        if name not in shard.column_names:
            raise InputError(
                f"there is no column {name!r} of vectors",
                where="embedding_column",
                expected=name,
                found=", ".join(shard.column_names),
                remedy="embed the rows first (signals.embedding_tfidf), before the probes are drawn from them",
            )
        return embedding_matrix(shard.column(name)).astype(np.float64)


def _stacked(parts: list[Any]) -> Any:
    from scipy import sparse

    return np.concatenate(parts) if isinstance(parts[0], np.ndarray) else sparse.vstack(parts, format="csr")


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if np.ptp(a) == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])
