"""data.select.top_k and the budget machinery all selectors share."""

import numpy as np
import pytest

from toy.selection import scored, scored_rows
from tutelage.core.apply import apply_transform
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.core.records import Budget
from tutelage.data.select._shared import largest_remainder
from tutelage.data.select.top_k import TopK

PROOF = {"data.select.top_k": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/data/select/top_k.py", "signed(values, self.direction, self.column)", "values"),
    ("src/tutelage/data/select/_shared.py", 'side="left")) + 1)', 'side="left")))'),
    ("src/tutelage/data/select/_shared.py", "[tokens[r].sum() for r in rows]", "[len(r) for r in rows]"),
    ("src/tutelage/data/select/_shared.py", 'gave = order[counts["rows_taken"][order] > 0]', "gave = order"),
    ("src/tutelage/data/select/_shared.py", "lexsort((hash64_many(seed, ids), -keys))", "lexsort((-keys,))"),
]


def chosen(data, **fields):
    return apply_transform(TopK(**fields), data, {"seed": 0})


def expected_prefix(rows, key, tokens):
    """The same by hand: sorted, cumulated, crossing row included."""
    total, ids = 0, []
    for row in sorted((r for r in rows if r["score"] == r["score"]), key=key):
        if total >= tokens:
            break
        total += row["n_tokens"]
        ids.append(row["id"])
    return ids, total


@pytest.mark.parametrize("tokens", [1, 50, 500, 2000])
def test_token_budget_takes_the_crossing_row(tokens):
    ids, total = expected_prefix(scored_rows(), lambda r: -r["score"], tokens)
    got = chosen(scored(), column="score", budget=Budget(tokens=tokens))
    assert sorted(got.ids()) == sorted(ids)
    assert got.report["tokens_taken"] == total
    assert got.report["overshoot_tokens"] == total - tokens
    assert got.report["rows_without_score"] == 1
    assert got.report["direction"] == "higher"


def test_rows_keep_their_order_and_drops_say_why():
    data = scored()
    got = chosen(data, column="score", budget=Budget(rows=20))
    order = {identifier: i for i, identifier in enumerate(data.ids())}
    places = [order[i] for i in got.ids()]
    assert places == sorted(places) and len(places) == 20
    reasons = dict(zip(got.dropped.column("id").to_pylist(), got.dropped.column("reason").to_pylist()))
    assert reasons["row-7"] == "not selected: no score"
    assert all(reason.startswith("not selected: ") for reason in reasons.values())
    assert got.report["last_score_taken"] == min(got.numpy("score"))


def test_budgets_are_nested():
    data = scored()
    sets = [set(chosen(data, column="score", budget=Budget(tokens=t)).ids()) for t in (10, 100, 1000)]
    assert sets[0] < sets[1] < sets[2]


def test_loss_columns_need_a_direction_and_low_means_low():
    with pytest.raises(ConfigError, match="say whether high or low") as error:
        chosen(scored(), column="bpb", budget=Budget(rows=3))
    assert error.value.exit_code == 2
    data = scored()
    low = chosen(data, column="bpb", direction="lower", budget=Budget(rows=3))
    assert sorted(low.numpy("bpb")) == sorted(data.numpy("bpb"))[:3]
    high = chosen(data, column="bpb", direction="higher", budget=Budget(rows=3))
    assert sorted(high.numpy("bpb")) == sorted(data.numpy("bpb"))[-3:]


def test_ties_are_drawn_by_hash_not_by_position():
    rows = [{"id": f"r{i}", "text": "x", "score": 1.0} for i in range(40)]
    first = chosen(Dataset.from_rows(rows), column="score", budget=Budget(rows=10)).ids()
    turned = chosen(Dataset.from_rows(rows[::-1]), column="score", budget=Budget(rows=10)).ids()
    other = chosen(Dataset.from_rows(rows), column="score", budget=Budget(rows=10), seed=1).ids()
    assert set(first) == set(turned) != set(other)
    assert set(first) != {f"r{i}" for i in range(10)}


