"""Binary cross-entropy of every label of a text, rare labels weighted up.

With z_ik the logit of label k, y_ik 1 where row i has it, K labels and N rows of a step,
    L = -1/N sum_i w_i 1/K sum_k [ c_k y_ik log sigma(z_ik) + (1 - y_ik) log(1 - sigma(z_ik)) ],
    c_k = min((M - m_k) / m_k, most),
M rows and m_k rows with the label among those that adapters.multi_label_head was made from; w is `label_weight`.
`most` is our choice, and so is the mean over labels (the source's code leaves both to its library's defaults).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from tutelage.core.errors import ConfigError
from tutelage.core.method import Objective
from tutelage.training.objectives._shared import Loss

if TYPE_CHECKING:
    from torch import Tensor

CARD = {
    "name": "training.objectives.multi_label",
    "paper": {
        "title": "Prompt Tuned Embedding Classification for Industry Sector Allocation",
        "identifier": "arXiv:2309.12075",
    },
    "summary": "Teaches a classifier which of several labels a text has.",
    "reads": ["text", "labels", "label_weight?"],
    "needs": ["train"],
    "cost": "one forward and one backward pass per token",
    "baseline": "adapters.multi_label_head",
    "headline": "labels that occur together or not at all, with a score for each",
    "version": 1,
}


def positive_weights(rows: int, counts: "Tensor", most: float) -> "Tensor":
    """[K] c_k of labels that `counts` [K] of `rows` rows have."""
    return ((rows - counts) / counts).clamp(max=most)


class MultiLabel(Objective):
    """`most`: the largest weight of a rare label's rows."""

    most: float = Field(default=20.0, ge=1)
    whole_rows: ClassVar[bool] = True
    trains: ClassVar[tuple[str, ...]] = ("classifier",)

    def start(self, model: Any) -> Any:
        if not model.multi_label:
            raise ConfigError(
                "this objective trains a classifier of several labels",
                where=f"objective {self.name}",
                expected="a model of adapters.multi_label_head",
                found=f"{model.name}, which gives each text one class",
            )
        return self

    def encode(self, row: Mapping[str, Any], model: Any, max_length: int) -> Any:
        from tutelage.core.labels import label_set
        from tutelage.models.pooling import encode_whole

        held, weight = label_set(row, model.labels)
        facts = {f"y{k}": 1.0 for k, value in enumerate(held) if value} | {"weight": weight}
        return encode_whole(model.base, row["text"], max_length, example_id=str(row.get("id", "")), facts=facts)

    def loss(self, model: Any, batch: Any) -> Loss:
        import torch

        from tutelage.models.pooling import document_values

        logits = model.batch_logits(batch)
        target = torch.zeros_like(logits)
        for k in range(len(model.labels)):
            if f"y{k}" in batch.columns:
                target[:, k] = document_values(batch, f"y{k}")
        counts = [model.facts["rows_by_class"][name] for name in model.labels.names]
        up = positive_weights(model.facts["rows"], torch.tensor(counts, device=logits.device).float(), self.most)
        each = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, target, pos_weight=up, reduction="none"
        )
        per_row = each.mean(1) * document_values(batch, "weight")
        return Loss(per_row.sum(), float(len(per_row)), per_example=per_row)
