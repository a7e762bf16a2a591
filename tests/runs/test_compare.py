"""Comparisons: equal total cost, declared before, nothing concluded where nothing can be."""

import json
import re
import sqlite3
from typing import ClassVar

import pytest

from toy.toy_methods.training import toy_fit
from tutelage.core.errors import ConfigError, InputError, Interrupted, TrainingError
from tutelage.runs import Ledger, plan, resume, run

SCORED = {"name": "scored", "use": "signals.toy_score", "from": "pool"}
CHOSEN = {
    "name": "chosen",
    "use": "data.select.top_k",
    "from": "scored",
    "column": "toy_score",
    "direction": "higher",
    "budget": {"tokens": 400},
}
TRAINED = {
    "name": "trained",
    "use": "training.toy_fit",
    "model": "base",
    "from": "chosen",
    "budget": {"tokens": 200},
}
RESULT = {"name": "result", "use": "evaluation.toy_task", "from": "test", "model": "trained"}
DEV = {"name": "dev_result", "use": "evaluation.toy_task", "from": "dev", "model": "trained"}
RANDOM = {"use": "data.select.random", "from": "pool", "budget": {"tokens": 400}}
ARMS = {
    "base": {"result": {"model": "base"}},
    "random": {"chosen": RANDOM},
    "good": {},
    "fake": {"scored": {"honest": False}},
}

MUTATIONS = [
    ("src/tutelage/runs/overlap.py", "if shared:", "if False:"),
    ("src/tutelage/runs/compare.py", "isinstance(error, InputError) and is_reference", "False"),
    ("src/tutelage/runs/compare.py", "ComparisonError, InputError) as", "ComparisonError) as"),
    ("src/tutelage/runs/compare.py", "if other := keys ^ first:", "if other := set():"),
]


def comparison(bed, *, arms=None, steps=None, scored=None, gates=(), events=None, workspace=None, **compare):
    settings = {"baseline": "random", "metric_step": "result", "budget": {"flops": 6000}, **compare}
    recipe = bed.recipe(
        steps=steps or [{**SCORED, **(scored or {})}, CHOSEN, TRAINED, RESULT],
        sources={name: {"path": f"{name}.jsonl"} for name in ("pool", "test", "dev")},
        arms=arms or ARMS,
        compare={key: value for key, value in settings.items() if value is not None},
        gates=list(gates),
    )
    return bed.run(recipe, events)


def pair(result, name, step="result"):
    return next(row for row in result.comparison["pairs"] if row["name"] == name and row["step"] == step)


def arm(result, name):
    return next(row for row in result.comparison["arms"] if row["name"] == name)


def flops(cost):
    return cost["forward_flops"] + cost["backward_flops"]


