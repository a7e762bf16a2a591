"""evaluation.label_rescore: planted label noise, hand tables, prediction-powered means, refusals."""

import numpy as np
import pytest

from toy.lookup_model import LookupModel
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ComparisonError, ConfigError, InputError
from tutelage.evaluation.label_rescore import LabelRescore
from tutelage.evaluation.multiple_choice import MultipleChoice

PROOF = {"evaluation.label_rescore": ["consistent", "verified"]}
MUTATIONS = [
    (
        "src/tutelage/evaluation/label_rescore.py",
        "found.drawn & ~found.split, by_person",
        "~found.split, by_person",
    ),
    ("src/tutelage/evaluation/label_rescore.py", "float(new != old)", "float(new == old)"),
    ("src/tutelage/evaluation/label_rescore.py", "other > means[name]", "other >= means[name]"),
    ("src/tutelage/evaluation/label_rescore.py", '"items+labels"', '"items"'),
    ("src/tutelage/evaluation/_corrected.py", 'learner="surrogate"', 'rescale=True, learner="linear"'),
    ("src/tutelage/evaluation/_corrected.py", "(top - share * found.clear) / below", "(top - top.mean())"),
    ("src/tutelage/evaluation/_corrected.py", "np.where(found.split, 0.0, gold)", "gold"),
    ("src/tutelage/evaluation/_corrected.py", 'by != GOLD and ":" in by', "False"),
]


