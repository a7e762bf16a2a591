"""What an update destroyed and what it helped: every stage of training measured on every probe, with paired
errors.

P[i, j] is the result after stage i (0 = the base) on probe j, turned so that larger is better. Change = P[S, j]
- P[0, j]; forgetting = max over i >= own(j) of P[i, j] - P[S, j], which noise pushes up, so that it stands
beside P[own, j] - P[S, j] and beside the forgetting from the stage that is best on one half of the documents,
measured on the other half (mean 0 where nothing was forgotten); backward transfer = mean of P[S, j] - P[own(j),
j] over domains before the last; forward transfer = mean of P[own(j) - 1, j] - P[0, j] over domains after the
first; chain benefit = P[own(j), j] - separate adaptation. Documents are resampled once for all stages. A
protected probe is unharmed where "worse by more than the margin" is rejected, Holm over the probes. Formulas
follow the paper's measures; errors, halves and gate are ours.
"""

from typing import TYPE_CHECKING, Any

from pydantic import Field

from tutelage.core.errors import ConfigError, InputError
from tutelage.core.method import Inputs, Task
from tutelage.core.records import Interval
from tutelage.core.stats.compare import Comparison, compare
from tutelage.core.stats.families import ALPHA, holm
from tutelage.evaluation._cells import Column, read_columns, refuse_leaks
from tutelage.evaluation._logs import Derived, listed
from tutelage.evaluation._transfers import Contrasts, separate_gains

if TYPE_CHECKING:
    from tutelage.core.dataset import Dataset
    from tutelage.core.records import Result

CARD = {
    "name": "evaluation.transfer_matrix",
    "paper": {
        "title": "Investigating Continual Pretraining in Large Language Models: Insights and Implications",
        "identifier": "arXiv:2402.17400",
    },
    "summary": "What training stages forgot and transferred on every probe, paired by document, with a gate.",
    "inputs": {
        "before": "the base's result on each probe, in the order of `probes`",
        "after": "results after each stage on each probe, stage by stage",
        "separate?": "results of adapting the base to each stage's domain alone, in the order of `stages`",
        "trained_on?": "the rows that each stage was trained on, to be searched for the probes' texts",
        "probe_rows?": "the rows of each probe, for that search",
    },
    "cost": "statistics only",
    "baseline": None,
    "headline": "an update is judged by what it broke as well as by what it learnt",
    "version": 1,
}


def no_harm_p(comparison: Comparison, margin: float, sign: int = 1) -> float:
    """p of the one-sided test of "worse by more than `margin`": the smallest a whose interval at level 1 - 2a lies
    above -margin. `sign` -1: of "not worse by that much", which is rejected where harm is shown."""

    def shown(a: float) -> bool:
        interval = comparison.at_level(1 - 2 * a)
        if interval is None:
            return False
        return interval.lo > -margin if sign > 0 else interval.hi < -margin

    low, high = 0.0, 0.5 - 1e-9
    if not shown(high):
        return 1.0
    for _ in range(25):
        middle = (low + high) / 2
        low, high = (low, middle) if shown(middle) else (middle, high)
    return high


