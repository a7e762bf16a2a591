"""One step's computation by kind: what the method is handed, what comes back, what it cost.

Nothing here knows a cache: `engine` decides whether a step is computed at all.
"""

import contextlib
import ctypes
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.core.apply import apply_transform, score_dataset
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError, suggest
from tutelage.core.lineage import Stage
from tutelage.core.meter import Meter
from tutelage.core.records import Cost, Result
from tutelage.runs import payload
from tutelage.runs.graph import Node

# Bytes by which a step must have grown the process: giving back takes a tenth of a second.
WORTH_GIVING_BACK = 256 * 2**20


@dataclass
class Job:
    """Everything one computation needs. `models` are all models it is handed, whose meters are read; `stages` is
    what a writer may tell of."""

    node: Node
    method: Any
    rows: Dataset | None
    model: Any
    inputs: dict[str, Any]
    checkpoint_dir: Path | None = None
    evaluators: list[tuple[str, Any]] = field(default_factory=list)
    state: dict[str, Any] | None = None
    models: list[Any] = field(default_factory=list)
    state_cost: Cost = field(default_factory=Cost)
    stages: Sequence[Stage] = ()


@dataclass
class Output:
    """What a computation gave: its value and content hash, the fit record of a training, facts for people."""

    value: Any
    content: str
    record: Any = None
    facts: dict[str, Any] = field(default_factory=dict)


def check_columns(node: Node, rows: Dataset) -> None:
    """Raise InputError when a column the card reads is not there (`?`: optional; `{field}`: a field's value)."""
    for column in node.card.reads:
        name = column
        if name.startswith("{") and name.rstrip("?").endswith("}"):
            name = str(getattr(node.method, name.rstrip("?")[1:-1], None) or "")
        if not name or name == "None" or column.endswith("?") or "{" in name:
            continue
        if name not in rows.column_names and not _has_alternative(node, rows):
            raise InputError(
                f"step {node.name!r} reads a column that is not there",
                where=f"column {name!r}, read by {node.step.use}",
                expected=name,
                found=", ".join(rows.column_names),
                remedy=suggest(name, rows.column_names),
            )


def _has_alternative(node: Node, rows: Dataset) -> bool:
    # Rows of another conventional shape (prompt and completion, messages) stand in for `text`; the method checks.
    return "text" in node.card.reads and any(name in rows.column_names for name in ("prompt", "messages"))


def compute(job: Job, folder: Path) -> Output:
    """Run the method and write its output below `folder`; returns it."""
    kind, method = job.node.card.kind, job.method
    if job.rows is not None:
        check_columns(job.node, job.rows)
    if kind in ("Scorer", "Transform"):
        assert job.rows is not None
        if kind == "Scorer":
            made = score_dataset(method, job.rows, job.inputs, job.state, job.checkpoint_dir)
        else:
            made = apply_transform(method, job.rows, job.inputs)
        made = made.save(folder / payload.DATASET)
        return Output(made, made.hash, facts=_dataset_facts(job.rows, made))
    if kind == "Writer":
        assert job.rows is not None
        method.write_stages(job.rows, str(folder / payload.FILES), job.stages)
        files = payload.load_files(folder)
        return Output(files, job.rows.hash, facts={"files": len(files), "bytes": sum(map(_size, files))})
    if kind == "Task":
        result = method.evaluate(job.model, job.rows, job.inputs)
        payload.save_result(result, folder)
        return Output(result, result.item_log or _hash_of(result), facts=_result_facts(result))
    if kind == "Adapter":
        others = {
            name: value for name, value in job.inputs.items() if value is not job.model and value in job.models
        }
        made = method.convert({**others, "base": job.model}, job.rows, job.inputs)
        made.save(folder / payload.MODEL)
        return Output(made, made.fingerprint, facts=_model_facts(made))
    if kind == "Trainer":
        made, record = method.train(
            job.model,
            job.rows,
            job.inputs,
            checkpoint_dir=job.checkpoint_dir,
            resume=True,
            evaluators=job.evaluators,
            progress=False,
            on_event=job.inputs["on_event"],
        )
        made.save(folder / payload.MODEL)
        payload.save_fit(record, folder)
        consumed = getattr(record, "consumed", None)
        if consumed and Path(consumed).is_file():
            shutil.copyfile(consumed, folder / Path(consumed).name)
        counts = {name: getattr(record, name, None) for name in ("rows", "truncated_rows", "dropped_rows")}
        facts = {name: count for name, count in counts.items() if count is not None}
        return Output(made, made.fingerprint, record, {**_model_facts(made), **facts})
    if kind == "Forecaster":
        assert job.rows is not None
        state = method.fit(job.rows, job.inputs)
        result = method.predict(state, job.node.step.at)
        payload.save_result(result, folder)
        return Output(result, result.item_log or _hash_of(result), facts=_result_facts(result))
    raise ConfigError(f"a {kind} cannot be a step", where=job.node.name)


