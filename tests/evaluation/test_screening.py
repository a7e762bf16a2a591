"""evaluation.screening: the threshold by hand and by scipy, the promise kept on planted scores."""

import numpy as np
import pytest
from scipy.stats import beta

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.text.hashing import uniform
from tutelage.evaluation.screening import Screening, threshold

PROOF = {"evaluation.screening": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/evaluation/screening.py", "lower_bound(n - i, n, level)", "(n - i) / n"),
    ("src/tutelage/evaluation/screening.py", "hits[places[-1]]", "hits[places[0]]"),
    ("src/tutelage/evaluation/screening.py", "if use and hit:", "if hit:"),
    ("src/tutelage/evaluation/screening.py", 'return float("inf")', 'return float("-inf")'),
]


def scored(seed=0, rows=1200, share=0.3, **columns):
    rng = np.random.default_rng(seed)
    positive = rng.random(rows) < share
    score = rng.normal(size=rows) + 2.0 * positive
    return [
        {"id": f"r{i}", "label": ("no", "yes")[int(p)], "score": float(s), **{k: v[i] for k, v in columns.items()}}
        for i, (p, s) in enumerate(zip(positive, score))
    ]


def screen(rows, **fields):
    fields = {"column": "score", "positive": "yes", **fields}
    return Screening(**fields).evaluate(None, Dataset.from_rows(rows), {})


def test_threshold_is_the_highest_whose_bound_holds():
    scores = np.arange(100.0)
    positive = scores % 2 == 0  # 50 positives: 0, 2, ..., 98
    found = threshold(scores, positive, 0.9, 0.95)
    kept = int((scores[positive] >= found).sum())
    assert beta.ppf(0.05, kept, 50 - kept + 1) >= 0.9 > beta.ppf(0.05, kept - 1, 50 - kept + 2)
    # 20 of 20 found is not enough for a bound of 0.9: beta.ppf(0.05, 20, 1) = 0.861.
    assert threshold(np.arange(20.0), np.ones(20, bool), 0.9, 0.95) is None
    assert threshold(np.arange(20.0), np.ones(20, bool), 0.85, 0.95) == 0.0


def test_recall_is_measured_on_the_other_half():
    rows = scored()
    found = screen(rows)
    other = uniform(0, [row["id"] for row in rows]) >= 0.5
    looked = np.array([row["score"] >= found.extra["threshold"] for row in rows])
    positive = np.array([row["label"] == "yes" for row in rows])
    assert found.estimate == pytest.approx(looked[other & positive].mean())
    assert found.extra["effort_saved"] == pytest.approx((~looked)[other].mean())
    assert found.extra["recall_to_choose"] == pytest.approx(looked[~other & positive].mean())
    assert found.extra["positives_to_choose"] == (~other & positive).sum()
    assert found.n_items == (other & positive).sum()
    hits, n = (looked & other & positive).sum(), (other & positive).sum()
    assert found.interval.lo == pytest.approx(beta.ppf(0.025, hits, n - hits + 1))
    assert found.interval.hi == pytest.approx(beta.ppf(0.975, hits + 1, n - hits))
    assert found.extra["effort_saved"] > 0.3
    assert screen(rows, seed=1).extra["threshold"] != found.extra["threshold"]
    assert screen(rows, level=0.5).extra["effort_saved"] > found.extra["effort_saved"]


def test_the_promise_is_kept_nine_times_in_ten():
    kept = sum(screen(scored(seed, rows=600), recall=0.8).estimate >= 0.8 for seed in range(20))
    assert kept >= 17


def test_probabilities_unscored_rows_and_clusters():
    rows = scored()
    for row in rows:
        p = 1 / (1 + np.exp(-row["score"]))
        row["teacher_probs"], row["classes"] = [1 - p, p], ["no", "yes"]
    by_list = screen(rows, column="teacher_probs")
    assert by_list.estimate == screen(rows).estimate
    unscored = [{**row, "score": None} if row["label"] == "yes" else row for row in rows]
    found = screen(unscored)
    assert found.estimate == 1.0 and found.extra["effort_saved"] > 0.6
    groups = [f"g{i % 100}" for i in range(1200)]
    together = screen(scored(group=groups))
    chosen = uniform(0, [f"in g{i}" for i in range(100)]) < 0.5
    positive = [row["label"] == "yes" and chosen[i % 100] for i, row in enumerate(rows)]
    assert together.extra["positives_to_choose"] == sum(positive)
    named = screen([{k: v for k, v in {**row, "truth": row["label"]}.items() if k != "label"} for row in rows],
                   gold="truth")  # fmt: skip
    assert named.n_items > 0


def test_bad_input():
    rows = scored(rows=100)
    with pytest.raises(InputError, match=r"which class is looked for[\s\S]*no, yes"):
        screen(rows, positive=None)
    with pytest.raises(InputError, match="too few positive rows"):
        screen(rows, recall=0.99)
    with pytest.raises(InputError, match="no number"):
        screen([{**row, "score": "high"} for row in rows])
    with pytest.raises(InputError, match="do not name the class"):
        screen([{**row, "score": [0.5, 0.5], "classes": ["a", "b"]} for row in rows])
    with pytest.raises(InputError, match="no column 'teacher_probs'"):
        screen(rows, column="teacher_probs")
