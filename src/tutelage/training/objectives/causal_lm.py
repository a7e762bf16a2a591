"""Causal language modelling: every token of a row is learnt from the tokens before it.

L = sum_t -log p(x_t | x_<t) over all tokens but the first of each document. A text longer than the context is
split into consecutive windows that together train every token once.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from tutelage.core.method import Objective
from tutelage.training.objectives._shared import Loss, cross_entropy

CARD = {
    "name": "training.objectives.causal_lm",
    "paper": {"title": "Common practice"},
    "summary": "Learn every token of a text, a conversation or a prompt with its completion.",
    "reads": ["text?"],
    "needs": ["train"],
    "cost": "one forward and one backward pass per token",
    "baseline": None,
    "headline": "the plain objective that every other one is compared with",
    "version": 1,
}


class CausalLM(Objective):
    """`long_texts`: split them into windows that train every token, or keep only the first window. `aggregation`:
    weigh all tokens or all documents alike. `eos`: append the end token to a text."""

    long_texts: Literal["split", "truncate"] = "split"
    aggregation: Literal["token", "sequence"] = "token"
    eos: bool = True

    def encode(self, row: Mapping[str, Any], model: Any, max_length: int) -> Any:
        from tutelage.models.encode import encode_row, split_text

        paired = row.get("messages") is not None or (
            row.get("prompt") is not None and row.get("completion") is not None
        )
        if paired or row.get("text") is None:
            encoded = encode_row(row, model, max_length, text_eos=self.eos)
            return replace(encoded, trained=[False] + [True] * (len(encoded) - 1))
        windows = split_text(
            model, row["text"], max_length=max_length, example_id=str(row.get("id", "")), eos=self.eos
        )
        return windows if self.long_texts == "split" else windows[:1]

    def loss(self, model: Any, batch: Any) -> Loss:
        return cross_entropy(model, batch, mode=self.aggregation)
