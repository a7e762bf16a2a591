"""What a run would do, before it does: steps in order, which are in the store, what the others will need.

Seconds and bytes come from the ledger: earlier steps of the same method on the same base model in this workspace,
scaled by FLOPs, tokens or rows. The first training step whose inputs are there already and whose method has no
history on its model is measured on the spot (two real steps on a copy). Whatever is left is unknown, and said:
`prepare` first runs what comes before any training, which the run then finds in the store, and leaves little.
"""

import statistics
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tutelage.core.errors import ComparisonError
from tutelage.core.fingerprint import configuration, digest
from tutelage.core.method import Method
from tutelage.core.records import Budget, Cost
from tutelage.runs.arms import all_arms
from tutelage.runs.compare import Unknown, arm_contexts
from tutelage.runs.engine import Engine
from tutelage.runs.graph import Graph, Node, build_graph
from tutelage.runs.outside import source_key
from tutelage.runs.paths import check_paths
from tutelage.runs.recipe import Recipe
from tutelage.runs.values import Context, Handed, Value, handed_to, joined


@dataclass(frozen=True)
class PlannedStep:
    """One step of one arm. `cached` None: not known before an earlier step has run. Units: seconds, bytes."""

    name: str
    use: str
    arm: str | None
    seed: int | None
    cached: bool | None
    rows: int | None = None
    seconds: float | None = None
    peak_bytes: int | None = None
    basis: str = "unknown"


