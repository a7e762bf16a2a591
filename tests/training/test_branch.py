"""Branching a stable run into a decayed copy."""

import pytest

from toy.training_bed import Stop, dataset, model, same, stop_at, weights
from tutelage.core.errors import ConfigError, StoreError
from tutelage.core.records import Budget
from tutelage.training import _checkpoint as checkpoints
from tutelage.training.fit import Fit

MUTATIONS = [
    ("src/tutelage/training/_branch.py", "decay=more, final=final", "decay=more / 2, final=final"),
    ("src/tutelage/training/_branch.py", "== 1.0:", "!= 0.0:"),
    ("src/tutelage/training/_branch.py", '"evaluated": 0, ', ""),
    ("src/tutelage/training/_branch.py", "budget=Budget(**{unit: seen + more})", "budget=Budget(**{unit: more})"),
]
OPTIONS = {
    "learning_rate": 1e-2,
    "step_tokens": 100,
    "micro_tokens": 64,
    "max_length": 128,
    "checkpoint_seconds": 0,
}


def method(schedule="constant", budget=None, **fields):
    parts = {"use": f"training.schedules.{schedule}", "warmup": 0}
    return Fit(**{**OPTIONS, "schedule": {**parts, **fields}, "budget": budget or Budget(tokens=2000)})


def stable_run(folder, step=4, **options):
    """A run killed after `step` steps; its newest checkpoint and how many tokens it had seen."""
    with pytest.raises(Stop):
        method(**options).train(model(), dataset(), checkpoint_dir=folder, progress=False, on_event=stop_at(step))
    found = checkpoints.newest(folder)
    return found, checkpoints.load(found)["counters"]


@pytest.mark.parametrize("shape", ["sqrt", "linear"])
def test_a_branch_is_the_run_that_was_planned_so(tmp_path, shape):
    checkpoint, counters = stable_run(tmp_path / "stable")
    before = {p.name: p.read_bytes() for p in checkpoint.iterdir()}
    branch, record = method().branch_decay(
        model(), dataset(), checkpoint, tmp_path / "branch", Budget(tokens=300), shape=shape, final=0.1
    )
    total = counters["tokens"] + 300
    planned = method("wsd", Budget(tokens=total), decay=300, shape=shape, final=0.1)
    straight, whole = planned.train(model(), dataset(), progress=False)
    assert same(weights(branch), weights(straight))
    assert record.tokens == whole.tokens == total and record.learning_rates == whole.learning_rates
    assert record.learning_rates[counters["step"] - 1] == 1e-2 > record.learning_rates[-1] > 1e-3
    assert {p.name: p.read_bytes() for p in checkpoint.iterdir()} == before
    # The branch has a folder of its own: again, it is done; longer, another branch of the same checkpoint.
    _, again = method().branch_decay(
        model(), dataset(), checkpoint, tmp_path / "branch", Budget(tokens=300), shape=shape, final=0.1
    )
    assert again.steps == record.steps and again.resumed_at == record.steps
    _, longer = method().branch_decay(model(), dataset(), checkpoint, tmp_path / "longer", Budget(tokens=500))
    assert longer.tokens == counters["tokens"] + 500


def test_the_stable_run_goes_on_as_if_nothing_had_been(tmp_path):
    checkpoint, _ = stable_run(tmp_path / "stable")
    method().branch_decay(model(), dataset(), checkpoint, tmp_path / "branch", Budget(tokens=200))
    one, _ = method().train(model(), dataset(), checkpoint_dir=tmp_path / "stable", progress=False)
    two, _ = method().train(model(), dataset(), progress=False)
    assert same(weights(one), weights(two))


def test_rows_and_measurements(tmp_path):
    rows = Budget(rows=30)
    checkpoint, counters = stable_run(tmp_path / "stable", budget=rows)
    state = checkpoints.load(checkpoint)
    checkpoints.save(tmp_path / "other", counters["step"], {**state, "counters": {**counters, "evaluated": 1}})
    (tmp_path / "other" / "consumed.jsonl").write_bytes((tmp_path / "stable" / "consumed.jsonl").read_bytes())
    fields = method(budget=rows).model_dump()
    kept = Fit(**{**fields, "keep_checkpoints": (1.0,)})
    _, record = kept.branch_decay(
        model(), dataset(), checkpoints.newest(tmp_path / "other"), tmp_path / "branch", Budget(rows=5)
    )
    assert record.rows == counters["rows"] + 5 and list(record.kept) == ["1"]
    assert checkpoints.load(checkpoints.newest(tmp_path / "branch"))["counters"]["evaluated"] == 0


def test_bad_input(tmp_path):
    checkpoint, _ = stable_run(tmp_path / "stable")
    where = (model(), dataset(), checkpoint)
    with pytest.raises(ConfigError, match="unit of the run"):
        method().branch_decay(*where, tmp_path / "b", Budget(rows=3))
    with pytest.raises(ConfigError, match="folder of its own"):
        method().branch_decay(*where, tmp_path / "stable", Budget(tokens=100))
    for schedule, fields in (("cosine", {}), ("wsd", {"decay": 1900}), ("wsd", {"warmup": 1000})):
        with pytest.raises(ConfigError, match="stable phase only"):
            method(schedule, **fields).branch_decay(*where, tmp_path / "b", Budget(tokens=100))
    method("wsd").branch_decay(*where, tmp_path / "fine", Budget(tokens=100))
    with pytest.raises(StoreError, match="not whole"):
        method().branch_decay(model(), dataset(), tmp_path / "none", tmp_path / "b", Budget(tokens=100))
    whole = Fit(**{**method().model_dump(), "budget": None})
    _, record = whole.branch_decay(*where, tmp_path / "rows", Budget(rows=3))
    assert record.rows == checkpoints.load(checkpoint)["counters"]["rows"] + 3
