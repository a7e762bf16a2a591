"""Classification by a causal language model's own words: cross-entropy over the classes' words after a pattern.

s_c = mean over words v of class c of sum_t log p(v_t | pattern filled with x, v_<t);  p_c = softmax_c(s_c) over
the C classes alone (all other words of the vocabulary do not count);  L = -sum_i w_i sum_c q_ic log p_ic / rows,
q the soft label or one-hot. Words of several tokens are exact: each word is a document of its own after the same
prompt. The same pattern and words belong in adapters.verbaliser, which turns the tuned model into a classifier.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from tutelage.core.errors import InputError
from tutelage.core.method import Objective
from tutelage.training.objectives._shared import Loss

CARD = {
    "name": "training.objectives.verbaliser",
    "paper": {
        "title": "Exploiting Cloze Questions for Few Shot Text Classification and Natural Language Inference",
        "identifier": "arXiv:2001.07676",
    },
    "summary": "Teaches a causal language model to answer a pattern with the word of a text's class.",
    "reads": ["text", "label?", "label_probs?", "label_weight?", "classes?"],
    "needs": ["train"],
    "cost": "one forward and one backward pass over pattern and text for each word of a class",
    "baseline": "training.objectives.classification",
    "headline": "starts from what the model knows of the words; costs as many passes as classes",
    "version": 1,
}


class Verbaliser(Objective):
    """`pattern` with one slot, {text}, ends where the word goes; `words`: class name -> its words (without them
    the column `classes` names the classes, which are their own words); `reduction` mean divides by a word's
    tokens."""

    whole_rows: ClassVar[bool] = True
    joint_rows: ClassVar[bool] = True

    pattern: str = "{text}\nTopic:"
    words: dict[str, tuple[str, ...]] | None = None
    reduction: Literal["sum", "mean"] = "sum"

    def start(self, model: Any) -> Any:
        return Running(self)

    def encode(self, row: Mapping[str, Any], model: Any, max_length: int) -> Any:
        return Running(self).encode(row, model, max_length)

    def loss(self, model: Any, batch: Any) -> Loss:
        return Running(self).loss(model, batch)


class Running:
    """The objective with the token ids of its words."""

    def __init__(self, method: Verbaliser) -> None:
        self.method, self.name = method, method.name
        self.whole_rows = self.joint_rows = True
        self.skips_empty_steps = False
        self._made: tuple[tuple[str, ...], Any, Any] | None = None

    def encode(self, row: Mapping[str, Any], model: Any, max_length: int) -> Any:
        from dataclasses import replace

        from tutelage.core.labels import soft_label

        space, verbaliser = self._verbaliser(row, model)
        probs, weight = soft_label(row, space)
        found = verbaliser.documents(row["text"], max_length, str(row.get("id", "")))
        made = []
        for i, (document, (c, _, ids), share) in enumerate(zip(found, verbaliser.answers, verbaliser.shares)):
            scale = share / (len(ids) if self.method.reduction == "mean" else 1)
            facts = {"first": i == 0, "class": c, "scale": scale, "target": probs[c] * share, "weight": weight}
            columns = {name: [float(value)] * len(document) for name, value in facts.items()}
            made.append(replace(document, columns=columns))
        return made

    def _verbaliser(self, row: Mapping[str, Any], model: Any) -> Any:
        from tutelage.core.labels import LabelSpace
        from tutelage.models.prompt_classifier import Verbaliser as Tokens

        names = tuple(self.method.words or row.get("classes") or ())
        if not names:
            raise InputError(
                "the words of the classes are not known",
                where=f"row {row.get('id', '')}",
                expected="the field words, or a column classes with the names of the classes",
                remedy="write words: {class name: [word]} for every class",
            )
        if self._made is None or self._made[0] != names:
            space = LabelSpace(names)
            self._made = names, space, Tokens(model, space, self.method.pattern, self.method.words)
        return self._made[1:]

    def loss(self, model: Any, batch: Any) -> Loss:
        import torch

        from tutelage.models.packing import per_segment
        from tutelage.models.pooling import document_values

        values = {name: document_values(batch, name) for name in ("first", "class", "scale", "target", "weight")}
        scores = per_segment(model.token_logps(batch), batch) * values["scale"]
        row, kind = values["first"].cumsum(0).long() - 1, values["class"].long()
        shape = int(row[-1]) + 1, int(kind.max()) + 1
        # Words of one class add up: their scores are already divided by how many there are.
        zero = scores.new_zeros(shape)
        logps = torch.log_softmax(zero.index_put((row, kind), scores, accumulate=True), dim=1)
        target = zero.index_put((row, kind), values["target"], accumulate=True)
        per_row = -(target * logps).sum(1) * values["weight"][values["first"] > 0]
        return Loss(per_row.sum(), float(len(per_row)), per_example=per_row)
