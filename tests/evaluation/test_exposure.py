"""Exposure of canaries: ranks by hand, the uniform rank of what was never seen, memorised canaries found."""

import math

import numpy as np
import pytest
import scipy.stats

from toy.lookup_model import LookupModel
from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.data.augment.canaries import Canaries
from tutelage.evaluation.exposure import Exposure, exposure, split, with_other_digits
from tutelage.models.ngram import NGramLM

PROOF = {"evaluation.exposure": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/evaluation/exposure.py", "float((others > own).sum())", "float((others < own).sum())"),
    ("src/tutelage/evaluation/exposure.py", "(others == own).sum()) / 2", "(others == own).sum())"),
    ("src/tutelage/evaluation/exposure.py", "math.log2(len(others) + 1) - math", "math.log2(len(others)) - math"),
    ("src/tutelage/evaluation/exposure.py", "rank / (len(others) + 1)", "rank / len(others) / 2"),
    ("src/tutelage/evaluation/exposure.py", "if candidate != secret:", "if candidate:"),
    ("src/tutelage/evaluation/exposure.py", "at += 1 + len(others)", "at += len(others)"),
    ("src/tutelage/evaluation/_planted.py", '{"text": text, "planted": 0}', '{"text": text, "planted": 1}'),
]
PLAIN = Dataset.from_rows([{"id": f"r{n}", "text": f"Row {n} speaks of nothing much."} for n in range(20)])


def test_ranks_by_hand():
    assert exposure(-1.0, np.array([-2.0] * 7)) == (3.0, 1.0)
    assert exposure(-3.0, np.array([-2.0] * 7)) == (0.0, 8.0)
    assert exposure(-2.0, np.array([-1.0, -2.0, -3.0]))[1] == 2.5
    # What was never seen has a uniform rank: mean over ranks 1..R+1 of log2((R+1)/rank) goes to log2(e).
    ranks = np.arange(1, 4097)
    assert np.mean(np.log2(4096 / ranks)) == pytest.approx(math.log2(math.e), abs=0.01)


def test_digits_are_replaced_and_nothing_else():
    assert split("The box of 3 opens with 07-12.") == ("The box of", "3 opens with 07-12")
    assert split("no digits") is None and split("12 first") is None
    found = with_other_digits("07-12", 40, 1)
    assert len(set(found)) == 40 and "07-12" not in found
    assert all(one[2] == "-" and len(one) == 5 and one.replace("-", "").isdigit() for one in found)
    assert sorted(with_other_digits("7", 50, 0)) == [str(d) for d in range(10) if d != 7]


def test_a_memoriser_is_exposed_by_what_was_planted():
    planted = Canaries(count=4, repeats=(1, 4), seed=3).apply(PLAIN, {})
    model = NGramLM(32, "byte").fit([row["text"] for row in planted.rows()])
    found = Exposure().evaluate(model, planted, {})
    assert found.n_items == 4 and (found.unit, found.direction) == ("bits", -1)
    assert found.estimate == found.extra["most"] == 8.0
    assert found.extra["extracted"] == 1.0 and found.extra["extracted[4]"] == 1.0
    assert found.extra["exposure[1]"] == found.extra["exposure[4]"] == 8.0
    # Four ranks of 1 among 256: Fisher's chi-square with 8 degrees of freedom.
    assert found.extra["p"] == pytest.approx(scipy.stats.chi2.sf(-2 * 4 * math.log(1 / 256), 8))
    assert found.extra["control"] < 6 and found.extra["control_extracted"] == 0.0
    assert {row["target"] for row in found.items.table.to_pylist()} == {None}


def test_a_model_that_saw_nothing_is_not_exposed():
    planted = Canaries(count=40, seed=5).apply(PLAIN, {})
    rng = np.random.default_rng(0)

    class Guessing(LookupModel):
        def loglikelihood(self, pairs, joint=False):
            return [one.__class__(float(rng.normal()), 1, False) for one in super().loglikelihood(pairs)]

    found = Exposure(candidates=127).evaluate(Guessing(), planted, {})
    assert found.estimate == pytest.approx(1.44, abs=0.6)
    assert found.extra["p"] > 0.01 and found.extra["extracted"] == 0.0
    assert found.interval.lo < 1.44 < found.interval.hi


def test_rows_say_what_was_planted_where_no_step_does():
    secret, other = "Pin: 4711", "Pin: 9999"
    rows = [{"note": secret, "planted": 3}, {"note": other, "planted": 0}]
    model = LookupModel({("Pin:", " 4711"): -1.0, ("Pin:", " 9999"): -50.0}, {"Pin:": " 4711 and on"})
    found = Exposure(column="note", candidates=15, redact=False, seed=4).evaluate(
        model, Dataset.from_rows(rows), {}
    )
    assert (found.estimate, found.extra["control"]) == (4.0, 0.0)
    assert (found.extra["extracted"], found.extra["control_extracted"]) == (1.0, 0.0)
    assert found.items.table.to_pylist()[0]["target"] == "4711"
    assert found.no_interval


def test_refusals():
    model = LookupModel()
    with pytest.raises(InputError, match="nothing says what was planted"):
        Exposure().evaluate(model, PLAIN, {})
    with pytest.raises(InputError, match="no random digits"):
        Exposure().evaluate(model, Dataset.from_rows([{"text": "none here", "planted": 1}]), {})
    with pytest.raises(InputError, match="no canary was planted"):
        Exposure().evaluate(model, Dataset.from_rows([{"text": "pin 12", "planted": 0}]), {})
    with pytest.raises(InputError, match="how often it was planted"):
        Exposure().evaluate(model, Dataset.from_rows([{"text": "pin 12", "planted": -1}]), {})
    # Traps hold no digits to rank: they are for evaluation.membership.
    traps = Dataset.from_rows([{"text": "a"}], report={"traps": [{"text": "x 1", "planted": 1}], "seal": "other"})
    with pytest.raises(InputError, match="nothing says what was planted"):
        Exposure().evaluate(model, traps, {})
