"""evaluation.calibration against scikit-learn, hand tables and planted miscalibration."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss, roc_auc_score

from toy.labelled import labelled
from toy.lookup_model import LookupModel
from tutelage.core import discovery
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.core.stats import calibration as measure
from tutelage.evaluation.calibration import Calibration
from tutelage.evaluation.multiple_choice import MultipleChoice

PROOF = {"evaluation.calibration": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/core/stats/calibration.py", 'method="average") - 1.0', 'method="ordinal") - 1.0'),
    ("src/tutelage/core/stats/calibration.py", "share * (1 - share) / (size - 1)", "share * (1 - share) / size"),
    ("src/tutelage/core/stats/calibration.py", "np.cumsum(down) - down / 2", "np.cumsum(down)"),
    ("src/tutelage/core/stats/calibration.py", "return np.cumsum(mean[block])", "return np.cumsum(wrong)"),
    ("src/tutelage/core/stats/calibration.py", "generator.random(len(place)) < confidence", "confidence > 0.5"),
    ("src/tutelage/core/stats/calibration.py", ", weights=count", ""),
    ("src/tutelage/evaluation/calibration.py", "binned_gap(bent,", "binned_gap(stated.confidence,"),
    ("src/tutelage/evaluation/calibration.py", "- 2 * stated.given + 1", "- 2 * stated.given"),
    ("src/tutelage/evaluation/calibration.py", "stated.confidence - stated.right", "stated.right"),
    ("src/tutelage/evaluation/calibration.py", "(perfect >= ece).sum()", "(perfect <= ece).sum()"),
    ("src/tutelage/evaluation/calibration.py", "squares / 2 if stated.alone", "squares if stated.alone"),
    ("src/tutelage/evaluation/calibration.py", "if len(set(clusters.tolist())) == len(clusters):", "if True:"),
    ("src/tutelage/evaluation/calibration.py", "        if both:\n", "        if False:\n"),
    ("src/tutelage/evaluation/_stated.py", "/ top.sum(axis=1)", ""),
    ("src/tutelage/evaluation/_stated.py", "abs(sum(found) - 1) > SLACK", "False"),
    ("src/tutelage/evaluation/_stated.py", "np.abs(stated - row", "np.abs(stated + row"),
]  # fmt: skip


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def drawn(n, temperature=1.0, seed=0, classes=3):
    """(stated probabilities, labels) of a model whose logits are `temperature` times too large."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=1.5, size=(n, classes))
    labels = np.array([rng.choice(classes, p=p) for p in softmax(logits)])
    return softmax(logits * temperature), labels


def rows_of(probs, labels, **columns):
    names = [f"class {k}" for k in range(probs.shape[1])]
    return Dataset.from_rows(
        {"id": f"{columns.get('tag', 'r')}{i}", "predicted_probs": [float(x) for x in p], "classes": names}
        | {"label": names[y], **{k: v[i] if isinstance(v, list) else v for k, v in columns.items()}}
        for i, (p, y) in enumerate(zip(probs, labels))
    )


def measured(dataset, inputs=None, model=None, **fields):
    return Calibration(**fields).evaluate(model, dataset, inputs or {})


@pytest.mark.parametrize(("n", "wanted"), [(100, 0.100), (200, 0.070), (1000, 0.032), (5000, 0.014)])
def test_a_perfectly_calibrated_model_has_no_ece_of_zero(n, wanted):
    rng = np.random.default_rng(0)
    plain, squared = [], []
    for _ in range(300):
        p = rng.uniform(0.5, 1, n)
        y = (rng.random(n) < p).astype(float)
        place = measure.equal_mass_bins(p)
        plain.append(measure.binned_gap(p, y, place))
        squared.append(measure.squared_gap(p, y, place))
    assert np.mean(plain) == pytest.approx(wanted, rel=0.04)
    assert abs(np.mean(squared)) < 3 * np.std(squared) / 300**0.5
    again = measure.gaps_if_calibrated(p, place, 300, 1)
    assert again.mean() == pytest.approx(wanted, rel=0.1)


