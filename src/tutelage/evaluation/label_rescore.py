"""How much of a model's error is the benchmark's: scores under the original labels, the confirmed ones, the true
ones.

People re-annotated items drawn with known probability pi (more where labels are suspected). Three scores of
each system: against the original labels; against labels replaced where a person confirmed another one; and the
estimate under true labels for the whole set, A = sum Y~_i / sum U~_i, with Y_i = [answer is the corrected
label], U_i = [the annotators agreed] and the tilde the design-based correction of the scores under original
labels (evaluation.dsl). Items on which annotators split are a class of their own: outside
A, counted, and left out of the confirmed score. Only people correct: a machine's correction is refused, so that
no judge can favour a system of its family. The error of A is that of a ratio, linearised; systems are compared
on the same drawn items.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.core.errors import ConfigError
from tutelage.core.items import ItemLog
from tutelage.core.method import Inputs, Task
from tutelage.core.stats.compare import compare
from tutelage.core.stats.intervals import mean_interval
from tutelage.evaluation._corrected import Corrections, estimated_share, read_corrections, said_by
from tutelage.evaluation._logs import Derived, listed

if TYPE_CHECKING:
    from tutelage.core.dataset import Dataset
    from tutelage.core.records import Result

CARD = {
    "name": "evaluation.label_rescore",
    "paper": {
        "title": "Are LLMs Better than Reported? Detecting Label Errors and Mitigating Their Effect on Model "
        "Performance",
        "identifier": "arXiv:2410.18889",
    },
    "summary": "Scores under original, confirmed and estimated true labels, from a sample re-annotated by people.",
    "reads": ["{label}", "{corrected}", "{inclusion}", "{ambiguous}?", "{corrected_by}?"],
    "inputs": {"systems": "answers of the systems: results, or rows with `predicted`"},
    "cost": "the labels of people, counted; no model",
    "baseline": None,
    "headline": "what a score would be with right labels, without re-annotating the whole benchmark",
    "version": 1,
}


class LabelRescore(Task):
    """Rows of the benchmark: `key` (an id as in the systems' rows, or the item key of results), `label` the
    original label, `corrected` a person's (null: not drawn), `inclusion` the probability of the draw, `ambiguous`
    true where annotators split, `corrected_by` who corrected. `systems` names the inputs in order; the first
    carries the estimate. `predicted` is the column of answers where a system is given as rows."""

    systems: tuple[str, ...] = ()
    key: str = "id"
    label: str = "label"
    corrected: str = "gold"
    inclusion: str = "inclusion"
    ambiguous: str = "ambiguous"
    corrected_by: str = "corrected_by"
    predicted: str = "predicted"

    def evaluate(self, model: Any, dataset: "Dataset", inputs: Inputs) -> "Result":
        """The first system's estimated accuracy under true labels; the interval covers items and labels. `extra`:
        per system `original`, `confirmed`, `estimated` with bounds and ranks, its difference from the first before
        and after with p; the estimated share of wrong labels and of ambiguous items. `system["patch"]` lists the
        confirmed corrections (key, old, new); the benchmark itself is left as it is.

        Raises InputError for corrections by a machine or without a known probability of the draw, ComparisonError
        for systems that answered other items.
        """
        found = read_corrections(self, dataset)
        given = listed(inputs["systems"])
        names = list(self.systems) or [f"system {number + 1}" for number in range(len(given))]
        if len(names) != len(given):
            raise ConfigError("each system has a name", where="systems", expected=len(given), found=len(names))
        answers = {name: said_by(self, one, name, found) for name, one in zip(names, given)}
        scores = {name: self._scores(found, said) for name, said in answers.items()}
        extra = self._about_labels(found)
        for kind in ("original", "confirmed", "estimated"):
            means = {name: float(np.nanmean(one[kind])) for name, one in scores.items()}
            for name, one in scores.items():
                extra |= _bounds(f"{kind}[{name}]", one[kind], found)
                extra[f"rank_{kind}[{name}]"] = 1.0 + sum(other > means[name] for other in means.values())
        first, *others = names
        for name in others:
            for kind in ("original", "estimated"):
                extra |= _difference(f"{kind}[{name} - {first}]", scores[name][kind], scores[first][kind], found)
        rows = [{"item_key": k, "cluster": c, "group": None} for k, c in zip(found.keys, found.clusters)]
        work = Derived(self, rows, inputs, getattr(given[0], "system", {"name": first}))
        truth = [old if new is None else new for old, new in zip(found.old, found.new)]
        for row, score, said, target in zip(rows, scores[first]["estimated"], answers[first], truth):
            work.add(row, score=float(score), prediction=said, target=target)
        result = work.result("accuracy under true labels", direction=1, extra=extra, system={"patch": found.patch})
        if result.interval is None:
            return result
        return result.model_copy(
            update={"interval": result.interval.model_copy(update={"covers": "items+labels"})}
        )

    def _scores(self, found: Corrections, said: list[str | None]) -> dict[str, np.ndarray]:
        """Per item: right by the original label, by the confirmed one (NaN: ambiguous), the estimate's part."""
        original = np.array([float(a == old) for a, old in zip(said, found.old)])
        by_person = np.array([float(new is not None and a == new) for a, new in zip(said, found.new)])
        confirmed = np.where(found.drawn & ~found.split, by_person, original)
        estimated = estimated_share(found, by_person, original)
        return {
            "original": original,
            "confirmed": np.where(found.split, np.nan, confirmed),
            "estimated": estimated,
        }

    def _about_labels(self, found: Corrections) -> dict[str, float]:
        wrong = np.array([float(new != old) for new, old in zip(found.new, found.old)])
        extra = {"reannotated": float(found.drawn.sum()), "corrected": float(len(found.patch))}
        extra |= {"ambiguous": float(found.split.sum())}
        return extra | _bounds("label_error_rate", estimated_share(found, wrong, np.zeros(len(wrong))), found)


def _bounds(name: str, values: np.ndarray, found: Corrections) -> dict[str, float]:
    known = np.isfinite(values)
    made = {name: float(values[known].mean())}
    if len(set(found.clusters[known].tolist())) > 1:
        interval = mean_interval(values[known], found.clusters[known])
        made |= {f"{name}_lo": interval.lo, f"{name}_hi": interval.hi}
    return made


def _difference(name: str, one: np.ndarray, other: np.ndarray, found: Corrections) -> dict[str, float]:
    logs = [
        ItemLog.from_rows(
            {"item_key": k, "score": s, "cluster": c} for k, s, c in zip(found.keys, v.tolist(), found.clusters)
        )
        for v in (one, other)
    ]
    change = compare(*logs)
    made = {name: change.estimate}
    if change.interval is not None and change.p is not None:
        made |= {f"{name}_lo": change.interval.lo, f"{name}_hi": change.interval.hi, f"p {name}": change.p}
    return made
