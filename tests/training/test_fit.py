"""The recipe step: defaults, components by name, the input model untouched, save and reload."""

import pytest
import torch

from toy.training_bed import dataset, model, same, weights
from tutelage.core.discovery import build
from tutelage.core.errors import ConfigError, TrainingError
from tutelage.core.meter import Meter
from tutelage.core.method import RunningUpdate, UpdateRule
from tutelage.core.records import Budget
from tutelage.models.load import load_model

PROOF = {"training.fit": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/training/fit.py", "clip=self.gradient_clip or None", "clip=None"),
    ("src/tutelage/training/fit.py", 'int(given.get("seed", self.seed))', "self.seed"),
    ("src/tutelage/training/_copy.py", "parameter.detach().clone() if trained", "parameter.detach() if trained"),
    ("src/tutelage/core/component.py", '{"use": method.name, **', "{**"),
]
SMALL = {
    "step_tokens": 100,
    "micro_tokens": 64,
    "max_length": 128,
    "learning_rate": 1e-2,
    "budget": {"tokens": 400},
}


def test_components_are_built_from_names():
    step = build(
        "training.fit",
        {
            "objective": {"use": "training.objectives.sft", "turns": "last"},
            "schedule": {"use": "training.schedules.wsd", "decay": 0.2},
            "budget": {"tokens": "200k"},
        },
    )
    assert step.objective.turns == "last" and step.schedule.decay == 0.2
    assert step.budget.tokens == 200_000
    assert step.model_dump(mode="json")["objective"]["use"] == "training.objectives.sft"


def test_two_components_with_equal_fields_are_two_configurations():
    hashes = {
        build("training.fit", {"schedule": {"use": f"training.schedules.{n}", "warmup": 0.1}}).config_hash()
        for n in ("linear", "cosine")
    }
    assert len(hashes) == 2


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"objective": {"use": "training.objectives.stf"}}, "did you mean training.objectives.sft"),
        ({"objective": {"use": "training.objectives.sft", "turn": "all"}}, "no field 'turn'"),
        ({"objective": {"use": "training.schedules.wsd"}}, "is of kind Schedule"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"learning_rat": 1.0}, "did you mean learning_rate"),
        ({"keep_checkpoints": [1.5]}, "between 0 and 1"),
        ({"budget": {"token": 5}}, "budget"),
    ],
)
def test_bad_fields_are_named(fields, words):
    with pytest.raises(ConfigError, match=words):
        build("training.fit", fields)


def test_the_input_model_is_left_as_it_was():
    lm = model("llama")
    before, flags = weights(lm), [p.requires_grad for p in lm.module.parameters()]
    trained, record = build("training.fit", SMALL).train(lm, dataset())
    assert same(before, weights(lm))
    assert flags == [p.requires_grad for p in lm.module.parameters()]
    assert not same(before, weights(trained))
    assert record.losses[-1] < record.losses[0]


def test_gradient_clip_reaches_the_optimiser():
    runs = [
        build("training.fit", {**SMALL, "gradient_clip": c}).train(model("llama"), dataset())[1] for c in (1e-4, 0)
    ]
    assert runs[0].gradient_norms[0] == runs[1].gradient_norms[0], "the norm is logged before clipping"
    assert runs[0].losses != runs[1].losses


def test_seed_of_the_executor_wins():
    step = build("training.fit", SMALL)
    runs = [step.train(model(), dataset(), {"seed": s})[1].losses for s in (0, 0, 5)]
    assert runs[0] == runs[1] != runs[2]
    assert build("training.fit", {**SMALL, "seed": 5}).train(model(), dataset())[1].losses == runs[2]


def test_no_budget_is_one_pass():
    fields = {k: v for k, v in SMALL.items() if k != "budget"}
    record = build("training.fit", fields).train(model(), dataset())[1]
    assert record.rows == dataset().num_rows


def test_full_training_saves_and_reloads(tmp_path):
    trained, _ = build("training.fit", SMALL).train(model("llama"), dataset())
    again = load_model(trained.save(tmp_path / "m"), dtype="float32")
    ids = torch.arange(20)[None]
    with torch.no_grad():
        first, second = (
            m.module(input_ids=ids, attention_mask=torch.ones_like(ids)).logits for m in (trained, again)
        )
    assert float((first - second).abs().max()) < 1e-5
    assert [g.text for g in trained.generate(["The number"], 8)] == [
        g.text for g in again.generate(["The number"], 8)
    ]


def test_resume_belongs_to_one_configuration_and_one_dataset(tmp_path):
    step = build("training.fit", SMALL)
    step.train(model(), dataset(), checkpoint_dir=tmp_path)
    again = step.train(model(), dataset(), checkpoint_dir=tmp_path)[1]
    assert again.resumed_at == again.steps
    for other, data in (
        (build("training.fit", {**SMALL, "learning_rate": 2e-2}), dataset()),
        (step, dataset(["other text"])),
    ):
        with pytest.raises(TrainingError, match="another run"):
            other.train(model(), data, checkpoint_dir=tmp_path)


def test_the_meter_is_charged():
    meter = Meter()
    record = build("training.fit", SMALL).train(model(), dataset(), {"meter": meter})[1]
    assert meter.cost.flops == record.cost.flops > 0
    assert meter.cost.trained_tokens == record.tokens


def test_a_model_without_weights_is_refused():
    from tutelage.models.ngram import NGramLM

    with pytest.raises(ConfigError, match="cannot be trained"):
        build("training.fit", SMALL).train(NGramLM.__new__(NGramLM), dataset())


def test_budget_record_is_accepted():
    assert build("training.fit", {"budget": Budget(seconds=1.5)}).budget.seconds == 1.5


class Halt(UpdateRule):
    """Throws every gradient away."""

    def start(self, model, seed):
        return _Halt()


class _Halt(RunningUpdate):
    def after_backward(self, model, gradients, weight):
        for gradient in gradients.values():
            gradient.zero_()
        return weight


def test_update_rule_and_weight_decay_act():
    base = model("llama")
    still, _ = build("training.fit", {**SMALL, "update_rule": Halt(), "weight_decay": 0.0}).train(base, dataset())
    assert same(weights(still), weights(base)), "no gradient, no decay: no change"
    shrunk, _ = build("training.fit", {**SMALL, "update_rule": Halt(), "weight_decay": 5.0}).train(base, dataset())
    before, after = (weights(lm)["model.layers.0.mlp.up_proj.weight"].norm() for lm in (base, shrunk))
    assert after < 0.99 * before
