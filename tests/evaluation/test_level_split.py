"""evaluation.level_split: macro averages by hand, Welch's test, memorisers and untuned models, leaks."""

import numpy as np
import pytest
from scipy import stats

from tutelage.core.dataset import Dataset
from tutelage.core.errors import ComparisonError, ConfigError, InputError
from tutelage.core.items import ItemLog
from tutelage.core.stats.unpaired import weighted_mean, welch
from tutelage.evaluation.level_split import LevelSplit, macro_weights

PROOF = {"evaluation.level_split": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/evaluation/level_split.py", "within[category[task]] * size[task]", "size[task]"),
    ("src/tutelage/evaluation/level_split.py", "weighted_mean(now - before,", "weighted_mean(now,"),
    ("src/tutelage/evaluation/level_split.py", "LEVELS[1]: tasks", "LEVELS[1]: categories"),
    ("src/tutelage/evaluation/level_split.py", "gains[high], gains[low]", "gains[low], gains[high]"),
    ("src/tutelage/evaluation/level_split.py", "if len(names) >= self.least_categories:", "if True:"),
    ("src/tutelage/evaluation/level_split.py", "if leak is not None:", "if False:"),
    ("src/tutelage/core/stats/unpaired.py", "mean + len(parts) * parts", "mean + parts"),
    ("src/tutelage/core/stats/unpaired.py", "equal_var=False", "equal_var=True"),
]


def log(level, gain, base=False, categories=12, tasks=3, items=5, seed=0, spread=0.05):
    """Scores of every item of a level; the base has the item's difficulty alone, the tuned model `gain` on top."""
    rng = np.random.default_rng([seed, sum(map(ord, level))])
    rows = []
    for c in range(categories):
        pull = rng.normal(0, spread)
        for t in range(tasks):
            for i in range(items):
                hard, noise = rng.uniform(0.2, 0.6), rng.normal(0, spread)
                score = hard if base else hard + gain + pull + noise
                rows.append(
                    {"item_key": f"{level}-{c}-{t}-{i}", "score": score, "cluster": f"t{t}", "group": f"c{c}"}
                )
    return ItemLog.from_rows(rows)


def three(gains, **shape):
    levels = ("one", "two", "three")
    return [[log(level, gain, base, **shape) for level, gain in zip(levels, gains)] for base in (False, True)]


def measure(tuned, untuned, inputs=None, **fields):
    return LevelSplit(**fields).evaluate(None, None, {"tuned": tuned, "untuned": untuned, **(inputs or {})})


def test_macro_average_by_hand():
    tasks = np.array(["a/x"] * 3 + ["a/y"] + ["b/z"] * 2)
    categories = np.array(["a"] * 4 + ["b"] * 2)
    weights = macro_weights(tasks, categories)
    assert weights == pytest.approx([1 / 12] * 3 + [1 / 4] + [1 / 4] * 2) and weights.sum() == pytest.approx(1)
    y = np.array([1.0, 0, 0, 1, 0, 1])
    # Task means 1/3, 1 and 1/2; categories 2/3 and 1/2.
    assert weights @ y == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert weighted_mean(y, weights, categories) == pytest.approx([2 / 3, 1 / 2])
    assert weighted_mean(y, np.ones(6), np.arange(6)) == pytest.approx(y)
    assert weighted_mean(y, weights, tasks).mean() == pytest.approx(weights @ y)


def test_a_planted_gain_at_every_level_is_recovered():
    tuned, untuned = three((0.05, 0.1, 0.2))
    found = measure(tuned, untuned)
    x = found.extra
    assert found.estimate == x["gain[unseen categories]"] == pytest.approx(0.05, abs=0.04)
    assert x["gain[unseen instances]"] == pytest.approx(0.2, abs=0.04)
    assert found.n_items == 12 and found.interval.lo < found.estimate < found.interval.hi
    assert x["gap_23"] == pytest.approx(x["gain[unseen instances]"] - x["gain[unseen tasks]"])
    rows = {row["item_key"]: row["score"] for row in tuned[0].table.to_pylist()}
    base = {row["item_key"]: row["score"] for row in untuned[0].table.to_pylist()}
    means = [np.mean([rows[k] - base[k] for k in rows if k.startswith(f"one-{c}-")]) for c in range(12)]
    bounds = stats.ttest_1samp(means, 0).confidence_interval()
    assert (found.interval.lo, found.interval.hi) == pytest.approx((bounds.low, bounds.high))
    assert found.items.scores() == pytest.approx({f"c{c}": m for c, m in enumerate(means)})
    assert x["tuned[unseen tasks]"] - x["base[unseen tasks]"] == pytest.approx(x["gain[unseen tasks]"])
    by_task = [
        np.mean(
            [a["score"] - b["score"] for a, b in zip(tuned[1].table.to_pylist(), untuned[1].table.to_pylist())][
                n * 5 : n * 5 + 5
            ]
        )
        for n in range(36)
    ]
    wanted = stats.ttest_1samp(by_task, 0).confidence_interval()
    assert x["gain[unseen tasks]_lo"] == pytest.approx(wanted.low)


