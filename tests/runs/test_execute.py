"""Runs: what is equal comes from the store, what is cut off goes on, what is complete is kept."""

import errno
import json
import multiprocessing
import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from toy.toy_methods.training import toy_fit
from tutelage.core import dataset_builder
from tutelage.core.dataset import Dataset
from tutelage.core.errors import (
    ConfigError,
    InputError,
    Interrupted,
    MemoryShortage,
    StoreError,
    WaitingForPerson,
)
from tutelage.core.store import Store
from tutelage.runs import Ledger, outside, resume, run
from tutelage.runs.graph import build_graph

MUTATIONS = [
    ("src/tutelage/runs/execute.py", "                if _out_of_memory(error):\n", "                if False:\n"),
    ("src/tutelage/runs/execute.py", "    with contextlib.suppress(StoreError):\n", "    if True:\n"),
    ("src/tutelage/runs/execute.py", "        raise _unwritable(holder, error) from None\n", "        raise\n"),
    ("src/tutelage/runs/engine.py", "        part.replace(target)\n", "        shutil.copyfile(source, target)\n"),
    ("src/tutelage/runs/engine.py", "        self._forget(node, key)\n", ""),
    (
        "src/tutelage/runs/outside.py",
        "            part.replace(file)\n",
        "            part.rename(file.with_suffix('.new'))\n",
    ),
    ("src/tutelage/runs/execute.py", "                engine.store.discard(error.key)\n", ""),
    (
        "src/tutelage/runs/engine.py",
        "            return self.store.sound(artifact).path\n",
        "            return artifact.path\n",
    ),
]


def cached(events):
    """step -> whether it came from the store."""
    return {event["name"]: event["cached"] for event in events if event["event"] == "done"}


class TestCache:
    def test_the_second_run_computes_nothing(self, bed):
        first = bed.run()
        events = []
        second = bed.run(events=events)
        assert all(cached(events).values())
        assert second.load("result").estimate == first.load("result").estimate
        assert second.load("result").items.hash == first.load("result").items.hash
        assert second.run_id != first.run_id

    @pytest.mark.parametrize(
        ("overrides", "again"),
        [
            (["trained.rate=2.0"], {"trained", "result"}),
            (["chosen.budget.tokens=100"], {"chosen", "trained", "result"}),
            (["result.scale=2.0"], {"result"}),
            (["models.base.load='1.0'"], {"trained", "result"}),
            (["seed=1"], {"chosen", "trained", "result"}),
        ],
    )
    def test_a_change_redoes_what_depends_on_it(self, bed, overrides, again):
        bed.run(bed.load())
        events = []
        bed.run(bed.load(overrides=overrides), events)
        assert {name for name, hit in cached(events).items() if not hit} == again

    def test_changed_data_misses_and_a_renamed_recipe_hits(self, bed):
        bed.run()
        events = []
        bed.run(bed.recipe(name="other"), events)
        assert all(cached(events).values())
        rows = [{"id": f"p{i}", "text": f"row {i}", "worth": 0.5, "n_tokens": 10} for i in range(100)]
        bed.write("pool", rows)
        events = []
        bed.run(events=events)
        assert [name for name, hit in cached(events).items() if hit] == ["test"]

    def test_changed_code_misses(self, bed, monkeypatch):
        bed.run()
        from tutelage.core import fingerprint

        before = fingerprint.code_hash
        monkeypatch.setattr(fingerprint, "code_hash", lambda m: "new" if m.endswith("toy_fit") else before(m))
        events = []
        bed.run(events=events)
        assert {name for name, hit in cached(events).items() if not hit} == {"trained"}, (
            "the retrained model is the same, so its measurement is known"
        )

    def test_changed_code_of_models_misses_wherever_a_model_is_handed(self, bed, monkeypatch):
        bed.run()
        from tutelage.runs import engine

        before = engine.code_hash
        monkeypatch.setattr(engine, "code_hash", lambda m: "new" if m.startswith("tutelage.models") else before(m))
        events = []
        bed.run(events=events)
        assert {name for name, hit in cached(events).items() if not hit} == {"trained", "result"}

    def test_another_kind_of_device_misses(self, bed, monkeypatch):
        bed.run()
        from toy.toy_methods.model import ToyModel

        monkeypatch.setattr(ToyModel, "device", SimpleNamespace(type="cuda"), raising=False)
        events = []
        bed.run(events=events)
        assert {name for name, hit in cached(events).items() if not hit} == {"trained"}

    def test_equal_outputs_of_different_steps_are_equal_inputs(self, bed):
        steps = [
            {"name": "a", "use": "data.filter.where", "from": "pool", "column": "worth", "one_of": [0.5, 0.6]},
            {
                "name": "b",
                "use": "data.filter.where",
                "from": "pool",
                "column": "worth",
                "one_of": [0.6, 0.5, 7.0],
            },
            {"name": "scored_a", "use": "signals.toy_score", "from": "a"},
            {"name": "scored_b", "use": "signals.toy_score", "from": "b"},
        ]
        events = []
        result = bed.run(bed.recipe(steps=steps), events)
        assert cached(events)["scored_b"]
        assert result.load("a").hash == result.load("b").hash

    def test_a_damaged_artifact_is_made_again(self, bed):
        first = bed.run()
        path = first.values["trained"].artifact.path / "model" / "toy.json"
        path.write_text("{}x")
        events = []
        second = bed.run(events=events)
        assert not cached(events)["trained"]
        assert second.load("result").estimate == first.load("result").estimate