class TestEqualCost:
    def test_scoring_is_paid_out_of_training(self, bed):
        result = comparison(bed, scored={"flops_per_row": 20.0})
        for name in ("random", "good", "fake"):
            assert [flops(cost) for cost in arm(result, name)["cost"]] == pytest.approx([6000.0] * 3), name
        trained = {name: arm(result, name)["cost"][0]["trained_tokens"] for name in ("random", "good")}
        assert trained["random"] == 1000
        assert trained["good"] == pytest.approx((6000 - 100 * 20) / 6, abs=1)
        assert pair(result, "good - random")["cost"]["ratio"] == pytest.approx(1.0)

    def test_without_a_budget_the_baseline_as_written_is_the_measure(self, bed):
        result = comparison(bed, budget=None, scored={"flops_per_row": 5.0})
        assert result.comparison["budget"] == 1200.0
        assert flops(arm(result, "good")["cost"][0]) == pytest.approx(1200.0)
        assert arm(result, "good")["cost"][0]["trained_tokens"] == pytest.approx(700 / 6, abs=1)

    @pytest.mark.parametrize(
        ("at", "budget"), [("equal_tokens", {"tokens": 300}), ("equal_seconds", {"seconds": 5})]
    )
    def test_other_axes(self, bed, at, budget):
        arms = {"random": ARMS["random"], "good": {}}
        result = comparison(bed, arms=arms, at=at, budget=budget, seeds=[0])
        cost = pair(result, "good - random")["cost"]
        assert cost["axis"] == at.removeprefix("equal_")
        if at == "equal_tokens":
            assert arm(result, "good")["cost"][0]["trained_tokens"] == 300

    def test_at_none_keeps_written_budgets_and_says_so(self, bed):
        result = comparison(bed, at="none", budget=None, scored={"flops_per_row": 1e6})
        assert arm(result, "good")["cost"][0]["trained_tokens"] == 200
        assert pair(result, "good - random")["cost"] is None
        assert any("not made equal" in note for note in result.comparison["notes"])

    def test_an_arm_that_scores_its_budget_away_has_no_result(self, bed):
        result = comparison(bed, scored={"flops_per_row": 70.0})
        assert "whole budget" in arm(result, "good")["failed"]
        assert not any(row["a"] == "good" for row in result.comparison["pairs"])
        assert any("good - random" in note for note in result.comparison["notes"])

    def test_unequal_costs_are_not_comparable(self, bed):
        # A training step that stops at its own row budget cannot spend what it is given.
        steps = [SCORED, CHOSEN, {**TRAINED, "name": "first"}, {**TRAINED, "model": "first"}, RESULT]
        arms = {"random": ARMS["random"], "twice": {"first": {"budget": {"tokens": 2000}}}}
        result = comparison(bed, arms=arms, steps=steps)
        assert "whole budget" in arm(result, "twice")["failed"]

    def test_shared_steps_are_charged_to_every_arm_that_uses_them(self, bed):
        result = comparison(
            bed, scored={"flops_per_row": 10.0}, arms={"random": ARMS["random"], "good": {}, "copy": {}}
        )
        assert (
            flops(arm(result, "good")["cost"][0]) == flops(arm(result, "copy")["cost"][0]) == pytest.approx(6000.0)
        )
        events = []
        comparison(bed, scored={"flops_per_row": 10.0}, arms={"random": ARMS["random"], "good": {}}, events=events)
        assert all(event["cached"] for event in events if event["event"] == "done")


