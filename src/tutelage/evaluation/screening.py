"""How many rows a score lets people skip while hardly any positive one is lost.

Gold rows are parted in two by hash. On the first half the threshold is the highest score t for which the
one-sided lower Clopper-Pearson bound of recall, the 1 - level quantile of Beta(k, n - k + 1) with k of n
positives scored at least t, reaches the target; on the second half recall and the share of rows below t (effort
saved) are measured. Choosing and measuring on the same rows would flatter both."""

from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field
from scipy import stats

from tutelage.core.errors import InputError
from tutelage.core.method import Inputs, Task
from tutelage.core.records import Interval
from tutelage.core.stats.confusion import lower_bound
from tutelage.core.text.hashing import uniform
from tutelage.evaluation._labels import clusters_of, human_label
from tutelage.evaluation._shared import Measurement

if TYPE_CHECKING:
    from tutelage.core.dataset import Dataset
    from tutelage.core.records import Result

CARD = {
    "name": "evaluation.screening",
    "paper": {"title": "Common practice", "identifier": ""},
    "summary": "Recall kept and human effort saved when rows below a score are not looked at.",
    "reads": ["{column}", "{gold}", "classes?", "label_source?"],
    "cost": "statistics only",
    "baseline": None,
    "headline": "machine labels too weak to train on are often good enough to screen with",
    "version": 1,
}


def threshold(scores: np.ndarray, positive: np.ndarray, recall: float, level: float) -> float | None:
    """The highest score at which the bound of recall reaches `recall`; None when not even all positives do."""
    hits = np.sort(scores[positive])
    n = len(hits)
    # Scores rise with the place: from each place on, n - place positives are found.
    places = [i for i in range(n) if lower_bound(n - i, n, level) >= recall]
    return float(hits[places[-1]]) if places else None


class Screening(Task):
    """`column` holds a score, or probabilities in the order of `classes`; `positive` is the class looked for.
    `recall` is the target that the bound at `level` must reach; `gold` holds people's labels."""

    column: str = "teacher_probs"
    gold: str = "label"
    positive: str | None = None
    recall: float = Field(default=0.9, gt=0, lt=1)
    level: float = Field(default=0.95, gt=0, lt=1)
    seed: int = Field(default=0, ge=0)

    def evaluate(self, model: Any, dataset: "Dataset", inputs: Inputs) -> "Result":
        """Recall on the second half with its Clopper-Pearson interval; `extra`: threshold, effort_saved, both
        halves' positives. Rows without a score are always looked at. Rows of one cluster stay in one half.

        Raises InputError when no threshold reaches the target, or a half lacks positives.
        """
        dataset.require(self.column, self.gold)
        work = Measurement(self, None, dataset, inputs)
        rows = [row for row in work.rows if human_label(row, self.gold) is not None]
        classes = sorted({str(row[self.gold]) for row in rows})
        if self.positive not in classes:
            raise InputError(
                "which class is looked for?",
                where="positive",
                expected="one of " + ", ".join(classes),
                found=self.positive,
                remedy="set positive to the class that must not be missed",
            )
        positive = np.array([row[self.gold] == self.positive for row in rows])
        scores = np.array([self._score(row, work.where(row)) for row in rows])
        clusters = clusters_of(rows)
        alone = [name.endswith(" alone") for name in clusters]
        names = [str(row["id"]) if single else str(name) for row, name, single in zip(rows, clusters, alone)]
        choose = uniform(self.seed, names) < 0.5
        found = threshold(scores[choose], positive[choose], self.recall, self.level)
        if found is None or not positive[~choose].any():
            raise InputError(
                "there are too few positive rows for such a recall",
                where=f"column {self.gold!r}",
                expected=f"a bound of {self.recall} when all are found, and positives in both halves",
                found=f"{positive[choose].sum()} positives to choose by, {positive[~choose].sum()} to measure on",
                remedy="label more rows of the class, or lower recall",
            )
        looked = scores >= found
        for row, use, hit, seen in zip(rows, ~choose, positive, looked):
            if use and hit:
                work.add(row, score=float(seen), target=self.positive)
        hits, n = int((looked & positive & ~choose).sum()), int((positive & ~choose).sum())
        extra = {
            "threshold": found,
            "effort_saved": float(1 - looked[~choose].mean()),
            "positives_to_choose": float(positive[choose].sum()),
            "recall_to_choose": float(looked[choose & positive].mean()),
        }
        low, high = (lower_bound(hits, n, (1 + self.level) / 2), 1.0)
        if hits < n:
            high = float(stats.beta.ppf((1 + self.level) / 2, hits + 1, n - hits))
        interval = Interval(lo=low, hi=high, level=self.level, method="Clopper-Pearson", covers="items")
        result = work.result("recall", direction=1, extra=extra)
        return result.model_copy(update={"interval": interval, "no_interval": None})

    def _score(self, row: dict[str, Any], where: str) -> float:
        value = row[self.column]
        if value is None:
            return float("inf")  # what the machine could not judge is looked at
        if isinstance(value, list):
            classes = row.get("classes") or []
            if self.positive not in classes or len(classes) != len(value):
                raise InputError(
                    "a row's probabilities do not name the class",
                    where=where,
                    expected=f"classes with {self.positive!r}, as many as probabilities",
                    found=classes,
                )
            value = value[classes.index(self.positive)]
        if not isinstance(value, int | float) or value != value:
            raise InputError("a score is no number", where=f"{where}, field {self.column}", found=repr(value))
        return float(value)
