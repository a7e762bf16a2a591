"""evaluation.dsl against statsmodels, the prediction-powered mean, and simulated studies."""

import numpy as np
import pytest
import statsmodels.api as sm

from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.evaluation._dsl import cross_fit, deal_folds, read_design
from tutelage.evaluation.dsl import Dsl, sandwich, solve

PROOF = {"evaluation.dsl": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/evaluation/_dsl.py", "predicted + self.labelled / self.inclusion", "predicted + self.labelled"),
    ("src/tutelage/evaluation/_dsl.py", "(fold != number) & design.labelled", "design.labelled"),
    (
        "src/tutelage/evaluation/_dsl.py",
        "fine = isinstance(value, int | float) and 0 < value",
        "fine = 0 <= value",
    ),
    ("src/tutelage/evaluation/_dsl.py", "return fold[place]", "return np.arange(len(place)) % folds"),
    ("src/tutelage/evaluation/_dsl.py", "in (None, GOLD)", "is not GOLD"),
    ("src/tutelage/evaluation/_dsl.py", "inclusion * drawn / expected", "inclusion"),
    ("src/tutelage/evaluation/_dsl.py", "if abs(drawn - expected) > FAR", "if False and expected > FAR"),
    ("src/tutelage/evaluation/dsl.py", "@ inverse.T / n", "@ inverse.T"),
    ("src/tutelage/evaluation/dsl.py", "bend = weight * fitted * (1 - fitted)", "bend = weight"),
    ("src/tutelage/evaluation/dsl.py", "v + (theta - point) ** 2", "v"),
    ("src/tutelage/evaluation/dsl.py", "moments = np.stack(", "_ = np.stack("),
    ("src/tutelage/evaluation/dsl.py", "wanted - outcome / rows + rest / rows", "wanted"),
    ("src/tutelage/evaluation/dsl.py", "rest / outcome if outcome", "outcome / rest if outcome"),
]


def population(rng, rows=400, gold=100, wrong=0.25, **columns):
    """A machine that calls a share `wrong` of the negatives positive; gold drawn without replacement."""
    x = rng.normal(size=rows)
    y = (rng.random(rows) < 1 / (1 + np.exp(-(0.3 + 0.8 * x)))).astype(float)
    said = np.where((y == 0) & (rng.random(rows) < wrong), 1.0, y)
    drawn = np.zeros(rows, bool)
    drawn[rng.choice(rows, gold, replace=False)] = True
    return [
        {
            "id": f"r{i}",
            "label": float(y[i]) if drawn[i] else None,
            "teacher_label": float(said[i]),
            "inclusion": gold / rows,
            "x": float(x[i]),
            "truth": float(y[i]),
            **{name: values[i] for name, values in columns.items()},
        }
        for i in range(rows)
    ]


def measure(rows, **fields):
    return Dsl(**{"learner": "linear", "splits": 2, **fields}).evaluate(None, Dataset.from_rows(rows), {})


def without(rows, name):
    return [{k: v for k, v in row.items() if k != name} for row in rows]


def test_linear_equals_least_squares_of_corrected_outcomes_with_hc0_errors():
    rows = population(np.random.default_rng(0))
    task = Dsl(estimand="linear", covariates=("x",), learner="linear", splits=1)
    design = read_design(task, rows)
    corrected = design.corrected(cross_fit(task, design, 0))
    library = sm.OLS(corrected, design.x).fit(cov_type="HC0")
    found = task.evaluate(None, Dataset.from_rows(rows), {})
    assert found.estimate == pytest.approx(library.params[1], rel=1e-9)
    assert found.extra["se"] == pytest.approx(library.bse[1], rel=1e-9)
    assert [found.extra["b[intercept]"], found.extra["se[intercept]"]] == pytest.approx(
        [library.params[0], library.bse[0]], rel=1e-9
    )
    assert (found.interval.lo, found.interval.hi) == pytest.approx(tuple(library.conf_int()[1]), rel=1e-9)


