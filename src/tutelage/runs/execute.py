"""Run a recipe: `run` and `resume`. One process per recipe and workspace; what is complete is kept."""

import contextlib
import json
import os
import secrets
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tutelage.core.errors import (
    EXIT_GATE_FAILED,
    EXIT_PASS,
    Interrupted,
    MemoryShortage,
    StoreError,
    TutelageError,
    WaitingForPerson,
    unknown,
)
from tutelage.core.fingerprint import digest
from tutelage.core.store import DamagedArtifact
from tutelage.runs import gates, paths
from tutelage.runs.arms import all_arms
from tutelage.runs.checks import check_recipe
from tutelage.runs.compare import arm_contexts, run_comparison
from tutelage.runs.engine import Engine, Listener
from tutelage.runs.environment import environment
from tutelage.runs.graph import build_graph
from tutelage.runs.ledger import Ledger
from tutelage.runs.limit import limited
from tutelage.runs.plan import Plan, plan
from tutelage.runs.recipe import Recipe
from tutelage.runs.rounds import run_rounds
from tutelage.runs.trackers import tracked
from tutelage.runs.values import Context, Value


@dataclass
class RunResult:
    """What a run left. `values` are the steps of the last round (without `compare`); `load(name)` gives one."""

    run_id: str
    workspace: Path
    status: str
    exit_code: int
    values: dict[str, Value] = field(default_factory=dict)
    comparison: dict[str, Any] | None = None
    gates: list[dict[str, Any]] = field(default_factory=list)
    plan: Plan | None = None

    def load(self, name: str) -> Any:
        """The Dataset, Model, Result or file list of a step."""
        if name not in self.values:
            raise unknown(f"this run has no step {name!r}", f"run {self.run_id}", name, self.values)
        return self.values[name].load()

    def to_json(self) -> dict[str, Any]:
        """What `--json` prints."""
        steps = {
            name: {"kind": value.kind, "path": str(value.artifact.path) if value.artifact else None}
            for name, value in self.values.items()
        }
        return {
            "run_id": self.run_id,
            "workspace": str(self.workspace),
            "status": self.status,
            "exit_code": self.exit_code,
            "steps": steps,
            "comparison": self.comparison,
            "gates": self.gates,
            "plan": self.plan.to_json() if self.plan else None,
        }


def run(
    recipe: Recipe,
    workspace: str | Path = ".",
    *,
    limit: int | None = None,
    seed: int | None = None,
    dry_run: bool = False,
    progress: Listener | None = None,
) -> RunResult:
    """Run `recipe` in `workspace` and return its result; equal steps of earlier runs are taken from the store.

    `limit` cuts sources and budgets (for a trial), `seed` replaces the recipe's, `dry_run` only plans, `progress`
    gets events (mappings with a key `event`). Raises the errors of the steps; Interrupted (resumable) on Ctrl-C,
    WaitingForPerson (resumable) when a step waits for answers. A failed gate is no error: see `exit_code`.
    """
    recipe = recipe if seed is None else recipe.changed(seed=seed)
    check_recipe(recipe)
    folder = Path(workspace).resolve()
    # A recipe loaded with a limit is small already; small again is the same.
    recipe = recipe if limit is None else limited(recipe, limit)
    if dry_run:
        made = plan(recipe, folder, limit=limit)
        return RunResult("", folder, "planned", EXIT_PASS, plan=made)
    paths.check_paths(recipe, folder)
    return _execute(recipe, folder, _new_id(recipe), {"limit": limit}, progress)


def prepare(
    recipe: Recipe, workspace: str | Path = ".", *, limit: int | None = None, progress: Listener | None = None
) -> RunResult:
    """Run only what no training step is behind (reading, scoring, selecting, measuring the untrained models).

    A run in the same workspace finds all of it in the store, and a plan made now can foresee the rest.
    """
    check_recipe(recipe)
    recipe = recipe if limit is None else limited(recipe, limit)
    options = {"limit": limit, "before_training": True}
    return _execute(recipe, Path(workspace).resolve(), _new_id(recipe), options, progress)


