"""A classifier of hashed words and character n-grams: TF-IDF and logistic regression, the baseline of all others.

f(x) = TF-IDF of words, word pairs and character 3- to 5-grams in 2^18 buckets, length 1; multinomial logistic
regression with L2 penalty |W|^2 / (2 C). No model is needed. Rows may have soft labels and weights. Scores of
every gold row by a classifier fitted without it are kept with the model, for calibration.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from tutelage.adapters._heads import labelled_rows, linear_classifier
from tutelage.core.labels import LabelSpace
from tutelage.core.method import Adapter, Inputs
from tutelage.models.classifier import TfidfFeatures

CARD = {
    "name": "adapters.tfidf_classifier",
    "paper": {"title": "Common practice", "identifier": ""},
    "summary": "A classifier of words and character n-grams: TF-IDF with logistic regression, no model needed.",
    "reads": ["text", "label", "label_probs?", "label_weight?", "label_source?"],
    "inputs": {"labels?": "rows with the classes: label, description, aliases"},
    "needs": ["train"],
    "cost": "one pass over the text and one logistic regression",
    "baseline": None,
    "headline": "the baseline that every method with few labels must beat, and often does not",
    "version": 1,
}


class TfidfClassifier(Adapter):
    """`C` is the inverse strength of the penalty (null: 1, 10, 100 or 1000, by the out-of-fold log-likelihood of
    the labels); `folds` of the out-of-fold scores."""

    C: float | None = Field(default=None, gt=0)
    folds: int = Field(default=5, ge=2)
    seed: int = Field(default=0, ge=0)

    def convert(self, models: Mapping[str, Any], dataset: Any, inputs: Inputs) -> Any:
        """A `LinearClassifier`; raises InputError for rows without a label, one class, or conflicting gold."""
        rows = labelled_rows(dataset, self.name)
        space = LabelSpace.of(rows, inputs.get("labels"))
        settings = self.model_dump()
        return linear_classifier(rows, space, TfidfFeatures.fit, settings, "tfidf classifier")
