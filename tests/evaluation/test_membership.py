"""Membership of planted sequences: scores by hand, AUC of scikit-learn, nothing found where nothing was seen."""

import math

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import roc_auc_score

from toy.lookup_model import LookupModel
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.core.stats.compare import compare
from tutelage.data.augment.canaries import Canaries
from tutelage.data.augment.traps import Traps
from tutelage.evaluation.exposure import Exposure
from tutelage.evaluation.membership import Membership, min_k
from tutelage.models.ngram import NGramLM
from tutelage.models.seam import TextScore

PROOF = {"evaluation.membership": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/evaluation/membership.py", "np.sort(losses)[-count:]", "np.sort(losses)[:count]"),
    ("src/tutelage/evaluation/membership.py", "max(1, int(len(losses)", "max(0, int(len(losses)"),
    (
        "src/tutelage/evaluation/membership.py",
        'np.array(means) + scores["loss"]',
        'np.array(means) - scores["loss"]',
    ),
    ("src/tutelage/evaluation/membership.py", "member = planted > 0", "member = planted > 1"),
    ("src/tutelage/evaluation/membership.py", "(planted == copies) | ~member", "(planted >= copies) | ~member"),
    ("src/tutelage/evaluation/membership.py", "stats.norm.sf((found", "stats.norm.cdf((found"),
    ("src/tutelage/evaluation/_planted.py", "if seal != seal_of(rows):", "if not seal:"),
    ("src/tutelage/evaluation/_planted.py", 'for kind in (first, "canaries")', 'for kind in ("canaries", first)'),
    ("src/tutelage/evaluation/membership.py", "bucket == number", "bucket >= number"),
]


class Losing(LookupModel):
    """Token losses from a table."""

    def __init__(self, losses):
        super().__init__()
        self.losses = losses

    def score_texts(self, texts, *, window=1024, stride=None, per_token=False):
        return [TextScore(sum(v), len(v), len(t), True, np.array(v)) for t in texts for v in [self.losses[t]]]


ROWS = [{"text": f"s{n}", "planted": copies} for n, copies in enumerate([1, 1, 1, 4, 4, 4, 0, 0, 0, 0, 0])]
LOSSES = {row["text"]: [1.0 + n % 3, 2.0, 3.5 - row["planted"] / 2 - n / 50] for n, row in enumerate(ROWS)}
MEMBER = np.array([row["planted"] > 0 for row in ROWS])


def audit(model, rows=ROWS, writer=None, **fields):
    return Membership(**fields).evaluate(model, Dataset.from_rows(rows), {"writer": writer} if writer else {})


def test_the_scores_by_hand():
    assert min_k(np.array([1.0, 5.0, 2.0, 4.0, 3.0]), 40) == -4.5
    assert min_k(np.array([1.0, 3.0]), 20) == -3.0
    means = np.array([np.mean(LOSSES[row["text"]]) for row in ROWS])
    other = {text: [1.0 + n * n % 5 / 4] * 4 for n, text in enumerate(LOSSES)}
    ratio = np.array([other[row["text"]][0] for row in ROWS]) - means
    lowest = np.array([-max(LOSSES[row["text"]]) for row in ROWS])
    found = audit(Losing(LOSSES), writer=Losing(other))
    assert found.estimate == found.extra["auc[ratio]"] == pytest.approx(roc_auc_score(MEMBER, ratio))
    assert found.extra["auc[loss]"] == pytest.approx(roc_auc_score(MEMBER, -means))
    assert found.extra["auc[min_k]"] == pytest.approx(roc_auc_score(MEMBER, lowest))
    assert found.system["score"] == "ratio" and audit(Losing(LOSSES)).system["score"] == "min_k"
    by_loss = audit(Losing(LOSSES), score_by="loss")
    assert by_loss.estimate == pytest.approx(found.extra["auc[loss]"]) and by_loss.direction == -1
    spread = math.sqrt((6 + 5 + 1) / (12 * 6 * 5))
    assert found.extra["null_sd"] == pytest.approx(spread)
    assert found.extra["p"] == pytest.approx(scipy.stats.norm.sf((found.estimate - 0.5) / spread))
    for copies in (1, 4):
        inside = np.array([row["planted"] in (0, copies) for row in ROWS])
        expected = roc_auc_score(MEMBER[inside], ratio[inside])
        assert found.extra[f"auc[{copies} copies]"] == pytest.approx(expected)
    halves = audit(Losing(LOSSES), [row | {"bucket": n % 2} for n, row in enumerate(ROWS)], Losing(other))
    for number in (0, 1):
        inside = np.arange(len(ROWS)) % 2 == number
        assert halves.extra[f"auc[bucket {number}]"] == pytest.approx(roc_auc_score(MEMBER[inside], ratio[inside]))
    whole = audit(Losing(LOSSES), percent=100.0)
    assert whole.estimate == pytest.approx(roc_auc_score(MEMBER, -means))


