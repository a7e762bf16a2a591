"""In = kept + dropped, or the run stops: a transform that loses, invents or counts a row twice is an error."""

import numpy as np
import pytest

from tutelage.core.apply import apply_transform, check_balance
from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.method import Transform

MUTATIONS = [
    ("src/tutelage/core/apply.py", "if not balanced or len(dropped)", "if len(dropped)"),
    ("src/tutelage/core/apply.py", "if not balanced or len(dropped) != len(set(dropped)):", "if not balanced:"),
]
ROWS = [{"id": str(number), "text": f"row {number}"} for number in range(6)]


def rows(*ids: str, source: str | None = None) -> Dataset:
    extra = {} if source is None else {"source_id": source}
    return Dataset.from_rows([{"id": name, "text": "x", **extra} for name in ids])


class Honest(Transform):
    def apply(self, dataset, inputs):
        return dataset.keep(np.arange(dataset.num_rows) % 2 == 0, "odd")


class Loses(Transform):
    def apply(self, dataset, inputs):
        return Dataset.from_rows([row for row in dataset.rows() if row["id"] != "3"])


class Invents(Transform):
    def apply(self, dataset, inputs):
        return Dataset.from_rows([*dataset.rows(), {"id": "new", "text": "x"}])


def test_what_is_kept_and_dropped_adds_up():
    found = apply_transform(Honest(), Dataset.from_rows(ROWS), {})
    assert found.num_rows == 3 and found.dropped.num_rows == 3


@pytest.mark.parametrize(("method", "evidence"), [(Loses(), r"lost \['3'\]"), (Invents(), r"invented \['new'\]")])
def test_rows_that_do_not_add_up_stop_the_run(method, evidence):
    with pytest.raises(InputError, match="does not account for every row") as error:
        apply_transform(method, Dataset.from_rows(ROWS), {})
    assert error.match(evidence) and "6 in = kept + dropped" in str(error.value)


def test_derived_rows_are_known_by_their_source():
    before = rows("a")
    check_balance(before, rows("a-1", "a-2", source="a"), "pieces")
    with pytest.raises(InputError, match="lost"):
        check_balance(before, rows("b-1", source="b"), "pieces")


def test_a_row_is_not_kept_and_dropped_nor_dropped_twice():
    class Report:
        """As much of a dataset as the balance looks at."""

        def __init__(self, kept: list[str], dropped: list[str]) -> None:
            import pyarrow as pa

            self.column_names = ["id"]
            self.column = lambda _name: pa.chunked_array([pa.array(kept, pa.string())])
            self.dropped = pa.table({"id": pa.array(dropped, pa.string())})

    before = rows("a", "b")
    check_balance(before, Report(["a"], ["b"]), "fine")
    for kept, dropped in ((["a", "b"], ["b"]), (["a"], ["b", "b"])):
        with pytest.raises(InputError, match="does not account"):
            check_balance(before, Report(kept, dropped), "wrong")
