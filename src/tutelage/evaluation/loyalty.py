"""Whether a derived model (compressed, distilled, ported) behaves like its source, item by item.

Label loyalty = share of items with the same answer. Probability loyalty = mean of 1 - sqrt(JS(p, q)), JS =
(KL(p | m) + KL(q | m)) / 2 with m = (p + q) / 2 and logarithms of base 2: 1 for equal, 0 for disjoint ones.
Regression loyalty = Pearson's correlation of the outputs, with their mean absolute gap beside. Two models of equal
accuracy may still differ on many items, so flips are counted where the truth is known. A second fine-tuning of the
source (`again`) says how loyal the source is to itself: no derived model can be held to more. The pairing, the
ceiling and the breakdowns are ours.
"""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tutelage.core.errors import InputError
from tutelage.core.items import ItemLog
from tutelage.core.method import Inputs, Task
from tutelage.core.stats.compare import compare
from tutelage.core.stats.intervals import mean_interval, summarise
from tutelage.evaluation._logs import Derived
from tutelage.evaluation._paired_answers import Answer, answers_of, shared_answers

if TYPE_CHECKING:
    from tutelage.core.dataset import Dataset
    from tutelage.core.records import Result

CARD = {
    "name": "evaluation.loyalty",
    "paper": {
        "title": "Distilling the Knowledge of Romanian BERTs Using Multiple Teachers",
        "identifier": "arXiv:2112.12650",
    },
    "summary": "Whether a derived model gives its source's answers and probabilities, with flips and a ceiling.",
    "inputs": {
        "source": "answers of the source: a result, or rows with `predicted` and `predicted_probs`",
        "derived": "answers of the derived model to the same items",
        "again?": "answers of a second fine-tuning of the source: the ceiling",
    },
    "cost": "none beyond the answers",
    "baseline": None,
    "headline": "equal accuracy with 12 % flips is not the same model",
    "version": 1,
}
# Below this many items the breakdowns say little.
FEW = 500
THIRDS = ("least sure", "middle", "surest")


