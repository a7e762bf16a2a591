"""data.filter.band."""

import itertools
import warnings

import numpy as np
import pytest

from toy.planted_pool import make_pool
from toy.selection import scored
from tutelage.core.apply import apply_transform, score_dataset
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.data.filter.band import Band, positions
from tutelage.models.ngram import NGramLM
from tutelage.signals.heuristic_rules import HeuristicRules
from tutelage.signals.token_loss import TokenLoss

PROOF = {"data.filter.band": ["consistent"]}
MUTATIONS = [
    ("src/tutelage/data/filter/band.py", "(place < self.high)", "(place > self.high)"),
    ("src/tutelage/data/filter/band.py", "values[scored], owner))", "-values[scored], owner))"),
    ("src/tutelage/data/filter/band.py", "(values <= self.high)", "(values < self.high)"),
    ("src/tutelage/data/filter/band.py", "        if copies:", "        if not copies:"),
]


def kept(data, **fields):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return apply_transform(Band(**fields), data, {})


@pytest.fixture(scope="module")
def thirds():
    """Equal numbers of templates, prose and random words with the losses of a model of prose."""
    pool = make_pool(90, seed=5, shares={"template": 1, "prose": 1, "random": 1})
    fitted = make_pool(200, seed=6, shares={"template": 1, "prose": 1})
    model = NGramLM(order=3).fit([row["text"] for row in fitted])
    data = Dataset.from_rows({"id": row["id"], "text": row["text"], "kind": row["kind"]} for row in pool)
    return score_dataset(TokenLoss(), data, {"model": model})


def test_the_lowest_third_is_boilerplate_and_the_middle_one_prose(thirds):
    for low, high, kind in ((0, 1 / 3, "template"), (1 / 3, 2 / 3, "prose"), (2 / 3, 1, "random")):
        got = kept(thirds, column="nll_mean", low=low, high=high, length_bins=1)
        assert set(got.column("kind").to_pylist()) == {kind} and got.num_rows == 30


def test_bands_next_to_each_other_share_no_row_and_leave_none(thirds):
    cuts = [0, 0.1, 0.35, 0.8, 1]
    parts = [kept(thirds, column="nll_mean", low=a, high=b).ids() for a, b in itertools.pairwise(cuts)]
    assert sorted(itertools.chain(*parts)) == sorted(thirds.ids())


def test_positions_equal_a_ranking_bin_by_bin():
    rng = np.random.default_rng(0)
    values, lengths = rng.normal(size=57), rng.integers(1, 100, 57)
    values[[3, 9]] = np.nan
    found = positions(values, lengths, np.arange(57, dtype=np.uint64), 4)
    have = ~np.isnan(values)
    edges = np.quantile(lengths[have], [0.25, 0.5, 0.75])
    for row in np.flatnonzero(have):
        same = [r for r in np.flatnonzero(have) if sum(lengths[r] >= edges) == sum(lengths[row] >= edges)]
        below = sum(values[r] < values[row] for r in same)
        assert np.isclose(found[row], (below + 0.5) / len(same))
    assert np.isnan(found[~have]).all()


def test_short_texts_are_ranked_among_short_texts():
    rows = [{"id": f"s{i}", "text": f"short {i}", "loss": 5.0 + i / 100} for i in range(50)]
    rows += [{"id": f"l{i}", "text": f"long {i} " * 40, "loss": 1.0 + i / 100} for i in range(50)]
    data = Dataset.from_rows(rows)
    ids = kept(data, column="loss", low=0.0, high=0.2, length_bins=2).ids()
    assert sorted(ids) == sorted([f"s{i}" for i in range(10)] + [f"l{i}" for i in range(10)])
    together = kept(data, column="loss", low=0.0, high=0.2, length_bins=1).ids()
    assert sorted(together) == sorted(f"l{i}" for i in range(20))


def test_the_order_of_rows_does_not_matter(thirds):
    backwards = Dataset.from_table(thirds.take(np.arange(thirds.num_rows)[::-1]))
    one, other = (kept(d, column="nll_mean", low=0.2, high=0.5) for d in (thirds, backwards))
    assert sorted(one.ids()) == sorted(other.ids()) and one.num_rows


def test_by_value_bounds_are_included_and_rows_without_a_score_are_dropped():
    rows = [
        {"id": f"r{i}", "text": f"text {i}", "bpb": value} for i, value in enumerate([1.0, 2.0, None, 3.0, 4.0])
    ]
    got = kept(Dataset.from_rows(rows), column="bpb", by="value", low=2.0, high=3.0)
    assert got.ids() == ["r1", "r3"]
    reasons = dict(zip(got.dropped.column("id").to_pylist(), got.dropped.column("reason").to_pylist()))
    assert reasons == {"r0": "bpb is 1, wanted 2 to 3", "r2": "no bpb", "r4": "bpb is 4, wanted 2 to 3"}
    assert got.report["rows_without_score"] == 1


def test_duplicates_that_were_left_in_are_a_warning():
    rows = [{"id": f"r{i}", "text": f"Text {i % 8}", "bpb": float(i)} for i in range(10)]
    with pytest.warns(UserWarning, match="2 rows repeat the text of another"):
        got = apply_transform(Band(column="bpb"), Dataset.from_rows(rows), {})
    assert got.report["rows_with_equal_text"] == 2


def test_the_report_tells_length_source_and_repetition(thirds):
    rules = score_dataset(HeuristicRules(), thirds, {})
    report = kept(rules, column="nll_mean", low=0, high=1 / 3, length_bins=1).report
    assert report["repetitive_kept"] == 1.0 and report["repetitive_dropped"] < 0.1, "templates repeat themselves"
    assert report["taken_from"]["kind"]["template"]["rows_taken"] == 30
    assert report["mean_bytes_kept"] > 0
    assert kept(thirds, column="nll_mean").report["repetitive_kept"] is None


def test_bad_input():
    with pytest.raises(ConfigError, match="low must be smaller"):
        Band(low=0.5, high=0.5)
    with pytest.raises(ConfigError, match="quantiles lie between 0 and 1"):
        Band(low=0.5, high=2.0)
    with pytest.raises(ConfigError, match="needs the column"):
        kept(scored())
    with pytest.raises(InputError, match="no column 'bbp'"):
        kept(scored(), column="bbp")
    with pytest.raises(InputError, match="no rows"):
        kept(scored(2).keep(np.zeros(2, bool), "gone"), column="score")
