"""training.objectives.classification and adapters.classification_head: classifiers trained down to the encoder."""

import numpy as np
import pytest
import torch

from toy.labelled import STEMS, short_texts
from toy.training_bed import Stop, same, stop_at, weights
from tutelage.core.dataset import Dataset
from tutelage.core.discovery import build
from tutelage.core.errors import ConfigError, InputError
from tutelage.core.records import Budget
from tutelage.models.load import load_model
from tutelage.models.packing import pack
from tutelage.models.toy import tiny_causal_lm, tiny_encoder
from tutelage.models.tuned_classifier import TunedClassifier
from tutelage.training._records import Settings
from tutelage.training.trainer import fit

PROOF = {
    "training.objectives.classification": ["consistent", "verified"],
    "adapters.classification_head": ["consistent", "verified"],
}
MUTATIONS = [
    ("src/tutelage/training/objectives/classification.py", ".sum(1) * weight", ".sum(1) * weight**0"),
    ("src/tutelage/training/objectives/classification.py", "list(named.values())]", ": len(named)]"),
    ("src/tutelage/adapters/classification_head.py", "linear(w / width**0.5, b)", "linear(w, b)"),
    ("src/tutelage/adapters/_heads.py", '"mean" if base.kind == "encoder" else "last"', '"mean"'),
    ("src/tutelage/adapters/classification_head.py", "b[np.isfinite(b)].min() - 3.0", "b"),
    ("src/tutelage/models/tuned_classifier.py", "* vectors.shape[1] ** 0.5", "* 1.0"),
    ("src/tutelage/models/tuned_classifier.py", "found[chosen] = compute", "found[sorted(chosen)] = compute"),
    ("src/tutelage/training/_copy.py", '(*adapter_marks(adapter), f"{HEAD}.")', "adapter_marks(adapter)"),
]  # fmt: skip
ROWS = short_texts()
TEXTS = [row["text"] for row in ROWS]
FEW = Dataset.from_rows(row for i, row in enumerate(ROWS) if i % 2)


def encoder(**options):
    return tiny_encoder(TEXTS, layers=1, width=16, **options)


def headed(base, rows=FEW, **fields):
    return build("adapters.classification_head", fields).convert({"base": base}, rows, {})


def trained(one, rows=FEW, **fields):
    settings = {"learning_rate": 1e-2, "step_tokens": 60, "micro_tokens": 40, "budget": {"rows": 240}}
    return build("training.fit", {**settings, "objective": "training.objectives.classification", **fields}).train(
        one, rows
    )


def accuracy(one):
    found = one.predict_proba(TEXTS).argmax(1)
    return np.mean([one.labels.names[i] == row["label"] for i, row in zip(found, ROWS)])


@pytest.mark.parametrize("make", [encoder, lambda: tiny_causal_lm("llama", TEXTS)])
def test_the_loss_by_hand_with_soft_labels_and_weights(make):
    one = headed(make())
    assert one.pooling == ("mean" if one.base.kind == "encoder" else "last")
    with torch.no_grad():
        one.head.weight.normal_(generator=torch.Generator().manual_seed(0))
        one.head.bias.copy_(torch.tensor([0.1, -0.2, 0.3]))
    given = [
        {"id": "a", "text": TEXTS[0], "label": "metal"},
        {"id": "b", "text": TEXTS[1] * 2, "label_probs": [0.7, 0.3], "classes": ["metal", "bird"]},
        {"id": "c", "text": TEXTS[2] * 3, "label": "metal", "label_weight": 3.0},
    ]
    target = np.array([[0, 0, 1], [0.3, 0, 0.7], [0, 0, 1]])
    objective = build("training.objectives.classification")
    documents = [objective.encode(row, one, 64) for row in given]
    found = {}
    for batch in pack(documents, 64, rows=2, pad_id=one.pad_id, isolation=one.isolation):
        loss = objective.loss(one, batch)
        assert loss.weight == len(loss.per_example)
        found |= dict(zip([n for row in batch.example_ids for n in row], loss.per_example.tolist()))
    logps = torch.log_softmax(torch.from_numpy(one.logits([row["text"] for row in given])), 1).numpy()
    expected = -(target * logps).sum(1) * [1, 1, 3]
    assert [found[n] for n in "abc"] == pytest.approx(expected.tolist(), abs=1e-5)
    vectors = one.embed(TEXTS[:2])
    assert np.allclose(np.linalg.norm(vectors, axis=1), vectors.shape[1] ** 0.5, atol=1e-4)
    state = one.base.embed(TEXTS[:2]) if one.pooling == "mean" else None
    if state is not None:
        assert np.abs(vectors / vectors.shape[1] ** 0.5 - state).max() < 1e-5