class TestVerdicts:
    def test_the_good_method_wins_and_the_fake_one_never_does(self, bed):
        result = comparison(bed, scored={"flops_per_row": 20.0})
        assert pair(result, "good - random")["verdict"]["outcome"] == "better"
        assert pair(result, "fake - random")["verdict"]["outcome"] in ("worse", "undecided")
        assert pair(result, "fake - random")["comparison"]["estimate"] < 0

    def test_every_arm_against_baseline_and_placebo(self, bed):
        arms = {**ARMS, "placebo": {"chosen": {**RANDOM, "from": "pool", "seed": 99}}}
        result = comparison(bed, arms=arms, placebo="placebo", primary=[["good", "placebo"]])
        names = {row["name"] for row in result.comparison["pairs"]}
        assert names >= {"good - placebo", "good - random", "fake - random", "base - random", "fake - placebo"}
        assert not ({"random - placebo", "placebo - random"} <= names), "a pair and its mirror are one comparison"
        assert [row["name"] for row in result.comparison["pairs"] if row["primary"]] == ["good - placebo"]
        assert arm(result, "placebo")["roles"] == ["placebo"]

    def test_mde_is_always_there(self, bed):
        result = comparison(bed)
        assert {
            row["name"]: row["comparison"]["mde"]
            for row in result.comparison["pairs"]
            if not row["comparison"]["mde"]
        } == {}

    def test_better_than_the_base_alone_is_said_to_prove_nothing(self, bed):
        result = comparison(bed, primary=[["good", "base"]])
        row = pair(result, "good - base")
        assert row["cost"] is None and "spends no budget" in row["cost_note"]
        assert any("proves nothing" in note for note in result.comparison["notes"])
        assert not any("proves nothing" in note for note in comparison(bed, primary=None).comparison["notes"])

    def test_a_bed_that_cannot_tell(self, bed):
        tells = comparison(bed, arms={**ARMS, "oracle": {"scored": {"seed": 5}}}, oracle="oracle")
        assert tells.comparison["bed"] == "can tell"
        blind = comparison(bed, arms={**ARMS, "oracle": {"scored": {"honest": False}}}, oracle="oracle")
        assert blind.comparison["bed"] == "cannot tell"
        assert {row["verdict"]["outcome"] for row in blind.comparison["pairs"]} == {"this bed cannot tell"}
        assert comparison(bed).comparison["bed"] == "unknown"

    def test_margin_and_seeds_reach_the_verdict(self, bed):
        result = comparison(bed, margin=0.5, seeds=[0])
        verdict = pair(result, "good - random")["verdict"]
        assert verdict["margin"] == 0.5 and verdict["these_runs_only"]
        assert arm(result, "good")["seeds"] == [0]
        three = comparison(bed, seeds=[3, 4, 5])
        assert not pair(three, "good - random")["verdict"]["these_runs_only"]

    def test_an_untrained_arm_runs_once(self, bed):
        events = []
        result = comparison(bed, events=events)
        assert (
            arm(result, "base")["seeds"] == [] and len(arm(result, "base")["results"]["result"]["per_seed"]) == 1
        )
        assert sum(e["event"] == "done" and e["arm"] == "base" and e["name"] == "result" for e in events) == 1

    def test_seeds_redraw_selection_and_never_the_test_rows(self, bed):
        steps = [
            {"name": "probe", "use": "data.select.random", "from": "test", "budget": {"rows": 20}},
            SCORED,
            CHOSEN,
            TRAINED,
            {**RESULT, "from": "probe"},
        ]
        comparison(bed, steps=steps, arms={"random": ARMS["random"], "good": {}})
        entries = Ledger(bed.folder).run()["steps"]
        keys = {
            name: {s["key"] for s in entries if s["step"] == name and s["arm"] == "random"}
            for name in ("probe", "chosen")
        }
        assert len(keys["probe"]) == 1
        assert len(keys["chosen"]) == 3

    def test_also_is_compared_and_is_exploratory(self, bed):
        result = comparison(
            bed,
            steps=[SCORED, CHOSEN, TRAINED, RESULT, DEV],
            also=["dev_result"],
            arms={k: ARMS[k] for k in ("random", "good")},
        )
        row = pair(result, "good - random", "dev_result")
        assert not row["primary"] and row["verdict"]["family"] == "exploratory"
        assert arm(result, "good")["results"]["dev_result"]["n_items"] == 20

    def test_items_that_change_with_the_seed_are_refused_at_the_first_run_that_has_others(self, bed):
        memory = {"name": "memory", "use": "evaluation.toy_task", "from": "chosen", "model": "trained"}
        steps = [SCORED, CHOSEN, TRAINED, RESULT, memory]
        file = bed.folder / "pool.jsonl"
        rows = [{**json.loads(row), "difficulty": 0.5} for row in file.read_text().splitlines()]
        file.write_text("\n".join(map(json.dumps, rows)))
        events = []
        with pytest.raises(InputError, match=r"other items[\s\S]*step memory, arm random, seed 1[\s\S]*seed 0"):
            comparison(bed, steps=steps, also=["memory"], events=events)
        trained = [e for e in events if e["event"] == "done" and e["name"] == "trained"]
        assert len(trained) == 2, "two seeds of the first arm"

    def test_an_arm_measured_on_other_items_ends_alone_and_at_its_first_run(self, bed):
        probe = {"name": "probe", "use": "data.select.random", "from": "dev", "seed": 0, "budget": {"rows": 10}}
        memory = {"name": "memory", "use": "evaluation.toy_task", "from": "probe", "model": "trained"}
        arms = {"random": ARMS["random"], "good": {}, "other": {"probe": {"seed": 1}}}
        events = []
        steps = [SCORED, CHOSEN, TRAINED, RESULT, probe, memory]
        result = comparison(bed, steps=steps, also=["memory"], arms=arms, events=events)
        assert (
            "other items" in arm(result, "other")["failed"]
            and "arm other, seed 0" in arm(result, "other")["failed"]
        )
        assert pair(result, "good - random")["verdict"]["outcome"] == "better"
        trained = [e for e in events if e["event"] == "done" and e["name"] == "trained" and e["arm"] == "other"]
        assert len(trained) == 1

    def test_a_diverging_arm_is_a_row_without_a_result(self, bed):
        gates = [{"name": "forgetting", "arm": "broken", "against": "base", "no_harm": 0.1, "expect": "fail"}]
        result = comparison(bed, arms={**ARMS, "broken": {"trained": {"diverges": True}}}, gates=gates)
        assert "not finite" in arm(result, "broken")["failed"]
        assert result.exit_code == 0 and result.gates[0]["fired"]
        assert pair(result, "good - random")["verdict"]["outcome"] == "better"

    def test_gates_over_arms(self, bed):
        gates = [
            {"name": "not worse", "against": "base", "no_harm": 0.1},
            {"name": "wins", "arm": "good", "against": "random", "at_least": 0.0},
            {"name": "too much", "arm": "good", "at_least": 100.0},
        ]
        result = comparison(bed, gates=gates)
        states = [(g["name"], g["arm"], g["passed"]) for g in result.gates]
        assert states[:3] == [("not worse", name, True) for name in ("random", "good", "fake")]
        assert states[3:] == [("wins", "good", True), ("too much", "good", False)]
        assert result.exit_code == 3


