"""Device, precision and memory: choices by probe and flag, halving on out of memory, and a thread-safe meter."""

import threading

import pytest
import torch

from tutelage.core.errors import ModelError
from tutelage.core.meter import Meter
from tutelage.models import device
from tutelage.models.device import choose_device, choose_dtype, halve_on_oom, is_out_of_memory, probe_gflops


def test_devices_by_flag():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(ModelError, match="no device"):
        choose_device("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match="not available here"):
            choose_device("cuda:0")


@pytest.mark.parametrize(("half", "full", "expected"), [(300, 100, torch.bfloat16), (110, 100, torch.float32)])
def test_bfloat16_only_where_the_probe_says_so(monkeypatch, half, full, expected):
    device.bf16_is_faster.cache_clear()
    monkeypatch.setattr(device, "probe_gflops", lambda _d, dtype: half if dtype == "bfloat16" else full)
    assert choose_dtype("auto", torch.device("cpu")) == expected
    device.bf16_is_faster.cache_clear()
    assert choose_dtype("float32", torch.device("cpu")) == torch.float32


def test_probe_is_a_plausible_rate():
    assert 0.1 < probe_gflops("cpu", "float32") < 1e6


def test_halving_says_so_and_stops_at_one():
    tried, said = [], []

    def run(size):
        tried.append(size)
        if size > 2:
            raise torch.OutOfMemoryError("out of memory")
        return "done"

    assert halve_on_oom(run, 8, said.append) == ("done", 2)
    assert tried == [8, 4, 2] and len(said) == 2 and "4" in said[0]

    def never(_size):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    with pytest.raises(ModelError, match="single row"):
        halve_on_oom(never, 2, said.append)
    with pytest.raises(RuntimeError, match="other"):
        halve_on_oom(lambda _s: (_ for _ in ()).throw(RuntimeError("other")), 2, said.append)
    assert is_out_of_memory(MemoryError()) and not is_out_of_memory(ValueError("out of memory"))


def test_meter_sums_across_threads():
    meter = Meter()
    threads = [
        threading.Thread(target=lambda: [meter.add(calls=1, forward_flops=2.0, peak_bytes=5) for _ in range(200)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    before = meter.cost
    assert (before.calls, before.forward_flops, before.peak_bytes) == (800, 1600.0, 5)
    meter.add(calls=3)
    assert meter.since(before).calls == 3