def test_a_memoriser_gains_at_level_three_only_and_an_untuned_model_nowhere():
    x = measure(*three((0.0, 0.0, 0.4))).extra
    assert x["gap_23_lo"] > 0.2 and x["gap_12_lo"] < 0 < x["gap_12_hi"]
    assert x["gain[unseen categories]_lo"] < 0 < x["gain[unseen categories]_hi"]
    found = 0
    for seed in range(30):
        tuned, untuned = three((0.0, 0.0, 0.0), seed=seed)
        x = measure(tuned, untuned).extra
        found += x["gap_12_p"] < 0.05
    assert found <= 5


def test_welch_is_scipys():
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 1, 9), rng.normal(0, 3, 40)
    found = welch("gap", a, b)
    tested = stats.ttest_ind(a, b, equal_var=False)
    assert found["gap_p"] == pytest.approx(tested.pvalue) and found["gap"] == pytest.approx(a.mean() - b.mean())
    assert found["gap_lo"] == pytest.approx(tested.confidence_interval().low)
    assert welch("gap", np.ones(3), np.ones(4)) == {"gap": 0.0} and set(welch("gap", a[:1], b)) == {"gap"}


def test_few_categories_are_described_only():
    tuned, untuned = three((0.1, 0.1, 0.1), categories=4)
    found = measure(tuned, untuned)
    assert found.interval is None and "descriptive only: 4 categories" in found.no_interval
    assert "gain[unseen categories]_lo" not in found.extra and "gain[unseen tasks]_lo" in found.extra
    assert measure(tuned, untuned, least_categories=4).interval is not None


def test_what_was_trained_on_is_no_unseen_level():
    tuned, untuned = three((0.1, 0.1, 0.1))
    levels = [
        Dataset.from_rows([{"id": f"{n}", "text": f"text {n}", "origin": f"set {n}", "name": f"task {n}"}])
        for n in range(3)
    ]
    seen = Dataset.from_rows([{"id": "t", "text": "other", "origin": "set 1"}])
    names = {"source": "origin", "task": "name"}
    with pytest.raises(
        InputError, match=r"trained on[\s\S]*unseen tasks, task 'task 1', column 'origin'[\s\S]*set 1"
    ):
        measure(tuned, untuned, {"trained_on": seen, "level_rows": levels}, **names)
    third = Dataset.from_rows([{"id": "t", "text": "other", "origin": "set 2"}])
    assert measure(tuned, untuned, {"trained_on": third, "level_rows": levels}, **names).n_items == 12
    copied = Dataset.from_rows([{"id": "t", "text": "Text 2", "origin": "set 9"}])
    with pytest.raises(InputError, match=r"texts of a level[\s\S]*unseen instances[\s\S]*1 of 1, first 2"):
        measure(tuned, untuned, {"trained_on": copied, "level_rows": levels}, **names)


def test_bad_input():
    tuned, untuned = three((0.1, 0.1, 0.1))
    with pytest.raises(InputError, match=r"three levels[\s\S]*3 and 2"):
        measure(tuned, untuned[:2])
    with pytest.raises(ComparisonError, match="two levels"):
        measure([tuned[0], tuned[0], tuned[2]], [untuned[0], untuned[0], untuned[2]])
    with pytest.raises(ComparisonError, match=r"not of the same items[\s\S]*first keys: two-0"):
        measure(tuned, [untuned[0], untuned[2], untuned[1]])
    one, same = three((0.1, 0.1, 0.1), categories=1)
    with pytest.raises(InputError, match="one category"):
        measure(one, same)
    bare = ItemLog.from_rows([{"item_key": "x", "score": 1.0, "group": "c"}])
    with pytest.raises(InputError, match=r"task and category[\s\S]*item x[\s\S]*cluster None"):
        measure([bare, *tuned[1:]], [bare, *untuned[1:]])
    with pytest.raises(ConfigError, match="least_categories"):
        LevelSplit(least_categories=1)