def test_clusters_are_summed_first_as_in_statsmodels():
    rng = np.random.default_rng(1)
    group = [f"g{i}" for i in rng.integers(0, 40, 400)]
    rows = population(rng, group=group)
    task = Dsl(estimand="linear", covariates=("x",), learner="surrogate", splits=1)
    design = read_design(task, rows)
    outcome = design.corrected(cross_fit(task, design, 0))
    place = np.unique(group, return_inverse=True)[1]
    library = sm.OLS(outcome, design.x).fit(
        cov_type="cluster", cov_kwds={"groups": place, "use_correction": False}
    )
    found = task.evaluate(None, Dataset.from_rows(rows), {})
    assert found.extra["se"] == pytest.approx(library.bse[1], rel=1e-9)
    assert found.interval.covers == "clusters"


def test_logistic_equals_statsmodels_where_everything_is_labelled():
    rows = [{**row, "label": row["truth"], "inclusion": 1.0} for row in population(np.random.default_rng(2))]
    found = measure(rows, estimand="logistic", covariates=("x",), coefficient="x")
    x = sm.add_constant(np.array([row["x"] for row in rows]))
    library = sm.Logit([row["truth"] for row in rows], x).fit(disp=0, cov_type="HC0", tol=1e-12)
    assert found.estimate == pytest.approx(library.params[1], rel=1e-6)
    assert found.extra["se"] == pytest.approx(library.bse[1], rel=1e-6)
    assert found.extra["gold_only"] == pytest.approx(library.params[1], rel=1e-6)


def test_the_surrogate_itself_gives_the_prediction_powered_mean():
    rows = population(np.random.default_rng(3))
    found = measure(rows, learner="surrogate", splits=1)
    said = np.array([row["teacher_label"] for row in rows])
    gold = np.array([np.nan if row["label"] is None else row["label"] for row in rows])
    drawn = ~np.isnan(gold)
    assert found.estimate == pytest.approx(said.mean() + (gold - said)[drawn].mean(), rel=1e-12)
    assert found.extra["machine_only"] == pytest.approx(said.mean())
    assert found.extra["gold_only"] == pytest.approx(gold[drawn].mean())
    assert found.extra["gold_only_se"] == pytest.approx(gold[drawn].std() / 10, rel=1e-9)
    stretch = (found.extra["gold_only_se"] / found.extra["se"]) ** 2
    assert found.extra["gold_stretch"] == pytest.approx(stretch) and stretch > 1.2


def test_intervals_cover_where_the_machine_alone_does_not():
    covered = taken_at_face_value = 0
    studies = 60
    truth = np.mean(1 / (1 + np.exp(-(0.3 + 0.8 * np.random.default_rng(9).normal(size=200_000)))))
    for number in range(studies):
        rows = population(np.random.default_rng(100 + number))
        found = measure(rows, splits=3)
        covered += found.interval.lo <= truth <= found.interval.hi
        face = found.extra["machine_only"]
        taken_at_face_value += abs(face - truth) <= 1.96 * found.extra["machine_only_se"]
    assert covered >= 0.88 * studies
    assert taken_at_face_value <= 0.4 * studies


def test_unequal_probabilities_are_undone():
    rng = np.random.default_rng(4)
    rows = population(rng, rows=3000, gold=10)
    for row in rows:
        row["inclusion"] = 0.4 if row["truth"] else 0.1
        row["label"] = row["truth"] if rng.random() < row["inclusion"] else None
    truth = np.mean([row["truth"] for row in rows])
    found = measure(rows)
    assert abs(found.estimate - truth) < 0.03
    gold = [row["label"] for row in rows if row["label"] is not None]
    assert np.mean(gold) - truth > 0.15
    # Probabilities known up to a factor.
    halved = [{**row, "inclusion": row["inclusion"] / 2} for row in rows]
    with pytest.raises(InputError, match="do not fit the probabilities"):
        measure(halved)
    assert measure(halved, rescale=True).estimate == pytest.approx(found.estimate, abs=0.02)


