"""A linear head on an encoder or language model that is to be trained together with it.

logits = W f(x) + b, f(x) = sqrt(d) h / |h| with the pooled state h. `zero` starts with W = b = 0, every class
alike; `fitted` starts with the solution of adapters.linear_head on the same states (logistic regression with L2
penalty |W sqrt(d)|^2 / (2 C)), so that training begins where the frozen model ends. A model with an adapter
(adapters.lora) trains the adapter and the head alone. training.objectives.classification is what trains it.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from tutelage.adapters._shared import base_of
from tutelage.core.errors import InputError
from tutelage.core.method import Adapter, Inputs

CARD = {
    "name": "adapters.classification_head",
    "paper": {
        "title": "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution",
        "identifier": "arXiv:2202.10054",
    },
    "summary": "Adds a linear head to an encoder or language model that is then trained with it.",
    "reads": ["text?", "label?", "label_probs?", "label_weight?"],
    "inputs": {
        "model": "the encoder or causal language model below the head, with or without an adapter",
        "labels?": "rows with the classes: label, description, aliases",
    },
    "needs": ["train"],
    "cost": "nothing, or one forward pass over the rows and one logistic regression",
    "baseline": "adapters.linear_head",
    "headline": "full fine-tuning or LoRA of a classifier; a fitted start keeps what the frozen model knows",
    "version": 1,
}


class ClassificationHead(Adapter):
    """`start`: zero or fitted on the rows, with inverse penalty strength `C`; `pooling`: mean (of the states that
    `embed` averages) or last (the last token's final state); auto is mean for encoders, last for others."""

    start: Literal["zero", "fitted"] = "zero"
    pooling: Literal["auto", "mean", "last"] = "auto"
    C: float = Field(default=10.0, gt=0)

    def convert(self, models: Mapping[str, Any], dataset: Any, inputs: Inputs) -> Any:
        """A `TunedClassifier` on the base's own weights; raises InputError when the classes are not known."""
        import numpy as np

        from tutelage.adapters._heads import even_head, fit_head
        from tutelage.core.labels import LabelSpace, soft_labels
        from tutelage.core.text.rows import text_rows
        from tutelage.models.tuned_classifier import TunedClassifier, linear

        base = base_of(models, self.name, ("encoder", "causal"))
        schema: Any = inputs.get("labels")
        rows: Any = dataset if dataset is not None and dataset.num_rows else None
        if rows is None and (schema is None or self.start == "fitted"):
            raise InputError(
                "there are no labelled rows",
                where=self.name,
                expected="from: rows with text and label" + ("" if schema else ", or an input labels"),
            )
        space = LabelSpace.from_schema(schema) if rows is None else LabelSpace.of(rows, schema)
        if len(space) < 2:
            raise InputError(
                "all labelled rows have one class, so there is nothing to tell apart",
                where=self.name,
                expected="at least two classes",
                found=repr(space.names[0]),
            )
        made = even_head(base, space, self.pooling, f"{base.name}+head")
        if self.start == "fitted":
            width = made.head.in_features
            probs, weights = soft_labels(rows, space)
            vectors = made.embed([text for _, text in text_rows(rows)]) / width**0.5
            w, b = fit_head(vectors, probs, weights, self.C)
            # A class without rows is rare here, and not impossible: it may have rows later.
            b = np.where(np.isinf(b), b[np.isfinite(b)].min() - 3.0, b)
            made = TunedClassifier(space, base, linear(w / width**0.5, b), made.pooling, name=made.name)
        return made
