"""data.mix.tagged."""

import itertools

import numpy as np
import pyarrow as pa
import pytest

from tutelage.core.apply import apply_transform, score_dataset
from tutelage.core.dataset import Dataset
from tutelage.core.dataset_builder import DatasetBuilder
from tutelage.core.errors import ConfigError, InputError
from tutelage.core.records import Budget
from tutelage.data.dedup.paragraphs import Paragraphs
from tutelage.data.filter.rules import Rules
from tutelage.data.mix.tagged import Tagged
from tutelage.signals.exact_duplicates import ExactDuplicates
from tutelage.signals.heuristic_rules import HeuristicRules
from tutelage.signals.paragraph_duplicates import ParagraphDuplicates

PROOF = {"data.mix.tagged": ["consistent"]}
MUTATIONS = [
    ("src/tutelage/data/mix/tagged.py", "condition.met(shard.column(name), name) == unwanted", "False"),
    ("src/tutelage/data/mix/tagged.py", "words >= self.min_words", "words > self.min_words"),
    (
        "src/tutelage/data/mix/tagged.py",
        "final.dropped = pa.concat_tables(dropped)",
        "final.dropped = (dropped[0])",
    ),
    ("src/tutelage/data/mix/_sampling.py", "wanted = shares * total", "wanted = shares * total / 2"),
    ("src/tutelage/data/mix/_sampling.py", "np.clip(wanted / np.maximum(stock, 1), 1, most)", "most"),
    ("src/tutelage/data/mix/_spans.py", "if joined and start < joined[-1][1]:", "if False:"),
    ("src/tutelage/data/mix/_spans.py", "tokens * new / np.maximum(old, 1)", "tokens"),
    ("src/tutelage/data/mix/_conditions.py", "if self.present is False:", "if self.present is None:"),
]
SPANS = pa.list_(pa.struct([("start", pa.int64()), ("end", pa.int64())]))


def mixed(data, **fields):
    return apply_transform(Tagged(**fields), data, {"seed": 0})


def reasons(data):
    return dict(zip(data.dropped.column("id").to_pylist(), data.dropped.column("reason").to_pylist()))


def rows_of(count=40):
    rng = np.random.default_rng(0)
    return [
        {
            "id": f"r{i:02d}",
            "text": " ".join(["word"] * int(rng.integers(5, 60))),
            "source": ("a", "a", "a", "b", "c")[i % 5],
            "n_tokens": int(rng.integers(10, 60)),
            "quality": None if i == 3 else float(i),
            "language": "en" if i % 4 else "de",
            "bad": i % 10 == 0,
            "note": None if i % 7 else f"of r{i}",
        }
        for i in range(count)
    ]


@pytest.fixture
def data():
    return Dataset.from_rows(rows_of())


def sharded():
    """The same rows in several shards, with spans at known places."""
    builder = DatasetBuilder(rows_per_shard=7)
    for row in rows_of():
        builder.add(row)
    return builder.finish()


def with_spans(data, spans, name="spans"):
    """`spans` maps an id to its spans."""
    columns = []
    for shard in data.shards(["id"]):
        found = [[{"start": a, "end": b} for a, b in spans.get(i, [])] for i in shard.column("id").to_pylist()]
        columns.append({name: pa.array(found, SPANS)})
    return data.with_columns(name, columns)


def balanced(report):
    stages = report["stages"]
    assert all(s["rows_in"] == s["rows_kept"] + s["rows_dropped"] for s in stages)
    assert all(a["rows_kept"] == b["rows_in"] for a, b in itertools.pairwise(stages))
    assert stages[0]["rows_in"] == report["rows_in"] and stages[-1]["rows_kept"] == report["rows_kept"]
    assert all(a["tokens_kept"] == b["tokens_in"] for a, b in itertools.pairwise(stages))
    return [s["stage"] for s in stages]


def test_a_mix_without_rules_is_the_same_bytes(data):
    got = mixed(data)
    assert got.hash == data.hash and got.dropped.num_rows == 0
    assert balanced(got.report) == ["conditions", "sampling"]


def test_conditions_keep_and_drop_what_a_plain_loop_does(data):
    got = mixed(
        data,
        keep={"quality": {"min": 2, "max": 30}, "language": {"one_of": ["en", "fr"]}},
        drop={"bad": {"equals": True}, "note": {"present": True}},
    )
    wanted = [
        r["id"]
        for r in rows_of()
        if r["quality"] is not None
        and 2 <= r["quality"] <= 30
        and r["language"] == "en"
        and not r["bad"]
        and r["note"] is None
    ]
    assert got.ids() == wanted and 0 < len(wanted) < 40
    why = reasons(got)
    assert why["r00"] == "quality is 0, wanted at least 2 and at most 30"
    assert why["r03"] == "quality is missing, wanted at least 2 and at most 30"
    assert why["r04"] == "language is 'de', wanted one of 'en', 'fr'"
    assert why["r10"] == "bad is True" and why["r07"] == "note is 'of r7'"
    assert len(why) + len(wanted) == 40
    balanced(got.report)
    whole = mixed(data, drop={"note": {"present": True}}), mixed(data, keep={"note": {"present": False}})
    assert whole[0].ids() == whole[1].ids()


