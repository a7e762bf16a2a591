"""The whole way with a real tiny transformer: from files to verdicts, killed and resumed on the way."""

import json
import os
import random
import subprocess
import sys
import time

import pytest

from tutelage.runs import Ledger, load_recipe, resume, run

pytest.importorskip("torch")
REAL_MODELS = True

RECIPE = """\
name: tiny
sources: {docs: {path: docs.jsonl}}
models: {base: {load: base}}
steps:
  - {name: split, use: data.split.by_group, from: docs, group_column: topic, parts: {train: 0.7, held_out: 0.3}}
  - {name: train_docs, use: data.filter.where, from: split, column: split, equals: train}
  - {name: held_docs, use: data.filter.where, from: split, column: split, equals: held_out}
  - {name: sized, use: signals.length, from: train_docs, model: base}
  - {name: rated, use: signals.token_loss, from: sized, model: base}
  - {name: chosen, use: data.select.top_k, from: rated, column: nll_mean, direction: lower, budget: {tokens: 800}}
  - {name: adapted, use: adapters.lora, model: base, rank: 4}
  - name: trained
    use: training.fit
    model: adapted
    from: chosen
    objective: {use: training.objectives.causal_lm}
    schedule: {use: training.schedules.cosine}
    step_tokens: 128
    checkpoint_seconds: 0
    keep_checkpoints: [0.5]
    budget: {tokens: 600}
  - {name: held_out, use: evaluation.bits_per_byte, from: held_docs, model: trained}
"""
COMPARE = """\
arms:
  base: {held_out: {model: base}}
  random: {chosen: {use: data.select.random, from: sized, budget: {tokens: 800}}}
  perplexity: {}
compare: {baseline: random, metric_step: held_out, budget: {flops: 4.0e8}, seeds: [0, 1]}
"""
WORDS = "the quick brown fox jumps over a lazy dog while seven calm readers note every little word".split()


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    from tutelage.models.toy import tiny_causal_lm

    folder = tmp_path_factory.mktemp("material")
    draw = random.Random(0)
    rows = [{"text": " ".join(draw.choices(WORDS, k=30)), "topic": f"t{i % 12}"} for i in range(60)]
    (folder / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    tiny_causal_lm(texts=[row["text"] for row in rows]).save(folder / "base")
    (folder / "r.yaml").write_text(RECIPE, encoding="utf-8")
    (folder / "c.yaml").write_text(RECIPE + COMPARE, encoding="utf-8")
    return folder


def test_from_files_to_a_measured_adapter(material):
    events = []
    result = run(load_recipe(material / "r.yaml"), material, progress=events.append)
    losses = [event["loss"] for event in events if event["event"] == "step"]
    assert len(losses) == 5, "600 tokens in steps of 128"
    folder = result.values["trained"].artifact.path / "model"
    assert (folder / "adapter_model.safetensors").is_file()
    from tutelage.models.load import load_model

    loaded = load_model(folder)
    task = result.load("held_out")
    from tutelage.core import discovery

    again = discovery.build("evaluation.bits_per_byte").evaluate(loaded, result.load("held_docs"), {"seed": 0})
    assert again.estimate == pytest.approx(task.estimate, abs=1e-6), "what was measured is what was saved"
    trained = next(s for s in Ledger(material).run()["steps"] if s["step"] == "trained")
    assert trained["as_if"]["trained_tokens"] == 600, "a budget is met to the token"
    assert trained["as_if"]["backward_flops"] > 0 and trained["as_if"]["seconds"] > 0
    checkpoints = material / ".tutelage" / "checkpoints" / trained["key"]
    left = sorted(path.name for path in checkpoints.iterdir())
    assert "kept" in left and not [name for name in left if name.startswith("step-")], "no state of a finished run"
    assert (next((checkpoints / "kept").iterdir()) / "adapter_model.safetensors").is_file()


def test_every_step_of_a_model_says_how_much_of_the_machine_it_used(material, tmp_path, capsys):
    from tutelage.cli._progress import teller
    from tutelage.models.device import probe_gflops
    from tutelage.report.tables import tables
    from tutelage.runs.payload import load_fit

    recipe = load_recipe(material / "r.yaml")
    result = run(recipe, tmp_path, progress=teller(False))
    ledger = Ledger(tmp_path).run()
    shares = {step["step"]: step["facts"].get("mfu") for step in ledger["steps"]}
    assert {name for name, share in shares.items() if share} == {"rated", "trained", "held_out"}
    spent = {step["step"]: step["as_if"] for step in ledger["steps"]}["rated"]
    name = str(result.load("trained").dtype).removeprefix("torch.")
    reached = spent["forward_flops"] / spent["seconds"] / probe_gflops("cpu", name) / 1e9
    assert shares["rated"] == pytest.approx(reached, abs=1e-4) and 0 < reached < 1
    fit = load_fit(result.values["trained"].artifact.path)
    assert shares["trained"] == pytest.approx(fit["mfu"], abs=1e-4)
    told = capsys.readouterr().err
    assert f"MFU {shares['rated']:.0%}" in told and f"MFU {shares['trained']:.0%}" in told
    steps = next(table for table in tables(ledger) if table.caption.startswith("Steps"))
    assert {row[0]: row[-1] for row in steps.rows}["rated"] == f"{shares['rated']:.0%}"


def test_the_precision_that_auto_comes_to_is_chosen_once(material, tmp_path, monkeypatch):
    import torch

    from tutelage.models import load as loading

    choices = iter([torch.bfloat16, torch.float32, torch.float32])
    before = loading.choose_dtype
    monkeypatch.setattr(loading, "choose_dtype", lambda d, p: next(choices) if d == "auto" else before(d, p))
    recipe = load_recipe(material / "r.yaml")
    first = run(recipe, tmp_path)
    events = []
    second = run(recipe, tmp_path, progress=events.append)
    assert first.load("trained").dtype == second.load("trained").dtype == torch.bfloat16
    assert all(event["cached"] for event in events if event["event"] == "done")


def test_an_encoder_keeps_the_precision_that_auto_came_to(tmp_path, monkeypatch):
    from tutelage.models import encoder as encoders
    from tutelage.models.toy import tiny_causal_lm, tiny_encoder
    from tutelage.runs import Recipe
    from tutelage.runs.outside import load_spec

    # What the probe finds: fast at first, on a busy machine no longer.
    fast = iter([True, False, False])
    monkeypatch.setattr(encoders, "bf16_is_faster", lambda device: next(fast))
    monkeypatch.setattr(encoders.Encoder, "_bf16_is_close", lambda self: True)
    tiny_encoder(texts=["some words"]).save(tmp_path / "encoder")
    tiny_causal_lm(texts=["some words"]).save(tmp_path / "writer")
    (tmp_path / ".tutelage").mkdir()
    recipe = Recipe(
        name="two",
        sources={"rows": {"path": "rows.jsonl"}},
        models={"encoder": {"load": "encoder"}, "writer": {"load": "writer", "dtype": "auto"}},
        steps=[{"name": "head", "use": "adapters.linear_head", "model": "encoder", "from": "rows"}],
    ).placed(tmp_path)
    first, writer, again = (load_spec(recipe, tmp_path, name) for name in ("encoder", "writer", "encoder"))
    assert first.precision == again.precision == "bfloat16" and first.fingerprint == again.fingerprint
    known = json.loads((tmp_path / ".tutelage" / "precision.json").read_text(encoding="utf-8"))
    assert [place.partition(":")[0] for place in known] == ["encoder", "writer"], "each model for itself"
    assert known.popitem()[1] == str(writer.dtype).removeprefix("torch.")


def test_arms_at_equal_cost(material):
    result = run(load_recipe(material / "c.yaml"), material)
    arms = {arm["name"]: arm for arm in result.comparison["arms"]}
    spent = {
        name: [cost["forward_flops"] + cost["backward_flops"] for cost in arm["cost"]]
        for name, arm in arms.items()
    }
    assert spent["random"] == pytest.approx([4.0e8] * 2, rel=0.03)
    assert spent["perplexity"] == pytest.approx([4.0e8] * 2, rel=0.03)
    assert arms["perplexity"]["cost"][0]["trained_tokens"] < arms["random"]["cost"][0]["trained_tokens"]
    assert arms["perplexity"]["cost"][0]["scored_tokens"] > 0
    row = next(pair for pair in result.comparison["pairs"] if pair["name"] == "perplexity - random")
    assert row["cost"]["comparable"] and row["verdict"]["these_runs_only"]


def test_killed_in_training_and_resumed_twice_gives_the_same_bits(material, tmp_path):
    """SIGKILL after some training steps, twice; the adapter is the one of an uninterrupted run."""
    whole = run(load_recipe(material / "r.yaml"), tmp_path / "whole")
    program = (
        "import os, sys\nfrom tutelage.runs import load_recipe, run, resume\n"
        "seen = []\n"
        "def listen(event):\n"
        "    if event['event'] == 'step':\n"
        "        seen.append(1)\n"
        "        if len(seen) == 2:\n"
        "            os._exit(9)\n"
        "if sys.argv[2] == 'run':\n"
        f"    run(load_recipe({str(material / 'r.yaml')!r}), sys.argv[1], progress=listen)\n"
        "else:\n"
        "    resume('latest', sys.argv[1], progress=listen)\n"
    )
    folder = tmp_path / "cut"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for how in ("run", "resume"):
        done = subprocess.run([sys.executable, "-c", program, str(folder), how], env=environment, check=False)
        assert done.returncode == 9
        assert Ledger(folder).run()["status"] == "running", "a killed process could not say anything"
    events = []
    started = time.perf_counter()
    result = resume("latest", folder, progress=events.append)
    assert time.perf_counter() - started < 60
    assert sum(event["event"] == "step" for event in events) < 5, "complete steps of training are not redone"
    left, right = (r.values["trained"].artifact for r in (whole, result))
    assert left.meta["content"] == right.meta["content"], "weights identical"
    assert (
        left.files["model/adapter_model.safetensors"]["hash"]
        == right.files["model/adapter_model.safetensors"]["hash"]
    )
    assert result.load("held_out").estimate == whole.load("held_out").estimate
