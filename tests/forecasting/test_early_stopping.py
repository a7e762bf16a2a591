"""forecasting.early_stopping: random and perfect predictors, no look ahead, ties, halving by hand."""

import numpy as np
import pytest

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.forecasting.early_stopping import EarlyStopping, keep_count, replay

PROOF = {"forecasting.early_stopping": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/forecasting/early_stopping.py", 'if row["x"] <= now]', "]"),
    ("src/tutelage/forecasting/early_stopping.py", "(1 - share) * spent", "share * spent"),
    ("src/tutelage/forecasting/early_stopping.py", "float(reached < best)", "float(reached <= best)"),
    ("src/tutelage/forecasting/early_stopping.py", "(-scores[run], run)", "(scores[run], run)"),
    ("src/tutelage/forecasting/early_stopping.py", "one[2] < self.margin", "one[1] < self.margin"),
    ("src/tutelage/forecasting/early_stopping.py", "cohorts >= MIN_COHORTS", "cohorts >= 1"),
    ("src/tutelage/forecasting/early_stopping.py", "fraction / 2 * end", "fraction * end"),
    ("src/tutelage/forecasting/early_stopping.py", 'chosen, state["end"])[0]', "chosen, 1.0)[0]"),
    ("src/tutelage/forecasting/early_stopping.py", 'f"{cohort}/{run}/{now:g}"', 'f"{run}/{now:g}"'),
    ("src/tutelage/forecasting/_replay.py", "regrets[draws].mean(axis=1)", "regrets[draws].max(axis=1)"),
]
STEPS = (10, 20, 30, 40, 60, 80, 100)


def cohort(name, runs=8, noise=0.0, seed=0, last=100, open_=False):
    """Losses foretell the final score exactly (noise 0), or the worse the larger the noise."""
    rng = np.random.default_rng([seed, sum(name.encode())])
    rows = []
    for r, final in enumerate(rng.permutation(np.linspace(0.5, 0.8, runs))):
        for x in STEPS:
            if x <= last:
                loss = 2 - final + 3 * x**-0.5 + noise * rng.normal()
                row = {
                    "cohort": name,
                    "run": f"r{r}",
                    "x": float(x),
                    "y": float(loss),
                    "norm": float(rng.random()),
                }
                rows.append({**row, "id": f"{name}-{r}-{x}", "final": None if open_ else float(final)})
    return rows


def cohorts(count=6, **given):
    return [row for c in range(count) for row in cohort(f"c{c}", **given)]


def decide(rows, **fields):
    method = EarlyStopping(**fields)
    return method.predict(method.fit(Dataset.from_rows(rows), {}), None)


def of_rule(result, predictor, fraction, share):
    (row,) = [row for row in result.system["tables"][0]["rows"] if row[:3] == [predictor, fraction, share]]
    return float(row[3][:-1]) / 100, float(row[4].split()[0]), float(row[5])


def test_a_perfect_predictor_has_no_regret_and_is_chosen():
    result = decide(cohorts())
    assert of_rule(result, "-y", 0.1, 0.25) == pytest.approx((0.75 * 0.9, 0.0, 0.0), abs=1e-3)
    assert result.estimate == 0.0 and result.system["rule"] == ["-y", 0.1, 0.25]
    assert result.extra["saved"] == pytest.approx(0.675) and result.direction == -1
    assert (result.interval.lo, result.interval.hi, result.interval.covers) == (0.0, 0.0, "clusters")
    assert "random: regret" in result.system["told"][0]


def test_a_random_predictor_saves_its_share_and_stops_the_best_by_chance():
    """P(best stopped) is hypergeometric: 1 - kept / total."""
    method, finals = EarlyStopping(), np.linspace(0.5, 0.8, 8)
    runs = {f"r{i}": [{"x": 100.0, "y": 1.0, "final": final}] for i, final in enumerate(finals)}
    for share in (0.25, 0.5):
        decided = (method._decide(f"c{c}", runs, ("random", 0.5, share), 100.0) for c in range(2000))
        saved, regret, missed = np.mean([replay(runs, *one, 1) for one in decided], axis=0)
        assert saved == pytest.approx((1 - share) * 0.5)
        assert missed == pytest.approx(1 - share, abs=0.03)
        kept = int(8 * share)
        # The best of k among n equally spaced values lies (n - k) / (k + 1) steps below the best of all.
        assert regret == pytest.approx((8 - kept) / (kept + 1) * 0.3 / 7, abs=0.005)


def test_what_came_later_never_enters_a_decision():
    rows = cohorts(noise=0.1)
    changed = [{**row, "y": 9.0 * row["y"]} if row["x"] > 50 else row for row in rows]
    a, b = (decide(one, fractions=(0.1, 0.5)) for one in (rows, changed))
    assert a.system["tables"] == b.system["tables"] and a.system["rule"] == b.system["rule"]


def test_no_rule_is_sure_enough_run_all():
    result = decide(cohorts(noise=1.0), fractions=(0.1,), margin=0.001)
    assert result.system["rule"] is None and result.estimate == 0.0 and result.extra["saved"] == 0.0
    assert result.system["told"][0].startswith("run all: no rule")


