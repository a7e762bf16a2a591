"""core.stats.agreement: Cohen's kappa and Krippendorff's alpha against other libraries and printed values."""

import numpy as np
import pytest

from tutelage.core.errors import InputError
from tutelage.core.stats.agreement import cohen_kappa, krippendorff_alpha, raw_agreement

MUTATIONS = [
    ("src/tutelage/core/stats/agreement.py", "a[label] * b[label]", "a[label] * a[label]"),
    ("src/tutelage/core/stats/agreement.py", "(observed - expected) / (1 - expected)", "(observed - expected)"),
    ("src/tutelage/core/stats/agreement.py", "/ (m - 1)\n", "/ m\n"),
    ("src/tutelage/core/stats/agreement.py", "(n * (n - 1))", "(n * n)"),
    ("src/tutelage/core/stats/agreement.py", "if len(unit) > 1", "if unit"),
]
# The example of Krippendorff, "Computing Krippendorff's alpha-reliability" (2011): four observers, twelve units.
OBSERVERS = ["123321412...", "12332241 25.3".replace(" ", ""), ".3332342251.", "1233244125 1.".replace(" ", "")]


def units(rows):
    return [[row[place] for row in rows if row[place] != "."] for place in range(len(rows[0]))]


def draw(seed, rows=80, annotators=2, classes=4, noise=0.4):
    rng = np.random.default_rng(seed)
    truth = rng.integers(classes, size=rows)
    given = [
        np.where(rng.random(rows) < noise, rng.integers(classes, size=rows), truth) for _ in range(annotators)
    ]
    return [[f"c{label}" for label in labels] for labels in given]


@pytest.mark.parametrize("seed", range(5))
def test_kappa_equals_scikit_learn(seed):
    metrics = pytest.importorskip("sklearn.metrics")
    first, second = draw(seed)
    assert cohen_kappa(first, second) == pytest.approx(metrics.cohen_kappa_score(first, second), abs=1e-12)


def test_kappa_by_hand():
    # 20 + 15 equal of 50; chance: .5 * .6 + .5 * .4 = .5.
    first = ["yes"] * 25 + ["no"] * 25
    second = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert raw_agreement(first, second) == 0.7
    assert cohen_kappa(first, second) == pytest.approx(0.4)


def test_alpha_of_the_printed_example():
    assert [len(row) for row in OBSERVERS] == [12] * 4
    assert krippendorff_alpha(units(OBSERVERS)) == pytest.approx(0.743, abs=5e-4)


@pytest.mark.parametrize("seed", range(3))
def test_alpha_equals_nltk(seed):
    agreement = pytest.importorskip("nltk.metrics.agreement")
    given = draw(seed, annotators=4)
    rng = np.random.default_rng(seed)
    # Every item keeps at least two values: nltk counts lone values otherwise.
    kept = [[place < 2 or rng.random() < 0.5 for place in range(4)] for _ in range(80)]
    triples = [(str(a), str(i), given[a][i]) for i in range(80) for a in range(4) if kept[i][a]]
    ours = krippendorff_alpha([[given[a][i] for a in range(4) if kept[i][a]] for i in range(80)])
    assert ours == pytest.approx(agreement.AnnotationTask(data=triples).alpha(), abs=1e-9)


def test_alpha_of_two_is_near_kappa_and_lone_values_do_not_count():
    first, second = draw(7, rows=2000)
    pairs = [list(pair) for pair in zip(first, second)]
    assert krippendorff_alpha(pairs) == pytest.approx(cohen_kappa(first, second), abs=2e-3)
    assert krippendorff_alpha([*pairs, ["c0"], ["c1"], []]) == krippendorff_alpha(pairs)


def test_what_is_undefined_is_none():
    assert cohen_kappa([], []) is None and raw_agreement([], []) is None
    assert cohen_kappa(["a"] * 7, ["a"] * 7) is None
    assert krippendorff_alpha([["a", "a"], ["a", "a"]]) is None
    assert krippendorff_alpha([["a"], ["b"]]) is None
    assert cohen_kappa(["a", "b"], ["a", "b"]) == 1.0
    with pytest.raises(InputError, match="not over the same items"):
        cohen_kappa(["a"], ["a", "b"])
