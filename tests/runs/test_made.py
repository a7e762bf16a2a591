"""`run:RECIPE/STEP@ARM`: rows and models that an earlier run of the workspace made, as sources and models."""

import pytest

from tutelage.core.errors import InputError, StoreError
from tutelage.runs import Recipe, made, paths, run
from tutelage.runs.ledger import Ledger
from tutelage.runs.paths import source_path

MUTATIONS = [
    ("src/tutelage/runs/made.py", 'run["name"] == name and run["status"] in FINISHED', 'run["name"] == name'),
    ("src/tutelage/runs/made.py", "found[0]", "found[-1]"),
    ("src/tutelage/runs/made.py", 'if entry["arm"] == arm]', "]"),
    ("src/tutelage/runs/made.py", "float(at) == float(share)", "float(at) >= float(share)"),
    ("src/tutelage/runs/outside.py", 'digest(["run", made.hash, limit]), made', 'digest(["run", limit]), made'),
]
ARMS = {
    "arms": {
        "random": {},
        "top": {"chosen": {"use": "data.select.top_k", "column": "worth", "budget": {"tokens": 200}}},
    },
    "compare": {"baseline": "random", "at": "none", "seeds": [0, 1, 2]},
}


def audit(bed, *, name="audit", path="run:bed/chosen", steps=None):
    steps = steps or [{"name": "some", "use": "data.select.random", "from": "rows", "budget": {"rows": 5}}]
    return Recipe(name=name, sources={"rows": {"path": path}}, steps=steps).placed(bed.folder)


def test_rows_of_an_earlier_run_are_a_source(bed):
    first = bed.run()
    found = run(audit(bed), bed.folder)
    chosen = first.load("chosen")
    assert set(found.load("some").ids()) <= set(chosen.ids())
    assert found.load("some").num_rows == 5


def test_the_newest_finished_run_counts_and_its_rows_are_the_cache_key(bed):
    bed.run()
    first = run(audit(bed), bed.folder).load("some").ids()
    changed = [{**step, "seed": 9} if step["name"] == "chosen" else step for step in bed.plain()["steps"]]
    second = bed.run(bed.recipe(steps=changed))
    again = run(audit(bed), bed.folder).load("some").ids()
    assert again != first
    assert set(again) <= set(second.load("chosen").ids())
    # A run that did not finish is none; its id still names it.
    Ledger(bed.folder).finish(second.run_id, "failed")
    assert run(audit(bed), bed.folder).load("some").ids() == first
    assert source_path(audit(bed, path=f"run:{second.run_id}/chosen"), bed.folder, "rows").is_dir()


def test_an_arm_is_named(bed):
    bed.run(bed.recipe(**ARMS))
    rows = {arm: source_path(audit(bed, path=f"run:bed/chosen@{arm}"), bed.folder, "rows") for arm in ARMS["arms"]}
    assert rows["random"] != rows["top"]
    with pytest.raises(InputError, match="several arms"):
        run(audit(bed), bed.folder)
    with pytest.raises(InputError, match="in this arm"):
        run(audit(bed, path="run:bed/chosen@best"), bed.folder)


def test_what_is_not_there_is_named(bed):
    with pytest.raises(InputError, match="no run of 'bed' has finished") as caught:
        run(audit(bed), bed.folder)
    assert "--workspace" in str(caught.value)
    bed.run()
    with pytest.raises(InputError, match="made such a dataset") as caught:
        run(audit(bed, path="run:bed/chose"), bed.folder)
    assert "chosen" in str(caught.value)


def test_a_model_and_its_kept_checkpoints(bed, monkeypatch):
    bed.run()
    finished = made.made_path("run:bed/trained", bed.folder, "model")
    assert finished.is_dir()
    kept = bed.folder / "half"
    kept.mkdir()
    folders = {"0.5": str(kept), "1.0": str(bed.folder / "gone")}
    monkeypatch.setattr(made.payload, "load_fit", lambda folder: {"kept": folders})
    assert made.made_path("run:bed/trained:.5", bed.folder, "model") == kept
    (kept / "COMPLETE").write_text('{"weights": "a hash"}')
    (kept / "weights").write_text("others")
    with pytest.raises(StoreError, match="kept copy of a model is damaged"):
        made.made_path("run:bed/trained:.5", bed.folder, "model")
    (kept / "COMPLETE").unlink()
    for share, found in (("0.25", "0.5"), ("1", "cleared away")):
        with pytest.raises(InputError, match="not kept") as caught:
            made.made_path(f"run:bed/trained:{share}", bed.folder, "model")
        assert found in str(caught.value)
    assert paths.of_a_run("run:bed/trained")
    assert not paths.of_a_run("runs/bed")
