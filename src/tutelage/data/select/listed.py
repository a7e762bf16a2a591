"""The rows of a pool that somebody else's filter names, checked: how any outside selection becomes an arm.

Input `listed` is the output of that filter: rows of which the column `id_column` holds ids of the pool. Kept are
the rows of the pool with these ids, in its order and with its content, so a list chooses rows and changes none. An
id that is not in the pool, an id named twice, more rows or tokens than `budget` allows: errors that name it.
"""

import numpy as np

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.method import Inputs, Transform
from tutelage.core.records import Budget
from tutelage.data.select._shared import Selection, finish, row_sizes

CARD = {
    "name": "data.select.listed",
    "paper": {
        "title": "DataComp: In search of the next generation of multimodal datasets",
        "identifier": "arXiv:2304.14108",
    },
    "summary": "Takes the rows whose ids are listed; refuses foreign or repeated ids and lists over the budget.",
    "inputs": {"listed": "rows that hold the ids to take"},
    "cost": "one look-up per id",
    "baseline": "data.select.random",
    "headline": "holds a filter from outside to the same pool, budget and training as every other arm",
    "version": 1,
}


def places(pool: list[str], wanted: list[str]) -> np.ndarray:
    """Positions in `pool` of the ids `wanted`, int64 [n]; raises InputError for a foreign or repeated id."""
    place = {identifier: row for row, identifier in enumerate(pool)}
    seen: set[str] = set()
    for number, identifier in enumerate(wanted, start=1):
        if identifier in seen or identifier not in place:
            repeated = identifier in seen
            raise InputError(
                "a list names a row twice" if repeated else "a list names a row that is not in the pool",
                where=f"inputs.listed, entry {number}",
                expected="every id once" if repeated else "ids of the pool",
                found=identifier,
                remedy="take the entry out of the list",
            )
        seen.add(identifier)
    return np.array([place[identifier] for identifier in wanted], dtype=np.int64)


class Listed(Transform):
    """`id_column` of the list holds the ids; `budget` (rows or tokens) is the most that the list may take, where a
    token budget is met as by the other selectors, the crossing row included."""

    id_column: str = "id"
    budget: Budget | None = None

    def apply(self, dataset: Dataset, inputs: Inputs) -> Dataset:
        listed: Dataset = inputs["listed"]
        listed.require(self.id_column)
        wanted = [str(value) for value in listed.column(self.id_column).to_pylist()]
        rows = places(dataset.ids(), wanted)
        if not len(rows):
            raise InputError(f"{self.name}: the list is empty", where="inputs.listed", expected="at least one id")
        tokens = row_sizes(dataset).tokens[rows]
        self._within_budget(len(rows), tokens)
        return finish(dataset, Selection(rows), {"method": self.name, "listed": len(wanted)})

    def _within_budget(self, rows: int, tokens: np.ndarray) -> None:
        if self.budget is None:
            return
        total, least = int(tokens.sum()), int(tokens.min())
        over = {
            "rows": self.budget.rows is not None and rows > self.budget.rows,
            # Without its smallest row the list must be below the budget: then some row crosses it.
            "tokens": self.budget.tokens is not None and total - least >= self.budget.tokens,
        }
        for unit, found in (("rows", rows), ("tokens", total)):
            if over[unit]:
                raise InputError(
                    "a list takes more than its budget",
                    where=f"budget.{unit}",
                    expected=f"at most {getattr(self.budget, unit):,} {unit}",
                    found=f"{found:,} {unit}",
                    remedy="shorten the list",
                )
