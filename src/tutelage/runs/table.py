"""The table of a comparison: one row per arm with its costs, one row per pair with its verdict.

Every arm is held against the baseline and against the placebo, at the metric step and at every step of `also`.
Declared pairs are one family under Holm; everything else is exploratory. Two trained arms are comparable only at
equal cost on the declared axis, in every seed; an untrained arm spends no budget, so being better than one proves
only that training did something.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from pydantic import Field, PrivateAttr

from tutelage.core.errors import ComparisonError
from tutelage.core.items import ItemLog
from tutelage.core.records import Cost, Record, Result
from tutelage.core.stats.compare import Comparison, compare
from tutelage.core.stats.equal_cost import CostCheck, check_equal_cost, cost_on_axis
from tutelage.core.stats.families import Verdict, judge_family
from tutelage.core.stats.intervals import summarise
from tutelage.runs.recipe import AXIS_UNIT, Compare

BASE_ALONE = (
    "Better than an untrained arm alone proves nothing: almost any training text moves a model. "
    "The claim is the difference to the placebo and to the baseline at equal cost."
)
NO_ORACLE = "There is no oracle arm, so it is not shown that this bed could tell a good method from a random one."


class Measured(Record):
    """One arm at one Task step, seeds together; `per_seed` is in the order of the arm's seeds."""

    task: str
    metric: str
    direction: int
    unit: str
    estimate: float
    interval: tuple[float, float] | None
    per_seed: tuple[float, ...]
    n_items: int
    failure_rate: float
    keys: tuple[str, ...]


class Trial(Record):
    """One point of a search; `estimate` None: it failed, for `reason`."""

    value: Any
    estimate: float | None
    reason: str | None = None


class ArmRow(Record):
    """One arm. Costs are as if nothing had been cached: `cost` per seed of what the measured model took to make,
    `search` of the tuning (once), `evaluation` per seed of measuring at the metric step."""

    name: str
    roles: tuple[str, ...] = ()
    trained: bool
    seeds: tuple[int, ...] = ()
    failed: str | None = None
    results: dict[str, Measured] = Field(default_factory=dict)
    cost: tuple[Cost, ...] = ()
    search: Cost | None = None
    trials: tuple[Trial, ...] = ()
    tuned: dict[str, Any] | None = None
    evaluation: tuple[Cost, ...] = ()
    models: tuple[str, ...] = ()


class PairRow(Record):
    """A against B at one step: the comparison, what may be said, and whether the costs were equal."""

    name: str
    a: str
    b: str
    step: str
    primary: bool
    comparison: Comparison
    verdict: Verdict
    cost: CostCheck | None
    cost_note: str = ""


class ComparisonTable(Record):
    """A whole comparison, as it goes into the ledger."""

    metric_step: str
    at: str
    baseline: str
    placebo: str | None
    oracle: str | None
    budget: float | None
    declared: dict[str, Any]
    arms: tuple[ArmRow, ...]
    pairs: tuple[PairRow, ...] = ()
    bed: str
    bed_comparison: Comparison | None = None
    notes: tuple[str, ...] = ()

    _logs: dict[tuple[str, str], ItemLog] = PrivateAttr(default_factory=dict)

    @property
    def trained_arms(self) -> list[str]:
        """Names of the arms that train."""
        return [arm.name for arm in self.arms if arm.trained]

    def arm(self, name: str) -> ArmRow:
        """The row of an arm."""
        return next(arm for arm in self.arms if arm.name == name)

    def compared(self, a: str, b: str, step: str) -> Comparison | None:
        """The paired comparison of two arms at a step, or None when one has no result."""
        return _compared(self._logs, {arm.name: arm for arm in self.arms}, a, b, step)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return self.model_dump(mode="json")


def pooled(arm: str, seeds: Sequence[int | None], results: Sequence[Result]) -> ItemLog:
    """The item logs of an arm's runs as one, named after the arm, each run under its seed (None: not trained)."""
    tables = []
    for seed, result in zip(seeds, results, strict=True):
        if result.items is None:
            raise ComparisonError(
                "a result has no item log", where=f"arm {arm}", remedy="use a task that logs its items"
            )
        table = result.items.table
        for name, value, kind in (("system_id", arm, pa.string()), ("train_seed", seed, pa.int64())):
            column = pa.array([value] * table.num_rows, kind)
            table = table.set_column(table.schema.get_field_index(name), name, column)
        tables.append(table)
    first = results[0]
    metadata = {"task": first.task, "metric": first.metric, "direction": first.direction, "unit": first.unit}
    return ItemLog(pa.concat_tables(tables, promote_options="default"), metadata)


def measured(log: ItemLog, results: Sequence[Result], keys: Sequence[str]) -> Measured:
    """One arm's figures at one step."""
    first, summary = results[0], summarise(log)
    interval = summary.interval
    return Measured(
        task=first.task,
        metric=first.metric,
        direction=first.direction,
        unit=first.unit,
        estimate=summary.estimate,
        interval=(interval.lo, interval.hi) if interval else None,
        per_seed=tuple(result.estimate for result in results),
        n_items=summary.n_items,
        failure_rate=log.failure_rate,
        keys=tuple(keys),
    )