class TestDeclaration:
    def test_it_is_in_the_ledger_before_any_arm_runs(self, bed):
        seen = []

        def listener(event):
            if event["event"] == "arm" and not seen:
                with sqlite3.connect(bed.folder / ".tutelage" / "ledger.sqlite") as db:
                    seen.append(db.execute("SELECT declared, hash, at FROM declarations").fetchone())

        recipe = bed.recipe(
            steps=[SCORED, CHOSEN, TRAINED, RESULT], arms=ARMS, compare={"baseline": "random", "seeds": [0]}
        )
        run(recipe, bed.folder, progress=listener)
        declared = Ledger(bed.folder).run()["declared"]
        assert seen[0][1] == declared["hash"]
        assert declared["primary"] == [["good", "random"], ["fake", "random"]]
        assert Ledger(bed.folder).run()["comparison"]["declared"]["at"] == declared["at"]

    def test_it_cannot_be_changed_afterwards(self, bed):
        comparison(bed)
        ledger = Ledger(bed.folder)
        run_id = ledger.run()["run_id"]
        first = ledger.run()["declared"]
        assert ledger.declare(run_id, {"primary": []}) == first


class TestBaselineByName:
    def test_it_takes_the_steps_place_and_pays_no_scoring(self, bed):
        recipe = bed.recipe(
            steps=[{**SCORED, "flops_per_row": 20.0}, CHOSEN, TRAINED, RESULT],
            compare={"baseline": "data.select.random", "budget": {"flops": 6000}},
        )
        result = bed.run(recipe)
        assert {row["name"] for row in result.comparison["arms"]} == {"data.select.top_k", "data.select.random"}
        assert arm(result, "data.select.random")["cost"][0]["trained_tokens"] == 1000
        assert arm(result, "data.select.top_k")["cost"][0]["trained_tokens"] < 700
        assert pair(result, "data.select.top_k - data.select.random")["primary"]

    def test_a_method_that_is_nobodys_baseline(self, bed):
        for baseline in ("data.filter.where", "data.select.randm"):
            with pytest.raises(ConfigError, match=r"baseline|neither"):
                bed.run(bed.recipe(steps=[SCORED, CHOSEN, TRAINED, RESULT], compare={"baseline": baseline}))


TUNE = {"step": "trained", "field": "rate", "grid": [0.1, 1.0, 9.0], "on": "dev_result", "budget": {"tokens": 50}}


