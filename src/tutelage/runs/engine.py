"""The engine: turns the nodes of a graph into values, each from the store when its key is there.

A value knows its content hash, what it cost to make with everything upstream (`charges`: key -> cost as if nothing
had been cached) and how to load itself; nothing is loaded before somebody needs it. Trained and adapted models
are always read back from the store: what is measured is what was saved.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.core import discovery
from tutelage.core.dataset import Dataset, DatasetBuilder
from tutelage.core.errors import InputError, TutelageError
from tutelage.core.fingerprint import code_hash, configuration, digest, method_key
from tutelage.core.meter import Meter
from tutelage.core.method import Method, Scorer
from tutelage.core.records import Budget, Cost
from tutelage.core.store import Artifact, Store
from tutelage.runs import compute, payload
from tutelage.runs.components import build_method
from tutelage.runs.graph import Graph, Node
from tutelage.runs.ledger import Ledger
from tutelage.runs.limit import first_rows
from tutelage.runs.paths import STATE, allowed, output_path, source_path, tree_hash
from tutelage.runs.recipe import ModelSpec, Recipe

Listener = Callable[[Mapping[str, Any]], None]


@dataclass
class Value:
    """The outcome of a source, a model or a step."""

    name: str
    kind: str
    content: str
    load: Callable[[], Any]
    artifact: Artifact | None = None
    charges: dict[str, Cost] = field(default_factory=dict)
    rows: int | None = None
    root: str = ""

    @property
    def as_if(self) -> Cost:
        """Cost of making it with everything upstream, as if nothing had been cached; shared steps counted once."""
        return sum(self.charges.values(), Cost())


@dataclass(frozen=True)
class Context:
    """Which run of the recipe a step belongs to: arm, seed, round, and the seed of what is drawn afresh."""

    arm: str | None = None
    seed: int | None = None
    round: int = 0
    budgets: Mapping[str, Callable[[Cost], Budget | None]] = field(default_factory=dict)
    fixed: frozenset[str] = frozenset()
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class Engine:
    """Runs nodes of one recipe in one workspace and records them under one run id."""

    def __init__(
        self,
        recipe: Recipe,
        workspace: Path,
        run_id: str,
        *,
        limit: int | None = None,
        listener: Listener | None = None,
    ) -> None:
        self.recipe = recipe
        self.workspace = workspace
        self.run_id = run_id
        self.limit = limit
        self.store = Store(workspace / STATE / "store")
        self.ledger = Ledger(workspace)
        self.emit: Listener = listener or (lambda event: None)
        self._outside: dict[str, Value] = {}
        self._models: dict[str, Any] = {}

    # -- sources and models -------------------------------------------------------------------------------

    def outside(self, name: str) -> Value:
        """A source or a model of the recipe; read or loaded once."""
        if name not in self._outside:
            make = self._source if name in self.recipe.sources else self._model
            self._outside[name] = make(name)
        return self._outside[name]

    def source_key(self, name: str) -> str | None:
        """The cache key of a source, or None when what it reads has no path to hash."""
        source = self.recipe.sources[name]
        if source.path is None:
            return None
        path = source_path(self.recipe, self.workspace, name)
        contents = {"files": tree_hash(path, allowed(self.recipe, self.workspace), self.recipe.allow_outside)}
        reader = build_method(source.use, source.fields, lambda key: self.recipe.where("sources", name, key))
        return method_key(reader, contents, {"limit": self.limit})

    def _source(self, name: str) -> Value:
        source = self.recipe.sources[name]
        where = lambda key: self.recipe.where("sources", name, key)  # noqa: E731
        reader = build_method(source.use, source.fields, where)
        path = None if source.path is None else str(source_path(self.recipe, self.workspace, name))
        self.emit({"event": "source", "name": name, "path": path})
        started = time.perf_counter()
        key = self.source_key(name)
        cached = key is not None and self.store.get(key) is not None

        def read(folder: Path) -> dict[str, Any]:
            dataset = reader.read(path)  # type: ignore[attr-defined]
            if dataset.num_rows == 0:
                raise InputError(
                    f"the source {name!r} has no rows",
                    where=path or source.use,
                    expected="at least one row",
                    found=_quarantine(dataset),
                    remedy="check the path and what the reader accepts",
                )
            dataset = first_rows(dataset, self.limit) if self.limit else dataset
            saved = dataset.save(folder / payload.DATASET)
            facts = {
                "rows": saved.num_rows,
                "quarantined": dataset.quarantined.num_rows,
                "columns": saved.column_names,
            }
            cost = Cost(seconds=time.perf_counter() - started)
            return {"content": saved.hash, "cost": cost.model_dump(), "facts": {**facts, "report": dataset.report}}

        if key is None:
            # Nothing to hash before reading: read every time, and let what was read be the key.
            dataset = reader.read(path)  # type: ignore[attr-defined]
            key = digest([source.use, configuration(reader), dataset.hash, self.limit])
            ready = dataset

            def read_again(folder: Path) -> dict[str, Any]:
                kept = first_rows(ready, self.limit) if self.limit else ready
                saved = kept.save(folder / payload.DATASET)
                facts = {
                    "rows": saved.num_rows,
                    "quarantined": ready.quarantined.num_rows,
                    "columns": saved.column_names,
                }
                cost = Cost(seconds=time.perf_counter() - started)
                return {
                    "content": saved.hash,
                    "cost": cost.model_dump(),
                    "facts": {**facts, "report": ready.report},
                }

            artifact = self.store.put(key, read_again, kind="dataset")
        else:
            artifact = self.store.put(key, read, kind="dataset")
        value = self.dataset_value(name, artifact, {})
        # Having the data is nobody's expense: reading is recorded, not charged.
        value.charges = {}
        seconds = time.perf_counter() - started
        self._record(name, source.use, "Reader", artifact, cached, Cost(), seconds, None, Context())
        return value

    def _model(self, name: str) -> Value:
        spec = self.recipe.models[name]
        self.emit({"event": "model", "name": name, "load": spec.load})
        model = load_spec(self.recipe, spec)
        content = digest([model.fingerprint, str(getattr(model, "dtype", ""))])
        self._models[content] = model
        return Value(name, "model", content, lambda: model, root=content)

    # -- steps --------------------------------------------------------------------------------------------

    def run(
        self, graph: Graph, names: Sequence[str], context: Context, carried: Mapping[str, Value] | None = None
    ) -> dict[str, Value]:
        """Values of the steps `names`, in order; `carried` stands in for sources and models of the same name."""
        values: dict[str, Value] = {}

        def look(name: str) -> Value:
            if name in values:
                return values[name]
            return carried[name] if carried and name in carried else self.outside(name)

        for name in names:
            values[name] = self.step(graph.nodes[name], look, context)
        return values

    def step(self, node: Node, look: Callable[[str], Value], context: Context) -> Value:
        """One node: from the store, or computed, stored, recorded."""
        method, seed = self.configured(node, context)
        handed = handed_to(node, look)
        upstream = _charges([*handed.rows, handed.model, *handed.inputs.values()])
        if node.name in context.budgets:
            budget = context.budgets[node.name](sum(upstream.values(), Cost()))
            method = method.model_copy(update={"budget": budget})
        key = self.key(node, method, seed, handed)
        place = {
            "name": node.name,
            "use": node.step.use,
            "arm": context.arm,
            "seed": context.seed,
            "round": context.round,
        }
        self.emit({"event": "started", **place})
        cached = self.store.get(key) is not None
        started = time.perf_counter()

        def make(folder: Path) -> dict[str, Any]:
            job = self._job(node, method, seed, key, handed, place)
            with compute.measured(job) as cost:
                made_before = time.perf_counter()
                if isinstance(method, Scorer):
                    job.state = self._state(method, job, key)
                output = compute.compute(job, folder)
            spent = cost[0]
            if output.record is not None and getattr(output.record, "cost", None) is not None:
                # A trainer counts across interruptions, which the meters of this process cannot.
                spent = output.record.cost.model_copy(
                    update={"seconds": max(output.record.cost.seconds, time.perf_counter() - made_before)}
                )
            return {
                "content": output.content,
                "cost": (spent + job.state_cost).model_dump(),
                "facts": output.facts,
                "step": node.name,
                "method": node.step.use,
                "needs": [value.artifact.key for value in handed.values() if value.artifact],
            }

        try:
            artifact = self.store.put(key, make, kind=_KINDS[node.card.kind])
        except TutelageError as error:
            if not hasattr(error, "step"):
                error.step = node.name  # type: ignore[attr-defined]
            raise
        seconds = time.perf_counter() - started
        own = Cost(**artifact.meta["cost"])
        charges = {**upstream, key: own}
        rows_in = sum(value.rows or 0 for value in handed.rows) if handed.rows else None
        self._record(node.name, node.step.use, node.card.kind, artifact, cached, own, seconds, rows_in, context)
        if node.card.kind == "Writer":
            self._export(node, artifact)
        return self.value(node.name, artifact, charges, handed.model.root if handed.model else "")

    def configured(self, node: Node, context: Context) -> tuple[Any, int]:
        """The node's method with its seed: a written one stays, another is the run's, or the recipe's where
        `context.fixed` says that the draw must not change between runs."""
        method: Any = node.method
        if node.name in context.overrides:
            method = build_method(
                node.step.use, context.overrides[node.name], lambda key: f"step {node.name}: {key}"
            )
        written = node.step.fields.get("seed")
        if isinstance(written, int):
            return method, written
        seed = self.recipe.seed if context.seed is None or node.name in context.fixed else context.seed
        if "seed" in type(method).model_fields:
            method = method.model_copy(update={"seed": seed})
        return method, seed

    def key(self, node: Node, method: Any, seed: int, handed: "Handed") -> str:
        """The cache key of a step; see `core.fingerprint`."""
        contents = {
            "rows": [value.content for value in handed.rows],
            "model": handed.model.content if handed.model else None,
            "inputs": {name: _content(value) for name, value in handed.inputs.items()},
            "watched": {name: [_content(task), rows.content] for name, (task, rows) in handed.watched.items()},
        }
        # Whatever draws has its seed in its configuration; only a trainer takes the one it is handed.
        extra = {"seed": seed if node.card.kind == "Trainer" else None, "at": node.step.at}
        return method_key(method, contents, extra)

    def _job(
        self, node: Node, method: Any, seed: int, key: str, handed: "Handed", place: Mapping[str, Any]
    ) -> compute.Job:
        loaded: dict[str, Any] = {
            name: given
            if isinstance(given, Method)
            else [v.load() for v in given]
            if isinstance(given, list)
            else given.load()
            for name, given in handed.inputs.items()
        }
        main = handed.model.load() if handed.model else None
        if main is not None:
            loaded.setdefault("model", main)
        loaded |= {
            "seed": seed,
            "meter": Meter(),
            "allow_remote": self.recipe.allow_remote,
            "on_event": lambda event: self.emit({**place, **event}),
        }
        metered = {
            id(item): item for item in loaded.values() if hasattr(item, "fingerprint") and hasattr(item, "meter")
        }
        rows = (
            _joined(node, [value.load() for value in handed.rows])
            if handed.rows and node.card.kind != "Forecaster"
            else None
        )
        if node.card.kind == "Forecaster":
            loaded["results"] = [value.load() for value in handed.rows]
        return compute.Job(
            node,
            method,
            rows,
            main,
            loaded,
            self.workspace / STATE / "checkpoints" / key,
            [(name, _evaluator(task, rows.load(), seed)) for name, (task, rows) in handed.watched.items()],
            models=list(metered.values()),
        )

    def _state(self, method: Scorer, job: compute.Job, key: str) -> dict[str, Any] | None:
        """The scorer's fitted state, from the store when a run was cut off between fitting and scoring."""
        if type(method).fit is Scorer.fit:
            return {}
        found = self.store.get(digest(["state", key]))
        if found is not None:
            job.state_cost = Cost(**found.meta["cost"])
            return payload.load_state(found.path)
        with compute.measured(job) as cost:
            assert job.rows is not None
            compute.check_columns(job.node, job.rows)
            state = method.fit(job.rows, job.inputs)
        if state:
            self.store.put(
                digest(["state", key]),
                lambda folder: payload.save_state(state, folder),
                kind="state",
                meta={"cost": cost[0].model_dump(), "content": "", "facts": {}},
            )
        return state

    # -- values -------------------------------------------------------------------------------------------

    def value(self, name: str, artifact: Artifact, charges: dict[str, Cost], root: str = "") -> Value:
        if artifact.kind == "dataset":
            return self.dataset_value(name, artifact, charges)
        if artifact.kind == "model":
            content = digest([artifact.meta["content"], artifact.meta["facts"].get("dtype", "")])
            if not (artifact.path / payload.MODEL / "adapter_config.json").is_file():
                root = content
            return Value(
                name,
                "model",
                content,
                lambda: self._stored_model(content, artifact, root),
                artifact,
                charges,
                root=root,
            )
        if artifact.kind == "result":
            load: Callable[[], Any] = lambda: payload.load_result(artifact.path)  # noqa: E731
        else:
            load = lambda: sorted(str(p) for p in (artifact.path / payload.FILES).rglob("*") if p.is_file())  # noqa: E731
        return Value(name, artifact.kind, artifact.meta["content"], load, artifact, charges)

    def dataset_value(self, name: str, artifact: Artifact, charges: dict[str, Cost]) -> Value:
        def load() -> Dataset:
            return payload.load_dataset(artifact.path)

        rows = artifact.meta["facts"].get("rows")
        return Value(name, "dataset", artifact.meta["content"], load, artifact, charges, rows)

    def _stored_model(self, content: str, artifact: Artifact, root: str) -> Any:
        if content not in self._models:
            kept = {value.content for value in self._outside.values()}
            # One derived model at a time beside the recipe's own: memory, not time, is short on a small machine.
            self._models = {key: model for key, model in self._models.items() if key in kept}
            base = self._models.get(root)
            if base is not None and hasattr(base, "with_adapter"):
                self._models[content] = base.with_adapter(artifact.path / payload.MODEL)
            else:
                self._models[content] = load_stored_model(artifact)
        return self._models[content]

    def _export(self, node: Node, artifact: Artifact) -> None:
        import shutil

        where = self.recipe.where("steps", node.name, "to")
        target = output_path(self.recipe, self.workspace, node.step.to or f"outputs/{node.name}", where)
        shutil.copytree(artifact.path / payload.FILES, target, dirs_exist_ok=True)
        self.emit({"event": "written", "name": node.name, "path": str(target)})

    def _record(
        self,
        name: str,
        use: str,
        kind: str,
        artifact: Artifact,
        cached: bool,
        as_if: Cost,
        seconds: float,
        rows_in: int | None,
        context: Context,
    ) -> None:
        entry = {
            "arm": context.arm,
            "seed": context.seed,
            "round": context.round,
            "step": name,
            "method": use,
            "kind": kind,
            "key": artifact.key,
            "content": artifact.meta["content"],
            "cached": cached,
            "as_if": as_if.model_dump(),
            "paid": (Cost(seconds=seconds) if cached else as_if).model_dump(),
            "seconds": seconds,
            "rows_in": rows_in,
            "facts": {**artifact.meta["facts"], "needs": artifact.meta.get("needs", [])},
        }
        self.ledger.step(self.run_id, entry)
        if artifact.kind == "result":
            result = payload.load_result(artifact.path).model_dump(mode="json")
            self.ledger.result(self.run_id, {**entry, "result": result})
        place = {"name": name, "use": use, "arm": context.arm, "seed": context.seed, "round": context.round}
        self.emit(
            {"event": "done", **place, "cached": cached, "seconds": seconds, "facts": artifact.meta["facts"]}
        )


