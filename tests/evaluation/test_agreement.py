"""evaluation.agreement and the tables below it against scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.stats import confusion
from tutelage.core.stats.agreement import cohen_kappa
from tutelage.evaluation.agreement import Agreement

PROOF = {"evaluation.agreement": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/core/stats/confusion.py", "(accuracy(table) - expected) / (1.0 - expected)", "accuracy(table)"),
    ("src/tutelage/core/stats/confusion.py", "2 * np.diagonal(table) / np", "np.diagonal(table) / np"),
    ("src/tutelage/core/stats/confusion.py", "class_f1(table)[:classes]", "class_f1(table)"),
    ("src/tutelage/core/stats/confusion.py", "first * classes + second", "second * classes + first"),
    (
        "src/tutelage/core/stats/confusion.py",
        "cluster_design(clusters, len(first))",
        "cluster_design(None, len(first))",
    ),
    ("src/tutelage/evaluation/_labels.py", 'if column == "label" and', "if False and"),
    ("src/tutelage/evaluation/agreement.py", "(second == len(space)).mean()", "(second < len(space)).mean()"),
    ("src/tutelage/evaluation/agreement.py", "(first[both], other[both], wide)", "(first, other, wide)"),
    ("src/tutelage/evaluation/agreement.py", "kappa < LEAST_HUMAN", "kappa > LEAST_HUMAN"),
    (
        "src/tutelage/evaluation/agreement.py",
        "measures[self.metric](table) / ceiling",
        "measures[self.metric](table)",
    ),
]
NAMES = ("crime", "money", "sport")


def labels(seed=0, rows=120, noise=0.3):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, rows)
    other = np.where(rng.random(rows) < noise, rng.integers(0, 3, rows), truth)
    return [NAMES[k] for k in truth], [NAMES[k] for k in other]


def rows_of(first, second, **columns):
    return Dataset.from_rows(
        {"id": f"r{i}", "label": a, "teacher_label": b, **{name: values[i] for name, values in columns.items()}}
        for i, (a, b) in enumerate(zip(first, second))
    )


def measure(dataset, inputs=None, **fields):
    return Agreement(**{"draws": 200, **fields}).evaluate(None, dataset, inputs or {})


@pytest.mark.parametrize("seed", range(4))
def test_measures_equal_scikit_learn(seed):
    first, second = labels(seed)
    found = measure(rows_of(first, second))
    assert found.estimate == found.extra["kappa"] == pytest.approx(cohen_kappa_score(first, second), abs=1e-12)
    assert found.extra["kappa"] == pytest.approx(cohen_kappa(first, second), abs=1e-12)
    assert found.extra["accuracy"] == pytest.approx(accuracy_score(first, second))
    assert found.extra["macro_f1"] == pytest.approx(f1_score(first, second, average="macro"))
    each = f1_score(first, second, average=None, labels=NAMES)
    assert [found.extra[f"f1[{name}]"] for name in NAMES] == pytest.approx(list(each))
    assert found.interval.lo < found.estimate < found.interval.hi and found.interval.covers == "items"
    assert found.items is not None and np.mean(list(found.items.scores().values())) == found.extra["accuracy"]


def test_one_class_against_the_rest_equals_scikit_learn():
    first, second = labels(7)
    place = {name: k for k, name in enumerate(NAMES)}
    table = confusion.counts_table(np.array([place[a] for a in first]), np.array([place[b] for b in second]), 4)
    wanted = [cohen_kappa_score([a == name for a in first], [b == name for b in second]) for name in NAMES]
    assert confusion.class_kappa(table)[:3] == pytest.approx(wanted, abs=1e-12)
    assert np.isnan(confusion.class_kappa(table)[3])
    by_hand = confusion.counts_table(np.array([0, 0, 1]), np.array([1, 1, 1]), 2)
    assert by_hand.tolist() == [[0, 2], [0, 1]]
    assert confusion.class_kappa(np.stack([table, table])).shape == (2, 4)


def test_the_interval_is_that_of_resampled_rows():
    first, second = labels(1, rows=400)
    found = measure(rows_of(first, second), metric="accuracy", draws=2000, level=0.9, seed=3)
    p, n = found.estimate, 400
    half = 1.645 * (p * (1 - p) / n) ** 0.5
    assert (found.interval.lo, found.interval.hi) == pytest.approx((p - half, p + half), abs=0.006)
    assert found.interval.level == 0.9
    assert measure(rows_of(first, second), seed=1).interval != measure(rows_of(first, second), seed=2).interval


def test_rows_of_one_cluster_are_drawn_together():
    first, second = labels(2, rows=40)
    alone = measure(rows_of(first, second))
    copies = rows_of(first * 5, second * 5, group=[f"g{i}" for i in range(40)] * 5)
    together = measure(copies)
    assert together.estimate == pytest.approx(alone.estimate)
    assert together.interval.covers == "clusters"
    width, wide = (one.interval.hi - one.interval.lo for one in (together, alone))
    assert width == pytest.approx(wide, rel=0.2)
    unaware = measure(rows_of(first * 5, second * 5))
    assert unaware.interval.hi - unaware.interval.lo < 0.6 * wide


def test_a_missing_answer_agrees_with_nothing_and_is_no_class():
    first, second = labels(3)
    second = [None if i % 4 == 0 else name for i, name in enumerate(second)]
    said = ["truncated" if name is None else "ok" for name in second]
    found = measure(rows_of(first, second, teacher_status=said))
    right = sum(a == b for a, b in zip(first, second)) / 120
    assert found.extra["accuracy"] == pytest.approx(right)
    assert found.extra["unlabelled"] == 0.25
    assert found.status_counts == {"ok": 90, "truncated": 30} and found.extra["many_failures"] == 1
    wanted = f1_score(first, [name or "none" for name in second], average="macro", labels=NAMES)
    assert found.extra["macro_f1"] == pytest.approx(wanted)
    assert found.extra["kappa"] == pytest.approx(cohen_kappa_score(first, [name or "none" for name in second]))
    unnamed = measure(rows_of(first, second, why=said), status="none")
    assert unnamed.status_counts == {"ok": 90, "unparsed": 30}


def test_what_a_machine_called_label_is_no_reference():
    first, second = labels(4)
    sources = ["teacher:x" if i < 60 else "gold" for i in range(120)]
    found = measure(rows_of(first, second, label_source=sources))
    assert found.n_items == 60 and found.extra["no_reference"] == 60
    assert found.estimate == pytest.approx(cohen_kappa_score(first[60:], second[60:]))
    with pytest.raises(InputError, match="no row has a reference"):
        measure(rows_of(first, second, label_source=["pseudo:1"] * 120))
    # Two people in columns of their own.
    turned = measure(rows_of(first, second), first="teacher_label", second="label")
    assert turned.estimate == pytest.approx(cohen_kappa_score(first, second))


def test_a_class_that_is_never_given_is_said():
    first, _ = labels(5)
    second = ["money" if name == "sport" else name for name in first]
    with pytest.warns(UserWarning, match="teacher_label never holds 'sport'"):
        measure(rows_of(first, second))


def test_bad_input():
    first, second = labels(6)
    schema = Dataset.from_rows([{"label": name} for name in ("crime", "money")])
    with pytest.raises(InputError, match=r"not a class of the schema[\s\S]*row r\d+, field label"):
        measure(rows_of(first, second), {"labels": schema})
    with pytest.raises(InputError, match="kappa is undefined"):
        measure(rows_of(["money"] * 30, ["money"] * 30))
    same = measure(rows_of(["money"] * 30, ["money"] * 30), metric="accuracy")
    assert same.estimate == 1.0 and "kappa" not in same.extra
    assert measure(rows_of(["money"] * 30, ["money"] * 30), metric="macro_f1").estimate == 1.0
    with pytest.raises(InputError, match="names of classes"):
        measure(rows_of([1] * 5, [1] * 5))
    with pytest.raises(InputError, match="no column 'other'"):
        measure(rows_of(first, second), second="other")
    with pytest.warns(UserWarning, match="never holds"):
        mostly = measure(rows_of(["money"] * 29 + ["sport"], ["money"] * 30), metric="kappa")
    assert mostly.estimate == 0.0 and mostly.interval is None and "one resample in ten" in mostly.no_interval


def test_another_persons_labels_are_the_ceiling():
    first, machine = labels(8, rows=300)
    rng = np.random.default_rng(8)
    # People mix up crime and money now and then, and never sport; a third of the rows has one person only.
    swap = {"crime": "money", "money": "crime", "sport": "sport"}
    person = [swap[a] if rng.random() < 0.25 else a for a in first]
    person = [None if i % 3 == 0 else a for i, a in enumerate(person)]
    found = measure(rows_of(first, machine, other=person), ceiling="other").extra
    both = [(a, b) for a, b in zip(first, person) if b is not None]
    assert found["ceiling"] == pytest.approx(cohen_kappa_score(*zip(*both))) and found["ceiling_rows"] == 200
    assert found["share_of_ceiling"] == pytest.approx(found["kappa"] / found["ceiling"])
    unclear = {name for name in NAMES if f"definition_problem[{name}]" in found}
    assert unclear == {"crime", "money"}
    same = measure(rows_of(first, first, other=first), ceiling="other").extra
    assert same["ceiling"] == same["share_of_ceiling"] == 1 and "definition_problem[sport]" not in same
    assert "ceiling" not in measure(rows_of(first, machine)).extra
    with pytest.raises(InputError, match="second person's label"):
        measure(rows_of(first, machine, other=[None] * 300), ceiling="other")
    with pytest.raises(InputError, match="no column 'nobody'"):
        measure(rows_of(first, machine), ceiling="nobody")


def test_lower_bound_is_clopper_pearson():
    from scipy.stats import binomtest

    for hits, n in ((0, 10), (7, 10), (10, 10), (99, 100)):
        wanted = binomtest(hits, n, alternative="greater").proportion_ci(0.95, method="exact").low
        assert confusion.lower_bound(hits, n) == pytest.approx(wanted)
