"""A real recipe on a real tiny model, played in child processes that meet faults, and what a run amounts to."""

import multiprocessing
import os
import re
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from toy.command_line import documents, write_rows
from toy.fault_child import Fault, play

RECIPE = """\
name: tiny
sources: {docs: {path: docs.jsonl}}
models: {base: {load: base, dtype: float32}}
steps:
  - {name: unique, use: data.dedup.near, from: docs}
  - {name: split, use: data.split.by_group, from: unique, group_column: topic, parts: {train: 0.7, held_out: 0.3}}
  - {name: train_docs, use: data.filter.where, from: split, column: split, equals: train}
  - {name: held_docs, use: data.filter.where, from: split, column: split, equals: held_out}
  - {name: rated, use: signals.token_loss, from: train_docs, model: base}
  - {name: sized, use: signals.length, from: rated, model: base}
  - {name: chosen, use: data.select.random, from: sized, budget: {tokens: 800}}
  - {name: written, use: data.write.jsonl, from: chosen, to: outputs/chosen.jsonl}
  - {name: adapted, use: adapters.lora, model: base, rank: 4}
  - name: trained
    use: training.fit
    model: adapted
    from: chosen
    step_tokens: 128
    checkpoint_seconds: 0
    keep_checkpoints: [0.5]
    evaluate_at: [0.5, 1.0]
    budget: {tokens: 600}
    evaluators: {dev: {use: evaluation.bits_per_byte, from: held_docs}}
  - {name: held_out, use: evaluation.bits_per_byte, from: held_docs, model: trained}
"""
COMPARED = """\
arms:
  base: {held_out: {model: base}}
  rated: {chosen: {use: data.select.top_k, from: sized, column: nll_mean, direction: lower, budget: {tokens: 800}}}
  drawn: {}
compare: {baseline: drawn, metric_step: held_out, budget: {flops: 5.0e7}, seeds: [0]}
gates:
  - {name: better, arm: rated, at_least: -5.0}
"""
# What two runs of the same thing may differ in: when, where and how fast.
TIMES = {
    *("seconds", "peak_bytes", "at", "run_id", "started", "finished", "mfu", "paid", "cached", "consumed", "kept"),
    *("resumed_at", "tokens_per_second"),
}


@dataclass(frozen=True)
class Ended:
    """How a child ended: its exit code (minus the signal that killed it), what it said, what it did to files."""

    code: int
    out: str
    err: str
    moments: list[tuple[str, str, str]]


def server() -> Any:
    """Starts processes that have imported what is heavy; a process of tests has one such server."""
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["toy.fault_preload"])
    return context


class FaultBed:
    """The recipe's folder and workspaces beside it."""

    def __init__(self, folder: Path) -> None:
        from tutelage.models.toy import tiny_causal_lm

        self.folder = folder
        rows = documents()
        write_rows(folder / "docs.jsonl", rows)
        tiny_causal_lm(texts=[row["text"] for row in rows], layers=1, width=16).save(folder / "base")
        (folder / "plain.yaml").write_text(RECIPE, encoding="utf-8")
        (folder / "compared.yaml").write_text(RECIPE + COMPARED, encoding="utf-8")
        self.context = server()
        self._number = 0

    def workspace(self) -> Path:
        """A fresh one."""
        self._number += 1
        return self.folder / f"w{self._number}"

    def run(self, recipe: str = "compared") -> list[str]:
        """The arguments that run a recipe."""
        return ["run", str(self.folder / f"{recipe}.yaml")]

    def start(self, workspace: Path, *commands: list[str], fault: Fault | None = None) -> "Child":
        """A child that runs the commands in the workspace."""
        self._number += 1
        log = self.folder / f"log{self._number}"
        process = self.context.Process(target=play, args=(str(workspace), str(log), list(commands), fault))
        process.start()
        return Child(process, log)

    def play(
        self,
        workspace: Path,
        *commands: list[str],
        fault: Fault | None = None,
        limit: float = 300,
        patient: bool = True,
    ) -> Ended:
        """Run the commands to their end, or the child's; see `Child.wait`."""
        return self.start(workspace, *commands, fault=fault).wait(limit, patient)

    def copy(self, workspace: Path) -> Path:
        """A copy of a workspace."""
        target = self.workspace()
        shutil.copytree(workspace, target)
        return target


