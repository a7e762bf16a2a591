"""Run the arms of a comparison at equal total cost, over seeds, and hand them to the table.

Total cost of an arm = everything behind its measured model, scoring included, as if nothing had been cached. An
arm's last training step gets what the total leaves after the arm's own upstream, so a method that scores pays for
it out of its training. The total is `budget`, or without one what the baseline takes as written. Steps that draw
at random and have no written seed are drawn again for every seed, except those behind the measured rows: all arms
and seeds answer the same items.
"""

from collections.abc import Iterator
from typing import Any

from tutelage.core.errors import ComparisonError, InputError, TrainingError
from tutelage.core.records import Budget, Cost, Result
from tutelage.core.stats.equal_cost import cost_on_axis
from tutelage.runs import table as tables
from tutelage.runs.arms import all_arms, metric_step, with_field
from tutelage.runs.engine import Engine
from tutelage.runs.graph import Graph, build_graph
from tutelage.runs.overlap import refuse_guides_among_reported
from tutelage.runs.recipe import AXIS_UNIT, Compare, Recipe, Tune
from tutelage.runs.rounds import run_rounds
from tutelage.runs.table import ArmRow, ComparisonTable, Measured, Trial
from tutelage.runs.values import BudgetRule, Context, Value


class Unknown(Exception):
    """A budget that is not known before another arm has run."""


def run_comparison(engine: Engine) -> ComparisonTable:
    """Declare, run every arm, compare; the declaration is in the ledger before any arm runs."""
    recipe = engine.recipe
    assert recipe.compare is not None
    graphs = {arm: build_graph(recipe, arm) for arm in all_arms(recipe)}
    metric = metric_step(recipe, build_graph(recipe))
    declared = engine.ledger.declare(engine.run_id, declaration(recipe, graphs, metric))
    engine.emit({"event": "declared", **declared})
    first = reference_arm(recipe, graphs, metric)
    order = [first, *(arm for arm in graphs if arm != first)]
    runner = _Runner(engine, metric)
    rows = {arm: runner.arm(arm, graphs[arm], is_reference=arm == first) for arm in order}
    arms = [rows[arm] for arm in graphs]
    return tables.make_table(recipe.compare, metric, declared, arms, runner.logs, runner.total)


def declaration(recipe: Recipe, graphs: dict[str, Graph], metric: str) -> dict[str, Any]:
    """What is going to be claimed, in words that cannot be changed afterwards."""
    compare = recipe.compare
    assert compare is not None
    special = {compare.baseline, compare.placebo, compare.oracle}
    special |= compare.single
    default = [(arm, compare.baseline) for arm in graphs if arm not in special and is_trained(graphs[arm], metric)]
    pairs = compare.primary if compare.primary is not None else default
    return {
        "primary": [list(pair) for pair in pairs],
        "metric_step": metric,
        "at": compare.at,
        "budget": compare.budget.model_dump(exclude_none=True) if compare.budget else None,
        "seeds": list(compare.seeds),
        "margin": compare.margin,
        "arms": list(graphs),
    }


def is_trained(graph: Graph, metric: str) -> bool:
    """Whether something behind the measured model learns: a training step, or an adapter that is given rows."""
    nodes = [graph.nodes[name] for name in graph.model_side(metric)]
    return any(n.card.kind == "Trainer" or (n.card.kind == "Adapter" and n.rows) for n in nodes)


def last_training(graph: Graph, metric: str) -> str | None:
    """The training step that takes up what the budget leaves, if there is one."""
    trainers = [name for name in graph.model_side(metric) if graph.nodes[name].card.kind == "Trainer"]
    return trainers[-1] if trainers else None


def reference_arm(recipe: Recipe, graphs: dict[str, Graph], metric: str) -> str:
    """The arm that runs first and whose cost is the total where none is written: the baseline if it trains."""
    compare = recipe.compare
    assert compare is not None
    preferred = [name for name in (compare.baseline, compare.placebo) if name is not None]
    for arm in [*preferred, *graphs]:
        if is_trained(graphs[arm], metric):
            return arm
    return compare.baseline


def fixed_steps(recipe: Recipe, graph: Graph, metric: str) -> frozenset[str]:
    """Steps behind measured rows, whose draws are the same in all arms and seeds.

    What the deciding rows and the development rows come from is fixed; rows measured besides may come from the
    training rows themselves, which must go on changing with the seed.
    """
    assert recipe.compare is not None
    deciding = [metric, *([recipe.compare.tune.on] if recipe.compare.tune else [])]
    fixed = {name for task in deciding for name in graph.data_side(task)}
    besides = {name for task in recipe.compare.also for name in graph.data_side(task)}
    return frozenset(fixed | (besides - set(graph.model_side(metric))))


