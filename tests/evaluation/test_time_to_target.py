"""evaluation.time_to_target: the worked example, numerical integration of the profile, missing trials."""

import numpy as np
import pytest
from scipy.integrate import quad

from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.evaluation.time_to_target import TimeToTarget, ratio_scores

PROOF = {"evaluation.time_to_target": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/evaluation/time_to_target.py", "(worst - ratio) / (worst - 1.0)", "(worst - ratio) / worst"),
    ("src/tutelage/evaluation/time_to_target.py", "np.median([min(", "np.mean([min("),
    ("src/tutelage/evaluation/time_to_target.py", "[min(trials.values())", "[max(trials.values())"),
    ("src/tutelage/evaluation/time_to_target.py", "(m, w) in failed", "False"),
    ("src/tutelage/evaluation/time_to_target.py", "found != wanted[workload] or", ""),
    ("src/tutelage/evaluation/time_to_target.py", "best = times.min(axis=0)", "best = times.min()"),
]
INF = None
EXAMPLE = {"a": (1, 2, INF), "b": (2, 1, 5), "reference": (1, 1, 5)}


def rows_of(times, studies=1, trials=1, **names):
    """`times` {method: (time per workload)}, the same in every study and trial."""
    used = {name: names.get(name, name) for name in ("method", "workload", "study", "trial", "time")}
    return [
        {
            "id": f"{m}-{w}-{s}-{t}",
            used["method"]: m,
            used["workload"]: f"w{w}",
            used["study"]: s,
            used["trial"]: t,
        }
        | {used["time"]: None if value is None else float(value)}
        for m, row in times.items()
        for w, value in enumerate(row)
        for s in range(studies)
        for t in range(trials)
    ]


def measure(rows, **fields):
    return TimeToTarget(**{"subject": "a", **fields}).evaluate(None, Dataset.from_rows(rows), {})


def test_the_worked_example():
    found = measure(rows_of(EXAMPLE))
    scores = [found.extra[f"score[{name}]"] for name in ("a", "b", "reference")]
    assert scores == pytest.approx([0.5556, 0.8889, 1.0], abs=5e-5) and found.estimate == scores[0]
    assert found.extra["difference"] == pytest.approx(0.5556 - 1, abs=5e-5)
    assert found.extra["difference_lo"] < found.extra["difference"] < found.extra["difference_hi"]
    assert 0 < found.extra["difference_p"] <= 1
    assert "time[a, w2]" not in found.extra and found.extra["time[b, w2]"] == 5
    assert [found.extra[f"reached[{m}]"] for m in ("a", "b")] == [2, 3]
    assert found.n_items == 3 and found.interval.lo < found.estimate
    other = measure(rows_of(EXAMPLE), subject="b")
    assert other.items.scores().keys() == found.items.scores().keys()


def test_the_closed_form_is_the_integral_of_the_profile():
    rng = np.random.default_rng(0)
    times = rng.lognormal(0, 0.7, (4, 6))
    times[0, 1] = times[2, 3] = np.inf
    ratio = times / times.min(axis=0)
    for worst in (2.0, 4.0):
        scores = ratio_scores(times, worst).mean(axis=1)
        for method in range(4):
            breaks = sorted(r for r in ratio[method] if 1 < r < worst)
            area, _ = quad(lambda tau: (ratio[method] <= tau).mean(), 1, worst, points=breaks, limit=200)  # noqa: B023
            assert scores[method] == pytest.approx(area / (worst - 1), abs=1e-6)
    named = {name: list(row) for name, row in zip(("a", "b", "c", "reference"), times)}
    shown = measure(rows_of({k: [None if np.isinf(v) else v for v in row] for k, row in named.items()}))
    profile = shown.system["profiles"]["a"]
    assert [p["share"] for p in profile] == pytest.approx([(ratio[0] <= p["tau"]).mean() for p in profile])


def test_a_study_is_as_good_as_its_best_trial_and_the_median_study_counts():
    rows = rows_of({"a": [9], "reference": [1]}, 3, 2)
    best = {(0, 0): 2.0, (0, 1): None, (1, 0): 7.0, (1, 1): 6.0, (2, 0): None, (2, 1): 3.0}
    rows = [row | ({"time": best[row["study"], row["trial"]]} if row["method"] == "a" else {}) for row in rows]
    found = measure(rows)
    assert found.extra["time[a, w0]"] == 3.0 and found.estimate == pytest.approx((4 - 3) / 3)
    missed = [row | ({"time": None} if row["method"] == "a" and row["study"] else {}) for row in rows]
    assert measure(missed).estimate == 0 and measure(missed).extra["reached[a]"] == 0


def test_a_workload_that_nobody_reaches_is_named_and_failed_variants_count():
    found = measure(rows_of({"a": (1, INF), "reference": (2, INF)}))
    assert found.system["unreached"] == ["w1"] and found.extra["unreached"] == 1
    assert found.estimate == 0.5 and found.extra["score[reference]"] == pytest.approx(1 / 3)
    rows = [row | {"ok": not (row["method"] == "a" and row["workload"] == "w0")} for row in rows_of(EXAMPLE)]
    broken = measure(rows, robust="ok")
    assert broken.extra["reached[a]"] == 1 and broken.estimate == pytest.approx(2 / 9, abs=1e-6)


def test_other_columns_and_another_worst_ratio():
    names = {"method": "who", "workload": "what", "study": "s", "trial": "t", "time": "flops"}
    rows = rows_of({"mine": (2,), "adamw": (1,)}, **names)
    found = measure(rows, **names, reference="adamw", subject=None, worst=3.0)
    assert found.estimate == pytest.approx(0.5) and found.system["name"] == "mine"


def test_bad_input():
    with pytest.raises(
        InputError, match=r"a trial is missing, which is not[\s\S]*b on w2[\s\S]*0 trials in 0 studies"
    ):
        measure([row for row in rows_of(EXAMPLE) if row["id"] != "b-2-0-0"])
    with pytest.raises(InputError, match="a trial is missing"):
        measure([row for row in rows_of(EXAMPLE, 2, 2) if row["id"] != "a-0-1-1"])
    with pytest.raises(InputError, match=r"a trial is missing[\s\S]*a on w0[\s\S]*1 trials in 1 studies"):
        measure([row for row in rows_of(EXAMPLE, 2) if row["id"] != "a-0-1-0"])
    uneven = [row for row in rows_of(EXAMPLE, 2, 2) if row["study"] == 0 or row["trial"] == 0]
    with pytest.raises(InputError, match="a trial is missing"):
        measure(uneven)
    with pytest.raises(InputError, match="a trial is there twice"):
        measure([*rows_of(EXAMPLE), rows_of(EXAMPLE)[0] | {"id": "again"}])
    with pytest.raises(InputError, match=r"not positive[\s\S]*a-0-0-0"):
        measure(rows_of({"a": (0,), "reference": (1,)}))
    with pytest.raises(ConfigError, match=r"the reference is not among[\s\S]*adam"):
        measure(rows_of(EXAMPLE), reference="adam")
    with pytest.raises(ConfigError, match="the subject is not among"):
        measure(rows_of(EXAMPLE), subject="c")
    with pytest.raises(ConfigError, match=r"which method is reported[\s\S]*one of a, b"):
        measure(rows_of(EXAMPLE), subject=None)
    with pytest.raises(InputError, match="no column 'seconds'"):
        measure(rows_of(EXAMPLE), time="seconds")
