"""Machine-labelled rows weighted by whether learning them helps on gold rows, as in lite prompted self-training.

With l_i the loss of machine-labelled row i and L_gold the mean loss of the gold rows beside them,
    s_i = max(0, <grad l_i, grad L_gold>),    L = sum_i s_i l_i / sum_i s_i over the step.
<grad l_i, grad L_gold> is what a differentiated inner step gives: with weights e_i = 0 and theta' = theta -
lr sum_i e_i grad l_i, -dL_gold(theta') / de_i = lr <grad l_i, grad L_gold>; lr cancels. One more pass gives all
products: the gradient of sum_i v_i l_i is linear in v, and its derivative by v along grad L_gold is s. Gradients
of the weights are taken in evaluation mode, over the trainable weights. A step whose weights are all 0 is skipped.

Departures: the paper divides by the sum of a batch, we by that of the whole step; its first rounds by confidence
are the selection of data.label.pseudo. KL(q || p) of a soft label has the gradient of the cross-entropy used here.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from pydantic import ConfigDict, Field, field_validator

from tutelage.core.component import Component
from tutelage.core.errors import InputError
from tutelage.core.method import Method, Objective
from tutelage.training.objectives._shared import Loss

CARD = {
    "name": "training.objectives.meta_weights",
    "paper": {
        "title": "LiST: Lite Prompted Self-training Makes Parameter-Efficient Few-shot Learners",
        "identifier": "arXiv:2110.06274",
    },
    "summary": "Weighs machine-labelled rows by whether they pull the model where gold rows do.",
    "reads": ["text", "gold_texts", "gold_labels", "label?", "label_probs?", "classes?", "label_weight?"],
    "needs": ["train"],
    "cost": "about three times the training of the rows and the gold texts beside them",
    "baseline": "training.objectives.classification",
    "headline": "wrong machine labels lose their weight; worth it where many are wrong and gold rows are few",
    "version": 1,
}


def meta_weights(losses: Any, gold: Any, parameters: list[Any]) -> Any:
    """[rows] max(0, <grad l_i, grad L_gold>), 0 for gold rows; `losses` [rows] with graph, `gold` bool [rows]."""
    import torch

    def grad(of: Any, by: Any, graph: bool) -> Any:
        return torch.autograd.grad(of, by, create_graph=graph, retain_graph=True, allow_unused=True)

    towards = grad(losses[gold].mean(), parameters, False)
    v = torch.zeros_like(losses, requires_grad=True)
    mixed = grad((v * losses).sum(), parameters, True)
    product = sum((a * b.detach()).sum() for a, b in zip(mixed, towards) if a is not None and b is not None)
    (found,) = grad(product, v, False)
    return found.detach().clamp(min=0) * ~gold


class MetaWeights(Objective):
    """`inner` gives the loss of a row; rows come from data.recipes.gold_beside."""

    model_config = ConfigDict(validate_default=True)
    whole_rows: ClassVar[bool] = True
    joint_rows: ClassVar[bool] = True
    skips_empty_steps: ClassVar[bool] = True
    trains: ClassVar[tuple[str, ...]] = ("classifier", "causal")

    inner: Component = Field(default={"use": "training.objectives.classification"})  # type: ignore[assignment]

    @field_validator("inner")
    @classmethod
    def _gives_a_loss_of_rows(cls, value: Method) -> Method:
        known = ("training.objectives.classification", "training.objectives.verbaliser")
        if value.name not in known:
            raise ValueError(f"expected {' or '.join(known)}; found {value.name}")
        return value

    def start(self, model: Any) -> Any:
        from tutelage.training._optim import backward_flops

        # Two gradients by the weights, and one more through the second of them.
        return Running(self, self.inner.start(model), 3 * backward_flops(model, False))  # type: ignore[attr-defined]

    def encode(self, row: Mapping[str, Any], model: Any, max_length: int) -> Any:
        return self.start(model).encode(row, model, max_length)

    def loss(self, model: Any, batch: Any) -> Loss:
        return self.start(model).loss(model, batch)


class Running:
    """The objective with its started inner objective and the FLOPs per token of finding the weights."""

    whole_rows = joint_rows = skips_empty_steps = True

    def __init__(self, method: MetaWeights, inner: Any, token_flops: float) -> None:
        self.name, self.inner, self.token_flops = method.name, inner, token_flops

    def encode(self, row: Mapping[str, Any], model: Any, max_length: int) -> Any:
        if not row.get("gold_texts") or len(row["gold_texts"]) != len(row.get("gold_labels") or ()):
            raise InputError(
                "a row has no gold rows beside it",
                where=f"row {row.get('id', '')}",
                expected="gold_texts and gold_labels of one length",
                remedy="put them there with data.recipes.gold_beside",
            )
        made = _documents(self.inner.encode(row, model, max_length), 0.0)
        for text, label in zip(row["gold_texts"], row["gold_labels"]):
            known = {"id": row.get("id", ""), "text": text, "label": label, "classes": row.get("classes")}
            made += _documents(self.inner.encode(known, model, max_length), 1.0)
        return made

    def loss(self, model: Any, batch: Any) -> Loss:
        from torch.nn.attention import SDPBackend, sdpa_kernel

        from tutelage.models.pooling import document_values

        gold = document_values(batch, "gold") > 0
        if "first" in batch.columns:  # several documents are one row, whose loss is one number
            gold = gold[document_values(batch, "first") > 0]
        modes = [(part, part.training) for part in model.module.modules()]
        model.module.eval()
        # The fast kernels of attention cannot be differentiated twice.
        with sdpa_kernel(SDPBackend.MATH):
            parameters = [p for p in model.module.parameters() if p.requires_grad]
            weights = meta_weights(self.inner.loss(model, batch).per_example, gold, parameters)
        model.meter.add(backward_flops=self.token_flops * batch.n_tokens)
        for part, mode in modes:
            part.training = mode
        parts = weights * self.inner.loss(model, batch).per_example
        used = float((weights > 0).sum())
        return Loss(parts.sum(), float(weights.sum()), {"used": used}, per_example=parts)


def _documents(found: Any, gold: float) -> list[Any]:
    documents = found if isinstance(found, list) else [found]
    return [replace(d, columns={**(d.columns or {}), "gold": [gold] * len(d)}) for d in documents]
