"""Where a model runs and in which precision: what is there, what a timed probe says, what the memory allows."""

import functools
import os
import time
from collections.abc import Callable
from typing import TypeVar

import torch

from tutelage.core.errors import ModelError, suggest

# oneDNN keeps the code of the last 1024 matrix products, one per shape, about half a megabyte each; packs hardly
# ever have the same shape twice, so that only those of the last few are worth keeping. Read at its first product.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")

T = TypeVar("T")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# The shapes of a small model's hottest matmuls: tokens x width times width x 3 widths.
PROBE = (1024, 576, 1536)
# About half a second on two cores.
PROBES = 30


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
    """Sustained GFLOP/s of this process's matmuls, for MFU and for the dtype; measured once."""
    return _probed(device)[dtype]


@functools.cache
def _probed(device: str) -> dict[str, float]:
    """GFLOP/s by dtype: the best of many single products, the dtypes in turns, so that another process that takes
    the processor for a while slows neither alone."""
    tokens, width, wide = PROBE
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
    return {name: 2 * tokens * width * wide / seconds / 1e9 for name, seconds in best.items()}


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
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


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
