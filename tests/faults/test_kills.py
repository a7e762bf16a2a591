"""SIGKILL at drawn moments of a run: nothing complete is lost, nothing partial is loaded, and the end is the same.

The moments are the writes of an undisturbed run, by phase: every phase has its turn. A child dies right before
such a write, or up to a few hundredths of a second after it, in the middle of whatever it does then.
"""

import random
import signal
from collections import Counter

from toy.fault_bed import complete, difference, outcome
from toy.fault_child import Fault
from tutelage.runs.ledger import Ledger

PHASES = (
    *("data stages", "ledger", "checkpoints", "results and markers", "report", "kept shards", "exports"),
    *("models", "kept copies", "locks and notes"),
)
COMPARED_EVERY = 5  # a comparison takes twice as long as the same training alone


def test_sigkill_at_drawn_moments(bed, undisturbed, pytestconfig, record_property):
    kills, seed = pytestconfig.getoption("--kills"), pytestconfig.getoption("--fault-seed")
    draw = random.Random(seed)
    met: Counter[str] = Counter()
    turn = 0
    while met.total() < kills:
        # The short form leaves comparisons to the long one.
        recipe = "compared" if kills >= 20 and turn % COMPARED_EVERY == COMPARED_EVERY - 1 else "plain"
        _, moments, expected = undisturbed(recipe)
        # A comparison leaves out the step that writes a file.
        phases = [phase for phase in PHASES if any(moment[0] == phase for moment in moments)]
        phase = phases[turn % len(phases)]
        again = draw.random() < 0.5
        faults = (
            [_drawn(draw, phase, moments), _drawn(draw, draw.choice(phases), moments)]
            if turn % 2
            else [_drawn(draw, phase, moments)]
        )
        turn += 1
        workspace = bed.workspace()
        for fault in faults:
            ended = bed.play(workspace, *_go_on(bed, workspace, recipe, again), fault=fault)
            killed = ended.code == -signal.SIGKILL
            assert killed or ended.code == 0, f"seed {seed}, {recipe}, {fault}: {ended.err}"
            met[fault.phase] += killed
            whole = _completed(ended.moments, killed)
            keys, steps = complete(workspace)
            assert whole["artifacts"] <= keys, f"seed {seed}, {recipe}, {fault}: a complete artifact was lost"
            for key, step in whole["checkpoints"].items():
                assert key in keys or steps.get(key, 0) >= step, f"seed {seed}, {recipe}, {fault}: {key}"
        ended = bed.play(workspace, *_go_on(bed, workspace, recipe, again))
        assert ended.code == 0, f"seed {seed}, {recipe}, {faults}: {ended.err}"
        redone = {step["key"] for step in Ledger(workspace).run()["steps"] if not step["cached"]}
        assert not redone & keys, f"seed {seed}, {recipe}, {faults}: a complete step was made again"
        changed = difference(outcome(workspace), expected)
        assert not changed, f"seed {seed}, {recipe}, {faults}: {changed[:5]}"
        assert not list((workspace / ".tutelage" / "store" / "tmp").iterdir()), "leftovers of the dead"
    for phase in PHASES:
        if met[phase]:
            record_property(phase, met[phase])


def _drawn(draw, phase, moments):
    count = sum(moment[0] == phase for moment in moments)
    delay = draw.choice((0.0, draw.uniform(0, 0.05)))
    return Fault(phase, draw.randrange(count), kill=signal.SIGKILL, delay=delay)


def _go_on(bed, workspace, recipe, again):
    """Commands that go on with what is there: `resume` where a run is recorded, or `run` once more."""
    recorded = Ledger(workspace).file.exists() and bool(Ledger(workspace).runs())
    return (["resume"] if recorded and not again else bed.run(recipe)), ["report"]


def _completed(moments, killed):
    """The artifacts and checkpoints that were in their place before the last thing that was seen."""
    artifacts, checkpoints = set(), {}
    for phase, operation, paths in moments[: len(moments) - killed]:
        source, _, target = paths.partition(" ")
        parts = target.split("/")
        if operation != "rename" or not target:
            continue
        if source.startswith(".tutelage/store/tmp/") and len(parts) == 4:
            artifacts.add(parts[-1])
        elif phase == "checkpoints" and parts[-1].startswith("step-"):
            checkpoints[parts[2]] = int(parts[-1][5:])
    return {"artifacts": artifacts, "checkpoints": checkpoints}