def resume(run_id: str = "latest", workspace: str | Path = ".", *, progress: Listener | None = None) -> RunResult:
    """Go on with a run that was interrupted, suspended or killed, under its id; complete steps are not redone.

    Of `prepare` it does the rest, and no more.
    """
    folder = Path(workspace).resolve()
    entry = Ledger(folder).run(run_id)
    recipe = Recipe(**entry["recipe"]).placed(Path(entry["place"]["folder"]), entry["place"]["allow_outside"])
    return _execute(recipe, folder, entry["run_id"], entry["options"], progress)


def _new_id(recipe: Recipe) -> str:
    return f"{datetime.now(UTC).strftime('%Y%m%d-%H%M%S')}-{recipe.name}-{secrets.token_hex(2)}"


def _execute(
    recipe: Recipe,
    workspace: Path,
    run_id: str,
    options: Mapping[str, Any],
    progress: Listener | None,
) -> RunResult:
    work = _before_training if options.get("before_training") else _work
    with _only_one(recipe, workspace), tracked(recipe, workspace, run_id, progress) as listener:
        damaged: set[str] = set()
        while True:
            engine = Engine(recipe, workspace, run_id, limit=options.get("limit"), listener=listener)
            engine.ledger.start(
                run_id,
                recipe.flat(),
                {"folder": str(recipe.folder), "allow_outside": recipe.allow_outside},
                options,
                environment(),
            )
            if not damaged:
                listener({"event": "run", "run_id": run_id, "name": recipe.name})
            try:
                result = work(engine)
                break
            except KeyboardInterrupt:
                raise _stopped(engine, Interrupted("the run was interrupted"), "interrupted") from None
            except Interrupted as error:
                raise _stopped(engine, error, "interrupted") from None
            except WaitingForPerson as error:
                raise _stopped(engine, error, "waiting") from None
            except DamagedArtifact as error:
                if error.key in damaged:  # a disk that does not keep what it is given
                    _close(engine, "failed", error.to_json())
                    raise
                damaged.add(error.key)
                engine.store.discard(error.key)
                listener({"event": "warning", "message": f"{error.where} is damaged: it is made again"})
            except TutelageError as error:
                _close(engine, "failed", {**error.to_json(), "notes": getattr(error, "__notes__", [])})
                raise
            except BaseException as error:
                if _out_of_memory(error):
                    raise _stopped(engine, _shortage(error), "failed") from None
                _close(engine, "crashed", {"error": type(error).__name__, "what": str(error)})
                raise
        engine.ledger.finish(run_id, result.status)
        listener({"event": "finished", "run_id": run_id, "status": result.status})
        return result


def _before_training(engine: Engine) -> RunResult:
    recipe = engine.recipe
    arms = list(all_arms(recipe)) if recipe.compare is not None else [None]
    for arm in arms:
        graph = build_graph(recipe, arm)
        contexts = [(list(graph.nodes), Context())] if arm is None else arm_contexts(recipe, graph, arm)
        for names, context in contexts:
            learned: set[str] = set()
            for name in names:
                node = graph.nodes[name]
                if node.card.kind == "Trainer" or learned & set(node.references):
                    learned.add(name)
            engine.run(graph, [name for name in names if name not in learned], context)
    return RunResult(engine.run_id, engine.workspace, "prepared", EXIT_PASS)


def _work(engine: Engine) -> RunResult:
    recipe = engine.recipe
    if recipe.compare is not None:
        table = run_comparison(engine)
        values: dict[str, Value] = {}
        verdicts = gates.check_arms(recipe, table)
        comparison: dict[str, Any] | None = table.to_json()
        engine.ledger.comparison(engine.run_id, table.to_json())
    else:
        graph = build_graph(recipe)
        values = run_rounds(engine, graph, list(graph.nodes), Context())
        verdicts = gates.check_steps(recipe, values)
        comparison = None
    for number, verdict in enumerate(verdicts):
        engine.ledger.gate(engine.run_id, number, verdict)
        engine.emit({"event": "gate", **verdict})
    failed = any(not verdict["passed"] for verdict in verdicts)
    status = "gate failed" if failed else "passed"
    code = EXIT_GATE_FAILED if failed else EXIT_PASS
    return RunResult(engine.run_id, engine.workspace, status, code, values, comparison, verdicts)