def test_group_budget_is_proportional_to_tokens():
    rows = scored_rows(300)
    for row in rows:
        row["n_tokens"] = 30 if row["source"] == "source-0" else 5
    data = Dataset.from_rows(rows)
    got = chosen(data, column="score", budget=Budget(tokens=1500), group_column="source")
    table = got.report["taken_from"]["source"]
    with_score = {s: sum(r["n_tokens"] for r in rows if r["source"] == s and r["id"] != "row-7") for s in table}
    for source, counts in table.items():
        quota = 1500 * with_score[source] / sum(with_score.values())
        assert quota <= counts["tokens_taken"] < quota + 30
    by_rows = chosen(data, column="score", budget=Budget(rows=31), group_column="source")
    assert by_rows.num_rows == 31
    assert sorted(c["rows_taken"] for c in by_rows.report["taken_from"]["source"].values()) == [10, 10, 11]


def test_largest_remainder_sums_exactly():
    shares = np.random.default_rng(0).dirichlet(np.ones(7))
    parts = largest_remainder(shares, 100)
    assert parts.sum() == 100 and (np.abs(parts - 100 * shares) < 1).all()


def test_report_lists_who_gave_rows_and_counts_the_others():
    """Of 300 sources the ten best rows come from ten; a source may give rows without tokens."""
    rows = [{"text": "t", "score": float(i), "n_tokens": i % 295, "source": f"s{i:03}"} for i in range(300)]
    got = TopK(column="score", direction="higher", budget={"rows": 10}).apply(Dataset.from_rows(rows), {})
    assert list(got.report["taken_from"]["source"]) == [
        "s294", "s293", "s292", "s291", "s290", "s299", "s298", "s297", "s296", "s295",
    ]  # fmt: skip
    assert got.report["others"]["source"] == {"nothing_taken": 290, "not_listed": 0}
    many = TopK(column="score", direction="higher", budget={"rows": 150}).apply(Dataset.from_rows(rows), {})
    assert len(many.report["taken_from"]["source"]) == 100
    assert many.report["others"]["source"] == {"nothing_taken": 150, "not_listed": 50}


def test_report_says_what_was_taken_from_where():
    data = scored()
    got = chosen(data, column="score", budget=Budget(tokens=300))
    table = got.report["taken_from"]["source"]
    assert sum(c["rows_taken"] for c in table.values()) == got.num_rows == got.report["rows_taken"]
    assert sum(c["tokens_in"] for c in table.values()) == data.numpy("n_tokens").sum()


def test_without_token_counts_bytes_are_used_and_the_report_says_so():
    rows = [{"id": f"r{i}", "text": "é" * 10, "score": float(i)} for i in range(10)]
    got = chosen(Dataset.from_rows(rows), column="score", budget=Budget(tokens=10))
    assert got.report["token_counts"].startswith("estimated")
    assert got.num_rows == 2 and got.report["tokens_taken"] == 10


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"budget": {"rows": 3}}, ConfigError, "needs the column"),
        ({"column": "scor", "budget": {"rows": 3}}, InputError, "did you mean score"),
        ({"column": "score"}, ConfigError, "needs a budget"),
        ({"column": "score", "budget": {"flops": 3}}, ConfigError, "rows or tokens"),
        ({"column": "score", "budget": {"rows": 5000}}, ConfigError, "5,000 rows"),
        ({"column": "score", "budget": {"tokens": "9M"}}, ConfigError, "9,000,000 tokens"),
        ({"column": "text", "budget": {"rows": 1}}, InputError, "not numeric"),
    ],
)
def test_bad_input(fields, error, message):
    with pytest.raises(error, match=message):
        chosen(scored(), **fields)


def test_short_corpus_is_allowed_only_on_request():
    got = chosen(scored(20), column="score", budget=Budget(rows=5000), allow_short=True)
    assert got.num_rows == 19


def test_no_numbers_and_no_rows():
    rows = [{"id": "a", "text": "t", "score": float("nan")}]
    with pytest.raises(InputError, match="no number at all"):
        chosen(Dataset.from_rows(rows), column="score", budget=Budget(rows=1))
    empty = scored(3).keep(np.zeros(3, bool), "gone")
    with pytest.raises(InputError, match="no rows"):
        chosen(empty, column="score", budget=Budget(rows=1))
    counted = [{"id": "a", "text": "t", "score": 1.0, "n_tokens": -1}]
    with pytest.raises(InputError, match="no count"):
        chosen(Dataset.from_rows(counted), column="score", budget=Budget(tokens=1))


def test_direction_is_validated_when_built():
    with pytest.raises(ConfigError, match="direction"):
        TopK(direction="up")
