"""A linear head that says of every label alone whether it holds, on a model that is to be trained with it.

p_k = sigma(w_k f(x) + b_k) for each label k, f(x) = sqrt(d) h / |h| with the pooled state h: a text may have
several labels, one or none. `zero` starts with even odds everywhere; `fitted` starts each label with logistic
regression of its rows against the others on the frozen states (L2 penalty |w|^2 d / (2 C)).
training.objectives.multi_label trains it, above adapters.soft_prompt as the source has it, or with the whole model
or another adapter.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from tutelage.adapters._shared import base_of
from tutelage.core.errors import InputError
from tutelage.core.method import Adapter, Inputs

CARD = {
    "name": "adapters.multi_label_head",
    "paper": {
        "title": "Prompt Tuned Embedding Classification for Industry Sector Allocation",
        "identifier": "arXiv:2309.12075",
    },
    "summary": "Adds a linear head for texts that may have several labels to an encoder or language model.",
    "reads": ["text", "labels", "label_weight?"],
    "inputs": {
        "model": "the encoder or causal language model below the head, with or without an adapter",
        "labels?": "rows with the labels: label, description, aliases",
    },
    "needs": ["train"],
    "cost": "nothing, or one forward pass over the rows and one logistic regression for each label",
    "baseline": "adapters.classification_head",
    "headline": "scores for every label from one forward pass; the fitted start alone is the baseline to beat",
    "version": 1,
}


class MultiLabelHead(Adapter):
    """`start`: fitted on the rows, with inverse penalty strength `C`, or zero; `pooling`: mean (of the states that
    `embed` averages) or last (the last token's final state); auto is mean for encoders, last for others."""

    start: Literal["zero", "fitted"] = "fitted"
    pooling: Literal["auto", "mean", "last"] = "auto"
    C: float = Field(default=10.0, gt=0)

    def convert(self, models: Mapping[str, Any], dataset: Any, inputs: Inputs) -> Any:
        """A `TunedClassifier` of label sets; raises InputError for rows without `labels` and for a label that no
        row, or every row, has."""
        import numpy as np

        from tutelage.adapters._heads import even_head, fit_head
        from tutelage.core.labels import LabelSpace, label_set
        from tutelage.core.text.rows import text_rows
        from tutelage.models.tuned_classifier import TunedClassifier, linear

        base = base_of(models, self.name, ("encoder", "causal"))
        if dataset is None or not dataset.num_rows:
            raise InputError("there are no labelled rows", where=self.name, expected="from: rows with labels")
        schema: Any = inputs.get("labels")
        space = LabelSpace.from_schema(schema) if schema is not None else LabelSpace.of_sets(dataset)
        found = [label_set(row, space) for row in dataset.rows()]
        held, weights = np.array([held for held, _ in found]), np.array([weight for _, weight in found])
        counts = held.sum(axis=0).astype(int)
        for name, count in zip(space.names, counts):
            if count in (0, len(held)):
                raise InputError(
                    "a label can only be learnt from rows with it and rows without it",
                    where=f"label {name!r}",
                    expected="at least one row of each",
                    found=f"{count} of {len(held)} rows have it",
                    remedy="label more rows, or leave the label out",
                )
        made = even_head(base, space, self.pooling, f"{base.name}+labels")
        if self.start == "fitted":
            width = made.head.in_features
            vectors = made.embed([text for _, text in text_rows(dataset)]) / width**0.5
            fits = [fit_head(vectors, np.column_stack([1 - y, y]), weights, self.C) for y in held.T]
            head = linear(np.array([w[1] for w, _ in fits]) / width**0.5, np.array([b[1] for _, b in fits]))
            made = TunedClassifier(space, base, head, made.pooling, name=made.name)
        made.multi_label = True
        made.facts = {"rows": len(held), "rows_by_class": dict(zip(space.names, counts.tolist()))}
        return made
