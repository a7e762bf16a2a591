"""Two processes on one workspace: one is refused by name, or both end well; never a mixed store."""

import json
import time

import pytest

from toy.fault_bed import complete, difference, outcome
from tutelage.core.errors import StoreError
from tutelage.core.store import Store
from tutelage.runs.execute import idle
from tutelage.runs.ledger import Ledger

MUTATIONS = [
    ("src/tutelage/runs/execute.py", 'f"{name}.lock", 0))', 'f"{name}{os.getpid()}.lock", 0))'),
    (
        "src/tutelage/cli/gc.py",
        "with idle(folder) if (folder / STATE).is_dir() else nullcontext():",
        "with nullcontext():",
    ),
    ("src/tutelage/cli/gc.py", "if not ledger.file.exists() and", "if False and"),
]


def until(child, condition, limit=60.0):
    end = time.monotonic() + limit
    while not condition() and child.process.is_alive() and time.monotonic() < end:
        time.sleep(0.002)


def test_the_same_recipe_twice_at_once(bed, undisturbed):
    """The second is refused while the first runs, and finds everything done afterwards."""
    workspace = bed.workspace()
    first = bed.start(workspace, bed.run("plain"), ["report"])
    until(first, lambda: (workspace / ".tutelage" / "store").exists())
    second = bed.play(workspace, bed.run("plain"))
    assert second.code == 2 and "a second process on the same run" in second.err
    assert f"process {first.process.pid}" in second.err and "use another --workspace" in second.err
    assert first.wait().code == 0
    assert not difference(outcome(workspace), undisturbed("plain")[2])
    assert bed.play(workspace, bed.run("plain")).code == 0
    assert all(step["cached"] for step in Ledger(workspace).run()["steps"])


def test_two_recipes_that_share_their_steps_at_once(bed, undisturbed):
    """Each step is made by one of them and taken over by the other; both end as they would have alone."""
    workspace = bed.workspace()
    children = [bed.start(workspace, bed.run(name)) for name in ("plain", "compared")]
    for child in children:
        ended = child.wait()
        assert ended.code == 0, ended.err
    complete(workspace)
    runs = {run["name"]: run["run_id"] for run in Ledger(workspace).runs()}
    assert len(Ledger(workspace).runs()) == 2 and list(runs) == ["tiny"]
    made: dict[str, list[bool]] = {}
    for run in Ledger(workspace).runs():
        for step in Ledger(workspace).run(run["run_id"])["steps"]:
            made.setdefault(step["key"], []).append(step["cached"])
    assert any(len(times) > 1 for times in made.values())
    for name in ("plain", "compared"):
        # All is in the store: this only gives each recipe the newest run in its turn.
        assert bed.play(workspace, bed.run(name), ["report"]).code == 0
        assert all(step["cached"] for step in Ledger(workspace).run()["steps"])
        # Only one of them writes a file.
        alone = {**undisturbed(name)[2], "exported": {}}
        assert not difference({**outcome(workspace), "exported": {}}, alone), name


def test_clearing_up_beside_a_run_is_refused(bed, undisturbed):
    workspace = bed.workspace()
    running = bed.start(workspace, bed.run("plain"))
    until(running, lambda: (workspace / ".tutelage" / "ledger.sqlite").exists())
    with pytest.raises(StoreError, match="a run is under way") as error, idle(workspace):
        pass
    assert str(running.process.pid) in error.value.found
    refused = bed.play(workspace, ["gc", "--keep-runs", "0"])
    assert refused.code == 2 and "a run is under way" in refused.err, refused.err
    assert running.wait().code == 0
    assert bed.play(workspace, ["report"]).code == 0
    assert not difference(outcome(workspace), undisturbed("plain")[2])


def test_clearing_up_after_an_interrupted_resume_keeps_what_is_needed(bed, undisturbed):
    """A resumed run lists its steps anew, one by one; those it has not come to yet are needed all the same."""
    workspace = bed.copy(undisturbed("plain")[0])
    before, _ = complete(workspace)
    entry = Ledger(workspace).run()
    Ledger(workspace).start(entry["run_id"], entry["recipe"], entry["place"], entry["options"], {})
    cleared = bed.play(workspace, ["gc", "--json"])
    assert cleared.code == 0 and json.loads(cleared.out)["artifacts"] == 0
    assert complete(workspace)[0] == before
    assert bed.play(workspace, ["resume"]).code == 0
    assert all(step["cached"] for step in Ledger(workspace).run()["steps"])


def test_clearing_up_without_a_ledger_is_refused(bed, undisturbed):
    """A ledger that was moved aside, being damaged, must not cost what it told of."""
    workspace = bed.copy(undisturbed("plain")[0])
    before, _ = complete(workspace)
    for file in (workspace / ".tutelage").glob("ledger.sqlite*"):
        file.rename(file.with_name("aside-" + file.name))
    refused = bed.play(workspace, ["gc"])
    assert refused.code == 2 and "no ledger" in refused.err
    assert set(Store(workspace / ".tutelage" / "store").keys()) == before
    assert bed.play(workspace, bed.run("plain")).code == 0
    assert all(step["cached"] for step in Ledger(workspace).run()["steps"]), "the store tells it all again"
    assert bed.play(workspace, ["gc"]).code == 0
    assert complete(workspace)[0] == before