def test_the_upper_bound_decides_and_not_the_mean():
    """One cohort of five loses its best run: a mean regret of .0086, at most .026 for sure."""
    rows = cohorts(5)
    best = next(row["run"] for row in rows if row["cohort"] == "c0" and row["final"] == 0.8)
    rows = [{**row, "y": 9.0} if (row["cohort"], row["run"]) == ("c0", best) else row for row in rows]
    asked = {"fractions": (0.1,), "shares": (0.25,)}
    assert of_rule(decide(rows, **asked), "-y", 0.1, 0.25)[1] == pytest.approx(0.3 / 7 / 5, rel=0.01)
    assert decide(rows, **asked, margin=0.01).system["rule"] is None
    assert decide(rows, **asked, margin=0.03).system["rule"] is not None


def test_fewer_than_three_cohorts_advise_only():
    result = decide(cohorts(2))
    assert result.no_interval.startswith("advise only: 2 of 3") and result.system["rule"] is None


def test_an_open_cohort_is_told_whom_to_keep():
    running = cohort("now", last=20, open_=True)
    result = decide([*cohorts(), *running], fractions=(0.2,))
    losses = {row["run"]: row["y"] for row in running if row["x"] == 20}
    assert result.system["keep"] == {"now": sorted(losses, key=losses.get)[:2]}
    assert any(line.startswith("now: keep") for line in result.system["told"])
    assert result.n_items == 6


def test_halving_by_hand():
    runs = {
        f"r{i}": [{"x": x, "y": y, "final": f} for x, y in zip((5, 10, 20), ys)] for i, (ys, f) in enumerate(HALF)
    }
    kept, stopped = EarlyStopping()._decide("c", runs, ("halving by -y", 0.5, 0.25), 20)
    # At a quarter of the way r3 and r1 are best; at half of it r1 is.
    assert kept == ["r1"] and stopped == {"r0": 0.25, "r2": 0.25, "r3": 0.5}
    saved, regret, missed = replay(runs, kept, stopped, 1)
    assert saved == pytest.approx((0.75 * 20 * 2 + 0.5 * 20) / 80)
    assert (regret, missed) == pytest.approx((0.2, 1.0))


HALF = [((4, 0, 0), 0.9), ((2, 1, 1), 0.7), ((3, 3, 3), 0.5), ((1, 2, 2), 0.6)]


def test_ties_go_to_the_run_id_and_at_least_one_is_kept():
    runs = {name: [{"x": 1.0, "y": 1.0, "final": 0.5}] for name in ("b", "a", "c")}
    assert EarlyStopping()._decide("c", runs, ("-y", 1.0, 0.34), 1.0)[0] == ["a", "b"]
    assert [keep_count(8, share) for share in (0.01, 0.25, 0.26, 1.0)] == [1, 2, 3, 8]
    late = {**runs, "d": [{"x": 9.0, "y": 0.0, "final": 1.0}]}
    assert EarlyStopping()._decide("c", late, ("-y", 0.1, 0.5), 10.0)[0] == ["a", "b"]


def test_a_curve_foresees_what_the_last_value_does_not():
    """Runs that start low end high: at half of the way the losses cross, the curves do not."""
    rows = []
    for c in range(5):
        for r in range(6):
            floor, fall = 1.0 + 0.1 * ((r + c) % 6), 8.0 - 1.5 * ((r + c) % 6)
            for x in STEPS:
                row = {"cohort": f"c{c}", "run": f"r{r}", "x": float(x), "y": floor + fall * x**-0.5}
                rows.append({**row, "id": f"{c}-{r}-{x}", "final": floor + fall * 100**-0.5})
    result = decide(rows, higher_final=False, fractions=(0.4,), shares=(0.2,))
    assert of_rule(result, "curve of y", 0.4, 0.2)[1] == pytest.approx(0.0, abs=1e-6)
    assert of_rule(result, "-y", 0.4, 0.2)[1] >= 0.0
    assert result.system["rule"] is not None


def test_other_predictors_and_equal_settings():
    rows = [{**row, "rate": row["run"] in ("r0", "r1", "r2", "r3")} for row in cohorts(noise=0.01)]
    result = decide(rows, predictors=("-norm",), settings="rate")
    assert of_rule(result, "-norm", 0.25, 0.5)[2] > 0
    assert [line.split(":")[0] for line in result.system["told"][-2:]] == [
        "among all runs",
        "within equal settings",
    ]
    assert float(result.system["told"][-1].split()[-1]) > 0.8


def test_refusals():
    with pytest.raises(InputError, match="no finished cohort"):
        decide(cohort("now", open_=True))
    with pytest.raises(InputError, match=r"(?s)lacks a number.*c0-0-10.*'y'"):
        decide([{**row, "y": None} for row in cohorts()])
    with pytest.raises(InputError, match="no column 'final'"):
        decide([{name: value for name, value in row.items() if name != "final"} for row in cohorts()])


def test_columns_may_have_other_names_and_more_may_be_better():
    rows = cohorts()
    names = {"cohort": "sweep", "run": "trial", "x": "step", "y": "acc", "final": "test"}
    renamed = [{names.get(name, name): value for name, value in row.items()} for row in rows]
    better = [{**row, "acc": -row["acc"]} for row in renamed]
    found = decide(better, cohort="sweep", run="trial", x="step", y="acc", final="test", higher_y=True, seed=3)
    assert found.system["rule"] == ["acc", 0.1, 0.25] and found.estimate == decide(rows).estimate