def make_table(
    settings: Compare,
    metric_step: str,
    declared: Mapping[str, Any],
    arms: Sequence[ArmRow],
    logs: Mapping[tuple[str, str], ItemLog],
    budget: float | None,
) -> ComparisonTable:
    """All comparisons and verdicts over finished arms."""
    by_name = {arm.name: arm for arm in arms}
    primary = [tuple(pair) for pair in declared["primary"]]
    bed_comparison, bed = _bed(settings, by_name, logs, metric_step)
    pairs: list[PairRow] = []
    for step in (metric_step, *settings.also):
        wanted = _pairs(settings, by_name, primary if step == metric_step else [])
        found = {pair: c for pair in wanted if (c := _compared(logs, by_name, *pair, step)) is not None}
        costs = {pair: _cost(settings, by_name[pair[0]], by_name[pair[1]]) for pair in found}
        names = {pair: f"{pair[0]} - {pair[1]}" for pair in found}
        verdicts = judge_family(
            {names[pair]: comparison for pair, comparison in found.items()},
            primary=[names[pair] for pair in found if pair in primary and step == metric_step],
            margin=settings.margin if step == metric_step else None,
            costs={names[pair]: check for pair, (check, _) in costs.items() if check is not None},
            bed=bed_comparison if step == metric_step else None,
        )
        for pair, comparison in found.items():
            check, note = costs[pair]
            pairs.append(
                PairRow(
                    name=names[pair],
                    a=pair[0],
                    b=pair[1],
                    step=step,
                    primary=step == metric_step and pair in primary,
                    comparison=comparison.model_copy(update={"cost_ratio": check.ratio if check else None}),
                    verdict=verdicts[names[pair]],
                    cost=check,
                    cost_note=note,
                )
            )
    notes = [f"arm {arm.name} has no result: {arm.failed}" for arm in arms if arm.failed]
    missing = [f"{a} - {b}" for a, b in primary if not any(p.a == a and p.b == b and p.primary for p in pairs)]
    notes += [f"declared, and could not be made: {name}" for name in missing]
    if any(not by_name[row.b].trained for row in pairs):
        notes.append(BASE_ALONE)
    if settings.oracle is None:
        notes.append(NO_ORACLE)
    if settings.at == "none":
        notes.append("Costs were not made equal (at: none): no verdict here is about equal cost.")
    table = ComparisonTable(
        metric_step=metric_step,
        at=settings.at,
        baseline=settings.baseline,
        placebo=settings.placebo,
        oracle=settings.oracle,
        budget=budget,
        declared=dict(declared),
        arms=tuple(arms),
        pairs=tuple(pairs),
        bed=bed,
        bed_comparison=bed_comparison,
        notes=tuple(notes),
    )
    table._logs.update(logs)
    return table


def _pairs(
    settings: Compare, arms: Mapping[str, ArmRow], primary: Sequence[tuple[str, ...]]
) -> list[tuple[str, str]]:
    wanted: list[tuple[str, str]] = [(a, b) for a, b in primary]
    for other in (settings.baseline, settings.placebo):
        wanted += [
            (name, other) for name in arms if other is not None and name != other and name not in settings.single
        ]
    seen = dict.fromkeys(wanted)
    # A pair and its mirror say the same thing once.
    return [pair for number, pair in enumerate(seen) if (pair[1], pair[0]) not in list(seen)[:number]]


def _compared(
    logs: Mapping[tuple[str, str], ItemLog], arms: Mapping[str, ArmRow], a: str, b: str, step: str
) -> Comparison | None:
    if (a, step) not in logs or (b, step) not in logs:
        return None
    direction: Any = arms[a].results[step].direction
    one, other = logs[a, step], logs[b, step]
    # Runs are paired seed by seed: where one arm has fewer, the other's further runs have no partner.
    shared = set(arms[a].seeds) & set(arms[b].seeds)
    if shared:
        one, other = one.of_seeds(shared), other.of_seeds(shared)
    return compare(one, other, direction=direction)


def _cost(settings: Compare, a: ArmRow, b: ArmRow) -> tuple[CostCheck | None, str]:
    """The check that decides: of the seed, or of all seeds with the search, where the costs differ most."""
    axis: Any = AXIS_UNIT[settings.at]
    if axis is None:
        return None, "costs were not made equal"
    if not (a.trained and b.trained):
        return None, "an untrained arm spends no budget"
    checks = [check_equal_cost(one, other, axis) for one, other in zip(a.cost, b.cost)]
    if a.search is not None:
        # The other way round A had less, which is no advantage. A search is held together with the runs it serves:
        # it ends with a whole row, which may be several per cent of a short trial and nothing of the whole.
        totals = [sum(arm.cost, arm.search or Cost()) for arm in (a, b)]
        if cost_on_axis(totals[0], axis) > cost_on_axis(totals[1], axis):
            checks.append(check_equal_cost(totals[0], totals[1], axis))
    worst = next((check for check in checks if not check.comparable), None)
    if worst is None:
        worst = max(checks, key=lambda check: abs((check.ratio or 0.0) - 1))
    return worst, ""


def _bed(
    settings: Compare, arms: Mapping[str, ArmRow], logs: Mapping[tuple[str, str], ItemLog], step: str
) -> tuple[Comparison | None, str]:
    if settings.oracle is None:
        return None, "unknown"
    other = settings.baseline if settings.baseline != settings.oracle else settings.placebo
    found = _compared(logs, arms, settings.oracle, other, step) if other else None
    if found is None:
        return None, "unknown"
    verdict = judge_family({"oracle": found}, primary=["oracle"])["oracle"]
    return found, "can tell" if verdict.outcome == "better" else "cannot tell"