def test_the_median_over_splits_carries_their_spread():
    rows = population(np.random.default_rng(5))
    task = Dsl(learner="linear", splits=5, seed=3)
    design = read_design(task, rows)
    fits = []
    for split in range(5):
        corrected = design.corrected(cross_fit(task, design, 3 * 1_000_003 + split))
        fits.append((corrected.mean(), corrected.var() / len(rows)))
    means, variances = np.array(fits).T
    found = task.evaluate(None, Dataset.from_rows(rows), {})
    assert found.estimate == pytest.approx(np.median(means), rel=1e-12)
    assert found.extra["se"] ** 2 == pytest.approx(np.median(variances + (means - np.median(means)) ** 2))
    assert len(set(means)) == 5
    assert np.mean(list(found.items.scores().values())) == pytest.approx(found.estimate)


def test_clusters_stay_whole_and_gold_is_in_every_fold():
    rng = np.random.default_rng(6)
    rows = population(rng, rows=300, gold=30, cluster=[f"c{i}" for i in rng.integers(0, 60, 300)])
    task = Dsl(learner="linear")
    design = read_design(task, rows)
    fold = deal_folds(design, 5, 0)
    for cluster in set(design.clusters):
        assert len(set(fold[design.clusters == cluster])) == 1
    assert set(fold[design.labelled]) == set(range(5))
    assert not np.array_equal(fold, deal_folds(design, 5, 1))


def test_no_row_is_predicted_by_its_own_label():
    rows = population(np.random.default_rng(7), rows=100, gold=20)
    task = Dsl(learner="linear", features=("x",))
    before = cross_fit(task, read_design(task, rows), 0)
    at = next(i for i, row in enumerate(rows) if row["label"] is not None)
    rows[at]["label"] += 50.0
    after = cross_fit(task, read_design(task, rows), 0)
    assert after[at] == before[at] and not np.allclose(after, before)


def test_classes_probabilities_and_unparsed_answers():
    rng = np.random.default_rng(8)
    rows = population(rng)
    for row in rows:
        for name in ("label", "teacher_label"):
            row[name] = None if row[name] is None else ("no", "yes")[int(row[name])]
        row["teacher_probs"] = [0.1, 0.9] if row["teacher_label"] == "yes" else [0.8, 0.2]
    for row in rows[:40]:
        row["teacher_label"] = row["teacher_probs"] = None
    truth = np.mean([row["truth"] for row in rows])
    for fields in ({}, {"surrogate": "teacher_probs"}, {"learner": "forest", "splits": 1, "folds": 3}):
        found = measure(rows, positive="yes", **fields)
        assert abs(found.estimate - truth) < 3 * found.extra["se"] < 0.2
    assert measure(rows, positive="no").estimate == pytest.approx(1 - measure(rows, positive="yes").estimate)
    assert "machine_only" not in measure(rows, positive="yes", surrogate="teacher_probs").extra
    with pytest.raises(InputError, match=r"which class is counted\?[\s\S]*no, yes"):
        measure(rows)
    with pytest.raises(InputError, match="no outcome by itself"):
        measure(rows, positive="yes", surrogate="teacher_probs", learner="surrogate")


def test_machine_labels_are_no_gold():
    rows = population(np.random.default_rng(10))
    clean = measure(rows)
    for row in rows:
        row["label_source"] = "gold" if row["label"] is not None else "teacher:x"
        row["label"] = row["teacher_label"] if row["label"] is None else row["label"]
    assert measure(rows).estimate == clean.estimate
    assert measure(rows).extra["gold_rows"] == 100
    with pytest.raises(InputError, match="do not fit"):
        measure(rows, label_source="none")


def test_level_widens():
    rows = population(np.random.default_rng(11))
    narrow, wide = measure(rows, level=0.5).interval, measure(rows, level=0.99).interval
    assert wide.lo < narrow.lo < narrow.hi < wide.hi


def test_gold_without_known_probability_is_refused():
    rows = population(np.random.default_rng(12))
    with pytest.raises(InputError, match=r"not drawn with known probability[\s\S]*active strategy"):
        measure(without(rows, "inclusion"))
    rows[3]["inclusion"] = None
    with pytest.raises(InputError, match=r"not drawn with known probability[\s\S]*row r3"):
        measure(rows)
    for value in (0.0, -0.1, 1.5):
        rows[3]["inclusion"] = value
        with pytest.raises(InputError, match=r"out of range[\s\S]*row r3"):
            measure(rows)