def load_spec(recipe: Recipe, spec: ModelSpec) -> Any:
    """Load a model as a recipe names it: a path relative to the recipe if there is one, else a name."""
    from tutelage.models.load import load_model

    local = recipe.folder / spec.load
    source: str | Path = local if "://" not in spec.load and local.exists() else spec.load
    adapter = recipe.folder / spec.adapter if spec.adapter else None
    # A hub name in the recipe is the permission to download it, once.
    return load_model(source, adapter=adapter, device=spec.device, dtype=spec.dtype, offline=False)


def load_stored_model(artifact: Artifact) -> Any:
    """The model of an artifact, in the precision it was saved in."""
    from tutelage.models.load import load_model

    return load_model(artifact.path / payload.MODEL, dtype=artifact.meta["facts"].get("dtype") or "auto")


_KINDS: dict[str, Any] = {
    "Scorer": "dataset",
    "Transform": "dataset",
    "Writer": "files",
    "Adapter": "model",
    "Trainer": "model",
    "Task": "result",
    "Forecaster": "result",
}


@dataclass(frozen=True)
class Handed:
    """What a step is handed: `inputs` values are values, lists of them or built components."""

    rows: Sequence[Value]
    model: Value | None
    inputs: Mapping[str, Any]
    watched: Mapping[str, tuple[Method, Value]]

    def values(self) -> list[Value]:
        """All of them, flat."""
        watched = [rows for _, rows in self.watched.values()]
        return _all([*self.rows, self.model, *self.inputs.values(), *watched])


