"""The engine: turns the nodes of a graph into values, each from the store when its key is there.

Nothing is loaded before somebody needs it. Trained and adapted models are always read back from the store: what is
measured is what was saved.
"""

import contextlib
import gc
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tutelage.core.errors import StoreError, TrainingError
from tutelage.core.fingerprint import code_hash, digest, method_key
from tutelage.core.meter import Meter
from tutelage.core.method import Method, Scorer, Transform, Writer
from tutelage.core.records import Cost
from tutelage.core.store import Artifact, Store
from tutelage.runs import compute, failures, payload
from tutelage.runs.components import build_method
from tutelage.runs.graph import GIVES, Graph, Node
from tutelage.runs.ledger import Ledger
from tutelage.runs.lineage import stages
from tutelage.runs.outside import load_spec, load_stored_model, read_source
from tutelage.runs.paths import STATE, output_path
from tutelage.runs.points import points_of
from tutelage.runs.recipe import Recipe
from tutelage.runs.values import Context, Handed, Value, evaluator, handed_to, joined

Listener = Callable[[Mapping[str, Any]], None]


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
        # Whether the derived model among them has weights of its own: an adapter shares its base's.
        self._whole_model = False

    # -- sources and models -------------------------------------------------------------------------------

    def outside(self, name: str) -> Value:
        """A source or a model of the recipe; read or loaded once. Neither is charged to anybody."""
        if name not in self._outside:
            make = self._source if name in self.recipe.sources else self._model
            self._outside[name] = make(name)
        return self._outside[name]

    def _source(self, name: str) -> Value:
        self.emit({"event": "source", "name": name})
        started = time.perf_counter()
        artifact, cached = read_source(self.recipe, self.workspace, self.store, name, self.limit)
        seconds = time.perf_counter() - started
        use = self.recipe.sources[name].use
        self._record(name, use, "Reader", artifact, cached, seconds, None, Context())
        return self.value(name, artifact, {})

    def _model(self, name: str) -> Value:
        spec = self.recipe.models[name]
        self.emit({"event": "model", "name": name, "load": spec.load})
        model = load_spec(self.recipe, self.workspace, name)
        # Another precision or another kind of device computes other numbers from the same weights.
        device = getattr(getattr(model, "device", None), "type", "")
        content = digest([model.fingerprint, str(getattr(model, "dtype", "")).removeprefix("torch."), device])
        self._models[content] = model
        allowed = spec.allow_remote_code
        return Value(name, "model", content, lambda: model, root=content, allow_remote_code=allowed)

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
        handed = handed_to(node, look)
        method, seed = self.configured(node, handed, context)
        key = self.key(node, method, seed, handed)
        place = _place(node.name, node.step.use, context)
        self.emit({"event": "started", **place})
        cached = self.store.get(key) is not None
        started = time.perf_counter()

        def make(folder: Path) -> dict[str, Any]:
            job = self._job(node, method, seed, key, handed, place)
            with compute.measured(job) as cost:
                begun = time.perf_counter()
                if isinstance(method, Scorer):
                    job.state = self._state(method, job, key)
                output = compute.compute(job, folder)
            spent = cost[0]
            counted = getattr(output.record, "cost", None)
            if counted is not None:
                # A trainer counts across interruptions, which the meters of this process cannot.
                spent = counted.model_copy(update={"seconds": max(counted.seconds, time.perf_counter() - begun)})
            return {
                "content": output.content,
                "cost": (spent + job.state_cost).model_dump(),
                "facts": {**output.facts, **compute.used(job, output, spent)},
                "step": node.name,
                "method": node.step.use,
                "needs": [value.artifact.key for value in handed.values() if value.artifact],
            }

        try:
            known = failures.recall(self.store, key) if context.arm is not None else None
            if known is not None:
                raise known
            artifact = self.store.put(key, make, kind=GIVES[node.card.kind])  # type: ignore[arg-type]
        except Exception as error:
            if isinstance(error, TrainingError):
                error.charges = {**handed.charges, key: error.cost or Cost()}
                if context.arm is not None:
                    failures.remember(self.store, key, error)
            error.add_note(f"step {node.name}")
            raise
        self._forget(node, key)
        seconds = time.perf_counter() - started
        rows_in = sum(value.rows or 0 for value in handed.rows) if handed.rows else None
        self._record(
            node.name, node.step.use, node.card.kind, artifact, cached, seconds, rows_in, context, handed.of
        )
        if node.card.kind == "Writer":
            self._export(node, artifact)
        return self.finished(node, artifact, handed)

    def _forget(self, node: Node, key: str) -> None:
        """Remove what an interrupted step would have gone on from: its result is in the store. Kept copies of a
        model in training stay."""
        folder = self.workspace / STATE / "checkpoints" / key
        if node.card.kind == "Scorer":
            shutil.rmtree(folder, ignore_errors=True)
        if node.card.kind == "Trainer":
            for over in (*folder.glob("step-*"), *folder.glob(".building-*")):
                shutil.rmtree(over, ignore_errors=True)

    def finished(self, node: Node, artifact: Artifact, handed: Handed) -> Value:
        """The value of a step whose artifact is there."""
        charges = {**handed.charges, artifact.key: Cost(**artifact.meta["cost"])}
        root = handed.model.root if handed.model else ""
        given = handed.values()
        value = self.value(node.name, artifact, charges, root, any(v.allow_remote_code for v in given))
        value.behind = given
        return value

    def configured(self, node: Node, handed: Handed, context: Context) -> tuple[Any, int]:
        """The node's method as this run configures it, and its seed.

        A written seed stays; another is the run's, or the recipe's where `context.fixed` says that the draw must
        not change between runs.
        """
        method: Any = node.method
        if node.name in context.overrides:
            fields = context.overrides[node.name]
            method = build_method(node.step.use, fields, lambda key: f"step {node.name}: {key}")
        if node.name in context.budgets:
            repeat = self.recipe.repeat
            share = (context.round + 1) / repeat.times if repeat else 1.0
            upstream = sum(handed.charges.values(), Cost())
            method = method.model_copy(update={"budget": context.budgets[node.name](upstream, share)})
        written = node.step.fields.get("seed")
        if isinstance(written, int):
            return method, written
        seed = self.recipe.seed if context.seed is None or node.name in context.fixed else context.seed
        if "seed" in type(method).model_fields:
            method = method.model_copy(update={"seed": seed})
        return method, seed

    def key(self, node: Node, method: Any, seed: int, handed: Handed) -> str:
        """The cache key of a step; see `core.fingerprint`."""
        # Whatever draws has its seed in its configuration; only a trainer takes the one it is handed.
        extra: dict[str, Any] = {"seed": seed if node.card.kind == "Trainer" else None, "at": node.step.at}
        if any(value.kind == "model" for value in handed.values()):
            # A method runs the code of the models it is handed without importing it.
            extra["models"] = code_hash("tutelage.models.load")
        if isinstance(method, Writer) and type(method).write_stages is not Writer.write_stages:
            extra["stages"] = [[stage.name, stage.key] for stage in stages(handed.rows)]
        if isinstance(method, Transform) and type(method).outside is not Transform.outside:
            rows = joined(node, [value.load() for value in handed.rows])
            inputs = {name: _loaded(given) for name, given in handed.inputs.items()}
            extra["outside"] = method.outside(rows, {**inputs, "workspace": self.workspace})
        if node.card.kind == "Forecaster" and handed.rows[0].kind == "result":
            # What a model was trained on is in no result.
            extra["points"] = points_of(node, handed.rows).hash
        return method_key(method, handed.contents(), extra)

    def _job(
        self, node: Node, method: Any, seed: int, key: str, handed: Handed, place: Mapping[str, Any]
    ) -> compute.Job:
        inputs = {name: _loaded(given) for name, given in handed.inputs.items()}
        main = handed.model.load() if handed.model else None
        if main is not None:
            inputs.setdefault("model", main)
        meters = {id(item): item for item in inputs.values() if hasattr(item, "meter")}
        forecast = node.card.kind == "Forecaster"
        rows = [] if forecast else [value.load() for value in handed.rows]
        inputs |= {
            "seed": seed,
            "workspace": self.workspace,
            "meter": Meter(),
            "allow_remote": self.recipe.allow_remote,
            "on_event": lambda event: self.emit({**place, **event}),
        }
        return compute.Job(
            node,
            method,
            points_of(node, handed.rows) if forecast else joined(node, rows) if rows else None,
            main,
            inputs,
            self.workspace / STATE / "checkpoints" / key,
            [(name, evaluator(task, watched.load(), seed)) for name, (task, watched) in handed.watched.items()],
            models=list(meters.values()),
            stages=stages(handed.rows) if node.card.kind == "Writer" else (),
        )

    def _state(self, method: Scorer, job: compute.Job, key: str) -> dict[str, Any] | None:
        """The scorer's fitted state, from the store when a run was cut off between fitting and scoring."""
        if type(method).fit is Scorer.fit:
            return {}
        found = self.store.get(digest(["state", key]))
        if found is not None:
            job.state_cost = Cost(**found.meta["cost"])
            return payload.load_state(self.store.sound(found).path)
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

    def value(
        self,
        name: str,
        artifact: Artifact,
        charges: dict[str, Cost],
        root: str = "",
        allow_remote_code: bool = False,
    ) -> Value:
        """The value of a stored artifact; for `root` and `allow_remote_code` see `Value`."""
        content = artifact.meta["content"]

        def path() -> Path:
            return self.store.sound(artifact).path

        if artifact.kind == "dataset":
            rows = artifact.meta["facts"].get("rows")
            return Value(name, "dataset", content, lambda: payload.load_dataset(path()), artifact, charges, rows)
        if artifact.kind == "model":
            content = digest([content, artifact.meta["facts"].get("dtype", "")])
            base = root if (artifact.path / payload.MODEL / "adapter_config.json").is_file() else content
            load = lambda: self._stored_model(content, artifact, base, allow_remote_code)  # noqa: E731
            return Value(
                name, "model", content, load, artifact, charges, root=base, allow_remote_code=allow_remote_code
            )
        if artifact.kind == "result":
            return Value(name, "result", content, lambda: payload.load_result(path()), artifact, charges)
        return Value(name, "files", content, lambda: payload.load_files(path()), artifact, charges)

    def _stored_model(self, content: str, artifact: Artifact, root: str, allow_remote_code: bool) -> Any:
        if content not in self._models:
            self.store.sound(artifact)
            kept = {value.content for value in self._outside.values()}
            # One derived model at a time beside the recipe's own: memory, not time, is short on a small machine.
            self._models = {key: model for key, model in self._models.items() if key in kept}
            if self._whole_model:
                gc.collect()  # module trees refer to themselves: dropped ones would keep their weights
            base = self._models.get(root)
            if base is not None and hasattr(base, "with_adapter"):
                self._models[content] = base.with_adapter(artifact.path / payload.MODEL)
                self._whole_model = False
            else:
                self._models[content] = load_stored_model(artifact, allow_remote_code)
                self._whole_model = True
        return self._models[content]

    def _export(self, node: Node, artifact: Artifact) -> None:
        where = self.recipe.where("steps", node.name, "to")
        target = output_path(self.recipe, self.workspace, node.step.to or f"outputs/{node.name}", where)
        written = self.store.sound(artifact).path / payload.FILES
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            # Two runs of one export write the same file.
            with self.store.lock(artifact.key):
                if written.is_dir():
                    shutil.copytree(written, target, dirs_exist_ok=True, copy_function=_place_file)
                else:
                    _place_file(written, target)
        except OSError as error:
            raise StoreError(
                "what a step wrote could not be put in its place",
                where=target,
                expected="a place that can be written, with enough room",
                found=error.strerror or str(error),
                remedy="free space or make the place writable, and run again: the step itself is done",
            ) from None
        self.emit({"event": "written", "name": node.name, "path": str(target)})

    def _record(
        self,
        name: str,
        use: str,
        kind: str,
        artifact: Artifact,
        cached: bool,
        seconds: float,
        rows_in: int | None,
        context: Context,
        of: str | None = None,
    ) -> None:
        as_if = artifact.meta["cost"]
        entry = {
            **_place(name, use, context),
            "step": name,
            "method": use,
            "kind": kind,
            "key": artifact.key,
            "content": artifact.meta["content"],
            "cached": cached,
            "as_if": as_if,
            "paid": Cost(seconds=seconds).model_dump() if cached else as_if,
            "seconds": seconds,
            "rows_in": rows_in,
            "facts": {**artifact.meta["facts"], "needs": artifact.meta.get("needs", []), "of": of},
        }
        self.ledger.step(self.run_id, entry)
        if artifact.kind == "result":
            result = payload.load_result(self.store.sound(artifact).path).model_dump(mode="json")
            self.ledger.result(self.run_id, {**entry, "result": result})
        facts = {"cached": cached, "seconds": seconds, "facts": artifact.meta["facts"]}
        self.emit({"event": "done", **_place(name, use, context), **facts})


def _loaded(given: Any) -> Any:
    if isinstance(given, Method):
        return given
    return [value.load() for value in given] if isinstance(given, list) else given.load()


def _place_file(source: str | Path, target: str | Path) -> None:
    """Copy a file to its place whole or not at all."""
    part = Path(target).with_name(f".{Path(target).name}.part")
    try:
        shutil.copyfile(source, part)
        part.replace(target)
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def _place(name: str, use: str, context: Context) -> dict[str, Any]:
    return {"name": name, "use": use, "arm": context.arm, "seed": context.seed, "round": context.round}