def test_shards_make_no_difference(data):
    fields = {"keep": {"quality": {"min": 4}}, "shares": {"a": 1, "b": 1}, "drop": {"bad": {"equals": True}}}
    one, other = mixed(data, **fields), mixed(sharded(), **fields)
    assert list(one.rows()) == list(other.rows()) and reasons(one) == reasons(other)


def test_profiles_are_those_of_the_rule_filter_per_source():
    texts = ["Short.", "This is the text that we have and it is to be kept, with all of its words. " * 6]
    rows = [{"id": f"{s}{n}", "text": t, "source": s} for s in "ab" for n, t in enumerate(texts)]
    data = score_dataset(HeuristicRules(), Dataset.from_rows(rows), {})
    got = mixed(data, profiles={"a": "gopher", "*": "code"})
    for source, profile in (("a", "gopher"), ("b", "code")):
        alone = Dataset.from_table(data.take([i for i, r in enumerate(rows) if r["source"] == source]))
        by_rules = Rules(profile=profile).apply(alone, {})
        assert [i for i in got.ids() if i[0] == source] == by_rules.ids()
    assert reasons(got)["a0"].startswith("rule_words is 1, wanted at least 50")
    with pytest.raises(ConfigError, match="no filter profile 'gofer'"):
        Tagged(profiles={"*": "gofer"})
    with pytest.raises(InputError, match=r"no tag 'rule_words'") as error:
        mixed(Dataset.from_rows(rows), profiles={"*": "gopher"})
    assert "signals.heuristic_rules" in error.value.remedy


def test_spans_are_replaced_at_their_exact_places():
    text = "Write to eve@example.org or bob@example.org today."
    rows = [{"id": "x", "text": text, "n_tokens": 50}, {"id": "y", "text": "no address", "n_tokens": 4}]
    places = [(text.index(w), text.index(w) + len(w)) for w in ("eve@example.org", "bob@example.org")]
    data = with_spans(Dataset.from_rows(rows), {"x": places})
    got = mixed(data, remove={"spans": "<mail>"}, min_words=0)
    assert got.column("text").to_pylist() == ["Write to <mail> or <mail> today.", "no address"]
    assert got.column("n_tokens").to_pylist() == [int(np.ceil(50 * 32 / 50)), 4]
    assert got.column("removed_characters").to_pylist() == [30, 0]
    assert "spans" not in got.column_names, "spans of the text before fit no more"


def test_overlapping_spans_of_several_columns_are_one():
    data = with_spans(Dataset.from_rows([{"id": "x", "text": "0123456789"}]), {"x": [(1, 4), (6, 8)]}, "one")
    data = with_spans(data, {"x": [(3, 7)]}, "two")
    got = mixed(data, remove={"one": "-", "two": "+"}, min_words=0)
    assert got.column("text").to_pylist() == ["0-89"]
    touching = with_spans(Dataset.from_rows([{"id": "x", "text": "0123456789"}]), {"x": [(1, 3), (3, 5)]})
    assert mixed(touching, remove={"spans": "|"}, min_words=0).column("text").to_pylist() == ["0||56789"]


def test_rows_left_too_short_are_dropped_with_the_numbers():
    text = "one two three four five six"
    rows = [{"id": i, "text": text} for i in "abc"]
    data = with_spans(Dataset.from_rows(rows), {"a": [(0, 14)], "b": [(0, 19)]})
    got = mixed(data, remove={"spans": ""}, min_words=3)
    assert got.ids() == ["a", "c"]
    assert reasons(got) == {"b": "2 words left after 19 characters were removed"}
    assert balanced(got.report) == ["conditions", "spans", "sampling"]


def test_duplicate_spans_are_cut_as_the_deduplication_cuts_them():
    line = "This line of some length stands in many of the documents here.\n"
    rows = [
        {"id": f"d{i}", "text": line + f"Only document {i} says this and no other one does.\n"} for i in range(5)
    ]
    data = Dataset.from_rows(rows)
    tagged = score_dataset(ParagraphDuplicates(), data, {})
    got = mixed(tagged, remove={"duplicate_spans": ""}, min_words=0)
    cut = Paragraphs(min_words=0).apply(data, {})
    assert got.column("text").to_pylist() == cut.column("text").to_pylist()
    assert got.column("removed_characters").to_pylist() == cut.column("removed_characters").to_pylist()


def test_exact_copies_are_dropped_by_their_tag():
    rows = [{"id": i, "text": t} for i, t in zip("abcd", ["One.", "Two.", "one.", "Three."])]
    got = mixed(
        score_dataset(ExactDuplicates(), Dataset.from_rows(rows), {}), drop={"duplicate_of": {"present": True}}
    )
    assert got.ids() == ["a", "b", "d"] and reasons(got) == {"c": "duplicate_of is 'a'"}


