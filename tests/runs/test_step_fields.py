"""Fields of steps and models that only a real model shows."""

import json

import pytest

from tutelage.core.errors import ModelError
from tutelage.runs import Recipe, run
from tutelage.runs.payload import load_fit

pytest.importorskip("torch")
REAL_MODELS = True
MUTATIONS = [
    ("src/tutelage/runs/compute.py", "evaluators=job.evaluators,", "evaluators=(),"),
    ("src/tutelage/runs/outside.py", "device=spec.device,", 'device="auto",'),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from tutelage.models.toy import tiny_causal_lm

    place = tmp_path_factory.mktemp("fields")
    rows = [{"id": f"r{i}", "text": f"the number {i} and the next"} for i in range(24)]
    for name, chosen in (("pool", rows[:16]), ("held", rows[16:])):
        text = "".join(json.dumps(row) + "\n" for row in chosen)
        (place / f"{name}.jsonl").write_text(text, encoding="utf-8")
    tiny_causal_lm(texts=[row["text"] for row in rows]).save(place / "base")
    return place


def recipe(folder, model=None, **step):
    trained = {"name": "trained", "use": "training.fit", "model": "base", "from": "pool", "step_tokens": 64}
    return Recipe(
        name="fields",
        sources={name: {"path": f"{name}.jsonl"} for name in ("pool", "held")},
        models={"base": {"load": "base", **(model or {})}},
        steps=[{**trained, **step}],
    ).placed(folder)


def test_evaluators_of_a_step_measure_while_it_trains(folder):
    watch = {"loss": {"use": "evaluation.bits_per_byte", "from": "held"}}
    result = run(recipe(folder, evaluators=watch, evaluate_at=[0.5, 1.0]), folder)
    history = load_fit(result.values["trained"].artifact.path)["history"]
    assert len(history) >= 2 and all(entry["loss/bits_per_byte"] > 0 for entry in history)
    assert load_fit(run(recipe(folder), folder).values["trained"].artifact.path)["history"] == []


def test_the_device_of_a_model_is_the_one_asked_for(folder):
    assert run(recipe(folder, {"device": "cpu"}), folder).load("trained").device.type == "cpu"
    with pytest.raises(ModelError, match="no device 'abacus'"):
        run(recipe(folder, {"device": "abacus"}), folder)
