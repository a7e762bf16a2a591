"""Device, precision and memory: choices by probe and flag, halving on out of memory, and a thread-safe meter."""

import os
import sys
import threading
import time
import warnings

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


def test_mfu_is_the_share_of_the_probed_speed(monkeypatch):
    monkeypatch.setattr(device, "probe_gflops", lambda _d, dtype: {"float32": 100.0, "bfloat16": 400.0}[dtype])
    cpu = torch.device("cpu")
    assert device.mfu(50e9, 2.0, cpu, torch.float32) == pytest.approx(0.25)
    assert device.mfu(50e9, 2.0, cpu, torch.bfloat16) == pytest.approx(0.0625)
    assert device.mfu(50e9, 2.0, cpu, torch.float16) == device.mfu(50e9, 0.0, cpu, torch.float32) == 0.0


def probed(monkeypatch, use, cores=4.0, threads=4):
    """What the probe warns of when all processes and this one spent `use` processor seconds in its one second."""
    monkeypatch.setattr(device, "PROBES", 1)
    monkeypatch.setattr(device, "PROBE", (8, 8, 8))
    monkeypatch.setattr(device, "cores", lambda: cores)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    readings = iter([(100.0, 10.0), (100.0 + use[0], 10.0 + use[1])] if use else [None, None])
    monkeypatch.setattr(device, "processor_use", lambda: next(readings))
    clock = iter([0.0, 0.1, 0.2, 0.3, 0.4, 1.0])
    monkeypatch.setattr(device.time, "perf_counter", lambda: next(clock))
    device._probed.cache_clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        device.probe_gflops("cpu", "float32")
        device.probe_gflops("cpu", "bfloat16")
    device._probed.cache_clear()
    return [str(w.message) for w in caught if w.category is RuntimeWarning]


def test_a_busy_machine_is_named_once(monkeypatch):
    (said,) = probed(monkeypatch, (4.0, 2.75), threads=2)
    assert "other processes use 1.2 of the 4 cores" in said and "OMP_NUM_THREADS" not in said


@pytest.mark.parametrize("use", [(2.0, 1.95), None], ids=["quiet", "not told"])
def test_a_quiet_machine_and_an_untold_one_are_silent(monkeypatch, use):
    assert probed(monkeypatch, use) == []


def test_more_threads_than_free_cores_are_named_with_what_to_set(monkeypatch):
    (said,) = probed(monkeypatch, (4.0, 2.0))
    assert "4 threads where about 2 cores are free" in said and "OMP_NUM_THREADS=2" in said
    (said,) = probed(monkeypatch, (2.0, 2.0), cores=1.5)
    assert "other processes" not in said and "OMP_NUM_THREADS=2" in said


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_processor_use_grows_by_what_is_spent():
    before = device.processor_use()
    until = time.process_time() + 0.3
    while time.process_time() < until:
        pass
    after = device.processor_use()
    own = after[1] - before[1]
    # The system counts in hundredths of a second, each core for itself.
    assert 0.3 <= own < 0.5 and after[0] - before[0] >= own - 0.05
    assert 0 < device.cores() <= os.cpu_count()


def test_a_system_that_does_not_tell(monkeypatch, tmp_path):
    monkeypatch.setattr(device, "Path", lambda _: tmp_path / "none")
    assert device.processor_use() is None and device.cores() >= 1


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
    assert is_out_of_memory(RuntimeError("can't start new thread")), "its stack finds no room"
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


MUTATIONS = [
    ("src/tutelage/models/device.py", "after[1] + before[1]", "after[1] - before[1]"),
    ("src/tutelage/models/device.py", "if others > BUSY", "if others > 2 * BUSY + 1.2"),
    ("src/tutelage/models/device.py", "int(mine - others + 0.5)", "int(mine + 0.5)"),
    ("src/tutelage/models/device.py", "sum(fields[:3]) + sum(fields[5:8])", "sum(fields[3:4])"),
    ("src/tutelage/models/device.py", "return flops / seconds / (probe", "return flops * seconds / (probe"),
]
