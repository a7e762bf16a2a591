"""Cross-entropy of a classifier's head and the model below it, from hard or soft labels with weights.

L = -sum_i w_i sum_k q_ik log softmax_k(W f(x_i) + b) / N over the N rows of a step: q is `label_probs`, or one for
`label` and zero for the others; w is `label_weight`, 1 where a row has none. Weights are not scaled within a step:
their scale over the whole dataset is what the rows say.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from tutelage.core.method import Objective
from tutelage.training.objectives._shared import Loss

CARD = {
    "name": "training.objectives.classification",
    "paper": {"title": "Common practice"},
    "summary": "Teaches a classifier the classes of texts, from hard or soft labels.",
    "reads": ["text", "label?", "label_probs?", "classes?", "label_weight?"],
    "needs": ["train"],
    "cost": "one forward and one backward pass per token",
    "baseline": "adapters.linear_head",
    "headline": "beats a head on frozen vectors once there are enough labels, and not before",
    "version": 1,
}


class Classification(Objective):
    """No fields: the model (adapters.classification_head) has the classes, rows have labels and weights."""

    whole_rows: ClassVar[bool] = True
    trains: ClassVar[tuple[str, ...]] = ("classifier",)

    def encode(self, row: Mapping[str, Any], model: Any, max_length: int) -> Any:
        from tutelage.core.labels import soft_label
        from tutelage.models.pooling import encode_whole

        probs, weight = soft_label(row, model.labels)
        # Numbers of a document that are zero need not be stored: a batch has 0 where a document has no number.
        facts = {f"q{k}": value for k, value in enumerate(probs.tolist()) if value}
        facts["weight"] = weight
        return encode_whole(model.base, row["text"], max_length, example_id=str(row.get("id", "")), facts=facts)

    def loss(self, model: Any, batch: Any) -> Loss:
        import torch

        from tutelage.models.pooling import document_values

        logps = torch.log_softmax(model.batch_logits(batch), dim=1)
        weight = document_values(batch, "weight")
        named = {f"q{k}": k for k in range(len(model.labels)) if f"q{k}" in batch.columns}
        chosen = logps[:, list(named.values())]
        target = torch.stack([document_values(batch, name) for name in named], dim=1)
        per_row = -(target * chosen).sum(1) * weight
        return Loss(per_row.sum(), float(len(per_row)), per_example=per_row)
