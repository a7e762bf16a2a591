"""training.objectives.llkd: thresholds by hand, what is used, weights, exact resumption, a planted teacher."""

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from toy.labelled import STEMS
from toy.training_bed import Stop, same, stop_at, weights
from tutelage.core.dataset import Dataset
from tutelage.core.discovery import build
from tutelage.core.errors import InputError
from tutelage.core.records import Budget
from tutelage.models.packing import pack
from tutelage.models.toy import tiny_encoder
from tutelage.training._records import Settings
from tutelage.training.objectives.llkd import Llkd, Selecting, normalised_entropy
from tutelage.training.trainer import fit

PROOF = {"training.objectives.llkd": ["consistent"]}
MUTATIONS = [
    ("src/tutelage/training/objectives/llkd.py", "+ (1 - memory) * sure", "+ (1 - memory) * unsure"),
    (
        "src/tutelage/training/objectives/llkd.py",
        "unsure >= self.student[kind] - ROUND",
        "unsure <= self.student[kind] + ROUND",
    ),
    ("src/tutelage/training/objectives/llkd.py", "if self.passed >= self.method.patience:", "if False:"),
    ("src/tutelage/training/objectives/llkd.py", "weight * sure * unsure", "weight"),
    (
        "src/tutelage/training/objectives/llkd.py",
        "return Loss(found.sum, weight,",
        "return Loss(found.sum, found.weight,",
    ),
    ("src/tutelage/training/objectives/llkd.py", "/ np.log(len(probs))", ""),
    ("src/tutelage/training/objectives/llkd.py", "return kept or warm", "return kept"),
    ("src/tutelage/training/_batches.py", 'if state.get("objective"):', "if False:"),
]
NAMES = list(STEMS)
TEXTS = [
    f"{stems.split()[i % 4]} then {stems.split()[i // 4]} {'again ' * (j % 4)}"
    for stems in STEMS.values()
    for j in range(3)
    for i in range(16)
]
TRUTH = np.repeat(np.arange(3), 48)


def taught(seed=0, wrong=0.3):
    """A teacher that is unsure where it is wrong."""
    rng = np.random.default_rng(seed)
    errs = rng.random(len(TEXTS)) < wrong
    said = np.where(errs, (TRUTH + rng.integers(1, 3, len(TEXTS))) % 3, TRUTH)
    top = np.where(errs, rng.uniform(0.4, 0.6, len(TEXTS)), rng.uniform(0.7, 1.0, len(TEXTS)))
    probs = np.repeat(((1 - top) / 2)[:, None], 3, axis=1)
    probs[np.arange(len(TEXTS)), said] = top
    return Dataset.from_rows(
        {"id": f"r{i}", "text": text, "label": NAMES[said[i]], "label_probs": probs[i].tolist(), "classes": NAMES}
        for i, text in enumerate(TEXTS)
    )


def student():
    one = build("adapters.classification_head").convert(
        {"base": tiny_encoder(TEXTS, layers=1, width=16)}, taught(), {}
    )
    for parameter in one.module.parameters():
        parameter.requires_grad_(True)
    return one


def train(objective, rows=96, **options):
    one = student()
    record = fit(
        one,
        taught(),
        objective=objective,
        sampler=build("data.order.shuffle"),
        schedule=build("training.schedules.cosine"),
        budget=Budget(rows=rows),
        settings=Settings(step_tokens=60, micro_tokens=40, learning_rate=1e-2, checkpoint_seconds=0.0),
        **options,
    )
    return one, record


def accuracy(one):
    return (one.predict_proba(TEXTS).argmax(1) == TRUTH).mean()


def test_thresholds_by_hand():
    running = Selecting(Llkd(memory=0.5, warmup=2, patience=2))
    assert running.chosen("a", 0.8, 0.6) and running.chosen("a", 0.4, 0.2)  # the warm-up uses all
    assert running.teacher == pytest.approx({"a": 0.6}) and running.student == pytest.approx({"a": 0.4})
    # 0.5 * 0.6 + 0.5 * 0.9 = 0.75 <= 0.9, and 0.5 * 0.4 + 0.5 * 0.5 = 0.45 <= 0.5: used.
    assert running.chosen("a", 0.9, 0.5)
    assert running.teacher["a"] == pytest.approx(0.75) and running.student["a"] == pytest.approx(0.45)
    assert not running.chosen("a", 0.9, 0.1)  # the student knows
    assert running.student["a"] == pytest.approx(0.275) and running.passed == 1
    # A class of which nothing was seen starts with its own row.
    assert running.chosen("b", 0.3, 0.3) and running.passed == 0
    assert not running.chosen("b", 0.1, 0.9)  # the teacher is unsure
    assert running.teacher["b"] == pytest.approx(0.2)
    assert not running.chosen("b", 0.1, 0.9)
    # Two in a row: tau_S of all classes falls by a tenth.
    assert running.student == pytest.approx({"a": 0.9 * 0.275, "b": 0.9 * 0.75}) and running.passed == 0


