"""training.objectives.multi_label, adapters.multi_label_head: texts with several labels or none, up to predict."""

import json

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from toy.training_bed import same, weights
from tutelage.cli.main import run
from tutelage.core.apply import score_dataset
from tutelage.core.dataset import Dataset
from tutelage.core.discovery import build
from tutelage.core.errors import ConfigError, InputError
from tutelage.core.labels import LabelSpace, label_set
from tutelage.models.load import load_model
from tutelage.models.packing import pack
from tutelage.models.toy import tiny_causal_lm, tiny_encoder

PROOF = {
    "training.objectives.multi_label": ["consistent", "verified"],
    "adapters.multi_label_head": ["consistent", "verified"],
}
MUTATIONS = [
    ("src/tutelage/training/objectives/multi_label.py", "(rows - counts) / counts", "rows / counts"),
    ("src/tutelage/training/objectives/multi_label.py", ".clamp(max=most)", ""),
    ("src/tutelage/training/objectives/multi_label.py", "each.mean(1) * document", "each.sum(1) * document"),
    ("src/tutelage/training/objectives/multi_label.py", "target[:, k] = document", "target[:, -1] = document"),
    ("src/tutelage/adapters/multi_label_head.py", "for w, _ in fits]) / width**0.5", "for w, _ in fits])"),
    ("src/tutelage/adapters/multi_label_head.py", "np.column_stack([1 - y, y])", "np.column_stack([y, 1 - y])"),
    ("src/tutelage/adapters/multi_label_head.py", "if count in (0, len(held))", "if count in (0,)"),
    ("src/tutelage/models/classifier.py", "0.5 * (1 + np.tanh(0.5 * logits))", "0.5 * (1 + np.tanh(logits))"),
    ("src/tutelage/models/classifier.py", 'settings.get("multi_label", False)', "False"),
    ("src/tutelage/models/tuned_classifier.py", "self.fitted_on, self.multi_label", "self.fitted_on, False"),
    ("src/tutelage/evaluation/_label_sets.py", "2 * both / np.maximum(either, 1)", "both / np.maximum(either, 1)"),
    ("src/tutelage/evaluation/_label_sets.py", "f1(both.sum(axis=0)", "f1(both.mean(axis=0)"),
    ("src/tutelage/signals/class_probabilities.py", "2 * confidence - 1", "confidence"),
    ("src/tutelage/signals/class_probabilities.py", ".max(axis=2).min(axis=1)", ".max(axis=2).max(axis=1)"),
    ("src/tutelage/core/labels.py", 'given.split("|")', 'given.split(",")'),
]  # fmt: skip
WORDS = {"bird": "jay owl wren finch".split(), "fruit": "apple pear plum grape".split(), "metal": ["iron", "tin"]}


def rows(count, seed):
    rng = np.random.default_rng(seed)
    for i in range(count):
        held = [name for name, share in zip(WORDS, (0.5, 0.4, 0.2)) if rng.random() < share]
        words = [rng.choice(WORDS[name]) for name in held for _ in range(2)] + ["then"]
        yield {"id": f"{seed}-{i}", "text": " ".join(rng.permutation(words)), "labels": held}


TRAIN, TEST = (Dataset.from_rows(rows(*given)) for given in ((60, 0), (60, 1)))
TEXTS = [row["text"] for data in (TRAIN, TEST) for row in data.rows()]
TRUTH = np.array([[name in row["labels"] for name in WORDS] for row in TEST.rows()])


def encoder():
    return tiny_encoder(TEXTS, layers=1, width=16)


def headed(base, data=TRAIN, **fields):
    return build("adapters.multi_label_head", fields).convert({"base": base}, data, {})


def said(one):
    return one.predict_proba([row["text"] for row in TEST.rows()]) > 0.5