class TestTune:
    STEPS = (SCORED, CHOSEN, {**TRAINED, "rate": 5.0}, RESULT, DEV)

    def test_every_trained_arm_gets_the_same_search(self, bed):
        result = comparison(bed, steps=list(self.STEPS), tune=TUNE)
        for name in ("random", "good", "fake"):
            row = arm(result, name)
            assert row["tuned"] == {"trained.rate": 1.0}
            assert [trial["value"] for trial in row["trials"]] == [0.1, 1.0, 9.0]
            # 3 trials of 50 tokens at 6 FLOPs and of 20 items at 1.
            assert flops(row["search"]) == 3 * (50 * 6 + 20) and row["search"]["trials"] == 3
        assert arm(result, "base")["search"] is None
        untuned = comparison(bed, steps=list(self.STEPS))
        gain = arm(result, "random")["results"]["result"]["estimate"]
        assert gain > arm(untuned, "random")["results"]["result"]["estimate"]

    def test_an_arm_about_the_tuned_value_is_not_searched(self, bed):
        arms = {**ARMS, "fast": {"trained": {"rate": 40.0}}}
        result = comparison(bed, steps=list(self.STEPS), tune=TUNE, arms=arms, primary=[["good", "fast"]])
        assert arm(result, "fast")["search"] is None and arm(result, "fast")["tuned"] is None
        assert pair(result, "fast - random")["verdict"]["outcome"] == "worse"
        row = pair(result, "good - fast")
        assert row["verdict"]["outcome"] == "not comparable", "a searched arm against one without a search"

    def test_points_that_diverge_are_kept_as_failed(self, bed):
        tune = {**TUNE, "field": "diverges", "grid": [True, False]}
        row = arm(comparison(bed, steps=list(self.STEPS), tune=tune), "random")
        assert [trial["estimate"] is None for trial in row["trials"]] == [True, False]
        assert row["tuned"] == {"trained.diverges": False}
        # 30 tokens until it broke down, then 50 tokens and 20 items.
        assert flops(row["search"]) == 30 * 6 + 50 * 6 + 20 and row["search"]["trials"] == 2
        none_left = comparison(bed, steps=list(self.STEPS), tune={**tune, "grid": [True]})
        assert "no point of the search" in arm(none_left, "random")["failed"]

    @pytest.mark.parametrize(("again", "trained"), [(True, 0), (False, 3)])
    def test_a_failed_point_is_not_trained_again_when_it_would_fail_again(self, bed, again, trained):
        steps = [SCORED, CHOSEN, {**TRAINED, "again": again}, RESULT, DEV]
        tune = {**TUNE, "field": "diverges", "grid": [True, False]}
        first = comparison(bed, steps=steps, tune=tune)
        toy_fit.TRAINED_ROWS.clear()
        second = comparison(bed, steps=steps, tune=tune)
        assert len(toy_fit.TRAINED_ROWS) == trained, "one failed point for each of three arms"
        for name in ("random", "good"):
            assert arm(first, name)["trials"] == arm(second, name)["trials"]
            assert arm(first, name)["search"] == arm(second, name)["search"]

    def test_outside_a_comparison_a_failed_training_is_tried_again(self, bed):
        for _ in range(2):
            with pytest.raises(TrainingError, match="not finite"):
                bed.run(bed.recipe(steps=[SCORED, CHOSEN, {**TRAINED, "diverges": True}, RESULT]))
        assert toy_fit.TRAINED_ROWS == [-1, -1]


def test_rows_that_a_method_refuses_end_its_arm_alone(bed):
    refused = {"scored": {"refuses": True}}
    result = comparison(bed, arms={**ARMS, "refusing": refused})
    assert arm(result, "refusing")["failed"] == "these rows show nothing (signals.toy_score)"
    assert pair(result, "good - random")["verdict"]["outcome"] == "better"
    everywhere = {name: {**changes, **refused} for name, changes in ARMS.items()}
    everywhere["random"] = refused
    with pytest.raises(InputError, match="these rows show nothing"):
        comparison(bed, arms=everywhere)


def test_repeat_within_arms_spends_the_budget_over_the_rounds(bed):
    recipe = bed.recipe(
        steps=[SCORED, CHOSEN, TRAINED, RESULT],
        repeat={"times": 2, "carry": {"base": "trained"}},
        arms={"random": ARMS["random"], "good": {}},
        compare={"baseline": "random", "budget": {"flops": 6000}, "seeds": [0]},
    )
    result = bed.run(recipe)
    assert flops(arm(result, "good")["cost"][0]) == pytest.approx(6000)
    tokens = [s["as_if"]["trained_tokens"] for s in Ledger(bed.folder).run()["steps"] if s["step"] == "trained"]
    assert tokens == [500, 500, 500, 500]