def bench(seed=0, n=400, noise=0.1, accuracy=0.7, flagged=60, rest=40):
    """(benchmark rows, truth): a share `noise` of wrong labels, most of them suspected and re-annotated first."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, n)
    wrong = rng.random(n) < noise
    old = np.where(wrong, (truth + rng.integers(1, 4, n)) % 4, truth)
    flag = np.where(wrong, rng.random(n) < 0.7, rng.random(n) < 0.1)
    drawn, inclusion = np.zeros(n, bool), np.zeros(n)
    for kind, size in ((True, flagged), (False, rest)):
        where = np.flatnonzero(flag == kind)
        size = min(size, len(where))
        drawn[rng.choice(where, size, replace=False)] = True
        inclusion[where] = size / len(where)
    said = np.where(rng.random(n) < accuracy, truth, (truth + rng.integers(1, 4, n)) % 4)
    rows = [
        {"id": f"q{i}", "label": str(old[i]), "gold": str(truth[i]) if drawn[i] else None}
        | {"inclusion": float(inclusion[i])}
        for i in range(n)
    ]
    return rows, said, truth, old


def answers(said):
    return Dataset.from_rows({"id": f"q{i}", "predicted": str(word)} for i, word in enumerate(said))


def measure(rows, *systems, **fields):
    return LabelRescore(**fields).evaluate(None, Dataset.from_rows(rows), {"systems": list(systems)})


def test_the_estimate_is_the_corrected_mean_by_hand():
    rows, said, _, old = bench()
    found = measure(rows, answers(said))
    original = (said == old).astype(float)
    gold = np.array([np.nan if r["gold"] is None else float(str(a) == r["gold"]) for r, a in zip(rows, said)])
    pi = np.array([r["inclusion"] for r in rows])
    parts = original + np.where(np.isnan(gold), 0.0, (np.nan_to_num(gold) - original) / pi)
    assert found.estimate == found.extra["estimated[system 1]"] == pytest.approx(parts.mean())
    half = 1.9659 * parts.std(ddof=1) / len(parts) ** 0.5
    assert (found.interval.lo, found.interval.hi) == pytest.approx(
        (parts.mean() - half, parts.mean() + half), abs=1e-4
    )
    assert found.interval.covers == "items+labels"
    assert found.extra["original[system 1]"] == pytest.approx(original.mean())
    confirmed = np.where(np.isnan(gold), original, gold)
    assert found.extra["confirmed[system 1]"] == pytest.approx(confirmed.mean())
    assert found.extra["reannotated"] == sum(r["gold"] is not None for r in rows)
    wrong = [r for r in rows if r["gold"] not in (None, r["label"])]
    assert found.system["patch"] == [{"key": r["id"], "old": r["label"], "new": r["gold"]} for r in wrong]
    assert found.extra["label_error_rate"] == pytest.approx(sum(1 / r["inclusion"] for r in wrong) / len(rows))


def test_planted_noise_is_corrected_in_simulated_studies():
    covered, before, estimates, rates = 0, 0, [], []
    for seed in range(60):
        rows, said, _, _ = bench(seed)
        found = measure(rows, answers(said))
        covered += found.interval.lo <= 0.7 <= found.interval.hi
        before += found.extra["original[system 1]_lo"] <= 0.7 <= found.extra["original[system 1]_hi"]
        estimates.append(found.estimate)
        rates.append(found.extra["label_error_rate"])
    assert covered >= 52 and before < 40
    assert np.mean(estimates) == pytest.approx(0.7, abs=0.012) and np.mean(rates) == pytest.approx(0.1, abs=0.012)


def test_clean_labels_leave_three_equal_scores():
    rows, said, _, _ = bench(noise=0.0)
    found = measure(rows, answers(said)).extra
    assert (
        found["original[system 1]"] == found["confirmed[system 1]"] == pytest.approx(found["estimated[system 1]"])
    )
    assert found["label_error_rate"] == found["corrected"] == 0


def test_a_system_that_learnt_the_wrong_labels_loses_its_rank():
    rows, said, _, old = bench(1, n=800, flagged=100, rest=200)
    parrot = np.where(np.random.default_rng(9).random(800) < 0.7, old, (old + 1) % 4)
    found = measure(rows, answers(said), answers(parrot), systems=("honest", "parrot")).extra
    assert found["original[parrot - honest]"] > 0.02 > 0 > found["estimated[parrot - honest]"]
    assert (found["rank_original[parrot]"], found["rank_estimated[parrot]"]) == (1, 2)
    assert found["rank_original[honest]"] == 2 and found["rank_estimated[honest]"] == 1
    assert found["estimated[parrot - honest]_lo"] < found["estimated[parrot - honest]"]
    assert 0 < found["p original[parrot - honest]"] <= 1
    twice = measure(rows, answers(said), answers(said)).extra
    assert twice["rank_original[system 1]"] == twice["rank_original[system 2]"] == 1


def test_items_on_which_annotators_split_are_a_class_of_their_own():
    rng = np.random.default_rng(3)
    rows, said, truth, old = bench(2, n=2000, flagged=10_000, rest=10_000)
    split = rng.random(2000) < 0.2
    # Whoever answers these is right half the time by the original label.
    said = np.where(split, np.where(rng.random(2000) < 0.5, truth, truth + 5), said)
    shown = [{**row, "ambiguous": bool(s)} for row, s in zip(rows, split)]
    found = measure(shown, answers(said))
    clear = (said == truth)[~split]
    assert found.estimate == pytest.approx(clear.mean()) and found.extra["ambiguous"] == split.sum()
    assert found.extra["confirmed[system 1]"] == pytest.approx(clear.mean())
    assert found.extra["label_error_rate"] == pytest.approx((truth != old)[~split].mean())
    assert found.interval.hi - found.interval.lo == pytest.approx(3.92 * clear.std() / len(clear) ** 0.5, rel=0.02)
    # With a half of them drawn the estimate is near, and knows how near.
    half = rng.random(2000) < 0.5
    some = [
        {**r, "inclusion": 0.5, "gold": r["gold"] if h else None, "ambiguous": r["ambiguous"] and bool(h)}
        for r, h in zip(shown, half)
    ]
    drawn = measure(some, answers(said))
    assert drawn.interval.lo < clear.mean() < drawn.interval.hi


def test_results_are_joined_by_item_key_and_clusters_are_kept():
    rows = [{"prompt": f"Q{i}", "choices": ["x", "y"], "answer": i % 2} for i in range(20)]
    table = {(f"Q{i}", " x"): -1.0 for i in range(20)} | {(f"Q{i}", " y"): -2.0 for i in range(20)}
    result = MultipleChoice().evaluate(LookupModel(table), Dataset.from_rows(rows), {})
    keys = result.items.table["item_key"].to_pylist()
    notes = [
        {"id": k, "item_key": k, "old": row["choices"][row["answer"]], "mine": "x", "pi": 1.0, "odd": False}
        | {"who": "anna", "cluster": i // 4}
        for i, (k, row) in enumerate(zip(keys, rows))
    ]
    names = {"key": "item_key", "label": "old", "corrected": "mine", "inclusion": "pi", "ambiguous": "odd"}
    found = measure(notes, result, **names, corrected_by="who")
    assert found.extra["original[system 1]"] == 0.5 and found.estimate == 1.0
    assert found.n_clusters == 5 and found.system["weights"] == "lookup"


def test_bad_input():
    rows, said, _, _ = bench()
    machine = [{**row, "corrected_by": "teacher:judge"} for row in rows]
    with pytest.raises(InputError, match=r"not confirmed by a person[\s\S]*teacher:judge"):
        measure(machine, answers(said))
    with pytest.raises(InputError, match="known probability"):
        measure([{**row, "inclusion": None} for row in rows], answers(said))
    with pytest.raises(InputError, match="do not fit the probabilities"):
        measure([{**row, "inclusion": 0.9} for row in rows], answers(said))
    with pytest.raises(ComparisonError, match=r"not of the same items[\s\S]*first keys: q390"):
        measure(rows, answers(said[:390]))
    with pytest.raises(ConfigError, match="each system has a name"):
        measure(rows, answers(said), systems=("a", "b"))
    with pytest.raises(InputError, match=r"lacks its label or key[\s\S]*row q3"):
        measure([{**row, "label": None if i == 3 else row["label"]} for i, row in enumerate(rows)], answers(said))
    with pytest.raises(InputError, match="no column 'said'"):
        measure(rows, answers(said), predicted="said")
    with pytest.raises(InputError, match="nothing to evaluate"):
        measure_empty = Dataset.from_rows(rows).keep(np.zeros(len(rows), bool), "none")
        LabelRescore().evaluate(None, measure_empty, {"systems": answers(said)})
