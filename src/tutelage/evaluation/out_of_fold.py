"""How good a classifier is when every label was needed to fit it: its scores of the rows it was fitted on, each by
a classifier that was fitted without that row's fold.

accuracy = share of gold rows whose most probable class out of fold is the label; the classifier itself has seen
all of them and is a little better on average than those that were measured. The scores of one set of rows are not
independent of each other, so with few rows the interval is rather too short. Two classifiers of the same rows are
compared row by row.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.core.errors import ConfigError
from tutelage.core.method import Inputs, Task
from tutelage.evaluation._classes import accuracy_of, require_classifier
from tutelage.evaluation._shared import Measurement

if TYPE_CHECKING:
    from tutelage.core.dataset import Dataset
    from tutelage.core.records import Result

CARD = {
    "name": "evaluation.out_of_fold",
    "paper": {"title": "Cross-Validatory Choice and Assessment of Statistical Predictions", "identifier": ""},
    "summary": "Accuracy of a classifier on the rows it was fitted on, each scored by a fit without it.",
    "inputs": {"model": "the classifier that is measured"},
    "needs": ["train"],
    "cost": "none: the scores were kept when it was fitted",
    "baseline": None,
    "headline": "a first honest figure from ten labels; held-out rows are better as soon as there are enough",
    "version": 1,
}


class OutOfFold(Task):
    """Nothing to configure."""

    def evaluate(self, model: Any, dataset: "Dataset | None", inputs: Inputs) -> "Result":
        """Accuracy in [0, 1], larger is better; raises ConfigError for a classifier without such scores."""
        require_classifier(model, self.name)
        kept = model.out_of_fold
        if kept is None:
            raise ConfigError(
                "the classifier kept no out-of-fold scores",
                where=f"{self.name}: model",
                expected="one of adapters.linear_head or adapters.tfidf_classifier, with two gold rows of a class",
                found=model.name,
                remedy="measure it on held-out rows (evaluation.classification)",
            )
        rows = [{"text": text, "label": model.labels.names[k]} for text, k in zip(kept.rows, kept.labels)]
        work = Measurement(self, model, rows, inputs, identity=("text", "label"))
        return accuracy_of(work, model, np.array(kept.labels), model.probabilities(np.array(kept.logits)))
