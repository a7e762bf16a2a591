"""Supervised fine-tuning: only the response is learnt, the prompt is context.

L = sum_t m_t * -log p(x_t | x_<t), m_t = 1 for the tokens of a response and its end token. Prompt and response are
tokenised separately; in a conversation the assistant's turns are the responses, found through the chat template.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from tutelage.core.errors import InputError
from tutelage.core.method import Objective
from tutelage.training.objectives._shared import Aggregation, Loss, cross_entropy

CARD = {
    "name": "training.objectives.sft",
    "paper": {"title": "Common practice"},
    "summary": "Learn the responses of prompt and completion pairs or conversations; prompts are context.",
    "reads": ["messages?", "prompt?", "completion?"],
    "needs": ["train"],
    "cost": "one forward and one backward pass per token, prompts included",
    "baseline": "training.objectives.causal_lm",
    "headline": "the standard way to learn from instructions",
    "version": 1,
}


class Sft(Objective):
    """`turns`: learn all assistant turns of a conversation or the last only. `aggregation`: `token` weighs all
    tokens alike, `sequence` all responses, `constant` divides by `length` tokens a response."""

    turns: Literal["all", "last"] = "all"
    aggregation: Aggregation = "token"
    length: int = Field(default=1024, ge=1)

    def encode(self, row: Mapping[str, Any], model: Any, max_length: int) -> Any:
        from tutelage.models.encode import encode_row

        paired = row.get("prompt") is not None and row.get("completion") is not None
        if row.get("messages") is None and not paired:
            raise InputError(
                "a row has no response to learn",
                where=f"row {row.get('id', '')}",
                expected="messages, or prompt and completion",
                found=", ".join(name for name, value in row.items() if value is not None),
                remedy="use training.objectives.causal_lm for plain text, or make pairs with a data recipe",
            )
        return encode_row(row, model, max_length, turns=self.turns)

    def loss(self, model: Any, batch: Any) -> Loss:
        return cross_entropy(model, batch, mode=self.aggregation, length=self.length)
