"""Distil a teacher's labels by those rows alone that the teacher is sure of and the student is not.

Of a drawn row with teacher probabilities q and student probabilities p (without gradient, before the row is used):
y = argmax q, c = max q, u = H(p) / log C. Per class y two thresholds follow the rows, tau_T <- m tau_T + (1 - m) c
and tau_S <- m tau_S + (1 - m) u (over the first `warmup` rows they are plain means, and every row is used). The
row is used if c >= tau_T and u >= tau_S; the loss is sum_i w_i CE(y_i, p_i) / sum_i w_i over the rows of a step,
with w = c u. When `patience` rows in a row are passed over, all tau_S are lowered by a tenth. The student's look
at every row drawn is part of the cost. Departures: the paper's exact formulas were not at hand, m, u, warm-up and
the relaxation are ours; the thresholds follow single rows rather than batches, so that the size of a batch changes
nothing; rows that are passed over are drawn again in the next epoch.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from tutelage.core.errors import InputError
from tutelage.core.method import Objective
from tutelage.training.objectives._shared import Loss
from tutelage.training.objectives.classification import Classification

CARD = {
    "name": "training.objectives.llkd",
    "paper": {
        "title": "Learning with Less: Knowledge Distillation from Large Language Models via Unlabeled Data",
        "identifier": "arXiv:2411.08028",
    },
    "summary": "Distils a teacher's labels by rows that the teacher is sure of and the student is not.",
    "reads": ["text", "label_probs", "classes", "label_weight?"],
    "needs": ["train"],
    "cost": "one forward pass for every row drawn, forward and backward for the rows used",
    "baseline": "training.objectives.classification",
    "headline": "better accuracy from a few per cent of the rows, the paper finds",
    "version": 1,
}

ROUNDING = 1e-9


def normalised_entropy(probs: np.ndarray) -> float:
    """H(p) / log C of probabilities [C], in [0, 1]."""
    used = probs[probs > 0]
    return float(-(used * np.log(used)).sum() / np.log(len(probs)))


class Llkd(Objective):
    """`memory` is m, a row's part in the thresholds being 1 - m; `warmup` rows are used whatever they are; after
    `patience` rows passed over the student's thresholds are relaxed. The model has a head
    (adapters.classification_head), rows have a teacher's `label_probs`."""

    memory: float = Field(default=0.99, ge=0, lt=1)
    warmup: int = Field(default=64, ge=1)
    patience: int = Field(default=20, ge=1)
    whole_rows: ClassVar[bool] = True
    trains: ClassVar[tuple[str, ...]] = ("classifier",)

    def start(self, model: Any) -> Any:
        return Selecting(self)

    def encode(self, row: Mapping[str, Any], model: Any, max_length: int) -> Any:
        return Selecting(self).encode(row, model, max_length)

    def loss(self, model: Any, batch: Any) -> Loss:
        return Selecting(self).loss(model, batch)


class Selecting:
    """The objective with its thresholds: `teacher` and `student` hold tau by class."""

    whole_rows, joint_rows, skips_empty_steps = True, False, False
    trains = Llkd.trains

    def __init__(self, method: Llkd) -> None:
        self.method, self.name = method, method.name
        self.inner = Classification()
        self.teacher: dict[str, float] = {}
        self.student: dict[str, float] = {}
        self.seen: dict[str, int] = {}
        self.passed = 0

    def encode(self, row: Mapping[str, Any], model: Any, max_length: int) -> Any:
        """The row's document, or none where it is passed over; InputError for a row without probabilities."""
        from tutelage.core.labels import soft_label

        if row.get("label_probs") is None:
            raise InputError(
                "llkd needs probabilities",
                where=f"row {row.get('id', '?')}, field label_probs",
                expected="a teacher's distribution over the classes",
                found="none",
                remedy="label by choice or by several samples (signals.teacher_label), then adopt with probs",
            )
        target, weight = soft_label(row, model.labels)
        logits = model.logits([row["text"]])[0]
        student = np.exp(logits - np.logaddexp.reduce(logits))
        sure, unsure = float(target.max()), normalised_entropy(student)
        kind = model.labels.names[int(target.argmax())]
        if not self.chosen(kind, sure, unsure):
            return []
        hard = {"label": kind, "label_weight": weight * sure * unsure}
        return self.inner.encode({"id": row.get("id", ""), "text": row["text"], **hard}, model, max_length)

    def chosen(self, kind: str, sure: float, unsure: float) -> bool:
        """Move the thresholds of a class by one row, and say whether the row is used."""
        warm = sum(self.seen.values()) < self.method.warmup
        count = self.seen[kind] = self.seen.get(kind, 0) + 1
        memory = (count - 1) / count if warm or kind not in self.teacher else self.method.memory
        self.teacher[kind] = memory * self.teacher.get(kind, sure) + (1 - memory) * sure
        self.student[kind] = memory * self.student.get(kind, unsure) + (1 - memory) * unsure
        kept = sure >= self.teacher[kind] - ROUNDING and unsure >= self.student[kind] - ROUNDING
        self.passed = 0 if kept or warm else self.passed + 1
        if self.passed >= self.method.patience:
            self.student = {name: 0.9 * value for name, value in self.student.items()}
            self.passed = 0
        return kept or warm

    def loss(self, model: Any, batch: Any) -> Loss:
        """Weighted cross-entropy over the sum of the weights, so that weights have mean 1 in every step."""
        from tutelage.models.pooling import document_values

        found = self.inner.loss(model, batch)
        weight = float(document_values(batch, "weight").sum())
        return Loss(found.sum, weight, per_example=found.per_example)

    def state_dict(self) -> dict[str, Any]:
        """JSON values; part of every checkpoint."""
        return {name: getattr(self, name) for name in ("teacher", "student", "seen", "passed")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was taken."""
        self.teacher, self.student, self.seen = (dict(state[name]) for name in ("teacher", "student", "seen"))
        self.passed = int(state["passed"])
