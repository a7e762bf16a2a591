"""Ctrl-C and SIGTERM at drawn moments of a run: exit code 130, the way to go on is told, the end is the same."""

import random
import signal

import pytest

from toy.fault_bed import complete, difference, outcome
from toy.fault_child import Fault
from tutelage.runs.ledger import Ledger

MUTATIONS = [
    ("src/tutelage/cli/main.py", "signal.raise_signal(signal.SIGINT)", "sys.exit(1)"),
    (
        "src/tutelage/runs/execute.py",
        'Interrupted("the run was interrupted"), "interrupted")',
        'Interrupted(""), "x")',
    ),
]
PHASES = ("data stages", "checkpoints", "results and markers", "ledger", "models", "kept shards", "exports")


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_at_drawn_moments(bed, undisturbed, pytestconfig, record_property, sent):
    kills, seed = pytestconfig.getoption("--kills"), pytestconfig.getoption("--fault-seed")
    draw = random.Random(seed + sent)
    _, moments, expected = undisturbed("plain")
    stopped = 0
    for turn in range(max(1, kills // 5)):
        phase = PHASES[(turn + sent) % len(PHASES)]
        count = sum(moment[0] == phase for moment in moments)
        # Never from within a statement's trace, where SQLite would swallow it.
        least = 0.001 if phase == "ledger" else 0.0
        delay = draw.choice((least, draw.uniform(least, 0.05))) if turn else least
        fault = Fault(phase, draw.randrange(count), kill=int(sent), delay=delay)
        workspace = bed.workspace()
        ended = bed.play(workspace, bed.run("plain"), fault=fault)
        recorded = Ledger(workspace).runs() if Ledger(workspace).file.exists() else []
        if ended.code != 0:
            assert ended.code == 130, f"seed {seed}, {fault}: {ended.code} {ended.err}"
            assert "interrupted" in ended.err and "defect" not in ended.err, ended.err
            stopped += 1
        if ended.code != 0 and recorded and recorded[0]["status"] != "running":
            assert recorded[0]["status"] == "interrupted"
            assert f"tutelage resume {recorded[0]['run_id']}" in ended.err
        keys, _ = complete(workspace)
        tmp = workspace / ".tutelage" / "store" / "tmp"
        assert not tmp.exists() or not list(tmp.iterdir()), "who is asked to stop leaves nothing half made"
        ended = bed.play(workspace, ["resume"] if recorded else bed.run("plain"), ["report"])
        assert ended.code == 0, f"seed {seed}, {fault}: {ended.err}"
        assert not keys & {step["key"] for step in Ledger(workspace).run()["steps"] if not step["cached"]}
        changed = difference(outcome(workspace), expected)
        assert not changed, f"seed {seed}, {fault}: {changed[:5]}"
    # One moment alone may be the run's last.
    assert stopped or kills < 10
    record_property(sent.name, stopped)
