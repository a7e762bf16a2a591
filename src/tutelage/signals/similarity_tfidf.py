"""How similar each row is to the reference rows, by the cosine of TF-IDF vectors of words.

x_i = TF-IDF of row i (hashed words, tf = 1 + ln count, idf over rows and reference together), |x_i| = 1.
`to: centroid`: s_i = x_i . c / |c| with c the mean of the reference vectors. `to: nearest`: s_i = mean of the
`top` largest x_i . r_j over reference rows j (top = 1 is the maximum). Seconds for tens of megabytes, no model.
"""

from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.method import Inputs, Scorer, State
from tutelage.core.text.rows import text_array
from tutelage.core.threads import in_threads

CARD = {
    "name": "signals.similarity_tfidf",
    "paper": {"title": "Common practice (TF-IDF cosine similarity)", "identifier": ""},
    "summary": "Cosine similarity of every row to the reference rows, by TF-IDF of words.",
    "reads": ["text"],
    "writes": ["similarity"],
    "inputs": {"reference": "rows that show what is wanted"},
    "cost": "two passes over the bytes",
    "baseline": "signals.length",
    "headline": "a few reference documents, no model, seconds; the cheap rival of every learned selector",
    "version": 1,
}


def top_mean(similarities: np.ndarray, top: int) -> np.ndarray:
    """Mean of the `top` largest values of every row of [n, references]."""
    top = min(top, similarities.shape[1])
    if top == 1:
        return similarities.max(axis=1)
    return np.partition(similarities, -top, axis=1)[:, -top:].mean(axis=1)


class SimilarityTfidf(Scorer):
    """`to` "centroid" or "nearest" (mean of the `top` most similar reference rows); `ngrams` 2 adds word pairs;
    `sublinear: false` uses plain counts."""

    threads: ClassVar[int] = 2

    to: Literal["centroid", "nearest"] = "centroid"
    top: int = Field(default=1, ge=1)
    ngrams: int = Field(default=1, ge=1, le=3)
    sublinear: bool = True

    def fit(self, dataset: Dataset, inputs: Inputs) -> State:
        from scipy import sparse

        from tutelage.signals._tfidf import FEATURES, count_matrix, document_frequency, idf_weights, weigh

        reference: Dataset = inputs["reference"]
        frequency = np.zeros(FEATURES, dtype=np.int64)
        wanted = []
        for source in (reference, dataset):
            for counts in in_threads(lambda s: count_matrix(text_array(s), self.ngrams), source.shards()):
                frequency += document_frequency(counts)
                if source is reference:
                    wanted.append(counts)
        if not wanted or sum(counts.nnz for counts in wanted) == 0:
            raise InputError(
                "the reference rows hold no word",
                where="inputs.reference",
                expected="at least one row with text",
                found=f"{reference.num_rows} rows",
            )
        idf = idf_weights(frequency, reference.num_rows + dataset.num_rows)
        vectors = weigh(sparse.vstack(wanted, format="csr"), idf, self.sublinear)
        state: State = {"idf": idf}
        if self.to == "centroid":
            mean = np.asarray(vectors.mean(axis=0)).ravel()
            state["centroid"] = (mean / np.linalg.norm(mean)).astype(np.float32)
        else:
            state |= {"data": vectors.data, "indices": vectors.indices, "indptr": vectors.indptr}
        return state

    def score(self, shard: pa.Table, state: State, inputs: Inputs) -> dict[str, np.ndarray]:
        from scipy import sparse

        from tutelage.signals._tfidf import FEATURES, count_matrix, weigh

        rows = weigh(count_matrix(text_array(shard), self.ngrams), state["idf"], self.sublinear)
        if self.to == "centroid":
            found = rows @ state["centroid"]
        else:
            shape = (len(state["indptr"]) - 1, FEATURES)
            reference = sparse.csr_matrix((state["data"], state["indices"], state["indptr"]), shape=shape)
            blocks = [
                top_mean((rows[a : a + 1024] @ reference.T).toarray(), self.top)
                for a in range(0, rows.shape[0], 1024)
            ]
            found = np.concatenate(blocks) if blocks else np.zeros(0)
        found = found.astype(np.float64)
        # A row without a word is similar to nothing: it has no score, and selectors count it.
        found[np.diff(rows.indptr) == 0] = np.nan
        return {"similarity": found}
