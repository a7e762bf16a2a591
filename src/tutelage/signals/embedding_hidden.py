"""A vector per row from a model's hidden states: mean over tokens of one layer, centred over the corpus.

e_i = mean_t h_t^(l); z_i = (e_i - mean_j e_j) / |e_i - mean_j e_j|. The layer defaults to two thirds of the depth
of a causal model and to the model's own pooling of an encoder. Uncentred states of a decoder have a cosine near 1
for every pair, so clustering on them means nothing. The mean is over up to `fit_rows` rows drawn by hash.
"""

from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.method import Inputs, Scorer, State
from tutelage.core.text.hashing import uniform
from tutelage.core.text.rows import texts

CARD = {
    "name": "signals.embedding_hidden",
    "paper": {"title": "Common practice", "identifier": ""},
    "summary": "A vector for every row from a model's hidden states, centred and of length 1.",
    "reads": ["text"],
    "writes": ["embedding"],
    "inputs": {"model": "the model whose hidden states are averaged"},
    "needs": ["train"],
    "cost": "one forward pass per token, twice for the rows of the fit",
    "baseline": "signals.embedding_tfidf",
    "headline": "sees meaning where words differ; dearer than TF-IDF and not always better",
    "version": 1,
}


class EmbeddingHidden(Scorer):
    """`layer` counts from 0, the token embeddings (null: the model's own choice)."""

    layer: int | None = Field(default=None, ge=0)
    fit_rows: int = Field(default=2_000, ge=2)
    seed: int = Field(default=0, ge=0)

    def fit(self, dataset: Dataset, inputs: Inputs) -> State:
        from tutelage.models.text_vectors import text_vectors

        order = np.argsort(-uniform(self.seed, dataset.ids()), kind="stable")[: self.fit_rows]
        vectors = text_vectors(inputs["model"], texts(dataset.take(np.sort(order))), self.layer)
        if np.isnan(vectors).all():
            raise InputError(
                f"{self.name}: there is no text to embed",
                expected="at least one row that is not empty",
                found=f"{dataset.num_rows} rows",
            )
        return {"mean": np.nanmean(vectors.astype(np.float64), axis=0)}

    def score(self, shard: pa.Table, state: State, inputs: Inputs) -> dict[str, Any]:
        from tutelage.models.text_vectors import text_vectors

        vectors = text_vectors(inputs["model"], texts(shard), self.layer)
        empty = np.isnan(vectors).all(axis=1)
        moved = np.where(empty[:, None], 0.0, vectors - state["mean"])
        lengths = np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-12)
        return {"embedding": (moved / lengths).astype(np.float32)}