class Child:
    """A running child."""

    def __init__(self, process: Any, log: Path) -> None:
        self.process = process
        self.log = log

    def moments(self) -> list[tuple[str, str, str]]:
        """What it did to files so far, the last one perhaps not done yet."""
        text = self.log.read_text(encoding="utf-8") if self.log.exists() else ""
        lines = [line.split("\t") for line in text.splitlines()]
        return [(line[0], line[1], line[2]) for line in lines if len(line) == 3]

    def wait(self, limit: float = 300, patient: bool = True) -> Ended:
        """How it ended; one that does not end within `limit` seconds is killed, and an error where `patient`."""
        self.process.join(limit)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
            assert not patient, f"a child did not end within {limit} seconds: {self.text('.err')}"
        return Ended(self.process.exitcode, self.text(".out"), self.text(".err"), self.moments())

    def text(self, suffix: str) -> str:
        """What it wrote to its standard output (.out) or error (.err)."""
        file = self.log.with_suffix(suffix)
        return file.read_text(encoding="utf-8") if file.exists() else ""


def outcome(workspace: Path) -> dict[str, Any]:
    """What the newest run of a workspace amounts to: what every step made, weights, item logs, the comparison, the
    report's words and figures; all but times."""
    from tutelage.core.store import Store
    from tutelage.report.build import build_view
    from tutelage.runs import payload
    from tutelage.runs.ledger import Ledger

    run = Ledger(workspace).run()
    store = Store(workspace / ".tutelage" / "store")
    steps = []
    for step in run["steps"]:
        artifact = store.get(step["key"])
        assert artifact is not None, f"{step['step']} is not in the store"
        artifact.verify()
        kept = {
            name: entry["hash"]
            for name, entry in artifact.files.items()
            if name.endswith((".safetensors", ".parquet", ".jsonl", "/files")) or name == "files"
        }
        fit = payload.load_fit(artifact.path)
        made = {name: step[name] for name in ("step", "arm", "seed", "round", "method", "key", "content", "as_if")}
        steps.append({**made, "files": kept, "fit": fit})
    view = {name: value for name, value in asdict(build_view(workspace)).items() if name != "loading"}
    exported = {
        path.relative_to(workspace).as_posix(): path.read_bytes()
        for path in sorted((workspace / "outputs").rglob("*"))
        if path.is_file()
    }
    told = {name: run[name] for name in ("status", "error", "results", "comparison", "gates", "declared")}
    return {**_timeless({"steps": steps, "view": view, **told}), "exported": exported}


def complete(workspace: Path) -> tuple[set[str], dict[str, int]]:
    """The artifacts that count as complete, every one looked through, and the newest checkpoint of each training
    under way."""
    from tutelage.core.store import Store
    from tutelage.training import _checkpoint

    store = Store(workspace / ".tutelage" / "store")
    found = {key: store.get(key) for key in store.keys()}  # noqa: SIM118
    for artifact in found.values():
        if artifact is not None:
            artifact.verify()
    steps = {}
    folder = workspace / ".tutelage" / "checkpoints"
    for training in sorted(folder.iterdir()) if folder.is_dir() else []:
        newest = _checkpoint.newest(training)
        if newest is not None:
            state = _checkpoint.load(newest)
            assert state["counters"]["step"] == int(newest.name[5:]), "a checkpoint of another step than its name"
            steps[training.name] = state["counters"]["step"]
    return {key for key, artifact in found.items() if artifact is not None}, steps


def difference(found: Any, expected: Any, place: str = "") -> list[str]:
    """Where two outcomes differ, in words; empty when they are the same."""
    if isinstance(found, dict) and isinstance(expected, dict):
        names = [*expected, *(name for name in found if name not in expected)]
        return [text for n in names for text in difference(found.get(n), expected.get(n), f"{place}/{n}")]
    if isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        pairs = enumerate(zip(found, expected, strict=True))
        return [text for n, (mine, theirs) in pairs for text in difference(mine, theirs, f"{place}[{n}]")]
    return [] if found == expected else [f"{place}: {str(found)[:300]} instead of {str(expected)[:300]}"]


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        heads = value.get("heads")
        if isinstance(heads, list):  # a table of the report, whose columns with times are left out
            kept = [place for place, head in enumerate(heads) if "second" not in head and "MFU" not in head]
            return {
                **value,
                "heads": heads,
                "rows": [[_timeless(row[at]) for at in kept] for row in value["rows"]],
            }
        return {key: _timeless(item) for key, item in value.items() if key not in TIMES}
    if isinstance(value, list | tuple):
        return [_timeless(item) for item in value]
    if isinstance(value, str):
        text = re.sub(r"\d{8}-\d{6}-\w+-[0-9a-f]{4}", "RUN", value)
        text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.+]+", "TIME", text)
        return re.sub(r"[\d.,]+ (s|ms|min|h|seconds|minutes|hours|[KMG]i?B|tokens/s)\b", r"N \1", text)
    return value