def test_items_are_pseudo_values_and_clusters_count():
    found = audit(Losing(LOSSES), score_by="loss")
    values = found.items.table.to_pylist()
    assert np.mean([row["score"] for row in values]) == pytest.approx(found.estimate)
    assert found.interval.method == "DeLong" and found.interval.lo < found.estimate < found.interval.hi
    grouped = audit(Losing(LOSSES), [row | {"group": f"g{n // 2}"} for n, row in enumerate(ROWS)], score_by="loss")
    assert grouped.interval.covers == "clusters" and grouped.interval != found.interval
    worse = Losing({text: values[::-1] if n % 2 else [2.0] * 3 for n, (text, values) in enumerate(LOSSES.items())})
    comparison = compare(found.items, audit(worse, score_by="loss").items, direction=-1)
    assert comparison.estimate_a == pytest.approx(found.estimate)


@pytest.fixture(scope="module")
def trapped():
    rng = np.random.default_rng(0)
    vocabulary = [f"w{n}" for n in range(200)]
    texts = [" ".join(rng.choice(vocabulary, 60)) for _ in range(80)]
    writer = NGramLM(2).fit(texts)
    data = Dataset.from_rows({"id": f"d{n}", "text": text} for n, text in enumerate(texts))
    task = Traps(pairs=24, length=20, repeats=(1, 64), perplexity=(1.0, 401.0), buckets=2)
    return writer, data, task.apply(data, {"writer": writer})


def test_a_model_trained_on_traps_is_told_and_one_that_was_not_is_not(trapped):
    writer, data, planted = trapped
    guilty, innocent = (NGramLM(3).fit(one.column("text").to_pylist()) for one in (planted, data))
    found = Membership().evaluate(guilty, planted, {"writer": writer})
    assert found.estimate > 0.95 and found.extra["auc[64 copies]"] >= found.extra["auc[1 copies]"]
    assert found.extra["auc[64 copies]"] > 0.95 and found.extra["p"] < 1e-4
    clean = Membership().evaluate(innocent, planted, {"writer": writer})
    assert abs(clean.estimate - 0.5) < 2 * clean.extra["null_sd"]


def test_each_audit_reads_its_own_kind_where_both_were_planted(trapped):
    writer, _, planted = trapped
    both = Canaries(count=2).apply(planted, {})
    assert Membership().evaluate(writer, both, {}).n_items == len(planted.report["traps"])
    assert Exposure(candidates=15).evaluate(writer, both, {}).n_items == 2
    alone = Canaries(count=3).apply(Dataset.from_rows([{"text": f"w{n}"} for n in range(9)]), {})
    assert Membership().evaluate(writer, alone, {}).n_items == 6
    with pytest.raises(InputError, match="nothing says what was planted"):
        Exposure().evaluate(writer, Dataset.from_rows([{"text": "a"}], report={**planted.report}), {})


def test_a_changed_list_proves_nothing(trapped):
    writer, _, planted = trapped
    report = {**planted.report, "traps": planted.report["traps"][:-1]}
    with pytest.raises(InputError, match="not the one that was sealed"):
        Membership().evaluate(writer, Dataset.from_rows([{"text": "a"}], report=report), {})


def test_refusals():
    model = Losing(LOSSES)
    with pytest.raises(InputError, match="nothing to tell apart"):
        audit(model, ROWS[:6])
    with pytest.raises(ConfigError, match="second model"):
        audit(model, score_by="ratio")
    with pytest.raises(InputError, match="nothing says what was planted"):
        audit(model, [{"text": "s1"}])
    with pytest.raises(InputError, match="nothing says what was planted"):
        audit(model, column="note")
    with pytest.raises(InputError, match=r"(?s)no usable loss.*s3|row"):
        audit(Losing({**LOSSES, "s3": [float("nan")]}))
