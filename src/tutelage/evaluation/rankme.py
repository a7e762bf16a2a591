"""The effective rank of a model's text vectors: a measure of checkpoints that needs no labels.

Z [N, K] holds the mean state of one layer for N texts, s its singular values, p_k = s_k / sum(s) + eps and
RankMe = exp(-sum_k p_k ln p_k), between 1 and min(N, K). The paper takes Z as it is; here the columns are centred
first by default, because in language models a few dominant dimensions pin the raw value near 1; the other version
stands in `extra`. The interval is the infinitesimal jackknife: with u_ik the left singular vectors, h_k = -ln p_k
and R the estimate, a text's score is R + N R / 2 sum_k (s_k / sum(s)) (h_k - sum_j (s_j / sum(s)) h_j) u_ik^2;
the mean of the scores is R, so two checkpoints pair on the same texts. Rank grows with N: `half_rows` is the value
on half of the texts, and what lies between is not in the interval. Compare only models of one architecture at one
layer on the same texts; that a larger rank means a better model was found for images and is a hypothesis for text.
"""

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from tutelage.core.errors import InputError
from tutelage.core.method import Inputs, Task
from tutelage.core.text.hashing import uniform
from tutelage.evaluation._shared import Measurement

if TYPE_CHECKING:
    from tutelage.core.dataset import Dataset
    from tutelage.core.records import Result

CARD = {
    "name": "evaluation.rankme",
    "paper": {
        "title": "RankMe: Assessing the downstream performance of pretrained self-supervised representations by "
        "their rank",
        "identifier": "arXiv:2210.02885",
    },
    "summary": "Effective rank of a model's text vectors, to choose among checkpoints without labels.",
    "reads": ["text"],
    "inputs": {"model": "the model whose hidden states are measured"},
    "needs": ["train"],
    "cost": "one forward pass per token and one singular value decomposition",
    "baseline": "evaluation.bits_per_byte",
    "headline": "chose nearly as well as labels for image encoders, the paper finds; unproven for text",
    "version": 1,
}

EPS = 1e-7


def effective_rank(vectors: np.ndarray, eps: float = EPS) -> tuple[float, np.ndarray]:
    """(RankMe, [N] scores whose mean it is) of `vectors` [N, K].

    Raises InputError when a number is not finite or all are zero.
    """
    if not np.isfinite(vectors).all():
        bad = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        raise InputError(
            "a hidden state is not finite",
            where=f"vector {bad}",
            remedy="the weights are broken: check the training",
        )
    left, values, _ = np.linalg.svd(vectors.astype(np.float64), full_matrices=False)
    total = values.sum()
    # What centring leaves of equal vectors is rounding.
    if total <= 1e-6 * max(1.0, float(np.abs(vectors).max())):
        raise InputError(
            "all vectors are equal: they have no rank",
            expected="texts whose states differ",
            found=f"{len(vectors)} vectors",
            remedy="give different texts; if they are different, the model has collapsed",
        )
    share = values / total
    surprise = -np.log(share + eps)
    rank = float(np.exp(((share + eps) * surprise).sum()))
    influence = rank / 2 * (left**2 @ (share * (surprise - share @ surprise)))
    return rank, rank + len(vectors) * influence


class RankMe(Task):
    """Rows with text. `layer` counts from 0, the token embeddings (null: the model's own choice); `rows` texts are
    drawn by hash of their id (null: min(4096, 8 K)); `centre` takes the mean off each dimension."""

    layer: int | None = Field(default=None, ge=0)
    rows: int | None = Field(default=None, ge=4)
    centre: bool = True
    seed: int = Field(default=0, ge=0)

    def evaluate(self, model: Any, dataset: "Dataset", inputs: Inputs) -> "Result":
        """Effective rank; larger is taken for better. Rows without tokens are left out and counted.

        Warns where there are fewer than 2 K rows. Raises InputError for a state that is not finite, for equal
        states, and for fewer than four rows.
        """
        from tutelage.core.text.rows import texts
        from tutelage.models.text_vectors import text_vectors

        order = np.argsort(-uniform(self.seed, dataset.ids()), kind="stable")
        # The width is only known once a text has been through the model.
        probe = text_vectors(model, ["a"], self.layer).shape[1]
        table = dataset.take(order[: self.rows or min(4096, 8 * probe)])
        work = Measurement(self, model, table.to_pylist(), inputs, identity=("text", "messages", "prompt"))
        filled = np.array([bool(ids) for ids in model.tokenize(texts(table))], dtype=bool)
        count = int(filled.sum())
        if count < 4:
            raise InputError(
                "there are too few texts for a rank",
                where=self.name,
                expected="at least 4 rows with tokens",
                found=f"{count} rows",
            )
        found = text_vectors(model, texts(table), self.layer)
        vectors = found[filled].astype(np.float64)
        width = vectors.shape[1]
        if count < 2 * width:
            warnings.warn(
                f"{self.name}: {count} texts for vectors of {width} numbers: the rank is bounded by the texts; "
                f"give at least {2 * width}",
                stacklevel=2,
            )
        _, scores = self._rank(vectors)
        for row, score in zip((row for row, kept in zip(work.rows, filled) if kept), scores):
            work.add(row, score=float(score))
        other = effective_rank(vectors if self.centre else vectors - vectors.mean(axis=0))[0]
        extra = {
            "raw" if self.centre else "centred": other,
            "half_rows": self._rank(vectors[: count // 2])[0],
            "width": float(width),
        }
        if count < len(filled):
            extra["excluded_empty"] = float(len(filled) - count)
        return work.result("rankme", direction=1, extra=extra)

    def _rank(self, vectors: np.ndarray) -> tuple[float, np.ndarray]:
        return effective_rank(vectors - vectors.mean(axis=0) if self.centre else vectors)