def test_shares_hold_under_a_token_budget(data):
    got = mixed(data, shares={"a": 3, "b": 1}, budget=Budget(tokens=400))
    tokens = {s: sum(r["n_tokens"] for r in got.rows() if r["source"] == s) for s in "abc"}
    assert 300 <= tokens["a"] < 360 and 100 <= tokens["b"] < 160 and tokens["c"] == 0
    assert set(got.column("mix_weight").to_pylist()) == {1.0}
    why = reasons(got)
    assert why["r04"] == "not sampled: source 'c' has no share"
    assert "not sampled: source 'a' has filled its share" in why.values()
    sources = got.report["sources"]
    assert sources["a"]["share_wanted"] == 0.75 and abs(sources["a"]["share_reached"] - 0.75) < 0.08
    assert sources["a"]["amount_taken"] == tokens["a"]
    more = mixed(data, shares={"a": 3, "b": 1}, budget=Budget(tokens=500))
    assert set(got.ids()) < set(more.ids()), "a smaller budget is part of a larger one"
    other = mixed(data, shares={"a": 3, "b": 1}, budget=Budget(tokens=400), seed=1)
    assert other.ids() != got.ids()


def test_without_a_budget_the_mixture_is_the_largest_in_which_the_shares_hold(data):
    got = mixed(data, shares={"a": 1, "b": 1})
    stock = {s: sum(r["n_tokens"] for r in data.rows() if r["source"] == s) for s in "ab"}
    taken = {s: sum(r["n_tokens"] for r in got.rows() if r["source"] == s) for s in "ab"}
    assert taken["b"] == stock["b"] < stock["a"], "the scarce source is taken whole"
    assert stock["b"] <= taken["a"] < stock["b"] + 60


def test_a_scarce_source_counts_more_than_once_up_to_max_weight(data):
    stock = sum(r["n_tokens"] for r in data.rows() if r["source"] == "b")
    got = mixed(data, shares={"a": 1, "b": 1}, budget=Budget(tokens=3 * stock), max_weight=2.0)
    weights = {r["source"]: r["mix_weight"] for r in got.rows()}
    assert weights["b"] == pytest.approx(1.5) and weights["a"] == pytest.approx(
        max(1.0, 1.5 * stock / sum(r["n_tokens"] for r in data.rows() if r["source"] == "a"))
    )
    with pytest.raises(ConfigError, match="larger than what there is") as error:
        mixed(data, shares={"a": 1, "b": 1}, budget=Budget(tokens=6 * stock), max_weight=2.0)
    assert error.value.where == "source 'b'"
    short = mixed(data, shares={"b": 1}, budget=Budget(tokens=6 * stock), max_weight=2.0, allow_short=True)
    assert set(short.column("mix_weight").to_pylist()) == {2.0} and short.num_rows == 8


def test_budget_in_rows_and_without_shares(data):
    got = mixed(data, shares={"a": 1, "c": 1}, budget=Budget(rows=10), source_column="source")
    assert [r["source"] for r in got.rows()].count("a") == 5 and got.num_rows == 10
    plain = mixed(data, budget=Budget(rows=10))
    assert plain.num_rows == 10 and "mix_weight" not in plain.column_names
    assert set(reasons(plain).values()) == {"not sampled: the budget is full"}


def test_bad_input(data):
    with pytest.raises(ConfigError, match="at least one of"):
        Tagged(keep={"quality": {}})
    with pytest.raises(ConfigError, match="min must not be larger"):
        Tagged(keep={"quality": {"min": 2, "max": 1}})
    with pytest.raises(ConfigError, match="shares are not negative"):
        Tagged(shares={"a": -1, "b": 2})
    with pytest.raises(InputError, match="no tag 'qualty'"):
        mixed(data, keep={"qualty": {"min": 1}})
    with pytest.raises(InputError, match="'language' is not numeric"):
        mixed(data, keep={"language": {"min": 1}})
    with pytest.raises(InputError, match="'bad' is never 'yes'"):
        mixed(data, drop={"bad": {"equals": "yes"}})
    with pytest.raises(InputError, match="no row is left") as error:
        mixed(data, keep={"quality": {"min": 1000}})
    assert "wanted at least 1000" in error.value.found
    with pytest.raises(InputError, match="no row is left of a source") as error:
        mixed(data, shares={"a": 1, "bb": 1})
    assert "b" in error.value.remedy
    assert mixed(data, shares={"a": 1, "bb": 1}, allow_short=True).num_rows
    with pytest.raises(InputError, match="no column 'kind'"):
        mixed(data, shares={"a": 1}, source_column="kind")
    with pytest.raises(ConfigError, match="paid in rows or tokens"):
        mixed(data, budget=Budget(seconds=1))
    with pytest.raises(InputError, match="does not hold spans"):
        mixed(data, remove={"note": ""})
    with pytest.raises(InputError, match="does not fit its text") as error:
        mixed(with_spans(data, {"r05": [(2, 10_000)]}), remove={"spans": ""})
    assert error.value.where == "row r05"
