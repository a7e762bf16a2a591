"""A process that runs `tutelage` commands and meets its fault at one of its own writes.

What a process does to files is seen through Python's audit hook (opening to write, renaming, removing), through
wrappers of `os.fsync` and `sqlite3.connect`, and SQLite's trace of statements. Each such moment is a line of a
log: phase, operation, path. A fault names a phase and the number of a moment in it; there the process kills
itself before the operation or a little later, or the operation fails with an error of the disk.
"""

import os
import signal
import sqlite3
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Event of the audit hook -> the arguments that are paths.
EVENTS = {
    "open": 1,
    "os.mkdir": 1,
    "os.remove": 1,
    "os.rmdir": 1,
    "os.truncate": 1,
    "os.rename": 2,
    "os.link": 2,
    "shutil.copyfile": 2,
}


@dataclass(frozen=True)
class Fault:
    """`kill` is sent at the `number`-th moment of `phase` (from 0) or `delay` seconds later; or that operation
    (with `lasting`, and every one after it in every phase) fails with the error `code`; or from then on the
    process may take only `memory` bytes beyond what it has. `sizes` limits any file from the start."""

    phase: str = ""
    number: int = 0
    kill: int = 0
    delay: float = 0.0
    code: int = 0
    lasting: bool = False
    sizes: int = 0
    memory: int = 0


def phase_of(path: str) -> str:
    """The part of a run that writes a file, by its place in the workspace; empty for what is not of interest."""
    parts = path.split("/")
    if parts[0] == "outputs":
        return "exports"
    if parts[0].startswith("report.html"):
        return "report"
    if parts[0] != ".tutelage" or len(parts) < 2:
        return ""
    if parts[1].startswith("ledger"):
        return "ledger"
    if parts[1] == "checkpoints":
        if "kept" in parts:
            return "kept copies"
        return "kept shards" if parts[-1].startswith("shard-") else "checkpoints"
    if parts[1] != "store" or len(parts) < 4 or parts[2] == "locks":
        return "locks and notes"
    inside = parts[4] if len(parts) > 4 else ""
    return {"dataset": "data stages", "model": "models"}.get(inside, "results and markers")


class Watch:
    """Counts the moments of this process in `workspace`, logs them and lets the fault happen."""

    def __init__(self, workspace: Path, log: Path, fault: Fault | None) -> None:
        self.root = os.path.realpath(workspace) + "/"
        self.log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self.fault = fault
        self.counts: dict[str, int] = {}
        self.broken = False
        self.lock = threading.RLock()
        self.fsync = os.fsync
        os.fsync = self.synced
        self.connect = sqlite3.connect
        sqlite3.connect = self.connected
        sys.addaudithook(self.heard)

    def heard(self, event: str, arguments: tuple) -> None:
        paths = EVENTS.get(event)
        if paths is None or (event == "open" and not (isinstance(arguments[2], int) and arguments[2] & WRITES)):
            return
        inside = [self.inside(path) for path in arguments[:paths]]
        if any(inside):
            name = inside[0] or inside[-1]
            self.moment(phase_of(name), event.removeprefix("os."), " ".join(inside))

    def synced(self, descriptor: int) -> None:
        try:
            name = self.inside(Path(f"/proc/self/fd/{descriptor}").readlink())
        except OSError:
            name = ""
        self.moment(phase_of(name), "fsync", name)
        self.fsync(descriptor)

    def connected(self, *arguments: Any, **options: Any) -> sqlite3.Connection:
        self.moment("ledger", "connect", "")
        opened = self.connect(*arguments, **options)
        opened.set_trace_callback(lambda statement: self.moment("ledger", statement.split()[0], ""))
        return opened

    def inside(self, path: object) -> str:
        if not isinstance(path, str | bytes | os.PathLike):
            return ""
        full = os.path.abspath(os.fsdecode(path))  # noqa: PTH100  (resolving would look at files, which is heard)
        return full[len(self.root) :] if full.startswith(self.root) else ""

    def moment(self, phase: str, operation: str, path: str) -> None:
        if not phase:
            return
        with self.lock:
            number = self.counts.get(phase, 0)
            self.counts[phase] = number + 1
            os.write(self.log, f"{phase}\t{operation}\t{path}\n".encode())
            fault = self.fault
            if fault is None or not fault.phase:
                return
            due = (phase, number) == (fault.phase, fault.number)
            if fault.memory and due:
                _limit_memory(fault.memory)
            elif fault.kill and due:
                if fault.delay:
                    threading.Thread(target=self.later, args=(fault,), daemon=True).start()
                else:
                    os.kill(os.getpid(), fault.kill)
            elif fault.code and operation not in ("SELECT", "PRAGMA") and (due or (self.broken and fault.lasting)):
                self.broken = True
                raise OSError(fault.code, os.strerror(fault.code))

    def later(self, fault: Fault) -> None:
        time.sleep(fault.delay)
        os.kill(os.getpid(), fault.kill)


def _limit_memory(more: int) -> None:
    import resource

    taken = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + more, resource.RLIM_INFINITY))


def settle(workspace: str) -> None:
    """Make a child fast and its sets of several shards."""
    import torch

    from tutelage.core import dataset_builder
    from tutelage.models import device

    os.environ["TUTELAGE_SCRATCH"] = workspace + ".scratch"
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    device.probe_gflops = lambda *_: 1.0  # half a second that each of many children would spend
    dataset_builder.BYTES_PER_SHARD = 3000


def play(workspace: str, log: str, commands: list[list[str]], fault: Fault | None) -> None:
    """Run `tutelage` commands one after the other until one fails; what they print goes to files beside `log`."""
    base = Path(log)
    for descriptor, suffix in ((1, ".out"), (2, ".err")):
        sink = os.open(base.with_suffix(suffix), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(sink, descriptor)
        os.close(sink)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    settle(workspace)
    from tutelage.cli.main import run

    if fault is not None and fault.sizes:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (fault.sizes, resource.RLIM_INFINITY))
    Watch(Path(workspace), base, fault)
    code = 0
    for command in commands:
        try:
            run([*command, "--workspace", workspace])
        except SystemExit as end:
            code = int(end.code or 0)
        if code:
            break
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
