"""Whether an optimiser, schedule or data order trains faster: the time to a target, over several workloads.

Each method has S studies of the same number of trials on every workload (model, data, target). Its time is t =
median over studies of the minimum over trials, a trial that misses the target being infinite; with one trial a
study this is the self-tuning rule. r = t / least t of all methods. The score of a method on a workload is
max(0, (r_max - r) / (r_max - 1)), whose mean over workloads is (1 / (r_max - 1)) times the integral of the
performance profile rho (tau) = share of workloads with r <= tau from 1 to r_max. A workload that nobody reaches
is 0 for all and is named. Scores depend on who is compared, so a fixed reference is always among them. Time is
whatever the column holds; FLOPs or tokens are meant, seconds on a shared machine are noise (our advice, not the
paper's).
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from tutelage.core.errors import ConfigError, InputError, suggest
from tutelage.core.items import ItemLog, item_key
from tutelage.core.method import Inputs, Task
from tutelage.core.stats.compare import compare
from tutelage.evaluation._logs import Derived

if TYPE_CHECKING:
    from tutelage.core.dataset import Dataset
    from tutelage.core.records import Result

CARD = {
    "name": "evaluation.time_to_target",
    "paper": {"title": "Benchmarking Neural Network Training Algorithms", "identifier": "arXiv:2306.07179"},
    "summary": "Scores of training methods by their time to a target on several workloads, tuned alike.",
    "reads": ["{method}", "{workload}", "{study}", "{trial}", "{time}", "{robust}?"],
    "cost": "statistics only; the runs are what costs",
    "baseline": None,
    "headline": "one method is faster on one workload; the profile shows whether it is on the others",
    "version": 1,
}
# Times of every study and trial: method -> workload -> study -> trial.
Times = dict[str, dict[str, dict[Any, dict[Any, float]]]]


def ratio_scores(times: np.ndarray, worst: float) -> np.ndarray:
    """[methods, workloads] scores in [0, 1] of times of the same shape (infinite: missed)."""
    best = times.min(axis=0)
    with np.errstate(invalid="ignore"):
        ratio = np.where(np.isfinite(times), times / best, np.inf)
    return np.maximum(0.0, (worst - ratio) / (worst - 1.0))


class TimeToTarget(Task):
    """One row for each trial: `method`, `workload`, `study`, `trial`, and `time` to the target (null: missed).
    `robust` false: the method failed a variant of this workload, which makes it infinite. `reference` is the tuned
    default that every comparison holds, `subject` the method that is reported (null: the only other one)."""

    method: str = "method"
    workload: str = "workload"
    study: str = "study"
    trial: str = "trial"
    time: str = "time"
    robust: str = "robust"
    reference: str = "reference"
    subject: str | None = None
    worst: float = Field(default=4.0, gt=1)

    def evaluate(self, model: Any, dataset: "Dataset", inputs: Inputs) -> "Result":
        """The subject's mean score over workloads, larger is better; the interval covers workloads. `extra`: score
        of every method, times, difference from the reference with bounds and p; `system` the profiles and the
        workloads that nobody reached.

        Raises InputError for a missing trial (which is no miss), a trial twice or a time that is not positive;
        ConfigError where reference or subject are not among the methods.
        """
        dataset.require(self.method, self.workload, self.study, self.trial, self.time)
        times, failed = self._read(dataset)
        names = sorted(times)
        subject = self._subject(names)
        workloads = sorted({workload for of in times.values() for workload in of})
        self._complete(times, workloads)
        table = np.array([[self._time(times[m][w], (m, w) in failed) for w in workloads] for m in names])
        scores = ratio_scores(table, self.worst)
        extra = {f"score[{name}]": float(row.mean()) for name, row in zip(names, scores)}
        for name, row in zip(names, table):
            reached = {f"time[{name}, {w}]": float(t) for w, t in zip(workloads, row) if np.isfinite(t)}
            extra |= reached | {f"reached[{name}]": float(len(reached))}
        keys = [item_key(self.name, {"workload": workload}) for workload in workloads]
        ours, theirs = (scores[names.index(name)] for name in (subject, self.reference))
        logs = (
            ItemLog.from_rows({"item_key": k, "score": s} for k, s in zip(keys, side.tolist()))
            for side in (ours, theirs)
        )
        change = compare(*logs)
        extra["difference"] = change.estimate
        if change.interval is not None and change.p is not None:
            extra |= {"difference_lo": change.interval.lo, "difference_hi": change.interval.hi}
            extra["difference_p"] = change.p
        rows = [{"item_key": key, "cluster": None, "group": workload} for key, workload in zip(keys, workloads)]
        work = Derived(self, rows, inputs, {"name": subject})
        for row, score in zip(rows, ours):
            work.add(row, score=float(score))
        lost = [w for w, reached in zip(workloads, np.isfinite(table).any(axis=0)) if not reached]
        extra["unreached"] = float(len(lost))
        with np.errstate(invalid="ignore"):
            ratios = np.where(np.isfinite(table), table / table.min(axis=0), np.inf)
        steps = np.linspace(1.0, self.worst, 13)
        profiles = {
            name: [{"tau": float(tau), "share": float((row <= tau).mean())} for tau in steps]
            for name, row in zip(names, ratios)
        }
        return work.result(
            "time-to-target score", direction=1, extra=extra, system={"profiles": profiles, "unreached": lost}
        )

    def _read(self, dataset: "Dataset") -> tuple[Times, set[tuple[str, str]]]:
        times: Times = {}
        failed = set()
        for row in dataset.rows():
            method, workload, value = str(row[self.method]), str(row[self.workload]), row[self.time]
            if value is not None and not value > 0:
                raise InputError(
                    "a time is not positive",
                    where=f"row {row['id']}, column {self.time!r}",
                    expected="a number above 0, or null where the target was missed",
                    found=value,
                )
            trials = times.setdefault(method, {}).setdefault(workload, {}).setdefault(row[self.study], {})
            if row[self.trial] in trials:
                raise InputError(
                    "a trial is there twice",
                    where=f"row {row['id']}",
                    expected="one row for each method, workload, study and trial",
                    found=f"{method}, {workload}, study {row[self.study]}, trial {row[self.trial]}",
                )
            trials[row[self.trial]] = np.inf if value is None else float(value)
            if row.get(self.robust) is False:
                failed.add((method, workload))
        return times, failed

    def _complete(self, times: Times, workloads: list[str]) -> None:
        """Raise InputError unless every method has the reference's studies and trials on every workload."""
        wanted = {w: {s: set(t) for s, t in times[self.reference].get(w, {}).items()} for w in workloads}
        for method, of in times.items():
            for workload in workloads:
                found = {study: set(trials) for study, trials in of.get(workload, {}).items()}
                sizes = {len(trials) for trials in found.values()}
                if found != wanted[workload] or len(sizes) != 1:
                    raise InputError(
                        "a trial is missing, which is not the same as missing the target",
                        where=f"{method} on {workload}",
                        expected="the same studies, with the same trials, for every method",
                        found=f"{sum(map(len, found.values()))} trials in {len(found)} studies",
                        remedy="run it, or record it with a null time where it missed the target",
                    )

    def _time(self, studies: dict[Any, dict[Any, float]], failed: bool) -> float:
        return np.inf if failed else float(np.median([min(trials.values()) for trials in studies.values()]))

    def _subject(self, names: list[str]) -> str:
        others = [name for name in names if name != self.reference]
        for field, name in (("reference", self.reference), ("subject", self.subject)):
            if name is not None and name not in names:
                raise ConfigError(
                    f"the {field} is not among the methods",
                    where=field,
                    expected=", ".join(names),
                    found=name,
                    remedy=suggest(name, names),
                )
        if self.subject is None and len(others) != 1:
            raise ConfigError(
                "which method is reported?",
                where="subject",
                expected="one of " + ", ".join(others) if others else "a method beside the reference",
                found=f"{len(others)} beside the reference",
                remedy="set subject",
            )
        return self.subject or others[0]