def test_bins_hold_equal_shares_and_never_split_a_tie():
    place = measure.equal_mass_bins(np.random.default_rng(0).random(200))
    assert np.bincount(place).tolist() == [20] * 10
    tied = np.array([0.3] * 50 + [0.7] * 150)
    both = measure.equal_mass_bins(tied)
    assert len(set(both[:50])) == len(set(both[50:])) == 1 and both[0] != both[-1]
    p, y = np.array([0.9, 0.9, 0.6, 0.6]), np.array([1.0, 0.0, 1.0, 1.0])
    place = measure.equal_mass_bins(p, 2)
    # |0.9 - 0.5| / 2 + |0.6 - 1| / 2; (0.16 - 0.25) / 2 + 0.16 / 2.
    assert measure.binned_gap(p, y, place) == pytest.approx(0.4)
    assert measure.squared_gap(p, y, place) == pytest.approx(0.035)
    assert np.isnan(measure.squared_gap(p[:1], y[:1], place[:1]))


def test_measures_equal_scikit_learn():
    probs, labels = drawn(400, 2.0)
    found = measured(rows_of(probs, labels))
    hit = (probs.argmax(axis=1) == labels).astype(float)
    assert found.extra["accuracy"] == accuracy_score(labels, probs.argmax(axis=1))
    assert found.extra["nll"] == pytest.approx(log_loss(labels, probs))
    onehot = np.eye(3)[labels]
    assert found.estimate == found.extra["brier"] == pytest.approx(((probs - onehot) ** 2).sum(axis=1).mean())
    assert found.extra["auroc"] == pytest.approx(roc_auc_score(hit, probs.max(axis=1)))
    assert found.extra["overconfidence"] == pytest.approx(probs.max(axis=1).mean() - hit.mean())
    rounded = np.round(probs.max(axis=1), 1)
    assert measure.auroc(rounded, hit) == pytest.approx(roc_auc_score(hit, rounded))
    assert found.direction == -1 and found.interval.lo < found.estimate < found.interval.hi
    # With confidences alone it is the two-class Brier score.
    alone = Dataset.from_rows(
        {"id": f"r{i}", "confidence": float(c), "correct": bool(y)}
        for i, (c, y) in enumerate(zip(probs.max(axis=1), hit))
    )
    other = measured(alone)
    renamed = Dataset.from_rows(
        {"id": row["id"], "p": row["confidence"], "hit": row["correct"]} for row in alone.rows()
    )
    assert measured(renamed, confidence="p", correct="hit").estimate == other.estimate
    moved = Dataset.from_rows(
        {**{k: v for k, v in row.items() if k != "predicted_probs"}, "q": row["predicted_probs"]}
        for row in rows_of(probs, labels).rows()
    )
    assert measured(moved, probs="q").estimate == found.estimate
    assert other.estimate == pytest.approx(brier_score_loss(hit, probs.max(axis=1)))
    assert other.extra["nll"] == pytest.approx(log_loss(hit, probs.max(axis=1)))
    for name in ("ece", "auroc", "aurc", "overconfidence", "accuracy"):
        assert other.extra[name] == pytest.approx(found.extra[name])


def test_planted_overconfidence_is_found_and_perfection_is_not_accused():
    small = [measured(rows_of(*drawn(200, seed=s)), seed=s).extra for s in range(60)]
    assert np.mean([one["ece"] for one in small]) == pytest.approx(
        np.mean([one["ece_if_calibrated"] for one in small]), rel=0.1
    )
    assert np.mean([one["ece_p"] <= 0.05 for one in small]) <= 0.12
    assert 0.3 < np.mean([one["ece_p"] for one in small]) < 0.7
    loud = measured(rows_of(*drawn(400, 2.0)), metric="overconfidence")
    assert loud.extra["ece_p"] < 0.01 and loud.interval.lo > 0.05
    shy = measured(rows_of(*drawn(400, 0.4)), metric="overconfidence")
    assert shy.extra["ece_p"] < 0.01 and shy.interval.hi < -0.05