@pytest.mark.parametrize("make", [encoder, lambda: tiny_causal_lm("llama", TEXTS)])
def test_the_loss_is_torch_with_its_weights(make):
    one = headed(make(), start="zero")
    with torch.no_grad():
        one.head.weight.normal_(generator=torch.Generator().manual_seed(0))
    one.facts["rows_by_class"]["metal"] = 2  # so rare that its weight meets the cap
    given = [
        {"id": "a", "text": TEXTS[0], "labels": ["metal", "bird"]},
        {"id": "b", "text": TEXTS[1] * 2, "labels": []},
        {"id": "c", "text": TEXTS[2] * 3, "labels": "fruit|metal", "label_weight": 3.0},
    ]
    target = torch.tensor([[1.0, 0, 1], [0, 0, 0], [0, 1, 1]])
    objective = build("training.objectives.multi_label", {"most": 15.0}).start(one)
    documents = [objective.encode(row, one, 64) for row in given]
    found = {}
    for batch in pack(documents, 128, rows=2, pad_id=one.pad_id, isolation=one.isolation):
        loss = objective.loss(one, batch)
        assert loss.weight == len(loss.per_example)
        found |= dict(zip([n for row in batch.example_ids for n in row], loss.per_example.tolist()))
    counts = np.array([sum(name in row["labels"] for row in TRAIN.rows()) for name in WORDS], dtype=float)
    up = torch.tensor([(60 - counts[0]) / counts[0], (60 - counts[1]) / counts[1], 15.0])
    logits = torch.from_numpy(one.logits([row["text"] for row in given]))
    for i, (name, weight) in enumerate(zip("abc", (1, 1, 3))):
        expected = torch.nn.functional.binary_cross_entropy_with_logits(logits[i], target[i], pos_weight=up)
        assert found[name] == pytest.approx(weight * float(expected), rel=1e-4)


def test_a_fitted_start_is_a_logistic_regression_for_each_label():
    base = encoder()
    one = headed(base, C=3.0)
    texts = [row["text"] for row in TRAIN.rows()]
    for k, name in enumerate(WORDS):
        held = [name in row["labels"] for row in TRAIN.rows()]
        alone = LogisticRegression(C=3.0, max_iter=1000, tol=1e-6).fit(base.embed(texts), held)
        asked = TEXTS[60:]
        assert np.abs(alone.predict_proba(base.embed(asked))[:, 1] - one.predict_proba(asked)[:, k]).max() < 1e-3
    assert one.facts["rows"] == 60 and one.facts["rows_by_class"]["metal"] == sum(
        "metal" in r["labels"] for r in TRAIN.rows()
    )
    assert np.allclose(headed(base, start="zero").predict_proba(TEXTS[:2]), 0.5)


