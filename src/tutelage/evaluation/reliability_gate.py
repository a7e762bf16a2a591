"""Which classes a machine may label without a person: those on which it agrees with people as people do.

Two people and the machine labelled the same rows. For each class k, as "k" against "not k": kappa_hh between the
people, kappa_lh the mean of the machine's kappas with either. The class is accepted when kappa_hh >= least_human
and the 5 % quantile of kappa_lh - kappa_hh over a bootstrap of rows is above -margin; with kappa_hh <
least_human it must be redefined, because people do not agree what it is; else people go on labelling it. Too few
positives or no variation (a kappa that is undefined) are never accepted. The thresholds are ours; in the paper
classes with human agreement above 0.9 had machine agreement above 0.7, and those at 0.7 to 0.8 only 0.3 to 0.5.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from tutelage.core.errors import InputError
from tutelage.core.method import Inputs, Task
from tutelage.core.stats import confusion
from tutelage.evaluation._labels import classes_of, clusters_of, human_label, indices
from tutelage.evaluation._shared import Measurement

if TYPE_CHECKING:
    from tutelage.core.dataset import Dataset
    from tutelage.core.records import Result

CARD = {
    "name": "evaluation.reliability_gate",
    "paper": {
        "title": "SIGHT: A Large Annotated Dataset on Student Insights Gathered from Higher Education Transcripts",
        "identifier": "arXiv:2306.09343",
    },
    "summary": "Accept, keep human or redefine each class, by how a machine agrees with two people.",
    "reads": ["{first}", "{second}", "{machine}", "label_source?"],
    "inputs": {"labels?": "rows with the classes: label, description, aliases"},
    "cost": "statistics only",
    "baseline": "evaluation.agreement",
    "headline": "agreement of people bounds what a machine can be held to, class by class",
    "version": 1,
}

CODES = {"accept": 1.0, "human": 0.0, "redefine": -1.0}
QUANTILE = 0.05


def decide(hh: float, low: float, positives: int, task: "ReliabilityGate") -> tuple[str, str]:
    """(decision, reason) for one class: `hh` people's kappa and `low` the lower bound of the difference (NaN:
    undefined), `positives` rows of the class."""
    if positives < task.least_positives:
        return "human", f"too few positives: {positives} of {task.least_positives}"
    if np.isnan(hh) or np.isnan(low):
        return "human", "no variation: kappa is undefined"
    if hh < task.least_human:
        return "redefine", f"people agree at kappa {hh:.2f} only"
    if low > -task.margin:
        return "accept", f"the machine is at most {max(0.0, -low):.2f} below people"
    return "human", f"the machine may be {-low:.2f} below people"


class ReliabilityGate(Task):
    """`first` and `second` hold two people's labels, `machine` the machine's; rows without both people's are
    left out. `least_human` is the least kappa of people, `margin` how far below it the machine may be,
    `least_positives` the rows of a class that each person must have found."""

    first: str = "label"
    second: str = "label_2"
    machine: str = "teacher_label"
    least_human: float = Field(default=0.7, ge=0, le=1)
    margin: float = Field(default=0.1, ge=0)
    least_positives: int = Field(default=20, ge=1)
    draws: int = Field(default=1000, ge=100)
    seed: int = Field(default=0, ge=0)

    def evaluate(self, model: Any, dataset: "Dataset", inputs: Inputs) -> "Result":
        """Share of classes that are accepted. `system["decisions"]` holds decision and reason of each class;
        `extra`: `decision[class]` (1 accept, 0 human, -1 redefine), its kappas, raw agreement and positives.

        Raises InputError for a label outside the schema and for no row that both people labelled.
        """
        dataset.require(self.first, self.second, self.machine)
        work = Measurement(self, None, dataset, inputs)
        people = (self.first, self.second)
        rows = [row for row in work.rows if all(human_label(row, name) is not None for name in people)]
        if not rows:
            raise InputError(
                "no row was labelled by both people",
                where=f"columns {self.first!r} and {self.second!r}",
                expected="two people's labels of the same rows",
                found=f"{len(work.rows)} rows",
            )
        space = classes_of(rows, (*people, self.machine), inputs.get("labels"))
        where = [work.where(row) for row in rows]
        # A missing machine label is no class: it agrees with nobody.
        columns = {
            name: indices(
                [row[name] for row in rows], space, name, where, len(space) if name == self.machine else None
            )
            for name in (*people, self.machine)
        }
        extra, decisions = self._decided(columns, clusters_of(rows), space.names)
        first, machine = columns[self.first], columns[self.machine]
        for row, one, other in zip(rows, first, machine):
            work.add(
                row,
                score=float(decisions[space.names[one]]["decision"] == "accept"),
                prediction=space.names[other] if other < len(space) else None,
                target=space.names[one],
            )
        accepted = np.mean([one["decision"] == "accept" for one in decisions.values()])
        extra |= {
            "covered_rows": float(np.mean([decisions[space.names[k]]["decision"] == "accept" for k in first]))
        }
        found = work.result("accepted_classes", direction=1, extra=extra, system={"decisions": decisions})
        reason = "a decision about each class, made with its own bound"
        return found.model_copy(update={"estimate": float(accepted), "interval": None, "no_interval": reason})

    def _decided(
        self, columns: dict[str, np.ndarray], clusters: np.ndarray, names: tuple[str, ...]
    ) -> tuple[dict[str, float], dict[str, dict[str, str]]]:
        wide, count = len(names) + 1, len(names)
        pairs = [(self.first, self.second), (self.first, self.machine), (self.second, self.machine)]

        def kappas(tables: list[np.ndarray]) -> np.ndarray:
            return confusion.class_kappa(np.stack(tables))[..., :count]

        point = kappas([confusion.counts_table(columns[a], columns[b], wide) for a, b in pairs])
        # One seed: every pair of columns is resampled in the same rows.
        hh, *lh = (
            kappas(confusion.bootstrap_tables(columns[a], columns[b], wide, clusters, self.draws, self.seed))
            for a, b in pairs
        )
        difference = np.mean(lh, axis=0) - hh
        extra: dict[str, float] = {}
        decisions: dict[str, dict[str, str]] = {}
        for k, name in enumerate(names):
            defined = difference[np.isfinite(difference[:, k]), k]
            low = float(np.quantile(defined, QUANTILE)) if len(defined) >= 0.9 * self.draws else float("nan")
            calls = {column: columns[column] == k for column in columns}
            positives = int(min(calls[self.first].sum(), calls[self.second].sum()))
            decision, reason = decide(float(point[0, k]), low, positives, self)
            decisions[name] = {"decision": decision, "reason": reason}
            facts = {
                "decision": CODES[decision],
                "kappa_hh": point[0, k],
                "kappa_lh": point[1:, k].mean(),
                "low": low,
                "agreement_hh": (calls[self.first] == calls[self.second]).mean(),
                "positives": positives,
            }
            extra |= {f"{key}[{name}]": float(value) for key, value in facts.items() if value == value}
        return extra, decisions