def test_an_adapter_that_is_given_rows_is_trained(bed):
    """An outside program leaves a model: it runs once per seed and its cost counts, known or not."""
    outside = {"trained": {"use": "adapters.toy_boost", "amount": 3.0}}
    result = comparison(bed, arms={"random": ARMS["random"], "outside": outside, "base": ARMS["base"]})
    assert arm(result, "outside")["trained"] and len(arm(result, "outside")["cost"]) == 3
    assert pair(result, "outside - random")["verdict"]["outcome"] == "not comparable"
    assert not arm(result, "base")["trained"]


def test_the_plan_of_a_comparison(bed):
    recipe = bed.recipe(
        steps=[SCORED, CHOSEN, TRAINED, RESULT],
        arms=ARMS,
        compare={"baseline": "random", "budget": {"flops": 6000}},
    )
    before = plan(recipe, bed.folder)
    assert before.unknown and not any(step.cached for step in before.steps)
    assert {step.arm for step in before.steps} == {None, "base", "random", "good", "fake"}
    bed.run(recipe)
    after = plan(recipe, bed.folder)
    assert all(step.cached for step in after.steps) and after.unknown == 0
    assert after.to_json()["seconds"] == 0


def test_a_comparison_that_is_interrupted_goes_on(bed):
    toy_fit.INTERRUPT_AT.append(3)
    with pytest.raises(Interrupted):
        comparison(bed)
    declared = Ledger(bed.folder).run()["declared"]
    result = resume("latest", bed.folder)
    assert pair(result, "good - random")["verdict"]["outcome"] == "better"
    assert Ledger(bed.folder).run()["declared"] == declared, "the declaration stands from the first start"


class TestFirstSeeds:
    def test_an_arm_with_fewer_runs_is_compared_over_them(self, bed):
        full = comparison(bed, seeds=[0, 1, 2, 3])
        result = comparison(bed, seeds=[0, 1, 2, 3], first_seeds={"good": 3})
        assert arm(result, "good")["seeds"] == [0, 1, 2] and arm(result, "random")["seeds"] == [0, 1, 2, 3]
        found = pair(result, "good - random")["comparison"]
        assert found["n_seeds"] == 3 and pair(full, "good - random")["comparison"]["n_seeds"] == 4
        three = comparison(bed, seeds=[0, 1, 2])
        assert found["estimate"] == pytest.approx(pair(three, "good - random")["comparison"]["estimate"])

    def test_an_arm_with_one_runs_one_seed_and_is_in_no_pair_of_claims(self, bed):
        gate = {"name": "no harm", "step": "result", "arm": "fake", "against": "base", "no_harm": 10.0}
        result = comparison(bed, first_seeds={"fake": 1}, gates=[gate])
        assert arm(result, "fake")["seeds"] == [0]
        assert arm(result, "good")["seeds"] == [0, 1, 2]
        assert [row["name"] for row in result.comparison["pairs"] if "fake" in row["name"]] == []
        assert ["fake", "random"] not in result.comparison["declared"]["primary"]
        assert [gate["arm"] for gate in result.gates] == ["fake"]

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"first_seeds": {"random": 1}}, "fewer runs"),
            ({"first_seeds": {"fakes": 1}}, "fewer runs"),
            ({"first_seeds": {"fake": 1}, "placebo": "fake"}, "placebo and oracle"),
            ({"first_seeds": {"fake": 4}}, "more seeds than there are"),
            ({"first_seeds": {"fake": 1}, "primary": [["fake", "random"]]}, "more than one seed"),
        ],
    )
    def test_claims_need_several_seeds(self, bed, settings, message):
        with pytest.raises(ConfigError, match=message):
            comparison(bed, **settings)


def test_rows_measured_besides_do_not_fix_the_draws_of_training(bed):
    """A task on the training rows themselves must leave them changing with the seed."""
    memory = {"name": "memory", "use": "evaluation.toy_task", "from": "hard", "model": "trained"}
    hard = {"name": "hard", "use": "data.filter.where", "from": "chosen", "column": "difficulty", "negate": True}
    from tutelage.runs.compare import fixed_steps
    from tutelage.runs.graph import build_graph

    recipe = bed.recipe(
        steps=[SCORED, CHOSEN, hard, TRAINED, RESULT, memory],
        arms=ARMS,
        compare={"baseline": "random", "metric_step": "result", "also": ["memory"], "budget": {"flops": 6000}},
    )
    fixed = fixed_steps(recipe, build_graph(recipe, "random"), "result")
    assert "hard" in fixed and "chosen" not in fixed


