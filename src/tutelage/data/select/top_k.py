"""The best rows by one column, under a budget in rows or tokens.

Rows are sorted by direction * score, ties by hash(seed, id), and taken until the cumulative tokens reach the
budget, the crossing row included (the overshoot is reported). Counting documents instead of tokens would favour
short ones, because scores correlate with length. Rows without a score are left out and counted. With
`group_column`, group g gets budget * tokens_g / tokens.
"""

from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.method import Inputs, Transform
from tutelage.core.records import Budget
from tutelage.data.select._shared import Direction, finish, preference_order, scores, signed, take

CARD = {
    "name": "data.select.top_k",
    "paper": {"title": "Common practice", "identifier": ""},
    "summary": "Takes the rows with the best score in a column, up to a budget in rows or tokens.",
    "reads": ["{column}"],
    "cost": "one sort",
    "baseline": "data.select.random",
    "headline": "as good as the score it sorts by; tends to lose diversity",
    "version": 1,
}


class TopK(Transform):
    """`column` holds the score, `direction` says whether high or low is good (a loss needs it said);
    `budget` in rows or tokens; `allow_short` permits a budget larger than the corpus."""

    column: str | None = None
    direction: Direction | None = None
    budget: Budget | None = None
    group_column: str | None = None
    allow_short: bool = False
    seed: int = Field(default=0, ge=0)

    def apply(self, dataset: Dataset, inputs: Inputs) -> Dataset:
        values = scores(dataset, self.column, self.name)
        assert self.column is not None
        order = preference_order(signed(values, self.direction, self.column), dataset.ids(), self.seed)
        selection = take(dataset, order, self.budget, self.name, self.allow_short, self.group_column)
        facts = {
            "method": self.name,
            "column": self.column,
            "direction": self.direction or "higher",
            "last_score_taken": float(values[selection.rows[-1]]),
        }
        return finish(dataset, selection, facts, values, self.column)
