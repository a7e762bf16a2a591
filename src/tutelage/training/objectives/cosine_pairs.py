"""Texts of one class closer together, texts of two classes at right angles: contrastive tuning of an encoder.

L = sum_p w_p (cos(e_a, e_b) - y_p)^2 / P over the P pairs of a step, e the vectors that `embed` gives (before they
are scaled to length 1), y = 1 where `same`, else 0, w the pair's weight. Pairs come from data.recipes.label_pairs;
a linear head on the tuned, frozen encoder (adapters.linear_head) is the classifier.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from tutelage.core.errors import InputError
from tutelage.core.method import Objective
from tutelage.training.objectives._shared import Loss

CARD = {
    "name": "training.objectives.cosine_pairs",
    "paper": {"title": "Efficient Few-Shot Learning Without Prompts", "identifier": "arXiv:2209.11055"},
    "summary": "Draws the vectors of pairs of texts together or apart, for classifiers from a few labels.",
    "reads": ["text", "text_b", "same", "weight?"],
    "needs": ["train"],
    "cost": "one forward and one backward pass per token of both texts",
    "baseline": "adapters.linear_head",
    "headline": "an encoder that separates the classes of a handful of labels",
    "version": 1,
}


class CosinePairs(Objective):
    """No fields: a pair's `weight` is in its row."""

    whole_rows: ClassVar[bool] = True
    joint_rows: ClassVar[bool] = True
    trains: ClassVar[tuple[str, ...]] = ("encoder", "causal")

    def encode(self, row: Mapping[str, Any], model: Any, max_length: int) -> Any:
        from tutelage.models.pooling import encode_whole

        missing = [name for name in ("text", "text_b", "same") if row.get(name) is None]
        if missing:
            raise InputError(
                "a row is not a pair of texts",
                where=f"row {row.get('id', '')}",
                expected="text, text_b and same",
                found="no " + ", no ".join(missing),
                remedy="make pairs with data.recipes.label_pairs",
            )
        weight = row.get("weight")
        facts = {"same": float(row["same"]), "weight": 1.0 if weight is None else float(weight)}
        return [
            encode_whole(model, row[name], max_length, example_id=str(row.get("id", "")), facts=facts)
            for name in ("text", "text_b")
        ]

    def loss(self, model: Any, batch: Any) -> Loss:
        from torch.nn.functional import cosine_similarity

        from tutelage.models.pooling import document_values, pooled

        vectors = pooled(model, batch)
        same, weight = (document_values(batch, name)[::2] for name in ("same", "weight"))
        apart = weight * (cosine_similarity(vectors[::2], vectors[1::2]) - same) ** 2
        return Loss(apart.sum(), float(len(apart)), per_example=apart)