class TransferMatrix(Task):
    """`stages` and `probes` name what the inputs hold; a probe named like a stage is that stage's own domain.
    `protected` probes must not lose more than `margin` (all by default; .02 is bits per byte or two points).
    `not_measured` lists (stage, probe) cells that are left out of `after`."""

    stages: tuple[str, ...] = ()
    probes: tuple[str, ...] = ()
    protected: tuple[str, ...] = ()
    margin: float = Field(default=0.02, gt=0)
    not_measured: tuple[tuple[str, str], ...] = ()
    draws: int = Field(default=1000, ge=100)
    seed: int = Field(default=0, ge=0)

    def evaluate(self, model: Any, dataset: "Dataset | None", inputs: Inputs) -> "Result":
        """The worst change among the protected probes from base to last stage (negative: harm), with simultaneous
        intervals, so that its lower end above -margin is the gate. `extra`: per probe change, p, no_harm (1 shown,
        0 undecided, -1 harmed) and forgetting, and the transfers; what a missing cell decides is left out.
        `system` holds the matrix in the probes' own units.

        Raises ConfigError for a matrix of another shape, ComparisonError for cells on other items or with other
        metrics, InputError for a probe whose texts a stage was trained on.
        """
        refuse_leaks(self, inputs.get("trained_on"), inputs.get("probe_rows"))
        columns, stages = read_columns(self, inputs["before"], inputs["after"])
        names = [column.name for column in columns]
        strangers = [name for name in self.protected if name not in names]
        if strangers:
            raise ConfigError("a protected probe is not there", where="protected", expected=names, found=strangers)
        changes = {c.name: _change(c) for c in columns if c.logs[-1] is not None}
        held = [name for name in self.protected or names if name in changes]
        if not held:
            raise InputError("no protected probe was measured after the last stage", where="inputs.after")
        extra = {"missing_cells": float(sum(log is None for c in columns for log in c.logs))}
        for name, change in changes.items():
            extra |= _bounds(f"change[{name}]", change)
            extra |= {f"p[{name}]": change.p} if change.p is not None else {}
        extra |= self._gate({name: changes[name] for name in held})
        contrasts = Contrasts(columns, self.draws, self.seed)
        for column in columns:
            extra |= contrasts.forgotten(column)
        alone = separate_gains(columns, stages, listed(inputs.get("separate")))
        extra |= contrasts.transfers(columns, alone)
        found = self._logged(columns, inputs).result(
            "worst change",
            direction=1,
            unit=" or ".join(sorted({c.unit for c in columns if c.name in held and c.unit})),
            extra={name: float(value) for name, value in extra.items() if value == value},
            system={"stages": ["base", *stages], "matrix": {c.name: _shown(c) for c in columns}},
        )
        worst = min(change.estimate for name, change in changes.items() if name in held)
        return found.model_copy(update={"estimate": worst, **_simultaneous([changes[name] for name in held])})

    def _gate(self, changes: dict[str, Comparison]) -> dict[str, float]:
        safe, harmed = (holm([no_harm_p(c, self.margin, sign) for c in changes.values()]) for sign in (1, -1))
        found = {f"no_harm_p[{name}]": float(p) for name, p in zip(changes, safe)}
        states = [1.0 if s < ALPHA else -1.0 if h < ALPHA else 0.0 for s, h in zip(safe, harmed)]
        return found | {f"no_harm[{n}]": s for n, s in zip(changes, states)} | {"no_harm": min(states)}

    def _logged(self, columns: list[Column], inputs: Inputs) -> Derived:
        """One row for each item of each probe: its part of the change from base to last stage."""
        rows, scores = [], []
        for column in columns:
            share = column.weight / column.weight.mean(axis=1, keepdims=True)
            moved = column.good * share
            for key, cluster, score in zip(column.keys, column.clusters, moved[-1] - moved[0]):
                if score == score:
                    rows.append({"item_key": key, "cluster": str(cluster), "group": column.name})
                    scores.append(float(score))
        if len({row["item_key"] for row in rows}) < len(rows):
            raise InputError("two probes hold the same items", where="probes", remedy="name each probe once")
        work = Derived(self, rows, inputs, {"name": "last stage against the base"})
        for row, score in zip(rows, scores):
            work.add(row, score=score)
        return work


def _change(column: Column) -> Comparison:
    first, last = column.logs[0], column.logs[-1]
    assert first is not None and last is not None
    return compare(last, first, direction=1 if column.direction > 0 else -1)


def _bounds(name: str, change: Comparison) -> dict[str, float]:
    found = {name: change.estimate}
    if change.interval is not None:
        found |= {f"{name}_lo": change.interval.lo, f"{name}_hi": change.interval.hi}
    return found


def _simultaneous(changes: list[Comparison]) -> dict[str, Any]:
    """The interval of the least of several changes: all their intervals hold together (Bonferroni)."""
    each = [change.at_level(1 - ALPHA / len(changes)) for change in changes]
    known = [one for one in each if one is not None]
    if len(known) < len(each):
        return {"interval": None, "no_interval": "a probe has no interval"}
    low, high = min(one.lo for one in known), min(one.hi for one in known)
    method = known[0].method if len(known) == 1 else f"least of {len(known)} simultaneous intervals (Bonferroni)"
    kept = Interval(lo=low, hi=high, level=1 - ALPHA, method=method, covers=known[0].covers)
    return {"interval": kept, "no_interval": None}


def _shown(column: Column) -> list[float | None]:
    """The probe's values after each stage, in its own unit; None: not measured."""
    return [float(column.direction * value) if value == value else None for value in column.values()]