def probability_loyalty(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """[n] 1 - sqrt(Jensen-Shannon divergence, base 2) of probabilities [n, C]."""
    middle = (p + q) / 2

    def divergence(one: np.ndarray) -> np.ndarray:
        ratio = np.where(one > 0, one / np.where(middle > 0, middle, 1.0), 1.0)
        return (one * np.log2(ratio)).sum(axis=1)

    return 1.0 - np.sqrt(np.clip((divergence(p) + divergence(q)) / 2, 0.0, 1.0))


class Loyalty(Task):
    """`metric` carries the interval. Of rows, `predicted` holds the answer (a class, or a number for regression),
    `probs` its probabilities over `classes` and `label` the truth; of results the item log does."""

    metric: Literal["label", "probability", "regression"] = "label"
    predicted: str = "predicted"
    probs: str = "predicted_probs"
    label: str = "label"

    def evaluate(self, model: Any, dataset: "Dataset | None", inputs: Inputs) -> "Result":
        """Loyalty, larger is better. `extra`: each loyalty with `_lo` and `_hi`, by group and by thirds of the
        source's confidence; flips and the paired change of accuracy where the truth is known; with `again` the
        ceiling, the share of it, and how far below (`below_ceiling` with bounds). An answer that is missing on
        either side agrees with nothing.

        Raises ComparisonError for different items, InputError where the metric's columns are missing.
        """
        names = [name for name in ("source", "derived", "again") if inputs.get(name) is not None]
        sides = {name: answers_of(inputs[name], self, f"inputs.{name}") for name in names}
        keys = shared_answers(sides)
        source, derived = ([sides[name][key] for key in keys] for name in ("source", "derived"))
        again = [sides["again"][key] for key in keys] if "again" in sides else None
        values = self._values(source, derived)
        if self.metric not in values:
            raise InputError(
                f"there is no {self.metric} loyalty of these answers",
                where="inputs.source, inputs.derived",
                expected={"label": "answers", "probability": "probabilities of every item on both sides"}.get(
                    self.metric, "a number on both sides of every item"
                ),
                found="; ".join(sorted(values)) or "none",
            )
        rows: list[dict[str, Any]] = [
            {"item_key": key, "cluster": one.cluster, "group": one.group} for key, one in zip(keys, source)
        ]
        work = Derived(self, rows, inputs, getattr(inputs["derived"], "system", {"name": "derived"}))
        for row, score, one, other in zip(rows, values[self.metric], source, derived):
            lost = one.said is None or other.said is None
            status = "unparsed" if lost and self.metric == "label" else "ok"
            work.add(row, score=float(score), status=status, prediction=other.said, target=one.said)
        clusters = np.array([f"item {k}" if a.cluster is None else str(a.cluster) for k, a in zip(keys, source)])
        extra = self._measures(values, source, derived, clusters)
        if again is not None:
            extra |= self._ceiling(values, self._values(source, again), clusters)
        if all(answer.right is not None for answer in [*source, *derived]):
            extra |= _flips(keys, source, derived)
        if len(keys) < FEW:
            extra["few_items"] = 1.0
        found = work.result(f"{self.metric} loyalty", direction=1, extra=extra)
        if self.metric != "regression":
            return found
        assert found.items is not None
        corpus = summarise(found.items, metric_kind="corpus", statistic=_pearson)
        update = {"estimate": corpus.estimate, "interval": corpus.interval, "no_interval": corpus.no_interval}
        return found.model_copy(update=update)

    def _values(self, source: list[Answer], other: list[Answer]) -> dict[str, np.ndarray]:
        """Per item: agreement; 1 - sqrt(JS); the negative absolute gap of numbers."""
        found = {}
        if self.metric == "regression":
            numbers = [[a.number for a in side] for side in (source, other)]
            if all(value is not None for side in numbers for value in side):
                one, two = (np.array(side, dtype=float) for side in numbers)
                if np.ptp(one) == 0 or np.ptp(two) == 0:
                    raise InputError(
                        "the correlation is undefined: one side gives the same number everywhere",
                        where="inputs.source, inputs.derived",
                        expected="outputs that differ",
                        found=one[0] if np.ptp(one) == 0 else two[0],
                    )
                found["regression"] = -np.abs(one - two)
            return found
        found["label"] = np.array([float(a.said is not None and a.said == b.said) for a, b in zip(source, other)])
        if all(answer.probs is not None for answer in [*source, *other]):
            pairs = [(np.array(a.probs), np.array(b.probs)) for a, b in zip(source, other)]
            found["probability"] = np.array([probability_loyalty(p[None], q[None])[0] for p, q in pairs])
        return found

    def _measures(
        self, values: dict[str, np.ndarray], source: list[Answer], derived: list[Answer], clusters: np.ndarray
    ) -> dict[str, float]:
        if self.metric == "regression":
            return {"mean_absolute_gap": float(-values["regression"].mean())}
        extra: dict[str, float] = {}
        for name, found in values.items():
            extra |= _with_bounds(f"{name}_loyalty", found, clusters)
        groups = np.array([str(answer.group) for answer in source])
        named = {f"group {name}": groups == name for name in sorted(set(groups)) if name != "None"}
        if "probability" in values:
            sure = np.array([max(answer.probs or (0.0,)) for answer in source])
            third = np.minimum(np.argsort(np.argsort(sure, kind="stable"), kind="stable") * 3 // len(sure), 2)
            named |= {name: third == number for number, name in enumerate(THIRDS)}
        for name, here in named.items():
            extra |= {f"{kind}_loyalty[{name}]": float(v[here].mean()) for kind, v in values.items() if here.any()}
        lost = [a.said is None or b.said is None for a, b in zip(source, derived)]
        return extra | {"unanswered": float(np.mean(lost))}

    def _ceiling(
        self, values: dict[str, np.ndarray], own: dict[str, np.ndarray], clusters: np.ndarray
    ) -> dict[str, float]:
        found: dict[str, float] = {}
        for name in values.keys() & own.keys() - {"regression"}:
            ceiling = float(own[name].mean())
            found[f"{name}_ceiling"] = ceiling
            if ceiling > 0:
                found[f"{name}_share_of_ceiling"] = float(values[name].mean()) / ceiling
            found |= _with_bounds(f"{name}_below_ceiling", own[name] - values[name], clusters)
        return found


def _with_bounds(name: str, values: np.ndarray, clusters: np.ndarray) -> dict[str, float]:
    found = {name: float(values.mean())}
    if len(set(clusters.tolist())) > 1:
        interval = mean_interval(values, clusters)
        found |= {f"{name}_lo": interval.lo, f"{name}_hi": interval.hi}
    return found


def _flips(keys: list[str], source: list[Answer], derived: list[Answer]) -> dict[str, float]:
    """Shares of items by what became of them, and the paired change of accuracy."""
    was, now = (np.array([answer.right for answer in side], dtype=float) for side in (source, derived))
    moved = np.array([a.said != b.said for a, b in zip(source, derived)])
    found = {
        "flips": float(moved.mean()),
        "right_to_wrong": float((moved & (was > now)).mean()),
        "wrong_to_right": float((moved & (was < now)).mean()),
        "wrong_to_other_wrong": float((moved & (was == now) & (now < 1)).mean()),
        "accuracy_source": float(was.mean()),
        "accuracy_derived": float(now.mean()),
    }
    sides = (
        [{"item_key": k, "score": s, "cluster": a.cluster} for k, s, a in zip(keys, scores.tolist(), source)]
        for scores in (now, was)
    )
    change = compare(*(ItemLog.from_rows(side) for side in sides))
    found["accuracy_change"] = change.estimate
    if change.interval is not None:
        found |= {"accuracy_change_lo": change.interval.lo, "accuracy_change_hi": change.interval.hi}
    return found


def _pearson(columns: Any) -> float:
    one, other = (columns[name].astype(float) for name in ("prediction", "target"))
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(np.corrcoef(one, other)[0, 1])
