"""Plans: what is in the store, what will run once, what it will take."""

import pytest

from tutelage.runs import Ledger, plan, prepare, resume

MUTATIONS = [
    (
        "src/tutelage/runs/execute.py",
        'work = _before_training if options.get("before_training") else _work',
        "work = _work",
    ),
]
ARMS = {"random": {}, "more": {"trained": {"rate": 2.0}}}


def by_name(made):
    return {step.name: step for step in made.steps}


def test_nothing_known_then_everything(bed):
    before = by_name(plan(bed.recipe(), bed.folder))
    assert before["pool"].cached is False and before["chosen"].cached is None
    assert before["trained"].seconds is None and before["trained"].basis == "unknown"
    bed.run()
    after = by_name(plan(bed.recipe(), bed.folder))
    assert all(step.cached for step in after.values())
    assert after["trained"].rows is None and after["chosen"].rows == 20


def test_planning_computes_no_step(bed):
    plan(bed.recipe(), bed.folder)
    assert not Ledger(bed.folder).file.exists()
    assert not (bed.folder / ".tutelage" / "store" / "tmp").exists()


def test_a_change_is_seen_where_it_begins(bed):
    bed.run()
    made = by_name(plan(bed.recipe(models={"base": {"load": "1.0"}}), bed.folder))
    assert made["chosen"].cached is True
    assert made["trained"].cached is False
    assert made["result"].cached is None


def test_history_predicts_by_the_unit_of_the_budget(bed, monkeypatch):
    bed.run()
    ledger = Ledger(bed.folder)
    of = ledger.run()["steps"][2]["facts"]["of"]
    cost = {"seconds": 20.0, "trained_tokens": 200, "forward_flops": 1200.0, "peak_bytes": 7}
    history = [
        {"as_if": cost, "rows_in": 20, "facts": {"of": None}},
        {"as_if": cost, "rows_in": 20, "facts": {"of": of}},
    ]
    monkeypatch.setattr(Ledger, "history", lambda self, method: history)
    steps = bed.plain()["steps"]
    steps[1]["budget"] = {"tokens": 1000}
    assert by_name(plan(bed.recipe(steps=steps), ledger.workspace))["trained"].seconds == pytest.approx(100.0)
    steps[1]["budget"] = {"flops": 2400}
    made = plan(bed.recipe(steps=steps), ledger.workspace)
    assert by_name(made)["trained"].seconds == pytest.approx(40.0)
    assert by_name(made)["trained"].peak_bytes == 7 and made.peak_bytes == 7
    steps[0]["budget"] = {"rows": 30}
    assert by_name(plan(bed.recipe(steps=steps), ledger.workspace))["chosen"].seconds == pytest.approx(100.0)


def test_history_of_another_model_predicts_nothing(bed):
    bed.run()
    made = by_name(plan(bed.recipe(models={"base": {"load": "1.0"}}), bed.folder))
    assert made["trained"].seconds is None
    steps = bed.plain()["steps"]
    steps[1]["rate"] = 2.0
    assert by_name(plan(bed.recipe(steps=steps), bed.folder))["trained"].seconds is not None


def test_training_without_history_is_measured_when_its_inputs_are_there(bed, monkeypatch):
    from types import SimpleNamespace

    from toy.toy_methods.training.toy_fit import ToyFit

    seen = []

    def estimate(self, model, dataset):
        seen.append((model.skill, dataset.num_rows))
        return SimpleNamespace(seconds=12.5, tokens=200, flops=600.0, peak_bytes=34)

    monkeypatch.setattr(ToyFit, "estimate", estimate, raising=False)
    assert by_name(plan(bed.recipe(), bed.folder))["trained"].seconds is None
    assert seen == [], "its rows are not there yet"
    bed.run(bed.recipe(steps=bed.plain()["steps"][:1]))
    step = by_name(plan(bed.recipe(), bed.folder))["trained"]
    assert (step.seconds, step.peak_bytes, seen) == (12.5, 34, [(0.0, 20)])