class TestOneFactor:
    """Each arm is the full recipe with one step changed, so that a difference has one cause."""

    SHORT: ClassVar = {"chosen": {"budget": {"tokens": 200}}}
    BLIND: ClassVar = {"scored": {"honest": False}}

    def test_each_factor_against_the_full_recipe_in_one_family(self, bed):
        arms = {"full": {}, "short": self.SHORT, "blind": self.BLIND, "control": {}}
        result = comparison(bed, arms=arms, baseline="full", one_factor=True)
        primary = [row for row in result.comparison["pairs"] if row["primary"]]
        assert [row["name"] for row in primary] == ["short - full", "blind - full", "control - full"]
        # Holm over the three: the interval of each is read at 1 - .05 / 3.
        assert {row["verdict"]["family"] for row in primary} == {"primary"}
        levels = {round(row["verdict"]["interval"]["level"], 4) for row in primary}
        assert levels == {round(1 - 0.05 / 3, 4)}
        verdicts = {row["a"]: row["verdict"]["outcome"] for row in primary}
        assert verdicts["blind"] == "worse" and verdicts["control"] == "undecided"
        control = pair(result, "control - full")["comparison"]
        assert control["interval"]["lo"] <= 0 <= control["interval"]["hi"]

    def test_two_changes_in_one_arm_are_refused(self, bed):
        arms = {"full": {}, "both": {**self.SHORT, **self.BLIND}}
        with pytest.raises(ConfigError, match=r"more than one factor[\s\S]*chosen, scored"):
            comparison(bed, arms=arms, baseline="full", one_factor=True)
        comparison(bed, arms=arms, baseline="full")

    def test_what_counts_is_the_difference_to_the_baseline(self, bed):
        # Both drop the same step's honesty: the arms differ in the budget alone.
        arms = {"full": self.BLIND, "short": {**self.BLIND, **self.SHORT}}
        comparison(bed, arms=arms, baseline="full", one_factor=True)
        # Written out as it is, a step is not changed; and an arm that undoes the baseline's change changes it.
        same = {"scored": {"honest": False, "use": "signals.toy_score"}, **self.SHORT}
        comparison(bed, arms={**arms, "short": same}, baseline="full", one_factor=True)
        with pytest.raises(ConfigError, match="chosen, scored"):
            comparison(bed, arms={"full": self.BLIND, "short": self.SHORT}, baseline="full", one_factor=True)

    def test_controls_are_free(self, bed):
        both = {**self.SHORT, **self.BLIND}
        arms = {
            "full": {},
            "short": self.SHORT,
            "placebo": both,
            "oracle": both,
            "base": {"result": {"model": "base"}},
        }
        comparison(bed, arms=arms, baseline="full", placebo="placebo", oracle="oracle", one_factor=True)


class TestGuidesAmongTheReported:
    def steps(self, bed, guide):
        near = {"name": "near", "use": "signals.similarity_tfidf", "from": "pool", "inputs": {"reference": guide}}
        chosen = {
            "name": "chosen",
            "use": "data.select.top_k",
            "from": "near",
            "column": "similarity",
            "direction": "higher",
            "budget": {"rows": 5},
        }
        return [near, chosen, *bed.plain()["steps"][1:]]

    def test_a_guide_that_is_reported_on_is_refused_with_its_rows(self, bed):
        recipe = bed.recipe(steps=self.steps(bed, "test"), arms={"a": {}}, compare={"baseline": "a"})
        with pytest.raises(InputError, match="among the rows that are reported on") as error:
            bed.run(recipe)
        told = str(error.value)
        assert "steps.near.inputs.reference, arm a" in told and re.search(r"\d+ shared, the first 't0', ", told)

    def test_another_guide_is_not(self, bed):
        recipe = bed.recipe(steps=self.steps(bed, "pool"), arms={"a": {}}, compare={"baseline": "a"})
        assert bed.run(recipe).status == "passed"
