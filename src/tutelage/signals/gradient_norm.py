"""How far one training step on a row alone would push the model: the length of the row's own gradient.

g_i = d/dtheta sum_t -ln p(x_t | x_<t) over the trained tokens of row i, encoded as training encodes it (end token
included); gradient_norm = ||g_i||_2; gradient_norm_mean = ||g_i|| / trained tokens, the gradient of the mean loss.
The sum grows with length, the mean falls with it. theta: all weights; the output `head` alone (one forward pass,
the usual cheap stand-in: for one token ||p - onehot(y)|| ||h||); or a LoRA `adapter`. A matrix's part is
sum((A A^T) o (G G^T)) with inputs A and output gradients G of its layer, so no gradient of a large matrix is made
for short rows. Rows without a trained token have NaN and a reason in `gradient_flag`; too long ones are cut.
"""

import math
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.method import Inputs, Scorer, State
from tutelage.signals._gradients import documents, require_finite

CARD = {
    "name": "signals.gradient_norm",
    "paper": {"title": "Efficient Per-Example Gradient Computations", "identifier": "arXiv:1510.01799"},
    "summary": "Length of every row's own gradient: all weights, the head alone, or an adapter.",
    "reads": ["text?", "messages?", "prompt?", "completion?"],
    "writes": ["gradient_norm", "gradient_norm_mean", "gradient_flag"],
    "inputs": {"model": "the causal language model that would be trained"},
    "needs": ["train"],
    "cost": "a forward and a backward pass per token; for the head a forward pass",
    "baseline": "signals.token_loss",
    "headline": "finds what would move the model most: informative rows, and wrong or garbled ones as well",
    "version": 1,
}


class GradientNorm(Scorer):
    """`parameters` the gradient is taken by; rows longer than `max_length` tokens are cut as in training."""

    parameters: Literal["all", "head", "adapter"] = "all"
    max_length: int = Field(default=1024, ge=2)

    def fit(self, dataset: Dataset, inputs: Inputs) -> State:
        from tutelage.models.example_gradients import check_gradients

        check_gradients(inputs["model"], self.parameters)
        return {}

    def score(self, shard: pa.Table, state: State, inputs: Inputs) -> dict[str, Any]:
        from tutelage.models.example_gradients import example_gradients

        model = inputs["model"]
        encoded, owners, flags = documents(shard, model, self.max_length)
        norms, means = np.full((2, len(shard)), math.nan)
        for index, parts in example_gradients(model, encoded, self.parameters):
            row, square = owners[index], sum(gradient.square() for gradient in parts.values())
            require_finite(square, shard, row)
            # Rounding may leave a gradient that cancels a little below zero.
            norms[row] = math.sqrt(max(square, 0.0))
            means[row] = norms[row] / encoded[index].n_trained
        model.meter.add(scored_tokens=sum(document.n_trained for document in encoded))
        return {
            "gradient_norm": norms,
            "gradient_norm_mean": means,
            "gradient_flag": pa.array(flags, pa.string()),
        }
