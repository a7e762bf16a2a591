"""What a person sees while a model trains, and what is measured on the way: memory, time, MFU."""

import contextlib
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tutelage.core.text.visible import visible

Listener = Callable[[Mapping[str, Any]], None]


class Progress:
    """A bar with loss, tokens per second, MFU and time left on a terminal; silence elsewhere. `emit` hands events
    (plain JSON mappings with a key `event`) to the listener."""

    def __init__(self, shown: bool | None, listener: Listener | None, title: str = "training") -> None:
        self._listener = listener
        self._bar: Any = None
        if sys.stderr.isatty() if shown is None else shown:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f}%"),
                TextColumn("{task.fields[facts]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True, force_terminal=True),
                transient=True,
            )
            self._task = self._bar.add_task(title, total=1.0, facts="")

    def __enter__(self) -> "Progress":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def emit(self, event: str, **facts: Any) -> None:
        """Tell the listener; warnings are also printed where there is a bar to print above."""
        if self._listener is not None:
            self._listener({"event": event, **facts})
        if event == "warning":
            if self._bar is not None:
                self._bar.console.print(visible(facts["message"]), markup=False)
            else:
                print(f"warning: {visible(facts['message'])}", file=sys.stderr)

    def step(self, fraction: float, facts: Mapping[str, Any]) -> None:
        """One optimiser step is done; `fraction` of the budget is spent."""
        self.emit("step", fraction=fraction, **facts)
        if self._bar is not None:
            text = f"loss {facts['loss']:.3f}  {facts['tokens_per_second']:.0f} tok/s  MFU {facts['mfu']:.0%}"
            self._bar.update(self._task, completed=fraction, facts=text)


class Stopwatch:
    """Seconds spent inside `with`, in several stretches, on top of what an earlier run spent."""

    def __init__(self, seconds: float = 0.0) -> None:
        self._before = seconds
        self._started: float | None = None

    @property
    def seconds(self) -> float:
        running = 0.0 if self._started is None else time.perf_counter() - self._started
        return self._before + running

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._before, self._started = self.seconds, None


def peak_bytes(device: Any) -> int:
    """Largest memory so far: of the device where it is CUDA, else of this process (resident)."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    with contextlib.suppress(OSError):
        # `getrusage` also counts what the parent held when it started this process.
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    try:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return int(peak if sys.platform == "darwin" else peak * 1024)
    except ImportError:  # Windows
        import psutil

        return int(psutil.Process().memory_info().peak_wset)


def forget_peak() -> None:
    """Begin a new maximum for `peak_bytes` where the system can (CUDA, Linux)."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        # 5: reset the peak resident size (man 5 proc).
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