def arm_contexts(recipe: Recipe, graph: Graph, arm: str) -> Iterator[tuple[list[str], Context]]:
    """What `run_comparison` will run for an arm, for the planner: (steps, context) per point of the search, then
    per seed (with the value as written, since the search has not chosen yet)."""
    assert recipe.compare is not None
    metric = metric_step(recipe, build_graph(recipe))
    names = graph.ancestors([metric, *recipe.compare.also])
    training, unit = last_training(graph, metric), AXIS_UNIT[recipe.compare.at]
    fixed = fixed_steps(recipe, graph, metric)
    budgets: dict[str, BudgetRule] = {}
    if training is not None and unit in Budget.model_fields:
        graphs = {name: build_graph(recipe, name) for name in all_arms(recipe)}
        if recipe.compare.budget is not None:
            total = float(getattr(recipe.compare.budget, unit))
            budgets = {training: lambda upstream, share: remaining(total * share, upstream, unit, arm)}
        elif arm != reference_arm(recipe, graphs, metric):
            budgets = {training: _unknown}
    if recipe.compare.tune is not None and is_tuned(recipe, graph, arm, metric):
        for _, point in search_points(recipe.compare, recipe.compare.tune, graph, arm, fixed):
            yield graph.ancestors([recipe.compare.tune.on]), point
    for seed in seeds_of(recipe.compare, arm, is_trained(graph, metric)):
        yield names, Context(arm=arm, seed=seed, budgets=budgets, fixed=fixed)


def is_tuned(recipe: Recipe, graph: Graph, arm: str, metric: str) -> bool:
    """Whether the search is for this arm: one that writes the tuned field itself is about that value."""
    assert recipe.compare is not None
    tune = recipe.compare.tune
    if tune is None or tune.step not in graph.model_side(metric):
        return False
    return tune.field.partition(".")[0] not in all_arms(recipe)[arm].get(tune.step, {})


def search_points(
    compare: Compare, tune: Tune, graph: Graph, arm: str, fixed: frozenset[str]
) -> Iterator[tuple[Any, Context]]:
    """(value, context) of every point of the grid, all with the search's budget and the first seed."""
    for value in tune.grid:
        yield (
            value,
            Context(
                arm=f"{arm} (search)",
                seed=compare.seeds[0],
                budgets={tune.step: lambda upstream, share: tune.budget},
                fixed=fixed,
                overrides={tune.step: with_field(graph.nodes[tune.step].step.fields, tune.field, value)},
            ),
        )


def seeds_of(compare: Compare, arm: str, trained: bool) -> list[int | None]:
    """The training seeds an arm runs with; an untrained arm has none."""
    if not trained:
        return [None]
    return list(compare.seeds[: compare.first_seeds.get(arm, len(compare.seeds))])


def remaining(total: float, upstream: Cost, unit: str, arm: str) -> Budget:
    """What is left of the total for training; raises ComparisonError when the upstream used it up."""
    left = total - cost_on_axis(upstream, unit)
    if left <= 0 or (unit == "tokens" and left < 1):
        raise ComparisonError(
            "an arm spends the whole budget before it trains",
            where=f"arm {arm}",
            expected=f"less than {total:.4g} {unit} of scoring and other work before training",
            found=f"{total - left:.4g} {unit}",
            remedy="raise compare.budget, or score fewer rows",
        )
    return Budget.model_validate({unit: int(left) if unit == "tokens" else left})


def _unknown(upstream: Cost, share: float) -> Budget:
    raise Unknown


