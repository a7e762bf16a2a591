"""How well a candidate answer fits the model that will learn it: what the model itself finds likely.

fit = (1 / |y|) sum_t log p(y_t | prompt, y_<t) over the trained tokens y of the response, its end token included,
with the row encoded exactly as supervised fine-tuning encodes it; higher is better, and it is minus the mean loss
that the first training step would see. Candidates with the same tokens are scored once, so they tie exactly. A
response cut to the context is scored on what is left, as it would be trained, and flagged; an empty one has NaN.
The paper ranks by this; the length normalisation is what we understand it to use.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from tutelage.core.errors import InputError
from tutelage.core.method import Inputs, Scorer, State

CARD = {
    "name": "signals.grape",
    "paper": {
        "title": "The Best Instruction-Tuning Data are Those That Fit",
        "identifier": "arXiv:2502.04194",
    },
    "summary": "Mean log-probability of each response under the model to be tuned, as fine-tuning will see it.",
    "reads": ["messages?", "prompt?", "completion?"],
    "writes": ["fit_score", "fit_tokens", "fit_flag"],
    "inputs": {"model": "the model that will be fine-tuned"},
    "needs": ["train"],
    "cost": "one forward pass per candidate",
    "baseline": "signals.length",
    "headline": "the paper: 13.8 points over distilling from the strongest; a model's own answers fit too well",
    "version": 1,
}


def response_of(row: Mapping[str, Any]) -> str | None:
    """The response that a row trains: its last message, else its completion; None where it has neither."""
    messages = row.get("messages")
    if messages:
        last = messages[-1]
        return (last["content"] or "") if last["role"] == "assistant" else None
    if row.get("prompt") is None or "completion" not in row:
        return None
    return row["completion"] or ""


def mean_logps(model: Any, documents: list[Any]) -> list[float]:
    """Mean log-probability of the trained tokens of every document, equal ones computed once."""
    from tutelage.models.scoring import scoring_batches

    keys = [(tuple(d.ids), tuple(d.trained)) for d in documents]
    first = {key: place for place, key in reversed(list(enumerate(keys)))}
    unique = [documents[place] for place in sorted(first.values())]
    sums: list[float] = [0.0] * len(unique)
    with model.scoring():
        for chosen, batch in scoring_batches(model, unique):
            flat = model.token_logps(batch)[batch.segment_ids >= 0].double().cpu().numpy()
            sizes = [len(unique[i]) for i in chosen]
            for i, part in zip(chosen, np.split(flat, np.cumsum(sizes)[:-1])):
                sums[i] = float(part.sum())
    model.meter.add(scored_tokens=sum(d.n_trained for d in unique))
    found = {keys[place]: sums[i] / unique[i].n_trained for i, place in enumerate(sorted(first.values()))}
    return [found[key] for key in keys]


class Grape(Scorer):
    """`max_length` in tokens, as training will use it. Rows are candidates: `prompt` with `completion`, or
    `messages` that end with the candidate."""

    max_length: int = Field(default=1024, ge=2)

    def score(self, shard: pa.Table, state: State, inputs: Inputs) -> dict[str, Any]:
        from tutelage.models.encode import encode_row

        model = inputs["model"]
        length = min(self.max_length, model.max_length)
        rows = shard.to_pylist()
        responses = [response_of(row) for row in rows]
        for row, response in zip(rows, responses):
            if response is None:
                raise InputError(
                    "a row is no candidate answer",
                    where=f"row {row['id']}",
                    expected="prompt and completion, or messages that end with the assistant",
                    found=", ".join(name for name, value in row.items() if value is not None),
                    remedy="give one row per prompt and candidate",
                )
        usable = [i for i, response in enumerate(responses) if response]
        documents = [encode_row(rows[i], model, length, turns="last") for i in usable]
        fit = np.full(len(rows), math.nan)
        sizes = np.zeros(len(rows), dtype=np.int64)
        flags: list[str | None] = ["empty response"] * len(rows)
        for i, document, value in zip(usable, documents, mean_logps(model, documents) if documents else []):
            fit[i], sizes[i] = value, document.n_trained
            flags[i] = "cut to the context" if document.cut else None
        return {"fit_score": fit, "fit_tokens": sizes, "fit_flag": pa.array(flags, pa.string())}
