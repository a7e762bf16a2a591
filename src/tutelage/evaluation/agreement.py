"""How well a machine's labels (or a second person's) agree with a person's on the same rows.

Cohen's kappa (p_o - p_e) / (1 - p_e), with p_o the share of equal labels and p_e the share expected of
independent labels with the same frequencies; beside it accuracy p_o and macro F1 = mean over classes of 2 TP /
(2 TP + FP + FN). Intervals are percentiles of a bootstrap over rows, or over clusters where rows share one. A
missing second label (an answer that could not be read) is no class: it agrees with nothing and stays in every
denominator. Another person's labels (`ceiling`) say how far people agree under the same measure, which bounds what
a machine can be held to; a class on which they agree at kappa below .7 is a problem of its definition (the paper
on SIGHT, arXiv:2306.09343; the threshold is ours).
"""

import warnings
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from tutelage.core.errors import InputError
from tutelage.core.method import Inputs, Task
from tutelage.core.records import Interval
from tutelage.core.stats import confusion
from tutelage.evaluation._labels import classes_of, clusters_of, human_label, indices
from tutelage.evaluation._shared import Measurement

if TYPE_CHECKING:
    from tutelage.core.dataset import Dataset
    from tutelage.core.records import Result

CARD = {
    "name": "evaluation.agreement",
    "paper": {
        "title": "A Coefficient of Agreement for Nominal Scales",
        "identifier": "10.1177/001316446002000104",
    },
    "summary": "Kappa, accuracy and macro F1 between two columns of labels, with intervals.",
    "reads": ["{first}", "{second}", "{status}?", "{ceiling}?", "label_source?"],
    "inputs": {"labels?": "rows with the classes: label, description, aliases"},
    "cost": "statistics only",
    "baseline": None,
    "headline": "accuracy flatters where one class is common; kappa does not",
    "version": 1,
}


# Below this kappa people do not agree what a class is.
LEAST_HUMAN = 0.7


class Agreement(Task):
    """`first` is the reference, `second` the labels in question; rows without a reference are left out and
    counted, as are rows whose label a machine gave. `status` says why a second label is missing. `ceiling` holds a
    second person's labels of some of the rows. `metric` is the estimate, the others stand in `extra`; `draws`
    resamples."""

    first: str = "label"
    second: str = "teacher_label"
    status: str = "teacher_status"
    ceiling: str | None = None
    metric: Literal["kappa", "accuracy", "macro_f1"] = "kappa"
    draws: int = Field(default=1000, ge=100)
    level: float = Field(default=0.95, gt=0, lt=1)
    seed: int = Field(default=0, ge=0)

    def evaluate(self, model: Any, dataset: "Dataset", inputs: Inputs) -> "Result":
        """`extra`: every measure with `_lo` and `_hi`, `f1[class]`, `no_reference` (rows), `unlabelled` (share);
        with `ceiling` the agreement of people, the share of it, and `definition_problem[class]`.

        Warns of classes that the second labels never use. Raises InputError for a label outside the schema, for no
        row with a reference, and for a kappa that is undefined because there is one class only.
        """
        dataset.require(self.first, self.second, *([self.ceiling] if self.ceiling else []))
        work = Measurement(self, None, dataset, inputs)
        rows = [row for row in work.rows if human_label(row, self.first) is not None]
        if not rows:
            raise InputError(
                "no row has a reference label",
                where=f"column {self.first!r}",
                expected="labels that people gave",
                found=f"{len(work.rows)} rows without one",
            )
        columns = (self.first, self.second, *([self.ceiling] if self.ceiling else []))
        space = classes_of(rows, columns, inputs.get("labels"))
        where = [work.where(row) for row in rows]
        first = indices([row[self.first] for row in rows], space, self.first, where)
        second = indices([row[self.second] for row in rows], space, self.second, where, none=len(space))
        unused = [name for number, name in enumerate(space.names) if number in first and number not in second]
        if unused:
            warnings.warn(
                f"{self.name}: {self.second} never holds {', '.join(map(repr, unused[:5]))}", stacklevel=2
            )
        for row, one, other in zip(rows, first, second):
            answered = other < len(space)
            work.add(
                row,
                score=float(one == other),
                status="ok" if answered else _status(row.get(self.status)),
                prediction=space.names[other] if answered else None,
                target=space.names[one],
            )
        other = None
        if self.ceiling is not None:
            other = indices([row[self.ceiling] for row in rows], space, self.ceiling, where, none=len(space))
        return self._result(work, first, second, clusters_of(rows), space, other)

    def _result(
        self, work: Measurement, first: Any, second: Any, clusters: Any, space: Any, other: Any
    ) -> "Result":
        wide = len(space) + 1
        table = confusion.counts_table(first, second, wide)
        drawn = confusion.bootstrap_tables(first, second, wide, clusters, self.draws, self.seed)
        measures = {
            "kappa": confusion.kappa,
            "accuracy": confusion.accuracy,
            "macro_f1": lambda one: confusion.macro_f1(one, len(space)),
        }
        extra = {
            "no_reference": float(len(work.rows) - len(first)),
            "unlabelled": float((second == len(space)).mean()),
        }
        for name, measure in measures.items():
            low, high = confusion.percentiles(drawn, measure, self.level)
            extra |= {name: measure(table), f"{name}_lo": low, f"{name}_hi": high}
        extra |= {f"f1[{n}]": float(f) for n, f in zip(space.names, confusion.class_f1(table))}
        if other is not None:
            both = other < len(space)
            if not both.any():
                raise InputError(
                    "no row has a second person's label",
                    where=f"column {self.ceiling!r}",
                    expected="labels of some of the rows with a reference",
                    found="none",
                    remedy="leave ceiling out: how far people agree is then unknown",
                )
            people = confusion.counts_table(first[both], other[both], wide)
            ceiling, kappas = measures[self.metric](people), confusion.class_kappa(people)
            extra |= {"ceiling": ceiling, "ceiling_rows": float(both.sum())}
            extra["share_of_ceiling"] = measures[self.metric](table) / ceiling if ceiling > 0 else float("nan")
            unclear = [name for name, kappa in zip(space.names, kappas) if kappa < LEAST_HUMAN]
            extra |= {f"definition_problem[{name}]": 1.0 for name in unclear}
        # What does not exist is left out: kappa with one class, F1 of a class that nobody used.
        extra = {name: value for name, value in extra.items() if value == value}
        found = work.result(self.metric, direction=1, extra=extra)
        if self.metric not in extra:
            raise InputError(
                "kappa is undefined: both sides use one and the same class",
                where=f"columns {self.first!r} and {self.second!r}",
                expected="at least two classes",
                found=f"accuracy {extra['accuracy']:.3g}",
                remedy="use metric: accuracy, or rows of several classes",
            )
        return found.model_copy(update={"estimate": extra[self.metric], **self._interval(extra, clusters)})

    def _interval(self, extra: dict[str, float], clusters: Any) -> dict[str, Any]:
        low = extra.get(f"{self.metric}_lo")
        if low is None:
            return {"interval": None, "no_interval": "undefined on more than one resample in ten"}
        several = len(set(clusters.tolist())) < len(clusters)
        kind: Literal["clusters", "items"] = "clusters" if several else "items"
        method = f"percentile bootstrap over {kind}"
        interval = Interval(lo=low, hi=extra[f"{self.metric}_hi"], level=self.level, method=method, covers=kind)
        return {"interval": interval, "no_interval": None}


def _status(given: Any) -> str:
    return given if given in ("unparsed", "truncated", "refused", "error") else "unparsed"