class _Runner:
    """Runs arms one after another and keeps their item logs."""

    def __init__(self, engine: Engine, metric: str) -> None:
        assert engine.recipe.compare is not None
        self.engine = engine
        self.compare = engine.recipe.compare
        self.metric = metric
        self.unit = AXIS_UNIT[self.compare.at]
        budget = self.compare.budget
        self.total: float | None = None if budget is None else float(getattr(budget, str(self.unit)))
        self.logs: dict[tuple[str, str], Any] = {}
        self.items: dict[str, tuple[str, frozenset[str]]] = {}

    def arm(self, name: str, graph: Graph, is_reference: bool) -> ArmRow:
        """All seeds of one arm; an arm that breaks down is a row without a result, not the end.

        Rows that a method refuses end it only in the arm that runs first: what is wrong there is wrong in all.
        """
        trained = is_trained(graph, self.metric)
        self.engine.emit({"event": "arm", "arm": name, "trained": trained})
        facts: dict[str, Any] = {"name": name, "trained": trained, "roles": self._roles(name)}
        try:
            return self._arm(name, graph, is_reference, facts)
        except (TrainingError, ComparisonError, InputError) as error:
            if isinstance(error, InputError) and is_reference:
                raise
            self.engine.emit({"event": "arm failed", "arm": name, "reason": error.what})
            where = f" ({error.where})" if error.where else ""
            return ArmRow(**facts, failed=f"{error.what}{where}")

    def _arm(self, name: str, graph: Graph, is_reference: bool, facts: dict[str, Any]) -> ArmRow:
        fixed = fixed_steps(self.engine.recipe, graph, self.metric)
        measured_steps = [self.metric, *self.compare.also]
        wanted = graph.ancestors(measured_steps)
        overrides: dict[str, dict[str, Any]] = {}
        tune = self.compare.tune
        seeds = seeds_of(self.compare, name, facts["trained"])
        first = Context(arm=name, seed=seeds[0], fixed=fixed)
        refuse_guides_among_reported(self.engine, graph, self.metric, tune.on if tune else None, first)
        if tune is not None and is_tuned(self.engine.recipe, graph, name, self.metric):
            facts |= self._search(name, graph, fixed, tune)
            overrides = facts.pop("overrides")
        training = last_training(graph, self.metric)
        budgets: dict[str, BudgetRule] = {}
        taken_up = training is not None and self.unit in Budget.model_fields
        if taken_up and (self.total is not None or not is_reference):
            budgets = {str(training): lambda upstream, share: self._left(upstream, share, name)}
        runs: list[dict[str, Value]] = []
        for seed in seeds:
            context = Context(arm=name, seed=seed, budgets=budgets, fixed=fixed, overrides=overrides)
            runs.append(run_rounds(self.engine, graph, wanted, context))
            self._require_same_items(name, seed, {step: runs[-1][step].load() for step in measured_steps})
            if is_reference and self.total is None and self.unit is not None and facts["trained"]:
                self.total = cost_on_axis(self._model(graph, runs[-1]).as_if, self.unit)
        results: dict[str, Measured] = {}
        logs = {}
        for step in measured_steps:
            found = [values[step].load() for values in runs]
            logs[name, step] = tables.pooled(name, seeds, found)
            results[step] = tables.measured(logs[name, step], found, [_key(values[step]) for values in runs])
        self.logs |= logs
        models = [self._model(graph, values) for values in runs]
        own = [values[self.metric].charges[_key(values[self.metric])] for values in runs]
        return ArmRow(
            **facts,
            seeds=tuple(seed for seed in seeds if seed is not None),
            results=results,
            cost=tuple(model.as_if for model in models),
            evaluation=tuple(own),
            models=tuple(_key(model) for model in models),
        )

    def _require_same_items(self, name: str, seed: int | None, results: dict[str, Result]) -> None:
        """Refuse the first run on other items than those before, and not the last: pairs need the same ones."""
        run = f"arm {name}" + ("" if seed is None else f", seed {seed}")
        for step, result in results.items():
            if result.items is None:
                continue  # refused with the arm's other results
            keys = frozenset(result.items.table["item_key"].to_pylist())
            before, first = self.items.setdefault(step, (run, keys))
            if other := keys ^ first:
                raise InputError(
                    "a run of a comparison is measured on other items than the run before it",
                    where=f"step {step}, {run}",
                    expected=f"the {len(first)} items of {before}",
                    found=f"{len(keys - first)} others and {len(first - keys)} missing, such as {min(other)}",
                    remedy="measure on rows that no arm and no seed changes, or write the seed of their draw",
                )

    def _search(self, name: str, graph: Graph, fixed: frozenset[str], tune: Tune) -> dict[str, Any]:
        """Every point of the grid with the same budget; the best by the `on` step, and what it all cost.

        A point whose training breaks down costs what was spent until then.
        """
        node = graph.nodes[tune.step]
        trials: list[Trial] = []
        charges: dict[str, Cost] = {}
        best: tuple[float, Any] | None = None
        points = list(search_points(self.compare, tune, graph, name, fixed))
        before = self.engine.run(graph, graph.ancestors(other for other in node.references), points[0][1])
        # Scoring and selection are charged to the arm itself, once.
        shared = {key for value in before.values() for key in value.charges}
        wanted = [step for step in graph.ancestors([tune.on]) if step not in before]
        for value, point in points:
            try:
                values = self.engine.run(graph, wanted, point, before)
            except TrainingError as error:
                charges |= {key: cost for key, cost in error.charges.items() if key not in shared}
                trials.append(Trial(value=value, estimate=None, reason=error.what))
                continue
            result = values[tune.on].load()
            charges |= {key: cost for key, cost in values[tune.on].charges.items() if key not in shared}
            trials.append(Trial(value=value, estimate=result.estimate))
            if best is None or result.direction * result.estimate > best[0]:
                best = (result.direction * result.estimate, value)
        if best is None:
            raise TrainingError(
                "no point of the search could be trained", where=f"arm {name}", found=trials[-1].reason
            )
        self.engine.emit({"event": "tuned", "arm": name, "field": tune.field, "value": best[1]})
        total = sum(charges.values(), Cost()).model_copy(update={"trials": len(tune.grid)})
        return {
            "search": total,
            "trials": tuple(trials),
            "tuned": {f"{tune.step}.{tune.field}": best[1]},
            "overrides": {tune.step: with_field(node.step.fields, tune.field, best[1])},
        }

    def _left(self, upstream: Cost, share: float, arm: str) -> Budget:
        assert self.total is not None and self.unit is not None
        return remaining(self.total * share, upstream, self.unit, arm)

    def _model(self, graph: Graph, values: dict[str, Value]) -> Value:
        model = graph.nodes[self.metric].model
        assert model is not None
        return values[model] if model in values else self.engine.outside(model)

    def _roles(self, name: str) -> tuple[str, ...]:
        roles = {"baseline": self.compare.baseline, "placebo": self.compare.placebo, "oracle": self.compare.oracle}
        return tuple(role for role, arm in roles.items() if arm == name)


def _key(value: Value) -> str:
    return value.artifact.key if value.artifact else ""