def test_bad_input():
    rows = population(np.random.default_rng(13))
    with pytest.raises(InputError, match="too few gold labels"):
        measure(population(np.random.default_rng(13), gold=9))
    with pytest.raises(InputError, match="no column 'teacher_label'"):
        measure(without(rows, "teacher_label"))
    with pytest.raises(ConfigError, match="covariates go with"):
        Dsl(estimand="linear")
    with pytest.raises(ConfigError, match="one of the covariates"):
        Dsl(estimand="linear", covariates=("x",), coefficient="z")
    with pytest.raises(InputError, match="depend on each other"):
        measure([{**row, "again": row["x"]} for row in rows], estimand="linear", covariates=("x", "again"))
    with pytest.raises(InputError, match=r"row r0, column 'id'"):
        measure(rows, estimand="linear", covariates=("id",))
    with pytest.raises(InputError, match="too many to be classes"):
        measure([{**row, "teacher_label": row["id"]} for row in rows])
    with pytest.raises(InputError, match="gold label is no number"):
        measure([{**row, "label": None if row["label"] is None else float("inf")} for row in rows])
    with pytest.raises(InputError, match="all in one cluster"):
        measure([{**row, "cluster": "a" if row["label"] is not None else row["id"]} for row in rows])
    separated = [{**row, "label": row["truth"], "inclusion": 1.0, "x": row["truth"]} for row in rows]
    with pytest.raises(InputError, match="no solution"):
        measure(separated, estimand="logistic", covariates=("x",))


def test_solve_and_sandwich_by_hand():
    x, y = np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]]), np.array([0.0, 3.0, 3.0])
    theta, moments, inverse = solve(x, y, np.ones(3), False)
    assert theta == pytest.approx([0.5, 1.5])
    assert moments.sum(axis=0) == pytest.approx([0, 0], abs=1e-12)
    # Residuals -1/2, 1, -1/2; (X'X)^-1 X' diag(e^2) X (X'X)^-1 of the slope: (1/4 + 1/4) / 4.
    assert sandwich(moments, inverse, None)[1, 1] == pytest.approx(0.125)
    together = sandwich(moments, inverse, np.array(["a", "b", "a"]))
    assert together[1, 1] == pytest.approx(0.0, abs=1e-12)


def test_the_planned_number_of_gold_rows_gives_the_width():
    rows = population(np.random.default_rng(11), rows=4000, gold=400)
    first = measure(rows, learner="surrogate", splits=1, half_width=0.03)
    said, truth = (np.array([row[name] for row in rows]) for name in ("teacher_label", "truth"))
    assert first.extra["residual_share"] == pytest.approx((truth - said).var() / truth.var(), rel=0.25)
    needed = int(first.extra["gold_needed"])
    again = population(np.random.default_rng(12), rows=4000, gold=needed)
    found = measure(again, learner="surrogate", splits=1)
    assert (found.interval.hi - found.interval.lo) / 2 == pytest.approx(0.03, rel=0.15)
    narrow = measure(rows, learner="surrogate", splits=1, half_width=0.001)
    assert "gold_needed" not in narrow.extra, "the rows themselves are too few"
    with pytest.raises(ConfigError, match="half_width"):
        Dsl(estimand="linear", covariates=("x",), half_width=0.1)


def test_a_difference_of_systems_keeps_their_pairing():
    rng = np.random.default_rng(13)
    rows = population(rng, rows=1000, gold=250)
    other = [
        {**row, "label": None if row["label"] is None else row["label"] - 0.1 * (i % 2)}
        for i, row in enumerate(rows)
    ]
    difference = [
        {**a, "label": None if a["label"] is None else a["label"] - b["label"], "teacher_label": 0.1 * (i % 2)}
        for i, (a, b) in enumerate(zip(rows, other))
    ]
    found = measure(difference, learner="surrogate", splits=1)
    assert found.estimate == pytest.approx(0.05)
    apart = [measure(one, learner="surrogate", splits=1).extra["se"] for one in (rows, other)]
    assert found.extra["se"] < 0.2 * np.hypot(*apart)
