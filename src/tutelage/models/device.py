"""Where a model runs and in which precision: what is there, what a timed probe says, what the memory allows."""

import contextlib
import functools
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from tutelage.core.errors import ModelError, suggest

# oneDNN keeps the code of the last 1024 matrix products, one per shape, about half a megabyte each; packs hardly
# ever have the same shape twice, so that only those of the last few are worth keeping. Read at its first product.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")

T = TypeVar("T")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# The shapes of a small model's hottest matmuls, tokens x width times width x 3 widths; a large card would spend
# its time on starting that one.
PROBE = (1024, 576, 1536)
LARGE_PROBE = (8192, 4096, 4096)
# About half a second on two cores.
PROBES = 30
# Cores that other processes may use before a person is told.
BUSY = 0.1


def choose_device(device: str = "auto") -> torch.device:
    """CUDA, then MPS, then the CPU for "auto"; else the device asked for, if it is there."""
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind = device.split(":")[0]
    known = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if kind not in known:
        raise ModelError(f"there is no device {device!r}", where="device", remedy=suggest(kind, ["auto", *known]))
    if not known[kind]:
        raise ModelError(
            f"the device {device!r} is not available here",
            where="device",
            found=", ".join(k for k, there in known.items() if there),
            remedy="use device auto or cpu",
        )
    return torch.device(device)


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """float32 or bfloat16 by name; "auto" takes bfloat16 where the probe finds it at least 1.2 times faster."""
    if dtype == "auto":
        return torch.bfloat16 if bf16_is_faster(str(device)) else torch.float32
    if dtype not in DTYPES:
        raise ModelError(
            f"there is no precision {dtype!r}", where="dtype", remedy=suggest(dtype, ["auto", *DTYPES])
        )
    return DTYPES[dtype]


@functools.cache
def bf16_is_faster(device: str) -> bool:
    """Whether bfloat16 matmuls at the probe's shape beat float32 by 1.2 times on this device."""
    if device.startswith("mps"):
        return False
    return probe_gflops(device, "bfloat16") > 1.2 * probe_gflops(device, "float32")


def probe_gflops(device: str, dtype: str) -> float:
    """Sustained GFLOP/s of this process's matmuls, for MFU and for the dtype; measured once. Warns of a busy
    machine and of more threads than cores, if the device is the processor."""
    return _probed(device)[dtype]


def mfu(flops: float, seconds: float, device: torch.device, dtype: torch.dtype | str) -> float:
    """Share of the device's probed matmul speed that was used; 0 where nothing was measured."""
    name = str(dtype).removeprefix("torch.")
    return flops / seconds / (probe_gflops(str(device), name) * 1e9) if name in DTYPES and seconds > 0 else 0.0


@functools.cache
def _probed(device: str) -> dict[str, float]:
    """GFLOP/s by dtype: the best of many single products, the dtypes in turns, so that another process that takes
    the processor for a while slows neither alone."""
    tokens, width, wide = LARGE_PROBE if device.startswith("cuda") else PROBE
    started, before = time.perf_counter(), processor_use()
    pairs = {
        name: (
            torch.randn(tokens, width, device=device).to(dtype),
            torch.randn(width, wide, device=device).to(dtype),
        )
        for name, dtype in DTYPES.items()
    }
    best = dict.fromkeys(DTYPES, float("inf"))
    for _ in range(PROBES):
        for name, (a, b) in pairs.items():
            _synchronize(device)
            start = time.perf_counter()
            torch.mm(a, b)
            _synchronize(device)
            best[name] = min(best[name], time.perf_counter() - start)
    after = processor_use()
    if device == "cpu" and before and after:
        _warn_if_busy((after[0] - before[0] - after[1] + before[1]) / (time.perf_counter() - started))
    return {name: 2 * tokens * width * wide / seconds / 1e9 for name, seconds in best.items()}


def processor_use() -> tuple[float, float] | None:
    """Processor seconds that all processes, and this one, have spent on the cores that this one may use; None
    where the system does not tell (it does on Linux)."""
    try:
        lines = Path("/proc/stat").read_text(encoding="ascii").splitlines()
        ticks = {line.split()[0]: line.split()[1:] for line in lines if line.startswith("cpu")}
        spent = [[int(n) for n in ticks[f"cpu{core}"]] for core in os.sched_getaffinity(0)]
        # user, nice, system, idle, waiting, interrupts (2), taken by the host
        busy = sum(sum(fields[:3]) + sum(fields[5:8]) for fields in spent)
        return busy / os.sysconf("SC_CLK_TCK"), time.process_time()
    except (OSError, ValueError, KeyError, AttributeError):
        return None


def cores() -> float:
    """Cores that this process may use: those it is bound to, or fewer where its container has a share of time."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return min(bound, int(quota) / int(period))
    return bound


def _warn_if_busy(others: float) -> None:
    """Say it where other processes use the processor, or where torch has more threads than cores are free."""
    mine, threads = cores(), torch.get_num_threads()
    free = max(1, int(mine - others + 0.5))
    found = []
    if others > BUSY:
        found.append(
            f"other processes use {others:.1f} of the {mine:g} cores that this one may use: it will be slower, "
            "and timings unsteady; end them, or wait for them"
        )
    if threads > free:
        found.append(
            f"torch runs {threads} threads where about {free} {'core is' if free == 1 else 'cores are'} free, and "
            f"the slowest holds up all others; set OMP_NUM_THREADS={free}"
        )
    if found:
        warnings.warn("; ".join(found), RuntimeWarning, stacklevel=2)


def _synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    elif device.startswith("mps"):
        torch.mps.synchronize()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that the device (or the process) ran out of memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    short = ("out of memory", "can't allocate memory", "can't start new thread")
    return isinstance(error, RuntimeError) and any(words in text for words in short)


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be taken on a device (None: nobody knows). On a processor: what the system has left,
    swap included, or less where this process or its container is limited."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    try:
        import psutil
    except ImportError:
        return None
    limits = [psutil.virtual_memory().available + psutil.swap_memory().free]
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            limits.append(limit - psutil.Process().memory_info().vms)
    with contextlib.suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        limit, taken = (
            int((group / name).read_text(encoding="ascii")) for name in ("memory.max", "memory.current")
        )
        kept = dict(line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
        # Files that were read are given back first.
        limits.append(limit - taken + int(kept.get("inactive_file", 0)) + int(kept.get("active_file", 0)))
    return max(0, min(limits))


def halve_on_oom(run: Callable[[int], T], size: int, warn: Callable[[str], None]) -> tuple[T, int]:
    """`run(size)`, halving `size` each time memory runs out; returns the result and the size that worked.

    Each halving is reported through `warn`. At size 1 the error is raised as a ModelError.
    """
    while True:
        try:
            return run(size), size
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if size <= 1:
                raise ModelError(
                    "a single row does not fit into the device's memory",
                    found=str(error).splitlines()[0] if str(error) else "out of memory",
                    remedy="shorten max_length, use LoRA, or a device with more memory",
                ) from None
        # Outside the except block: the exception holds the frames whose tensors must be freed first.
        size = size // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        warn(f"out of memory: the micro-batch is halved to {size}")