def test_temperature_is_recovered_on_other_items_and_changes_no_answer():
    dev, rows = rows_of(*drawn(3000, 2.0, seed=1), tag="d"), rows_of(*drawn(1500, 2.0, seed=2))
    found = measured(rows, {"dev": dev})
    assert found.extra["temperature"] == pytest.approx(2.0, abs=0.1)
    assert found.extra["nll_after"] < found.extra["nll"] and found.extra["brier_after"] < found.estimate
    assert found.extra["ece_after"] < 0.035 < found.extra["ece"] and found.extra["dev_items"] == 3000
    assert found.extra["overconfidence_after"] == pytest.approx(0, abs=0.03)
    assert found.extra["answered"] == pytest.approx(0.8, abs=0.03)
    assert found.extra["accuracy_answered"] == pytest.approx(found.extra["accuracy_at_coverage"], abs=0.02)
    with pytest.raises(InputError, match=r"measured on were to fit[\s\S]*1500 of 1500"):
        measured(rows, {"dev": rows})


def test_isotonic_regression_is_scikit_learns_and_repairs_what_a_temperature_cannot():
    from sklearn.isotonic import IsotonicRegression

    rng = np.random.default_rng(0)
    c, at = np.round(rng.uniform(0.3, 1, 400), 2), rng.uniform(0.2, 1, 50)
    y = (rng.random(400) < c**3).astype(float)
    wanted = IsotonicRegression(out_of_bounds="clip").fit(c, y).predict(at)
    assert measure.isotonic(c, y, at) == pytest.approx(wanted, abs=1e-9)

    def odd(n, seed):
        # Always half right, whatever is said.
        rng = np.random.default_rng(seed)
        return Dataset.from_rows(
            {"id": f"{seed}-{i}", "confidence": float(p), "correct": bool(rng.random() < 0.5)}
            for i, p in enumerate(rng.uniform(0.05, 0.95, n))
        )

    found = measured(odd(1000, 2), {"dev": odd(3000, 1)}).extra
    assert found["ece_isotonic"] < 0.05 < found["ece"]


def test_risk_by_coverage_by_hand():
    c, y = np.array([0.9, 0.8, 0.8, 0.1]), np.array([1.0, 0.0, 1.0, 1.0])
    # The two of 0.8 are in random order: half a mistake each.
    assert measure.risks_by_coverage(c, y) == pytest.approx([0, 0.25, 1 / 3, 0.25])
    rows = Dataset.from_rows(
        {"id": str(i), "confidence": a, "correct": bool(b)} for i, (a, b) in enumerate(zip(c, y))
    )
    found = measured(rows, coverage=0.5)
    assert found.extra["accuracy_at_coverage"] == pytest.approx(0.75)
    assert found.extra["aurc"] == pytest.approx((0.25 + 1 / 3 + 0.25) / 4)
    assert found.extra["aurc_excess"] == pytest.approx(found.extra["aurc"] - 0.25 / 4)
    assert found.system["risk_coverage"][-1] == {"coverage": 1.0, "risk": pytest.approx(0.25)}


def test_the_diagram_has_wilson_intervals():
    probs, labels = drawn(300)
    points = measured(rows_of(probs, labels)).system["reliability"]
    assert len(points) == 10 and sum(p["n"] for p in points) == 300
    assert all(p["lo"] < p["right"] < p["hi"] or p["right"] == p["hi"] == 1.0 for p in points)
    assert [p["confidence"] for p in points] == sorted(p["confidence"] for p in points)


def choices(lls, answers, prompts=None):
    """A multiple-choice result with these planted log-likelihoods."""
    names, table, rows = "abcd", {}, []
    for i, (one, answer) in enumerate(zip(lls, answers)):
        options = list(names[: len(one)])
        table |= {(f"Q{i}", " " + name): float(ll) for name, ll in zip(options, one)}
        rows.append({"prompt": f"Q{i}", "choices": options, "answer": int(answer)})
    return MultipleChoice().evaluate(LookupModel(table), Dataset.from_rows(rows), {})