def test_steps_shared_by_arms_and_seeds_are_counted_once(bed):
    recipe = bed.recipe(arms=ARMS, compare={"baseline": "random", "budget": {"flops": 600}, "seeds": [0, 1]})
    made = plan(recipe, bed.folder)
    chosen = [step for step in made.steps if step.name == "chosen"]
    assert [(step.arm, step.seed, step.cached) for step in chosen] == [
        ("random", 0, None),
        ("random", 1, None),
        ("more", 0, True),
        ("more", 1, True),
    ], "one draw per seed, shared by the arms"
    trained = [step for step in made.steps if step.name == "trained"]
    assert [step.cached for step in trained] == [None] * 4
    events = []
    bed.run(recipe, events)
    ran = [e["name"] for e in events if e["event"] == "done" and not e["cached"]]
    foreseen = [step.name for step in made.steps if not step.cached]
    assert sorted(ran) == sorted(foreseen), "the plan is what then happens"


def test_the_plan_as_json(bed):
    plain = plan(bed.recipe(), bed.folder).to_json()
    assert plain["recipe"] == "bed" and plain["unknown"] == 5
    assert [step["name"] for step in plain["steps"]] == ["pool", "test", "chosen", "trained", "result"]


def test_limit_is_planned_too(bed):
    bed.run(limit=5)
    assert all(step.cached for step in plan(bed.recipe(), bed.folder, limit=5).steps)
    assert not any(step.cached for step in plan(bed.recipe(), bed.folder).steps)


def test_prepare_runs_what_no_training_is_behind_and_the_plan_foresees_the_rest(bed, monkeypatch):
    from types import SimpleNamespace

    from toy.toy_methods.training.toy_fit import ToyFit

    probes = []

    def estimate(self, model, dataset):
        probes.append(dataset.num_rows)
        return SimpleNamespace(seconds=10.0, tokens=100, flops=600.0, peak_bytes=34)

    monkeypatch.setattr(ToyFit, "estimate", estimate, raising=False)
    steps = bed.plain()["steps"]
    steps.append({"name": "dev_result", "use": "evaluation.toy_task", "from": "dev", "model": "trained"})
    tune = {"step": "trained", "field": "rate", "grid": [1.0, 3.0], "on": "dev_result", "budget": {"tokens": 50}}
    compared = {"baseline": "random", "metric_step": "result", "budget": {"flops": 600}, "seeds": [0, 1]}
    arms = {"base": {"result": {"model": "base"}}, **ARMS}
    sources = {name: {"path": f"{name}.jsonl"} for name in ("pool", "test", "dev")}
    recipe = bed.recipe(sources=sources, steps=steps, arms=arms, compare={**compared, "tune": tune})
    prepared = prepare(recipe, bed.folder)
    assert prepared.status == "prepared"
    ran = Ledger(bed.folder).run(prepared.run_id)["steps"]
    assert {step["step"] for step in ran if not step["cached"]} == {"pool", "test", "chosen", "result"}
    again = resume(prepared.run_id, bed.folder)
    assert again.status == "prepared" and {"trained"}.isdisjoint(
        step["step"] for step in Ledger(bed.folder).run(again.run_id)["steps"]
    ), "what was only to be prepared is not run"
    made = plan(recipe, bed.folder)
    assert all(step.cached for step in made.steps if step.name == "chosen")
    assert probes == [20], "one measurement serves all runs of the method"
    # 600 FLOPs take 10 s; a point of the search has 50 of the 100 tokens. `more` writes its rate: no search.
    trained = [(s.arm, s.seed, s.seconds) for s in made.steps if s.name == "trained" and not s.cached]
    assert trained == [
        ("random (search)", 0, 5.0),
        ("random (search)", 0, 5.0),
        *((arm, seed, 10.0) for arm in ("random", "more") for seed in (0, 1)),
    ]
    assert {s.peak_bytes for s in made.steps if s.name == "trained" and not s.cached} == {34}


def test_the_same_rows_say_more_than_as_many_others(bed, monkeypatch):
    bed.run()
    steps = Ledger(bed.folder).run()["steps"]
    of, test = steps[2]["facts"]["of"], next(s["key"] for s in steps if s["step"] == "test")
    history = [
        {"as_if": {"seconds": 9.0}, "rows_in": 40, "facts": {"of": of, "needs": ["others"]}},
        {"as_if": {"seconds": 2.0}, "rows_in": 40, "facts": {"of": of, "needs": [test, "a model"]}},
    ]
    monkeypatch.setattr(Ledger, "history", lambda self, method: history)
    changed = bed.plain()["steps"]
    changed[1]["rate"] = 2.0
    assert by_name(plan(bed.recipe(steps=changed), bed.folder))["result"].seconds == pytest.approx(2.0)
