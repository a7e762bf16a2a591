"""The log-probabilities that a reference model gives to exactly the tokens an objective trains, stored per row.

For every row: log q(x_t | x_<t) for the trained tokens of its documents as `objective` encodes them, 0 for the
others, all documents of the row one after another; their sum; and what they belong to, a hash of the tokens and
the model's fingerprint, so that another tokenizer, template, truncation or model does not take them for its own.
"""

import itertools
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import ConfigDict, Field, field_validator

from tutelage.core.component import Component
from tutelage.core.method import Inputs, Method, Objective, Scorer, State

CARD = {
    "name": "signals.reference_logps",
    "paper": {"title": "Common practice"},
    "summary": "Log-probabilities of every trained token under a reference model, for objectives that need them.",
    "reads": ["text?"],
    "writes": ["ref_logps", "ref_logp_sum", "ref_tokens", "ref_model"],
    "inputs": {"model": "the reference model"},
    "needs": ["train"],
    "cost": "one forward pass per token, once; 4 bytes per token",
    "baseline": "signals.token_loss",
    "headline": "a second model in memory is needed once, not in training",
    "version": 1,
}


class ReferenceLogps(Scorer):
    """`objective` and `max_length` as training will use them."""

    model_config = ConfigDict(validate_default=True)

    objective: Component = Field(default={"use": "training.objectives.causal_lm"})  # type: ignore[assignment]
    max_length: int = Field(default=1024, ge=2)

    @field_validator("objective")
    @classmethod
    def _is_objective(cls, value: Method) -> Method:
        if not isinstance(value, Objective):
            raise ValueError(f"expected an objective; {value.name} is of kind {value.kind}")
        return value

    def score(self, shard: pa.Table, state: State, inputs: Inputs) -> dict[str, Any]:
        from tutelage.models.reference import token_key
        from tutelage.models.scoring import scoring_batches

        model = inputs["model"]
        length = min(self.max_length, model.max_length)
        encoded = [self.objective.encode(row, model, length) for row in shard.to_pylist()]  # type: ignore[attr-defined]
        rows = [found if isinstance(found, list) else [found] for found in encoded]
        documents = [document for row in rows for document in row]
        values: list[np.ndarray] = [np.zeros(0)] * len(documents)
        with model.scoring():
            for chosen, batch in scoring_batches(model, documents):
                flat = model.token_logps(batch)[batch.segment_ids >= 0].float().cpu().numpy()
                sizes = [len(documents[i]) for i in chosen]
                for i, part in zip(chosen, np.split(flat, np.cumsum(sizes)[:-1])):
                    values[i] = part
        model.meter.add(scored_tokens=sum(document.n_trained for document in documents))
        bounds = np.cumsum([0, *(len(row) for row in rows)])
        joined = [np.concatenate([np.zeros(0), *values[a:b]]) for a, b in itertools.pairwise(bounds)]
        return {
            "ref_logps": pa.array([row.astype(np.float32) for row in joined], pa.list_(pa.float32())),
            "ref_logp_sum": np.array([row.sum() for row in joined], dtype=np.float64),
            "ref_tokens": pa.array([token_key(row) for row in rows], pa.string()),
            "ref_model": pa.array([model.fingerprint] * len(rows), pa.string()),
        }
