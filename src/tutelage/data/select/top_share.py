"""The best share of the rows by one column, the share counted in tokens.

With N tokens in all rows that have a score, rows are taken in order of direction * score, ties by hash(seed, id),
until they hold share * N tokens, the crossing row included; kept rows stay in their old order. So the cut moves
with the corpus, where `data.select.top_k` asks for an amount.
"""

from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.method import Inputs, Transform
from tutelage.core.records import Budget
from tutelage.data.select._shared import Direction, finish, preference_order, row_sizes, scores, signed, take

CARD = {
    "name": "data.select.top_share",
    "paper": {
        "title": "MiniPLM: Knowledge Distillation for Pre-Training Language Models",
        "identifier": "arXiv:2410.17215",
    },
    "summary": "Takes the rows with the best score in a column, up to a share of all tokens.",
    "reads": ["{column}"],
    "cost": "one sort",
    "baseline": "data.select.random",
    "headline": "as good as the score it sorts by; the paper keeps half of its corpus",
    "version": 1,
}


class TopShare(Transform):
    """`share` of the tokens of all rows with a score; `column` and `direction` as in `data.select.top_k`."""

    column: str | None = None
    direction: Direction | None = None
    share: float = Field(default=0.5, gt=0, le=1)
    seed: int = Field(default=0, ge=0)

    def apply(self, dataset: Dataset, inputs: Inputs) -> Dataset:
        if dataset.num_rows == 0:
            raise InputError(f"{self.name}: there are no rows to select from")
        values = scores(dataset, self.column, self.name)
        assert self.column is not None
        order = preference_order(signed(values, self.direction, self.column), dataset.ids(), self.seed)
        stock = int(row_sizes(dataset).tokens[order].sum())
        if stock == 0:
            raise InputError(
                f"{self.name}: the rows have no tokens",
                where=self.column,
                expected="rows with text",
                found=f"{len(order)} rows of 0 tokens",
                remedy="drop empty rows first (data.filter.rules)",
            )
        selection = take(dataset, order, Budget(tokens=max(1, round(self.share * stock))), self.name)
        facts = {
            "method": self.name,
            "column": self.column,
            "direction": self.direction or "higher",
            "share": self.share,
            "last_score_taken": float(values[selection.rows[-1]]),
        }
        return finish(dataset, selection, facts, values, self.column)