def test_a_fitted_start_is_the_linear_head():
    base = encoder()
    probe = build("adapters.linear_head", {"C": 3.0}).convert({"base": base}, FEW, {})
    start = headed(base, start="fitted", C=3.0)
    assert np.abs(start.logits(TEXTS) - probe.logits(TEXTS)).max() < 1e-3
    zero = headed(base)
    assert np.abs(zero.predict_proba(TEXTS) - 1 / 3).max() < 1e-12
    schema = Dataset.from_rows([{"label": n} for n in ("fish", *STEMS)])
    wider = build("adapters.classification_head", {"start": "fitted"}).convert(
        {"base": base}, FEW, {"labels": schema}
    )
    found = wider.logits(TEXTS)
    assert np.isfinite(found).all() and (found[:, 0] < found.max(1)).all()


@pytest.mark.parametrize("kind", ["encoder", "causal", "lora"])
def test_trained_saved_reloaded(kind, tmp_path):
    base = tiny_causal_lm("llama", TEXTS) if kind == "causal" else encoder()
    if kind == "lora":
        base = load_model(base.save(tmp_path / "base"), dtype="float32")
        base = build("adapters.lora", {"rank": 4}).convert({"base": base}, None, {})
    one = headed(base)
    before = weights(one)
    made, record = trained(one, **({"learning_rate": 3e-2, "budget": {"rows": 720}} if kind == "lora" else {}))
    assert same(before, weights(one)), "the model that was given is left as it was"
    assert record.losses[-1] < record.losses[0] and accuracy(made) > (0.7 if kind == "lora" else 0.9)
    moved = {n for n, p in made.module.named_parameters() if not torch.equal(p, before[n])}
    assert {"classifier_head.weight", "classifier_head.bias"} < moved
    if kind == "lora":
        assert all("lora_" in n or "classifier_head" in n for n in moved)
    else:
        assert any("body" in n for n in moved)
    again = load_model(made.save(tmp_path / "classifier"), dtype="float32")
    assert isinstance(again, TunedClassifier) and again.labels == made.labels
    assert np.abs(again.logits(TEXTS) - made.logits(TEXTS)).max() < 1e-5
    assert again.fingerprint == made.fingerprint != one.fingerprint
    assert np.abs(made.embed(TEXTS[:2]) - again.embed(TEXTS[:2])).max() < 1e-5


@pytest.mark.parametrize("first", [1, 4])
def test_resume_is_exact(first, tmp_path):
    def run(**options):
        one = headed(encoder())
        for parameter in one.module.parameters():
            parameter.requires_grad_(True)
        settings = Settings(step_tokens=30, micro_tokens=20, learning_rate=1e-2, checkpoint_seconds=0.0)
        parts = {"sampler": build("data.order.shuffle"), "schedule": build("training.schedules.cosine")}
        objective = build("training.objectives.classification")
        record = fit(one, FEW, objective=objective, budget=Budget(rows=72), settings=settings, **parts, **options)
        return one, record

    whole, record = run()
    assert record.steps > 5
    for stop in (first, first + 1):
        with pytest.raises(Stop):
            run(checkpoint_dir=tmp_path, on_event=stop_at(stop))
    again, resumed = run(checkpoint_dir=tmp_path)
    assert resumed.resumed_at == first and resumed.losses == record.losses
    assert same(weights(again), weights(whole))


def test_rows_and_models_that_do_not_fit():
    one = headed(encoder())
    objective = build("training.objectives.classification")
    with pytest.raises(InputError, match="nearest is 'metal'"):
        objective.encode({"id": "a", "text": "x", "label": "metals"}, one, 64)
    with pytest.raises(InputError, match="no label"):
        objective.encode({"id": "a", "text": "x"}, one, 64)
    with pytest.raises(ConfigError, match="another kind"):
        trained(encoder())
    with pytest.raises(InputError, match="no labelled rows"):
        headed(encoder(), None)
    with pytest.raises(InputError, match="one class"):
        headed(encoder(), Dataset.from_rows(ROWS[:4]))
    schema = Dataset.from_rows([{"label": "a"}, {"label": "b"}])
    empty = build("adapters.classification_head", {"pooling": "last"})
    assert len(empty.convert({"base": encoder()}, None, {"labels": schema}).labels) == 2