@contextlib.contextmanager
def measured(job: Job) -> Iterator[list[Cost]]:
    """Measure a computation: the list holds one Cost afterwards (meters, wall seconds, peak memory)."""
    meter: Meter = job.inputs["meter"]
    before = [(model, model.meter.cost) for model in job.models]
    found: list[Cost] = []
    peak = _Peak()
    started = time.perf_counter()
    with peak:
        yield found
    seconds = time.perf_counter() - started
    cost = meter.cost
    for model, then in before:
        cost = cost + model.meter.since(then)
    found.append(cost.model_copy(update={"seconds": seconds, "peak_bytes": max(peak.bytes, cost.peak_bytes)}))
    if peak.bytes - peak.before > WORTH_GIVING_BACK:
        _give_back()


def used(job: Job, output: Output, spent: Cost) -> dict[str, float]:
    """{"mfu": the share of the device's matmul speed that a step's model reached}; nothing without one here."""
    trained = getattr(output.record, "mfu", None)
    models = [m for m in (job.model, *job.models) if getattr(m, "device", None) and getattr(m, "dtype", None)]
    if trained is None and spent.flops and models:
        from tutelage.models.device import mfu

        # An encoder keeps its weights in float32 where it computes in bfloat16.
        dtype = "bfloat16" if getattr(models[0], "half", False) else models[0].dtype
        trained = mfu(spent.flops, spent.seconds, models[0].device, dtype)
    return {"mfu": round(trained, 4)} if trained else {}


def _give_back() -> None:
    """Hand freed memory back to the system. glibc would keep what a training has freed, a gigabyte in pieces of
    which the next step cannot use all, so that a long run grows to twice what any of its steps needs."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


class _Peak:
    """Largest resident memory of this process while open, sampled; 0 where it cannot be read."""

    def __init__(self, interval: float = 0.05) -> None:
        self.bytes = self.before = 0
        self._interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "_Peak":
        self._read()
        self.before = self.bytes
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._read()

    def _watch(self) -> None:
        while not self._stop.wait(self._interval):
            self._read()

    def _read(self) -> None:
        try:
            fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
            self.bytes = max(self.bytes, int(fields[1]) * _page_size())
        except (OSError, ValueError, IndexError):
            self.bytes = max(self.bytes, _psutil_bytes())


def _page_size() -> int:
    import resource

    return resource.getpagesize()


def _psutil_bytes() -> int:
    try:
        import psutil
    except ImportError:
        return 0
    return int(psutil.Process().memory_info().rss)


def _dataset_facts(before: Dataset, after: Dataset) -> dict[str, Any]:
    reasons: dict[str, int] = {}
    for reason in after.dropped.column("reason").to_pylist():
        reasons[reason] = reasons.get(reason, 0) + 1
    common = dict(sorted(reasons.items(), key=lambda item: -item[1])[:20])
    return {
        "rows_in": before.num_rows,
        "rows": after.num_rows,
        "dropped": after.dropped.num_rows,
        "reasons": common,
        "columns": after.column_names,
        "report": after.report,
    }


def _result_facts(result: Result) -> dict[str, Any]:
    return {"estimate": result.estimate, "metric": result.metric, "unit": result.unit, "n": result.n_items}


def _size(file: str) -> int:
    return Path(file).stat().st_size


def _model_facts(model: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"model_kind": getattr(model, "kind", "")}
    dtype = getattr(model, "dtype", None)
    if dtype is not None:
        found["dtype"] = str(dtype).removeprefix("torch.")
    if hasattr(model, "n_params"):
        found["parameters"] = model.n_params
    if getattr(model, "own_code", None):
        found["own_code"] = sorted(model.own_code)
    return found


def _hash_of(result: Result) -> str:
    from tutelage.core.fingerprint import digest

    return digest(result.model_dump(mode="json", exclude={"cost"}))
