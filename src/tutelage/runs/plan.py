"""What a run would do, before it does: steps in order, which are in the store, what the others will need.

Seconds and bytes come from the ledger (the same method's earlier runs in this workspace, scaled by rows) and for
training from its own estimate; where neither knows, they are unknown and said to be.
"""

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tutelage.core.errors import ComparisonError
from tutelage.runs.arms import all_arms
from tutelage.runs.compare import Unknown, arm_contexts
from tutelage.runs.engine import Engine
from tutelage.runs.graph import Graph, Node, build_graph
from tutelage.runs.outside import source_key
from tutelage.runs.recipe import Recipe
from tutelage.runs.values import Context, Value, handed_to


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
    from tutelage.runs.graph import check_recipe
    from tutelage.runs.limit import limited

    check_recipe(recipe)
    recipe = recipe if limit is None else limited(recipe, limit)
    engine = Engine(recipe, Path(workspace).resolve(), "", limit=limit)
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


class _Planner:
    """Follows keys as far as the store knows them."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.known: dict[str, Value | None] = {}
        self.seen: set[str] = set()
        self.history: dict[str, list[dict[str, Any]]] = {}

    def source(self, name: str) -> PlannedStep:
        use = self.engine.recipe.sources[name].use
        key = source_key(self.engine.recipe, self.engine.workspace, name, self.engine.limit)
        artifact = self.engine.store.get(key) if key else None
        value = self.engine.value(name, artifact, {}) if artifact else None
        self.known[name], rows = value, value.rows if value else None
        return PlannedStep(name, use, None, None, artifact is not None, rows, **self._predicted(use, None))

    def walk(self, graph: Graph, names: list[str], context: Context) -> list[PlannedStep]:
        values: dict[str, Value | None] = {}
        steps = []
        for name in names:
            node = graph.nodes[name]
            needs = {other: self._look(other, values) for other in node.references}
            rows = self._rows(node, needs)
            if any(value is None for value in needs.values()):
                values[name] = None
                steps.append(self._step(node, context, None, rows))
                continue
            handed = handed_to(node, lambda n, needs=needs: needs[n])  # type: ignore[misc]
            try:
                method, seed = self.engine.configured(node, handed, context)
            except (Unknown, ComparisonError):
                values[name] = None
                steps.append(self._step(node, context, None, rows))
                continue
            key = self.engine.key(node, method, seed, handed)
            artifact = self.engine.store.get(key)
            if artifact is None and key in self.seen:
                # Another arm's step with the same key: it runs once.
                values[name] = None
                steps.append(self._step(node, context, True, rows))
                continue
            self.seen.add(key)
            values[name] = self.engine.finished(node, artifact, handed) if artifact else None
            steps.append(self._step(node, context, artifact is not None, rows))
        return steps

    def _look(self, name: str, values: Mapping[str, Value | None]) -> Value | None:
        if name in values:
            return values[name]
        if name not in self.known:
            self.known[name] = self.engine.outside(name)
        return self.known[name]

    def _rows(self, node: Node, needs: Mapping[str, Value | None]) -> int | None:
        counts = [value.rows if (value := needs[name]) else None for name in node.rows]
        return sum(c for c in counts if c is not None) if counts and None not in counts else None

    def _step(self, node: Node, context: Context, cached: bool | None, rows: int | None) -> PlannedStep:
        predicted = self._predicted(node.step.use, rows)
        return PlannedStep(node.name, node.step.use, context.arm, context.seed, cached, rows, **predicted)

    def _predicted(self, use: str, rows: int | None) -> dict[str, Any]:
        if use not in self.history:
            self.history[use] = self.engine.ledger.history(use)
        past = self.history[use]
        if not past:
            return {"seconds": None, "peak_bytes": None, "basis": "unknown"}
        peak = max(entry["as_if"].get("peak_bytes", 0) for entry in past) or None
        per_row = [e["as_if"]["seconds"] / e["rows_in"] for e in past if e["rows_in"]]
        if rows and per_row:
            seconds, basis = statistics.median(per_row) * rows, f"{len(per_row)} earlier runs, per row"
        else:
            seconds, basis = statistics.median(e["as_if"]["seconds"] for e in past), f"{len(past)} earlier runs"
        return {"seconds": seconds, "peak_bytes": peak, "basis": basis}