def test_multiple_choice_items_state_probabilities():
    lls = [[-1.0, -2.0, -3.0], [-2.0, -2.0], [-1.0, -5.0]]
    result = choices(lls, [0, 1, 1])
    found = Calibration().evaluate(None, None, {"measured": result})
    p = [np.exp(one) / np.exp(one).sum() for one in map(np.array, lls)]
    brier = [sum((q - (k == t)) ** 2 for k, q in enumerate(one)) for one, t in zip(p, (0, 1, 1))]
    assert found.estimate == pytest.approx(np.mean(brier))
    # The tie is worth half a point.
    assert found.extra["accuracy"] == pytest.approx(result.estimate) == 0.5
    assert found.extra["nll"] == pytest.approx(-np.mean(np.log([p[0][0], 0.5, p[2][1]])))
    assert found.items.scores().keys() == result.items.scores().keys(), "it pairs with what it was made from"
    assert found.system["weights"] == "lookup"
    probs, labels = drawn(2000, 3.0, seed=5)
    dev = choices(np.log(probs[1000:]), labels[1000:])
    with pytest.raises(InputError, match="the repair"):
        Calibration().evaluate(None, None, {"measured": dev, "dev": dev})
    lone = measured(rows_of(probs[:1000], labels[:1000]), {"dev": dev})
    assert lone.extra["temperature"] == pytest.approx(3.0, abs=0.4)


def test_a_classifier_is_measured_on_labelled_rows():
    made = discovery.build("adapters.tfidf_classifier").convert({}, labelled(30), {})
    held = labelled(30, seed=1)
    found = measured(held, model=made)
    texts = [row["text"] for row in held.rows()]
    probs = made.predict_proba(texts)
    truth = [made.labels.names.index(row["label"]) for row in held.rows()]
    assert found.extra["nll"] == pytest.approx(log_loss(truth, probs))
    assert found.system["name"] == made.name
    with pytest.raises(InputError, match=r"machine's label[\s\S]*teacher:x"):
        measured(labelled(5, label_source="teacher:x"), model=made)


def test_clusters_widen_the_interval_and_take_the_p_away():
    probs, labels = drawn(200)
    alone = measured(rows_of(probs, labels))
    copies = rows_of(np.repeat(probs, 3, axis=0), np.repeat(labels, 3), cluster=[f"c{i // 3}" for i in range(600)])
    together = measured(copies)
    assert together.interval.covers == "clusters"
    assert together.interval.hi == pytest.approx(alone.interval.hi, rel=1e-3)
    assert "ece_p" in alone.extra and "ece_p" not in together.extra


def test_what_does_not_exist_is_left_out():
    rows = Dataset.from_rows({"id": str(i), "confidence": 0.5 + i / 50, "correct": True} for i in range(20))
    found = measured(rows)
    assert "auroc" not in found.extra and found.extra["accuracy"] == 1


def test_bad_input():
    probs, labels = drawn(30)
    with pytest.raises(InputError, match=r"row r0[\s\S]*add up to 1"):
        measured(rows_of(probs * 1.1, labels))
    with pytest.raises(InputError, match=r"how sure it was[\s\S]*row a[\s\S]*1.5 and True"):
        measured(Dataset.from_rows([{"id": "a", "confidence": 1.5, "correct": True}]))
    with pytest.raises(InputError, match=r"row b[\s\S]*0.5 and None"):
        measured(
            Dataset.from_rows([{"id": "a", "confidence": 0.5, "correct": True}, {"id": "b", "confidence": 0.5}])
        )
    with pytest.raises(InputError, match="nothing whose calibration"):
        measured(None)
    with pytest.raises(InputError, match="a result were given"):
        measured(rows_of(probs, labels), {"measured": choices([[-1.0, -2.0]], [0])})
    with pytest.raises(InputError, match="no measurement with its items"):
        measured(None, {"measured": "accuracy"})
    words = Dataset.from_rows([{"id": "a", "text": "abc"}])
    bits = discovery.build("evaluation.bits_per_byte").evaluate(LookupModel(), words, {})
    with pytest.raises(InputError, match=r"states no probabilities[\s\S]*inputs.measured"):
        measured(None, {"measured": bits})
    with pytest.raises(ConfigError, match="bins"):
        Calibration(bins=1)