class TestFields:
    """Every field of a recipe has an effect that is seen here or in the tests of comparisons."""

    def test_from_a_list_joins_rows_and_refuses_equal_ids(self, bed):
        steps = [
            {"name": "low", "use": "data.filter.where", "from": "pool", "column": "text", "one_of": ["row 1"]},
            {"name": "high", "use": "data.filter.where", "from": "pool", "column": "worth", "one_of": [0.7, 0.8]},
            {"name": "all", "use": "signals.toy_score", "from": ["low", "high"]},
        ]
        result = bed.run(bed.recipe(steps=steps))
        assert len(result.load("all")) == len(result.load("low")) + len(result.load("high"))
        steps[2]["from"] = ["high", "high"]
        with pytest.raises(InputError, match="same id") as error:
            bed.run(bed.recipe(steps=steps))
        assert "all" in str(error.value)

    def test_inputs_reach_the_method(self, bed):
        steps = [
            {"name": "near", "use": "signals.similarity_tfidf", "from": "pool", "inputs": {"reference": "test"}}
        ]
        assert "similarity" in bed.run(bed.recipe(steps=steps)).load("near").column_names

    def test_model_of_an_adapter_and_chain(self, bed):
        steps = [
            {"name": "boosted", "use": "adapters.toy_boost", "model": "base", "amount": 2.0},
            {"name": "again", "use": "adapters.toy_boost", "model": "boosted", "amount": 1.0},
            {"name": "result", "use": "evaluation.toy_task", "from": "test", "model": "again"},
        ]
        result = bed.run(bed.recipe(steps=steps))
        assert result.load("again").skill == 3.0
        assert result.load("boosted").skill == 2.0

    def test_evaluators_measure_while_training(self, bed):
        steps = bed.plain()["steps"]
        steps[1]["evaluators"] = {"dev": {"use": "evaluation.toy_task", "from": "test", "scale": 3.0}}
        result = bed.run(bed.recipe(steps=steps))
        from tutelage.runs.payload import load_fit

        history = load_fit(result.values["trained"].artifact.path)["history"]
        assert list(history[0]) == ["dev/skill"]
        assert history[0]["dev/skill"] == pytest.approx(3 * result.load("result").estimate, abs=0.05)

    def test_a_forecaster_gets_results_as_points_and_at(self, bed):
        chosen, trained, measured = bed.plain()["steps"]
        sizes = {"over": [100, 200], "as": "size"}
        steps = [
            {**chosen, "foreach": sizes, "budget": {"tokens": "$size"}},
            {**trained, "foreach": sizes, "budget": {"tokens": "$size"}},
            {**measured, "foreach": sizes},
            {"name": "later", "use": "forecasting.toy_last", "from": "result", "at": "2.5k"},
        ]
        result = bed.run(bed.recipe(steps=steps))
        last = result.load("result[200]")
        assert result.load("later").estimate == pytest.approx(last.estimate + 2500)
        # x is what the model was trained on.
        assert result.load("later").extra["x"] == 200
        assert result.values["trained[200]"].as_if.trained_tokens == 200

    def test_a_forecaster_reads_rows_too_and_not_both(self, bed):
        bed.write("pool", [{"id": f"p{i}", "x": float(i), "y": i / 10} for i in range(1, 4)])
        later = {"name": "later", "use": "forecasting.toy_last", "from": "pool", "at": 1}
        bed_steps = [{"name": "base_result", "use": "evaluation.toy_task", "from": "test", "model": "base"}]
        assert bed.run(bed.recipe(steps=[later])).load("later").estimate == pytest.approx(1.3)
        gates = [{"name": "enough", "step": "later", "at_least": 2.0}]
        assert bed.run(bed.recipe(steps=[later], gates=gates)).gates[0]["state"] == "fails"
        with pytest.raises(ConfigError, match="'pool' is not a result"):
            bed.run(bed.recipe(steps=[*bed_steps, {**later, "from": ["base_result", "pool"]}]))
        with pytest.raises(InputError, match=r"(?s)trained on nothing.*base_result"):
            bed.run(bed.recipe(steps=[*bed_steps, {**later, "from": "base_result"}]))
        with pytest.raises(ConfigError, match="needs a point"):
            bed.run(bed.recipe(steps=[{name: later[name] for name in ("name", "use", "from")}]))
        with pytest.raises(ConfigError, match="needs rows"):
            bed.run(bed.recipe(steps=[{name: later[name] for name in ("name", "use", "at")}]))

    def test_a_task_that_asks_for_no_model_measures_what_the_rows_hold(self, bed):
        rows = [{"id": f"p{i}", "text": f"row {i}", "label": i % 2, "inclusion": 1.0} for i in range(30)]
        bed.write("pool", rows)
        steps = [
            {"name": "marked", "use": "signals.constant", "from": "pool", "column": "teacher_label", "value": 1},
            {"name": "share", "use": "evaluation.dsl", "from": "marked", "splits": 1, "learner": "linear"},
        ]
        recipe = bed.recipe(steps=steps, gates=[{"name": "half", "step": "share", "at_most": 0.9}])
        result = bed.run(recipe)
        assert result.load("share").estimate == pytest.approx(0.5)
        assert result.load("share").system["name"] == "labels of the rows"
        assert result.gates[0]["state"] == "holds"
        graph = build_graph(recipe)
        # The labels are what is measured: what made them is the cost, and draws anew with the seed.
        assert graph.model_side("share") == ["marked"] and graph.data_side("share") == []
        with pytest.raises(ConfigError, match="needs a model"):
            bed.run(bed.recipe(steps=[{"name": "result", "use": "evaluation.toy_task", "from": "test"}]))

    def test_a_writer_writes_below_the_workspace(self, bed):
        steps = [
            bed.plain()["steps"][0],
            {"name": "out", "use": "data.write.jsonl", "from": "chosen", "to": "exports/chosen.jsonl"},
        ]
        result = bed.run(bed.recipe(steps=steps))
        lines = (bed.folder / "exports" / "chosen.jsonl").read_text(encoding="utf-8").splitlines()
        assert [json.loads(line)["id"] for line in lines] == result.load("chosen").ids()
        steps[1]["to"] = "../elsewhere"
        with pytest.raises(ConfigError, match="leaves the workspace"):
            bed.run(bed.recipe(steps=steps))

    def test_seed_of_the_recipe_and_written_seed(self, bed):
        ids = [bed.run(bed.recipe(seed=seed)).load("chosen").ids() for seed in (0, 1)]
        assert ids[0] != ids[1]
        steps = bed.plain()["steps"]
        steps[0]["seed"] = 7
        fixed = [bed.run(bed.recipe(steps=steps, seed=seed)).load("chosen").ids() for seed in (0, 1)]
        assert fixed[0] == fixed[1]
        assert bed.run(bed.recipe(), seed=1).load("chosen").ids() == ids[1]

    def test_repeat_carries_the_model(self, bed):
        once = bed.run().load("trained").skill
        events = []
        thrice = bed.run(bed.recipe(repeat={"times": 3, "carry": {"base": "trained"}}), events)
        assert thrice.load("trained").skill == pytest.approx(3 * once, abs=0.02)
        assert [e["round"] for e in events if e["event"] == "round"] == [0, 1, 2]
        entry = Ledger(bed.folder).run()
        assert {step["round"] for step in entry["steps"]} == {0, 1, 2}

    def test_repeat_ends_when_the_metric_is_there(self, bed):
        once = bed.run().load("result").estimate
        until = {"metric": "result", "above": once + 0.1}
        events = []
        bed.run(bed.recipe(repeat={"times": 9, "carry": {"base": "trained"}, "until": until}), events)
        assert sum(e["event"] == "round" for e in events) == 2

    def test_dry_run_runs_nothing(self, bed):
        result = bed.run(dry_run=True)
        assert result.status == "planned"
        assert not (bed.folder / ".tutelage" / "ledger.sqlite").exists()
        assert [step.name for step in result.plan.steps] == ["pool", "test", "chosen", "trained", "result"]

    def test_limit_makes_everything_small(self, bed):
        result = bed.run(limit=5)
        assert len(result.load("chosen")) <= 5
        assert Ledger(bed.folder).run()["options"] == {"limit": 5}
        pool = next(s for s in Ledger(bed.folder).run()["steps"] if s["step"] == "pool")
        assert pool["facts"]["rows"] == 5

    def test_a_scorers_state_survives_a_crash_between_fit_and_score(self, bed, monkeypatch):
        from toy.toy_methods.signals import toy_score

        steps = [{"name": "scored", "use": "signals.toy_score", "from": "pool", "fitted": True}]
        fits = []
        fit, score = toy_score.ToyScore.fit, toy_score.ToyScore.score
        monkeypatch.setattr(toy_score.ToyScore, "fit", lambda self, d, i: fits.append(1) or fit(self, d, i))
        monkeypatch.setattr(toy_score.ToyScore, "score", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(Interrupted):
            bed.run(bed.recipe(steps=steps))
        monkeypatch.setattr(toy_score.ToyScore, "score", score)
        bed.run(bed.recipe(steps=steps))
        assert fits == [1]


def test_missing_columns_name_the_step(bed):
    steps = [{"name": "scored", "use": "signals.toy_score", "from": "test"}]
    with pytest.raises(InputError, match="'scored' reads a column") as error:
        bed.run(bed.recipe(steps=steps))
    assert "worth" in str(error.value)
    assert Ledger(bed.folder).run()["status"] == "failed"


class TestStopping:
    def test_ctrl_c_leaves_a_run_that_resumes_where_it_was(self, bed):
        whole = bed.run(bed.recipe(name="whole", models={"base": {"load": "0.25"}})).load("result").estimate
        toy_fit.TRAINED_ROWS.clear()
        toy_fit.INTERRUPT_AT.append(7)
        # Another name is another run; equal steps would come from the store, so the skill differs first.
        recipe = bed.recipe(models={"base": {"load": "0.0"}})
        with pytest.raises(Interrupted) as error:
            bed.run(recipe)
        assert error.value.exit_code == 130
        entry = Ledger(bed.folder).run()
        assert entry["status"] == "interrupted"
        assert f"tutelage resume {entry['run_id']}" in error.value.remedy
        assert [*range(7)] == toy_fit.TRAINED_ROWS
        events = []
        result = resume(entry["run_id"], bed.folder, progress=events.append)
        assert [*range(20)] == toy_fit.TRAINED_ROWS, "no row twice, none left out"
        assert cached(events)["chosen"] and not cached(events)["trained"]
        assert result.run_id == entry["run_id"]
        assert result.load("result").estimate == pytest.approx(whole - 0.25, abs=0.02)
        assert Ledger(bed.folder).run()["status"] == "passed"
        assert len(Ledger(bed.folder).runs()) == 2

    def test_resume_of_a_finished_run_and_of_an_unknown_one(self, bed):
        done = bed.run()
        assert resume("latest", bed.folder).load("result").estimate == done.load("result").estimate
        with pytest.raises(InputError, match="no run"):
            resume("nonsense", bed.folder)
        with pytest.raises(InputError, match="no ledger"):
            resume("latest", bed.folder / "elsewhere")

    def test_waiting_for_a_person_suspends(self, bed):
        answers = bed.folder / "answers.txt"
        steps = bed.plain()["steps"]
        steps.insert(1, {"name": "labelled", "use": "data.toy_answers", "from": "chosen", "file": str(answers)})
        steps[2]["from"] = "labelled"
        with pytest.raises(WaitingForPerson) as error:
            bed.run(bed.recipe(steps=steps))
        assert error.value.exit_code == 4
        assert "write the file" in error.value.remedy and "tutelage resume" in error.value.remedy
        assert Ledger(bed.folder).run()["status"] == "waiting"
        answers.write_text("yes")
        assert resume("latest", bed.folder).status == "passed"

    @pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
    def test_without_memory_the_run_stops_resumable(self, bed, monkeypatch, error):
        def greedy(*given, **options):
            raise error

        pytest.importorskip("torch")
        whole = bed.run(bed.recipe(name="whole", models={"base": {"load": "0.25"}})).load("result").estimate
        with monkeypatch.context() as patched, pytest.raises(MemoryShortage, match="out of memory") as told:
            patched.setattr(toy_fit.ToyFit, "train", greedy)
            bed.run()
        entry = Ledger(bed.folder).run()
        assert entry["status"] == "failed" and told.value.exit_code == 2 and "trained" in told.value.where
        assert f"tutelage resume {entry['run_id']}" in told.value.remedy and "micro_tokens" in told.value.remedy
        assert resume("latest", bed.folder).load("result").estimate == pytest.approx(whole - 0.25, abs=0.02)

    def test_a_full_disk_does_not_hide_what_stopped_the_run(self, bed, monkeypatch):
        """Where the ledger cannot be written either, the first error is the one to tell."""

        def fails(*given, **options):
            monkeypatch.setattr(Ledger, "finish", lambda *given: (_ for _ in ()).throw(StoreError("no ledger")))
            raise InputError("the first error")

        monkeypatch.setattr(toy_fit.ToyFit, "train", fails)
        with pytest.raises(InputError, match="the first error"):
            bed.run()

    def test_a_full_disk_under_the_lock_of_the_run(self, bed, monkeypatch):
        write = Path.write_text

        def full(self, text, **options):
            if self.parent.name == "locks":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(self, text, **options)

        monkeypatch.setattr(Path, "write_text", full)
        with pytest.raises(StoreError, match="workspace cannot be written") as error:
            bed.run()
        assert "locks" in str(error.value.where) and "No space left" in error.value.found

    def test_what_a_step_wrote_gets_to_its_place_whole(self, bed, monkeypatch):
        copied = []
        copy = shutil.copyfile

        def noted(source, target, **options):
            copied.append(Path(target).name)
            if len(copied) > 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return copy(source, target, **options)

        monkeypatch.setattr(shutil, "copyfile", noted)
        steps = [
            bed.plain()["steps"][0],
            {"name": "out", "use": "data.write.jsonl", "from": "chosen", "to": "exports/chosen.jsonl"},
        ]
        bed.run(bed.recipe(steps=steps))
        target = bed.folder / "exports" / "chosen.jsonl"
        whole = target.read_text(encoding="utf-8")
        assert len(whole.splitlines()) == 20 and copied == [".chosen.jsonl.part"]
        with pytest.raises(StoreError, match="could not be put in its place") as error:
            bed.run(bed.recipe(steps=steps))
        assert error.value.where == target and target.read_text(encoding="utf-8") == whole
        assert [path.name for path in target.parent.iterdir()] == ["chosen.jsonl"]

    def test_what_a_scorer_kept_goes_when_its_result_is_there(self, bed, monkeypatch):
        """And not before: were it gone when the result cannot be stored, all shards would be scored again."""
        steps = [{"name": "scored", "use": "signals.toy_score", "from": "pool"}]
        kept = bed.folder / ".tutelage" / "checkpoints"
        put = Store.put
        seen = []

        def watched(self, key, write, **options):
            def full(folder):
                made = write(folder)
                if options["kind"] == "dataset" and made.get("step") == "scored":
                    seen.extend(path.name for path in (kept / key).iterdir())
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return made

            return put(self, key, full, **options)

        monkeypatch.setattr(dataset_builder, "BYTES_PER_SHARD", 1000)
        monkeypatch.setattr(Store, "put", watched)
        with pytest.raises(StoreError, match="could not be written"):
            bed.run(bed.recipe(steps=steps))
        assert len(seen) > 1
        monkeypatch.setattr(Store, "put", put)
        bed.run(bed.recipe(steps=steps))
        assert not list(kept.iterdir())

    def test_models_of_two_recipes_are_remembered_beside_each_other(self, tmp_path):
        file = tmp_path / "precision.json"
        outside._remember(file, "one", "float32")
        outside._remember(file, "two", "bfloat16")
        assert outside._remembered(file) == {"one": "float32", "two": "bfloat16"}
        with pytest.raises(StoreError, match="could not be remembered"):
            outside._remember(file / "precision.json", "one", "float32")

    def test_a_damaged_artifact_that_is_needed_is_made_again(self, bed):
        """As many bytes as before, but others: only reading them through tells."""
        first = bed.run()
        path = first.values["chosen"].artifact.path
        shard = next(path.rglob("*.parquet"))
        content = bytearray(shard.read_bytes())
        content[len(content) // 2] ^= 1
        shard.write_bytes(bytes(content))
        events = []
        recipe = bed.load(overrides=["trained.rate=2.0"])
        second = bed.run(recipe, events)
        assert {name for name, hit in cached(events).items() if not hit} == {"chosen", "trained", "result"}
        warned = [event["message"] for event in events if event["event"] == "warning"]
        assert len(warned) == 1 and shard.name in warned[0] and "made again" in warned[0]
        assert second.load("chosen").ids() == first.load("chosen").ids()
        second.values["chosen"].artifact.verify()

    def test_a_crash_is_in_the_ledger(self, bed, monkeypatch):
        monkeypatch.setattr(toy_fit.ToyFit, "train", lambda *a, **k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            bed.run()
        entry = Ledger(bed.folder).run()
        assert entry["status"] == "crashed" and "ZeroDivision" in entry["error"]["error"]


def _hold(folder, recipe, started):
    from tutelage.runs.execute import _only_one

    with _only_one(recipe, folder):
        started.set()
        time.sleep(20)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="starts its process by fork")
def test_a_second_process_on_the_same_run_is_refused_by_name(bed):
    context = multiprocessing.get_context("fork")
    started = context.Event()
    process = context.Process(target=_hold, args=(bed.folder, bed.recipe(), started))
    process.start()
    try:
        assert started.wait(10)
        with pytest.raises(StoreError, match="second process") as error:
            bed.run()
        assert str(process.pid) in error.value.found
        bed.run(bed.recipe(name="another"))
    finally:
        process.kill()
        process.join()
    assert bed.run().status == "passed", "a killed process holds nothing"


def test_a_workspace_that_cannot_be_written(bed):
    (bed.folder / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        run(bed.recipe(), bed.folder / "file")


def test_gc_keeps_what_recorded_runs_need(bed):
    first = bed.run()
    bed.run(bed.recipe(models={"base": {"load": "1.0"}}, name="second"))
    store, ledger = Store(bed.folder / ".tutelage" / "store"), Ledger(bed.folder)
    assert store.gc(ledger.keys())["artifacts"] == 0
    removed = store.gc(ledger.keys([ledger.run()["run_id"]]))
    assert removed["artifacts"] == 2, "the first run's model and its measurement"
    assert store.get(first.values["trained"].artifact.key) is None
    events = []
    bed.run(bed.recipe(models={"base": {"load": "1.0"}}, name="second"), events)
    assert all(cached(events).values())


def test_steps_gates(bed):
    estimate = bed.run().load("result").estimate
    gates = [
        {"name": "low", "step": "result", "at_least": estimate - 1},
        {"name": "high", "step": "result", "at_least": estimate + 1},
        {"name": "between", "step": "result", "at_least": estimate},
        {"name": "strict", "step": "result", "at_least": estimate, "on_undecided": "fail"},
        {"name": "cap", "step": "result", "at_most": estimate - 1},
        {"name": "planted", "step": "result", "at_most": estimate - 1, "expect": "fail"},
    ]
    result = bed.run(bed.recipe(gates=gates))
    assert [g["passed"] for g in result.gates] == [True, False, True, False, False, True]
    assert result.exit_code == 3 and result.status == "gate failed"
    assert Ledger(bed.folder).run()["gates"] == result.gates
    assert bed.run(bed.recipe(gates=[gates[0], gates[5]])).exit_code == 0


def test_no_harm_before_and_after(bed):
    steps = [
        *bed.plain()["steps"],
        {"name": "before", "use": "evaluation.toy_task", "from": "test", "model": "base"},
    ]
    better = {"name": "g", "step": "result", "against": "before", "no_harm": 0.05}
    worse = {"name": "h", "step": "before", "against": "result", "no_harm": 0.05}
    gain = {"name": "i", "step": "result", "against": "before", "at_least": 0.1}
    found = bed.run(bed.recipe(steps=steps, gates=[better, worse, gain])).gates
    assert [g["state"] for g in found] == ["holds", "fails", "holds"]


def test_results_go_to_the_ledger_with_their_artifacts(bed):
    result = bed.run()
    entry = Ledger(bed.folder).run("latest")
    assert entry["status"] == "passed" and entry["name"] == "bed"
    assert entry["results"][0]["result"]["estimate"] == result.load("result").estimate
    assert [step["step"] for step in entry["steps"]] == ["pool", "chosen", "trained", "test", "result"]
    trained = entry["steps"][2]
    assert trained["as_if"]["trained_tokens"] == 200 and trained["as_if"]["backward_flops"] == 800
    assert trained["facts"]["model_kind"] == "toy"
    chosen = entry["steps"][1]["facts"]
    assert (
        chosen["rows_in"] == chosen["rows"] + chosen["dropped"]
        and sum(chosen["reasons"].values()) == chosen["dropped"]
    )
    assert entry["environment"]["packages"]["pyarrow"]
    from tutelage.runs import Recipe

    assert Recipe(**entry["recipe"]).flat() == bed.recipe().flat()


def test_a_dataset_folder_is_what_a_step_left(bed):
    path = bed.run().values["chosen"].artifact.path / "dataset"
    assert Dataset.open(path, verify=True).num_rows == 20