def test_trained_above_a_soft_prompt_measured_and_reloaded(tmp_path, capsys):
    base = load_model(tiny_causal_lm("llama", TEXTS, layers=1, width=32).save(tmp_path / "base"), dtype="float32")
    schema = Dataset.from_rows([{"label": name} for name in WORDS])
    prompted = build("adapters.soft_prompt", {"length": 6}).convert({"base": base}, None, {"labels": schema})
    one = headed(prompted, start="zero", pooling="mean")
    before = weights(one)
    fields = {"step_tokens": 300, "micro_tokens": 150, "learning_rate": 1e-1, "budget": {"rows": 1500}}
    made, _ = build("training.fit", {**fields, "objective": "training.objectives.multi_label"}).train(one, TRAIN)
    moved = {name for name, value in weights(made).items() if not torch.equal(value, before[name])}
    assert moved == {
        "body.prompt_encoder.default.embedding.weight",
        "classifier_head.weight",
        "classifier_head.bias",
    }
    assert same(before, weights(one)) and made.multi_label
    measured = {
        name: build("evaluation.classification").evaluate(m, TEST, {}) for name, m in (("0", one), ("1", made))
    }
    assert measured["1"].estimate > 0.85 and measured["1"].estimate > measured["0"].estimate + 0.3
    mine, extra = said(made), measured["1"].extra
    assert measured["1"].metric == "f1_of_rows"
    assert measured["1"].estimate == pytest.approx(f1_score(TRUTH, mine, average="samples", zero_division=1.0))
    assert extra["micro_f1"] == pytest.approx(f1_score(TRUTH, mine, average="micro"))
    assert extra["macro_f1"] == pytest.approx(f1_score(TRUTH, mine, average="macro"))
    assert extra["all_right"] == pytest.approx((mine == TRUTH).all(1).mean())
    again = load_model(made.save(tmp_path / "made"), dtype="float32")
    assert again.multi_label and again.fingerprint == made.fingerprint
    assert np.abs(again.predict_proba(TEXTS) - made.predict_proba(TEXTS)).max() < 1e-5

    scored = score_dataset(build("signals.class_probabilities"), TEST, {"model": made})
    probs = np.array(scored.column("predicted_probs").to_pylist())
    assert scored.column("predicted").to_pylist() == [[n for n, p in zip(WORDS, row) if p > 0.5] for row in probs]
    sure = np.maximum(probs, 1 - probs)
    assert np.allclose(scored.numpy("confidence"), sure.min(1)) and np.allclose(
        scored.numpy("margin"), np.abs(2 * probs - 1).min(1)
    )
    bits = -(probs * np.log2(probs) + (1 - probs) * np.log2(1 - probs)).mean(1)
    assert np.allclose(scored.numpy("entropy"), bits)

    source = tmp_path / "in.jsonl"
    source.write_text("\n".join(json.dumps({"text": row["text"]}) for row in TEST.rows()), encoding="utf-8")
    for out in ("out.jsonl", "out.csv"):
        with pytest.raises(SystemExit) as ended:
            run(["predict", str(tmp_path / "made"), str(source), "--out", str(tmp_path / out)])
        assert ended.value.code == 0
    assert "not calibrated" not in capsys.readouterr().err
    first = json.loads((tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert first["predicted"] == [name for name, holds in zip(WORDS, mine[0]) if holds]
    table = (tmp_path / "out.csv").read_text(encoding="utf-8")
    two = next(row for row in mine if row[0] and row[1])
    assert "|".join(n for n, holds in zip(WORDS, two) if holds) in table


def test_rows_and_models_that_do_not_fit():
    space = LabelSpace(["a", "b"])
    assert label_set({"labels": []}, space)[0].tolist() == [0, 0]
    for given in (None, [""], [1]):
        with pytest.raises(InputError, match="row x"):
            label_set({"id": "x", "labels": given}, space)
    with pytest.raises(InputError, match="nearest is 'a'"):
        label_set({"id": "x", "labels": ["aa"]}, space)
    schema = Dataset.from_rows([{"label": name} for name in (*WORDS, "fish")])
    with pytest.raises(InputError, match="'fish'"):
        build("adapters.multi_label_head").convert({"base": encoder()}, TRAIN, {"labels": schema})
    always = Dataset.from_rows({**row, "labels": [*row["labels"], "all"]} for row in TRAIN.rows())
    with pytest.raises(InputError, match="'all'"):
        headed(encoder(), always)
    with pytest.raises(InputError, match="no row has a label"):
        headed(encoder(), Dataset.from_rows([{"text": "a", "labels": []}, {"text": "b", "labels": []}]))
    with pytest.raises(InputError, match="no labelled rows"):
        headed(encoder(), None)
    one = headed(encoder())
    single = Dataset.from_rows([{"text": "jay", "label": "bird"}, {"text": "tin", "label": "metal"}])
    plain = build("adapters.classification_head").convert({"base": encoder()}, single, {})
    with pytest.raises(ConfigError, match="several labels"):
        build("training.objectives.multi_label").start(plain)
    with pytest.raises(ConfigError, match="several labels"):
        build("adapters.calibrate").convert({"base": one}, single, {})
    with pytest.raises(ConfigError, match="one class"):
        build("evaluation.calibration").evaluate(one, single, {})
    with pytest.raises(InputError, match="labels"):
        build("evaluation.classification").evaluate(one, single, {})
    machine = Dataset.from_rows([{"text": "jay", "labels": ["bird"], "label_source": "teacher:x"}])
    with pytest.raises(InputError, match="machine's label"):
        build("evaluation.classification").evaluate(one, machine, {})