def handed_to(node: Node, look: Callable[[str], Value]) -> Handed:
    """The values that `node` refers to."""
    inputs = {
        name: given
        if isinstance(given, Method)
        else [look(n) for n in given]
        if isinstance(given, list)
        else look(given)
        for name, given in node.inputs.items()
    }
    watched = {name: (task, look(rows)) for name, (task, rows) in node.evaluators.items()}
    return Handed([look(name) for name in node.rows], look(node.model) if node.model else None, inputs, watched)


def _evaluator(task: Any, rows: Dataset, seed: int) -> Callable[[Any], dict[str, float]]:
    def measure(model: Any) -> dict[str, float]:
        result = task.evaluate(model, rows, {"seed": seed, "model": model})
        return {result.metric: result.estimate}

    return measure


def _content(value: Any) -> Any:
    if isinstance(value, Method):
        card = discovery.find(value.name)
        return {
            "use": value.name,
            "version": card.version,
            "config": configuration(value),
            "code": code_hash(card.module),
        }
    return [item.content for item in value] if isinstance(value, list) else value.content


def _all(values: Sequence[Any]) -> list[Value]:
    flat = [item for value in values for item in (value if isinstance(value, list) else [value])]
    return [value for value in flat if isinstance(value, Value)]


def _charges(values: Sequence[Any]) -> dict[str, Cost]:
    return {key: cost for value in _all(values) for key, cost in value.charges.items()}


def _joined(node: Node, datasets: Sequence[Dataset]) -> Dataset:
    if len(datasets) == 1:
        return datasets[0]
    builder = DatasetBuilder()
    try:
        for dataset in datasets:
            for table in dataset.shards():
                builder.add_table(table)
        return builder.finish()
    except InputError as error:
        raise InputError(
            error.what,
            where=f"step {node.name!r}, from {', '.join(node.rows)}: {error.where}",
            expected=error.expected,
            remedy=error.remedy,
        ) from None


def _quarantine(dataset: Dataset) -> str:
    rows = dataset.quarantined.slice(0, 3).to_pylist()
    return "; ".join(f"{row['where']}: {row['reason']}" for row in rows) or "nothing"