@dataclass(frozen=True)
class Plan:
    """All steps; `seconds` sums what is known, `unknown` counts the steps that are not."""

    recipe: str
    workspace: str
    steps: list[PlannedStep] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Predicted seconds of the steps that are not in the store, where known."""
        return sum(step.seconds or 0.0 for step in self.steps if not step.cached)

    @property
    def peak_bytes(self) -> int | None:
        """Largest predicted memory of a step, where known."""
        return max((step.peak_bytes for step in self.steps if step.peak_bytes and not step.cached), default=None)

    @property
    def unknown(self) -> int:
        """Steps that will run and whose time is not known."""
        return sum(step.seconds is None and not step.cached for step in self.steps)

    def to_json(self) -> dict[str, Any]:
        """The plan as plain values."""
        totals = {"seconds": self.seconds, "peak_bytes": self.peak_bytes, "unknown": self.unknown}
        return {
            "recipe": self.recipe,
            "workspace": self.workspace,
            **totals,
            "steps": [asdict(s) for s in self.steps],
        }


def plan(recipe: Recipe, workspace: str | Path = ".", *, limit: int | None = None) -> Plan:
    """The plan of a run; reads the store and the ledger, hashes sources, loads models, computes no step."""
    from tutelage.runs.checks import check_recipe
    from tutelage.runs.limit import limited

    check_recipe(recipe)
    folder = Path(workspace).resolve()
    check_paths(recipe, folder)
    recipe = recipe if limit is None else limited(recipe, limit)
    engine = Engine(recipe, folder, "", limit=limit)
    planner = _Planner(engine)
    made = Plan(recipe.name, str(engine.workspace))
    for name in recipe.sources:
        made.steps.append(planner.source(name))
    if recipe.compare is None:
        graph = build_graph(recipe)
        made.steps.extend(planner.walk(graph, list(graph.nodes), Context()))
        return made
    for arm in all_arms(recipe):
        graph = build_graph(recipe, arm)
        for names, context in arm_contexts(recipe, graph, arm):
            made.steps.extend(planner.walk(graph, names, context))
    return made


@dataclass(frozen=True)
class _Pending:
    """What a step that has not run will give: `symbol` stands for its content, `rows` where foreseeable, `root` is
    the content of the base model behind it."""

    symbol: str
    rows: int | None
    root: str = ""


_Known = Value | _Pending


class _Planner:
    """Follows keys as far as the store knows them, and symbols beyond, so that no shared step is counted twice."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.known: dict[str, _Known] = {}
        self.seen: set[str] = set()
        self.history: dict[str, list[dict[str, Any]]] = {}

    def source(self, name: str) -> PlannedStep:
        use = self.engine.recipe.sources[name].use
        key, _ = source_key(self.engine.recipe, self.engine.workspace, name, self.engine.limit)
        artifact = self.engine.store.get(key)
        value: _Known = self.engine.value(name, artifact, {}) if artifact else _Pending(f"source {name}", None)
        self.known[name] = value
        return PlannedStep(name, use, None, None, artifact is not None, value.rows, **self._predicted(use, None))

    def walk(self, graph: Graph, names: list[str], context: Context) -> list[PlannedStep]:
        values: dict[str, _Known] = {}
        return [self._walked(graph.nodes[name], values, context) for name in names]

    def _walked(self, node: Node, values: dict[str, _Known], context: Context) -> PlannedStep:
        needs = {name: self._look(name, values) for name in node.references}
        counts = [needs[name].rows for name in node.rows]
        rows = sum(c for c in counts if c is not None) if counts and None not in counts else None
        pending = {name: value for name, value in needs.items() if isinstance(value, _Pending)}
        method: Any = node.method
        artifact, key = None, ""
        if not pending:
            ready = {name: value for name, value in needs.items() if isinstance(value, Value)}
            handed = handed_to(node, ready.__getitem__)
            try:
                method, seed = self.engine.configured(node, handed, context)
                key = self.engine.key(node, method, seed, handed)
                artifact = self.engine.store.get(key)
            except (Unknown, ComparisonError):
                key = ""
        if artifact is not None:
            values[node.name] = self.engine.finished(node, artifact, handed)
            return self._step(node, context, True, values[node.name].rows, method, needs)
        symbol = key or self._symbol(node, needs, context)
        root = needs[node.model].root if node.model and node.gives == "model" else ""
        values[node.name] = _Pending(symbol, _rows_out(node, method, rows), root)
        if symbol in self.seen:
            return replace(
                self._step(node, context, True, rows, method, needs),
                basis="runs once, with an earlier arm or seed",
            )
        self.seen.add(symbol)
        step = self._step(node, context, False if key else None, rows, method, needs)
        if key and step.seconds is None and hasattr(method, "estimate"):
            self._measure(node, method, handed, step)
            step = self._step(node, context, False, rows, method, needs)
        return step

    def _measure(self, node: Node, method: Any, handed: Handed, step: PlannedStep) -> None:
        """Two steps on a copy become the history by which this and further steps of the method are foreseen."""
        rows = joined(node, [value.load() for value in handed.rows])
        found = method.estimate(handed.model.load() if handed.model else None, rows)
        cost = Cost(
            seconds=found.seconds,
            trained_tokens=found.tokens,
            forward_flops=found.flops,
            peak_bytes=found.peak_bytes,
        )
        entry = {"as_if": cost.model_dump(), "rows_in": step.rows, "facts": {"of": handed.of}, "probe": True}
        self.history[node.step.use].append(entry)

    def _symbol(self, node: Node, needs: Mapping[str, _Known], context: Context) -> str:
        """Equal for steps that will have equal keys once their inputs are there."""
        handed = {name: v.symbol if isinstance(v, _Pending) else v.content for name, v in needs.items()}
        drawn = "seed" in type(node.method).model_fields and not isinstance(node.step.fields.get("seed"), int)
        seed = context.seed if drawn and node.name not in context.fixed else None
        arm = context.arm if node.name in context.budgets else None
        shape = [list(node.rows), node.model, {k: v for k, v in node.inputs.items() if not isinstance(v, Method)}]
        return digest([node.step.use, configuration(node.method), seed, arm, shape, handed])

    def _look(self, name: str, values: Mapping[str, _Known]) -> _Known:
        if name in values:
            return values[name]
        if name not in self.known:
            self.known[name] = self.engine.outside(name)
        return self.known[name]

    def _step(
        self,
        node: Node,
        context: Context,
        cached: bool | None,
        rows: int | None,
        method: Any,
        needs: Mapping[str, _Known],
    ) -> PlannedStep:
        budget = getattr(method, "budget", None) if node.card.kind == "Trainer" else None
        named = [node.model, *(value for value in node.inputs.values() if isinstance(value, str))]
        of = next((root for name in named if name and (root := needs[name].root)), None)
        data = [needs[name] for name in node.rows]
        keys = {value.artifact.key for value in data if isinstance(value, Value) and value.artifact}
        predicted = self._predicted(node.step.use, rows, budget, of, keys)
        return PlannedStep(node.name, node.step.use, context.arm, context.seed, cached, rows, **predicted)

    def _predicted(
        self,
        use: str,
        rows: int | None,
        budget: Budget | None = None,
        of: str | None = None,
        data: Collection[str] = (),
    ) -> dict[str, Any]:
        """`data` are the keys of the rows: the same rows as before say more than as many others."""
        if use not in self.history:
            self.history[use] = self.engine.ledger.history(use)
        entries = [entry for entry in self.history[use] if entry["facts"].get("of") == of]
        same = [entry for entry in entries if data and set(data) <= set(entry["facts"].get("needs", []))]
        entries = same if same and budget is None else entries
        past = [Cost(**entry["as_if"]) for entry in entries]
        if not past:
            return {"seconds": None, "peak_bytes": None, "basis": "unknown"}
        peak = max(cost.peak_bytes for cost in past) or None
        measured = "two steps on a copy" if entries[0].get("probe") else f"{len(past)} earlier steps"
        rates: list[tuple[float, list[float], str]] = []
        if budget is not None and budget.flops is not None:
            rates.append((budget.flops, [c.seconds / c.flops for c in past if c.flops], "per FLOP"))
        if budget is not None and budget.tokens is not None:
            rates.append(
                (budget.tokens, [c.seconds / c.trained_tokens for c in past if c.trained_tokens], "per token")
            )
        if rows is not None and budget is None:
            pairs = zip(past, entries, strict=True)
            rates.append((rows, [c.seconds / e["rows_in"] for c, e in pairs if e["rows_in"]], "per row"))
        for amount, known, unit in rates:
            if known:
                seconds = statistics.median(known) * amount
                return {"seconds": seconds, "peak_bytes": peak, "basis": f"{measured}, {unit}"}
        seconds = statistics.median(cost.seconds for cost in past)
        return {"seconds": seconds, "peak_bytes": peak, "basis": measured}


def _rows_out(node: Node, method: Any, rows: int | None) -> int | None:
    if node.card.kind == "Scorer":
        return rows
    budget = getattr(method, "budget", None)
    return getattr(budget, "rows", None) if node.card.kind == "Transform" else None