def test_constant_numbers_use_everything():
    running = Selecting(Llkd(warmup=1, memory=0.9))
    assert all(running.chosen("ab"[i % 2], 0.7, 0.4) for i in range(200))


def test_a_class_with_an_unsure_teacher_is_held_against_itself():
    rng = np.random.default_rng(0)
    running = Selecting(Llkd(warmup=20))
    kept = {"sure": 0, "unsure": 0}
    for i in range(2000):
        kind = ("sure", "unsure")[i % 2]
        kept[kind] += running.chosen(kind, rng.uniform(0.3, 0.5) + 0.4 * (kind == "sure"), rng.uniform())
    assert abs(kept["sure"] - kept["unsure"]) < 80 and 150 < kept["unsure"] < 350


def test_uncertainty_is_the_share_of_the_largest_entropy():
    for p in ([0.2, 0.3, 0.5], [1.0, 0.0], [0.25] * 4):
        assert normalised_entropy(np.array(p)) == pytest.approx(entropy(p) / np.log(len(p)))


def test_the_loss_is_the_weighted_mean_of_what_was_used():
    one = student()
    with torch.no_grad():
        one.head.weight.normal_(generator=torch.Generator().manual_seed(0))
    rows = taught().take([0, 1, 60]).to_pylist()
    rows[1]["label_weight"] = 2.0
    running = Llkd(warmup=3).start(one)
    documents = [running.encode(row, one, 64) for row in rows]
    logps = torch.log_softmax(torch.from_numpy(one.logits([row["text"] for row in rows])), 1).numpy()
    q = np.array([row["label_probs"] for row in rows])
    u = entropy(np.exp(logps), axis=1) / np.log(3)
    w = q.max(1) * u * [1, 2, 1]
    expected = (w * -logps[np.arange(3), q.argmax(1)]).sum() / w.sum()
    total = weight = 0.0
    for batch in pack(documents, 64, rows=2, pad_id=one.pad_id, isolation=one.isolation):
        loss = running.loss(one, batch)
        total, weight = total + float(loss.sum.detach()), weight + loss.weight
    assert total / weight == pytest.approx(expected, abs=1e-5)
    assert weight == pytest.approx(w.sum(), abs=1e-5)


def test_training_passes_rows_over_and_repeats_itself():
    objective = build("training.objectives.llkd", {"warmup": 30})
    before = student().meter.cost.forward_flops
    one, record = train(objective)
    again, _ = train(objective)
    assert record.dropped_rows > 20 and same(weights(one), weights(again))
    plain, all_rows = train(build("training.objectives.classification"))
    assert all_rows.dropped_rows == 0
    # Looking at a row that is passed over is paid for.
    assert one.meter.cost.forward_flops - before > 1.3 * plain.meter.cost.forward_flops


def test_a_teacher_that_knows_when_it_guesses_is_used_well():
    found = [accuracy(train(build(name, fields), rows=180)[0]) for name, fields in (
        ("training.objectives.classification", {}), ("training.objectives.llkd", {"warmup": 20}))]  # fmt: skip
    assert found[1] > found[0] - 0.02 and found[1] > 0.75


@pytest.mark.parametrize("first", [1, 4])
def test_resume_is_exact(first, tmp_path):
    objective = build("training.objectives.llkd", {"warmup": 12, "memory": 0.9, "patience": 4})
    whole, record = train(objective)
    for stop in (first, first + 1):
        with pytest.raises(Stop):
            train(objective, checkpoint_dir=tmp_path, on_event=stop_at(stop))
    again, resumed = train(objective, checkpoint_dir=tmp_path)
    assert resumed.resumed_at == first and resumed.losses == record.losses
    assert resumed.dropped_rows == record.dropped_rows and same(weights(again), weights(whole))


def test_labels_without_probabilities_are_refused():
    one = student()
    with pytest.raises(InputError, match=r"llkd needs probabilities[\s\S]*row a[\s\S]*several samples"):
        Llkd().encode({"id": "a", "text": "x", "label": "bird"}, one, 64)
    assert Llkd().loss(one, pack([Llkd().encode(taught().take([0]).to_pylist()[0], one, 64)], 64)[0]).weight > 0
