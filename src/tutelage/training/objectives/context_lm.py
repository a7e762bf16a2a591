"""Causal language modelling of texts that have a context before them, which is read and not learnt.

L = sum_t -log p(x_t | context, x_<t) over the tokens of the text; the tokens of `context` and the blank line after
it have no label. A long text is split as in training.objectives.causal_lm, its context stands before the first
piece alone and may take half of the window. Rows without context are those of causal_lm, to the token; context
tokens count in every budget.
"""

from collections.abc import Mapping
from typing import Any

from tutelage.core.method import Objective
from tutelage.training.objectives.causal_lm import CausalLM

CARD = {
    "name": "training.objectives.context_lm",
    "paper": {
        "title": "Metadata Conditioning Accelerates Language Model Pre-training",
        "identifier": "arXiv:2501.01956",
    },
    "summary": "Learn every token of a text after an untrained context, such as the document's source.",
    "reads": ["text?", "context?"],
    "needs": ["train"],
    "cost": "one forward and one backward pass per token, context included",
    "baseline": "training.objectives.causal_lm",
    "headline": "what the context explains need not be learnt; without a cool-down plain text gets worse",
    "version": 1,
}
SEPARATOR = "\n\n"


# Objective stands among the bases because discovery reads them without importing anything.
class ContextLM(CausalLM, Objective):
    """The fields of training.objectives.causal_lm: `long_texts`, `aggregation`, `eos`."""

    def encode(self, row: Mapping[str, Any], model: Any, max_length: int) -> Any:
        from tutelage.models.encode import Encoded, start_id

        ids = list(model.tokenize([row["text"]])[0]) if row.get("text") else []
        if not row.get("context") or not ids or row.get("messages") is not None:
            return super().encode(row, model, max_length)
        if self.eos and model.eos_id is not None:
            ids.append(model.eos_id)
        first = start_id(model)
        head = [] if first is None else [first]
        context = list(model.tokenize([row["context"] + SEPARATOR])[0])[: max_length // 2]
        before = head + context
        at = max_length - len(before)
        step = max_length - len(head)
        pieces = [(before, ids[:at]), *((head, ids[i : i + step]) for i in range(at, len(ids), step))]
        windows = [
            Encoded(given + piece, [False] * len(given) + [True] * len(piece), str(row.get("id", "")))
            for given, piece in pieces
        ]
        # Without a start token nothing predicts the first token of a piece.
        windows = [Encoded(w.ids, [False, *w.trained[1:]], w.example_id) for w in windows]
        windows = [window for window in windows if window.n_trained]
        return windows if self.long_texts == "split" else windows[:1]
