"""A short vector per row that stands for its gradient: inner products of sketches estimate those of the gradients.

Count-sketch of the gradient g_i in R^P of row i (the sum of -ln p over its trained tokens, as in
`signals.gradient_norm`): every parameter p has a bucket h(p) in 0..k-1 and a sign s(p), both from hash(seed, name
of the tensor, place in it), and sketch_j = sum_{p: h(p) = j} s(p) g_p. For the sketches u, v of two gradients g, f
over seeds E[u . v] = g . f with variance (||g||^2 ||f||^2 + (g . f)^2 - 2 sum_p g_p^2 f_p^2) / k, so the standard
error of an inner product is at most sqrt(2 / k) ||g|| ||f||. Sketches compare only with the same seed,
`dimensions`, `parameters` and architecture. Rows without a trained token get zeros and a reason in
`gradient_flag`; too long ones are cut. Five bytes are held per parameter, for the buckets: of large models take
the `head` or an `adapter`.
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.method import Inputs, Scorer, State
from tutelage.core.text.hashing import hash64, mix64
from tutelage.signals._gradients import documents, require_finite

CARD = {
    "name": "signals.gradient_sketch",
    "paper": {
        "title": "Finding Frequent Items in Data Streams",
        "identifier": "doi:10.1016/S0304-3975(03)00400-6",
    },
    "summary": "A short vector for every row whose inner products estimate those of the rows' gradients.",
    "reads": ["text?", "messages?", "prompt?", "completion?"],
    "writes": ["gradient_sketch", "gradient_flag"],
    "inputs": {"model": "the causal language model that would be trained"},
    "needs": ["train"],
    "cost": "a forward and a backward pass per token, and one addition per parameter and row",
    "baseline": "signals.embedding_hidden",
    "headline": "which rows teach the same, as the model sees it; large gradients dominate unless divided out",
    "version": 1,
}

_STEP = np.uint64(0x9E3779B97F4A7C15)


def buckets(name: str, size: int, dimensions: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(bucket int32, sign int8) of each of the `size` entries of tensor `name`."""
    # The splitmix64 sequence that starts at the hash of seed and name.
    codes = mix64(np.uint64(hash64(seed, name)) + np.arange(1, size + 1, dtype=np.uint64) * _STEP)
    places = ((codes >> np.uint64(1)) % np.uint64(dimensions)).astype(np.int32)
    return places, 1 - 2 * (codes & np.uint64(1)).astype(np.int8)


class CountSketch:
    """Adds tensors into a vector of `dimensions` numbers; buckets are made once per tensor."""

    def __init__(self, dimensions: int, seed: int) -> None:
        self.dimensions, self.seed = dimensions, seed
        self._buckets: dict[str, list[Any]] = {}

    def sketch(self, tensors: Mapping[str, Any]) -> np.ndarray:
        """float32 [dimensions] of torch tensors by name."""
        import torch

        total = np.zeros(self.dimensions)
        for name, tensor in tensors.items():
            flat = tensor.reshape(-1)
            if name not in self._buckets:
                made = buckets(name, len(flat), self.dimensions, self.seed)
                self._buckets[name] = [torch.from_numpy(part).to(flat.device) for part in made]
            places, signs = self._buckets[name]
            here = torch.zeros(self.dimensions, device=flat.device)
            total += here.index_add_(0, places, flat.float() * signs).cpu().numpy()
        return total.astype(np.float32)


class GradientSketch(Scorer):
    """`parameters` the gradient is taken by; `dimensions` is k; rows longer than `max_length` tokens are cut."""

    parameters: Literal["all", "head", "adapter"] = "all"
    dimensions: int = Field(default=4096, ge=1, lt=2**31)
    max_length: int = Field(default=1024, ge=2)
    seed: int = Field(default=0, ge=0)

    def fit(self, dataset: Dataset, inputs: Inputs) -> State:
        from tutelage.models.example_gradients import check_gradients

        check_gradients(inputs["model"], self.parameters)
        return {}

    def score(self, shard: pa.Table, state: State, inputs: Inputs) -> dict[str, Any]:
        from tutelage.models.example_gradients import example_gradients

        model = inputs["model"]
        encoded, owners, flags = documents(shard, model, self.max_length)
        made = CountSketch(self.dimensions, self.seed)
        sketches = np.zeros((len(shard), self.dimensions), dtype=np.float32)
        for index, parts in example_gradients(model, encoded, self.parameters):
            row = owners[index]
            sketches[row] = made.sketch({name: gradient.tensor() for name, gradient in parts.items()})
            require_finite(sketches[row], shard, row)
        model.meter.add(scored_tokens=sum(document.n_trained for document in encoded))
        return {"gradient_sketch": sketches, "gradient_flag": pa.array(flags, pa.string())}
