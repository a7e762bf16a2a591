"""Too little memory: training that cannot fit is refused beforehand with its figures; a process that gets no more
stops resumable, and the end is the same."""

import random
import signal
import sys
from collections import Counter

import pytest

from toy.fault_bed import complete, difference, outcome
from toy.fault_child import Fault
from toy.training_bed import dataset, model
from tutelage.core.discovery import build
from tutelage.core.errors import TrainingError
from tutelage.models import device
from tutelage.runs.ledger import Ledger
from tutelage.training import _estimate

MUTATIONS = [
    ("src/tutelage/training/fit.py", "        check_room(copy)\n", ""),
    (
        "src/tutelage/training/_estimate.py",
        "if free is not None and need > free:",
        "if free is not None and need > 9 * free:",
    ),
    ("src/tutelage/models/device.py", "limits.append(limit - psutil", "limits.append(limit + psutil"),
]

PHASES = ("checkpoints", "kept shards", "models", "data stages", "results and markers")


def test_training_that_cannot_fit_is_refused_with_its_figures(monkeypatch):
    """Weights in fp32: 4 bytes of gradient and 8 of moments each."""
    lm = model()
    need = 12 * lm.n_params
    step = build("training.fit", {"budget": {"tokens": 100}})
    monkeypatch.setattr(_estimate, "free_memory", lambda where: need - 1)
    with pytest.raises(TrainingError, match="more memory than there is") as error:
        step.train(lm, dataset(), {})
    assert f"{need / 2**30:.2f} GiB" in error.value.expected and "GiB free" in error.value.found
    assert "adapters.lora" in error.value.remedy
    monkeypatch.setattr(_estimate, "free_memory", lambda where: need)
    step.train(lm, dataset(), {})


@pytest.mark.skipif(sys.platform != "linux", reason="the address space of a process is limited on Linux")
def test_free_memory_is_what_the_process_may_still_take(bed):
    import resource

    import psutil
    import torch

    cpu = torch.device("cpu")
    machine = psutil.virtual_memory().total + psutil.swap_memory().total
    assert 0 < device.free_memory(cpu) <= machine
    before = resource.getrlimit(resource.RLIMIT_AS)
    taken = psutil.Process().memory_info().vms
    try:
        resource.setrlimit(resource.RLIMIT_AS, (taken + 2**28, before[1]))
        assert 2**27 < device.free_memory(cpu) <= 2**28 + 2**20
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.skipif(sys.platform != "linux", reason="the address space of a process is limited on Linux")
def test_a_process_that_gets_no_more_memory_stops_resumable(bed, undisturbed, pytestconfig, record_property):
    kills, seed = pytestconfig.getoption("--kills"), pytestconfig.getoption("--fault-seed")
    draw = random.Random(seed)
    _, moments, expected = undisturbed("plain")
    ends: Counter[str] = Counter()
    for turn in range(max(2, kills // 4)):
        phase = PHASES[turn % len(PHASES)]
        count = sum(moment[0] == phase for moment in moments)
        fault = Fault(phase, draw.randrange(count), memory=draw.choice((1, 2**18, 2**20, 2**22, 2**23)))
        workspace = bed.workspace()
        ended = bed.play(workspace, bed.run("plain"), fault=fault, limit=90, patient=False)
        # A library may abort where no memory comes (127 from the C library), or wait for a thread that could not
        # begin until somebody kills the process: as resumable as any kill.
        assert ended.code in (0, 2, 127) or ended.code < 0, ended.err
        if ended.code == 2:
            # SQLite says "disk I/O error" where it cannot map its file.
            assert "  do: " in ended.err and "defect" not in ended.err, ended.err
        ends[{0: "passed", 2: "told", -signal.SIGKILL: "hung"}.get(ended.code, "aborted")] += 1
        keys, _ = complete(workspace)
        recorded = Ledger(workspace).file.exists() and Ledger(workspace).runs()
        ended = bed.play(workspace, ["resume"] if recorded else bed.run("plain"), ["report"])
        assert ended.code == 0, f"seed {seed}, {fault}: {ended.err}"
        assert not keys & {step["key"] for step in Ledger(workspace).run()["steps"] if not step["cached"]}
        changed = difference(outcome(workspace), expected)
        assert not changed, f"seed {seed}, {fault}: {changed[:5]}"
    for how, count in ends.items():
        record_property(how, count)
