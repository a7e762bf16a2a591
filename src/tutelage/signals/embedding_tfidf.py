"""A vector per row without a model: TF-IDF of words and word pairs, reduced by a truncated SVD.

X = TF-IDF (1 + ln count, hashed 1- and 2-grams seen in at least `min_rows` rows, at most `features` of them, the
most frequent first); X ~ U S V^T with `dimensions` components (randomised SVD, fitted on up to `fit_rows` rows
drawn by hash); z = x V - mean, then divided by its length. Rows without a known word get the zero vector.
"""

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
    "name": "signals.embedding_tfidf",
    "paper": {
        "title": "Indexing by Latent Semantic Analysis",
        "identifier": "doi:10.1002/(SICI)1097-4571(199009)41:6",
    },
    "summary": "A TF-IDF and SVD vector for every row, centred and of length 1.",
    "reads": ["text"],
    "writes": ["embedding"],
    "needs": ["train"],
    "cost": "two passes over the bytes and one randomised SVD",
    "baseline": "signals.length",
    "headline": "topics without a model; good enough for clustering and diversity",
    "version": 1,
}


def centre_and_scale(vectors: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """(x - mean) / |x - mean| as float32 [n, d]; a vector equal to the mean becomes zero."""
    moved = vectors - mean
    return (moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-12)).astype(np.float32)


class EmbeddingTfidf(Scorer):
    """`dimensions` of the vector (fewer when the corpus is smaller); `ngrams` 2 adds word pairs."""

    dimensions: int = Field(default=256, ge=2)
    ngrams: int = Field(default=2, ge=1, le=3)
    features: int = Field(default=50_000, ge=2)
    min_rows: int = Field(default=2, ge=1)
    fit_rows: int = Field(default=20_000, ge=2)
    seed: int = Field(default=0, ge=0)

    def fit(self, dataset: Dataset, inputs: Inputs) -> State:
        from scipy import sparse
        from sklearn.utils.extmath import randomized_svd

        from tutelage.signals._tfidf import FEATURES, count_matrix, document_frequency, idf_weights

        frequency = np.zeros(FEATURES, dtype=np.int64)
        chance = uniform(self.seed, dataset.ids())
        limit = np.sort(chance)[-self.fit_rows :].min(initial=1.0)
        kept, start = [], 0
        for shard in dataset.shards():
            counts = count_matrix(text_array(shard), self.ngrams)
            frequency += document_frequency(counts)
            kept.append(counts[np.flatnonzero(chance[start : start + len(shard)] >= limit)])
            start += len(shard)
        columns = np.flatnonzero(frequency >= self.min_rows)
        columns = np.sort(columns[np.argsort(-frequency[columns], kind="stable")][: self.features])
        idf = idf_weights(frequency, dataset.num_rows)
        if len(columns) < 2 or dataset.num_rows < 2:
            raise InputError(
                f"{self.name}: there is too little text to embed",
                expected=f"two rows that share words (each word in at least {self.min_rows} rows)",
                found=f"{dataset.num_rows} rows, {len(columns)} usable words",
                remedy="give more rows, or set min_rows: 1",
            )
        matrix = _reduce(sparse.vstack(kept, format="csr"), columns, idf[columns])
        size = min(self.dimensions, min(matrix.shape) - 1)
        _, _, components = randomized_svd(matrix, size, n_iter=5, random_state=self.seed)
        components = components.astype(np.float32)
        return {
            "columns": columns,
            "idf": idf[columns],
            "components": components,
            "mean": np.asarray(matrix @ components.T).mean(axis=0),
        }

    def score(self, shard: pa.Table, state: State, inputs: Inputs) -> dict[str, Any]:
        from tutelage.signals._tfidf import count_matrix

        rows = _reduce(count_matrix(text_array(shard), self.ngrams), state["columns"], state["idf"])
        vectors = centre_and_scale(np.asarray(rows @ state["components"].T), state["mean"])
        vectors[np.diff(rows.indptr) == 0] = 0.0
        return {"embedding": vectors}


def _reduce(counts: Any, columns: np.ndarray, idf: np.ndarray) -> Any:
    from tutelage.signals._tfidf import weigh

    return weigh(counts[:, columns], idf)
