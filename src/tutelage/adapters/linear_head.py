"""A classifier on the frozen vectors of a model: logistic regression on length-1 embeddings.

f(x) = the model's vector of a text (mean of the last states over its tokens) divided by its length; multinomial
logistic regression with L2 penalty |W|^2 / (2 C) on it. A soft label q of a row with weight w counts as one row
for every class k, with weight w q_k. Scores of every gold row by a head fitted without it are kept with the model,
for calibration.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from tutelage.adapters._heads import labelled_rows, linear_classifier
from tutelage.core.labels import LabelSpace
from tutelage.core.method import Adapter, Inputs
from tutelage.models.classifier import EncoderFeatures

CARD = {
    "name": "adapters.linear_head",
    "paper": {"title": "Common practice (linear probe on frozen embeddings)", "identifier": ""},
    "summary": "A classifier on the frozen vectors of an encoder or language model, from hard or soft labels.",
    "reads": ["text", "label", "label_probs?", "label_weight?", "label_source?"],
    "inputs": {
        "model": "the encoder or language model that gives the vectors",
        "labels?": "rows with the classes: label, description, aliases",
    },
    "needs": ["train"],
    "cost": "one forward pass over the text and one logistic regression",
    "baseline": "adapters.tfidf_classifier",
    "headline": "the strongest simple choice from a handful of labels a class upwards",
    "version": 1,
}


class LinearHead(Adapter):
    """`C` is the inverse strength of the penalty (null: 1, 10, 100 or 1000, by the out-of-fold log-likelihood of
    the labels); `folds` of the out-of-fold scores."""

    C: float | None = Field(default=None, gt=0)
    folds: int = Field(default=5, ge=2)
    seed: int = Field(default=0, ge=0)

    def convert(self, models: Mapping[str, Any], dataset: Any, inputs: Inputs) -> Any:
        """A `LinearClassifier`; raises InputError for rows without a label, one class, or conflicting gold, and
        ModelError for a model without vectors."""
        base = models["base"]
        features = EncoderFeatures(base)
        rows = labelled_rows(dataset, self.name)
        space = LabelSpace.of(rows, inputs.get("labels"))
        return linear_classifier(rows, space, lambda _texts: features, self.model_dump(), f"{base.name}+head")
