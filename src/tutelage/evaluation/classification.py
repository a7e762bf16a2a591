"""How good a classifier is on rows that people labelled: accuracy, and how far its probabilities can be trusted.

accuracy = share of rows whose most probable class is the label. Beside it: macro F1 = mean over the classes of the
rows of 2 TP / (2 TP + FP + FN), the mean negative log-likelihood of the label, the Brier score, the expected
calibration error, and, where the classifier abstains below a threshold, the share of rows it answers and the share
of right answers among these. Only gold labels measure anything: rows that a machine labelled are refused.

Of a classifier that may give a text several labels, on rows with `labels`: mean F1 of the rows, 2 |P & T| /
(|P| + |T|) of the labels P with p > 1/2 and T of the row (1 where both are empty), and beside it F1 of all
decisions together (micro), its mean over the labels (macro), and the share of rows whose whole set is right.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.core.labels import label_set
from tutelage.core.method import Inputs, Task
from tutelage.core.text.rows import text_rows
from tutelage.evaluation._classes import accuracy_of, require_classifier, require_gold
from tutelage.evaluation._label_sets import label_sets_of
from tutelage.evaluation._shared import Measurement

if TYPE_CHECKING:
    from tutelage.core.dataset import Dataset
    from tutelage.core.records import Result

CARD = {
    "name": "evaluation.classification",
    "paper": {"title": "Common practice", "identifier": ""},
    "summary": "Accuracy of a classifier on rows labelled by people, with F1, calibration and abstention beside.",
    "reads": ["text", "label?", "labels?", "label_source?"],
    "inputs": {"model": "the classifier that is measured"},
    "needs": ["train"],
    "cost": "one prediction for each row",
    "baseline": None,
    "headline": "the share of right answers, and whether the stated probabilities come true",
    "version": 1,
}


class Classification(Task):
    """Nothing to configure."""

    def evaluate(self, model: Any, dataset: "Dataset", inputs: Inputs) -> "Result":
        """Accuracy (of label sets, F1) in [0, 1], larger is better; the interval covers items, or clusters.

        Raises InputError for a row without a gold label or with a label that the classifier does not know, and
        ConfigError for a model that gives no classes.
        """
        if getattr(model, "multi_label", False):
            dataset.require("labels")
            work = Measurement(self, model, dataset, inputs, identity=("text", "labels"))
            for row in work.rows:
                require_gold(row, work.where(row))
            held = np.array([label_set(row, model.labels)[0] > 0 for row in work.rows])
            return label_sets_of(work, model, held, model.predict_proba([text for _, text in text_rows(dataset)]))
        require_classifier(model, self.name)
        dataset.require("label")
        work = Measurement(self, model, dataset, inputs, identity=("text", "label"))
        labels = np.array([self._gold(row, model, work.where(row)) for row in work.rows])
        probs = model.predict_proba([text for _, text in text_rows(dataset)])
        return accuracy_of(work, model, labels, probs)

    def _gold(self, row: dict[str, Any], model: Any, where: str) -> int:
        require_gold(row, where)
        return int(model.labels.index(row["label"], f"{where}, field label"))
