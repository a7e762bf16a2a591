"""data.select.listed: a submission is checked before it is trained on."""

import pytest

from tutelage.core.apply import apply_transform
from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.records import Budget
from tutelage.data.select.listed import Listed

PROOF = {"data.select.listed": ["consistent"]}
MUTATIONS = [
    ("src/tutelage/data/select/listed.py", "identifier in seen or identifier not in place", "identifier not in place"),  # noqa: E501
    ("src/tutelage/data/select/listed.py", "identifier in seen or identifier not in place", "identifier in seen"),
    ("src/tutelage/data/select/listed.py", "total - least >= self.budget.tokens", "total - least > self.budget.tokens"),  # noqa: E501
    ("src/tutelage/data/select/listed.py", "rows > self.budget.rows", "rows >= self.budget.rows"),
]  # fmt: skip
POOL = Dataset.from_rows({"id": f"r{i}", "text": f"text {i}", "n_tokens": 10} for i in range(20))


def chosen(ids, column="id", **fields):
    # As a submission comes: a column of ids, which the reader may have given ids of its own.
    rows = [{"id": name} if column == "id" else {"id": str(n), column: name} for n, name in enumerate(ids)]
    return apply_transform(Listed(**fields), POOL, {"listed": Dataset.from_rows(rows)})


def test_the_listed_rows_as_the_pool_has_them_and_in_its_order():
    got = chosen(["r7", "r3", "r19"])
    assert got.ids() == ["r3", "r7", "r19"] and got.column("text").to_pylist() == ["text 3", "text 7", "text 19"]
    assert got.report["rows_taken"] == 3 and got.report["tokens_taken"] == 30
    assert got.dropped.num_rows == 17
    rewritten = Dataset.from_rows([{"id": "r3", "text": "the answers"}])
    assert apply_transform(Listed(), POOL, {"listed": rewritten}).column("text").to_pylist() == ["text 3"]
    assert chosen(["r5"], "uid", id_column="uid").ids() == ["r5"]


@pytest.mark.parametrize(
    ("ids", "message"),
    [(["r1", "r99"], r"not in the pool[\s\S]*r99"), (["r1", "r2", "r1"], r"twice[\s\S]*entry 3[\s\S]*r1")],
)
def test_a_foreign_or_repeated_id_is_named(ids, message):
    with pytest.raises(InputError, match=message):
        chosen(ids, "uid", id_column="uid")


def test_the_budget_is_the_most_a_list_may_take():
    three = ["r1", "r2", "r3"]
    for budget in (Budget(rows=3), Budget(tokens=30), Budget(tokens=21)):
        assert chosen(three, budget=budget).num_rows == 3
    with pytest.raises(InputError, match=r"more than its budget[\s\S]*at most 2 rows"):
        chosen(three, budget=Budget(rows=2))
    with pytest.raises(InputError, match=r"at most 20 tokens[\s\S]*30 tokens"):
        chosen(three, budget=Budget(tokens=20))


def test_an_empty_list_and_an_absent_column_are_errors():
    nothing = Dataset.from_table(POOL.take([]))
    with pytest.raises(InputError, match="the list is empty"):
        apply_transform(Listed(), POOL, {"listed": nothing})
    with pytest.raises(InputError, match="uid"):
        chosen(["r1"], id_column="uid")