def _stopped(engine: Engine, error: TutelageError, status: str) -> TutelageError:
    """The same error with how to go on, after the ledger knows."""
    _close(engine, status, error.to_json())
    again = f"tutelage resume {engine.run_id} --workspace {engine.workspace}"
    remedy = f"{error.remedy}; then: {again}" if error.remedy and status != "interrupted" else again
    made = type(error)(error.what, where=error.where, expected=error.expected, found=error.found, remedy=remedy)
    made.run_id = engine.run_id  # type: ignore[attr-defined]
    return made


def _close(engine: Engine, status: str, error: dict[str, Any]) -> None:
    """Record how the run ended, unless the ledger cannot be written either: the first error is the one to tell."""
    with contextlib.suppress(StoreError):
        engine.ledger.finish(engine.run_id, status, error)


def _out_of_memory(error: BaseException) -> bool:
    if "torch" not in sys.modules:
        return isinstance(error, MemoryError)
    from tutelage.models.device import is_out_of_memory

    return is_out_of_memory(error)


def _shortage(error: BaseException) -> MemoryShortage:
    step = next((note for note in getattr(error, "__notes__", []) if note.startswith("step ")), None)
    return MemoryShortage(
        "the process ran out of memory",
        where=step,
        expected="room for one step's rows and models",
        found=str(error).splitlines()[0] if str(error) else type(error).__name__,
        remedy="close other programs, lower batch_size, max_length or micro_tokens, or train an adapter",
    )


@contextlib.contextmanager
def idle(workspace: Path) -> Iterator[None]:
    """Hold off every run of the workspace; raises StoreError naming the process when there is one already."""
    folder = workspace / paths.STATE / "locks"
    with _locked(folder, _GATE, -1), contextlib.ExitStack() as held:
        for file in sorted(folder.glob("run-*.lock")):
            try:
                held.enter_context(FileLock(file, timeout=0))
            except Timeout:
                raise StoreError(
                    "a run is under way in this workspace",
                    where=workspace,
                    expected="no run, since what it needs may be removed",
                    found=f"process {_pid(file.with_suffix('.json'))}",
                    remedy="wait for it, or stop it: it can be resumed",
                ) from None
        yield


_GATE = "gate.lock"


@contextlib.contextmanager
def _locked(folder: Path, name: str, timeout: float) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / name)
        lock.acquire(timeout=timeout)
    except Timeout:
        raise
    except OSError as error:
        raise _unwritable(folder, error) from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _only_one(recipe: Recipe, workspace: Path) -> Iterator[None]:
    """Hold the lock of this recipe in this workspace; raises StoreError naming the process that has it."""
    name = f"run-{digest(recipe.flat())[:16]}"
    folder = workspace / paths.STATE / "locks"
    holder = folder / f"{name}.json"
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(_locked(folder, f"{name}.lock", 0))
        except Timeout:
            raise StoreError(
                "a second process on the same run",
                where=workspace,
                expected="one process for a recipe and workspace",
                found=f"process {_pid(holder)} is running {recipe.name}",
                remedy="wait for it, stop it, or use another --workspace",
            ) from None
        # Whoever clears the workspace up lets nobody begin.
        with _locked(folder, _GATE, -1):
            _tell(holder)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                holder.unlink()


def _tell(holder: Path) -> None:
    try:
        holder.write_text(json.dumps({"pid": os.getpid()}), encoding="utf-8")
    except OSError as error:
        raise _unwritable(holder, error) from None


def _unwritable(folder: Path, error: OSError) -> StoreError:
    return StoreError(
        "the workspace cannot be written",
        where=folder,
        expected="a folder that can be written, with room",
        found=error.strerror,
        remedy="free space or choose another --workspace",
    )


def _pid(holder: Path) -> Any:
    try:
        return json.loads(holder.read_text(encoding="utf-8"))["pid"]
    except (OSError, ValueError, KeyError):
        return "(unknown)"
