"""The same value for every row: says where rows came from once they are joined with others."""

import numpy as np
import pyarrow as pa

from tutelage.core.method import Inputs, Scorer, State

CARD = {
    "name": "signals.constant",
    "paper": {"title": "Common practice", "identifier": ""},
    "summary": "Adds a column that holds one value, such as replay: true, in every row.",
    "writes": ["{column}"],
    "cost": "none",
    "baseline": None,
    "headline": "marks a dataset before it is joined with another",
    "version": 1,
}


class Constant(Scorer):
    """`column` is its name, `value` what every row gets."""

    column: str = "replay"
    value: bool | int | float | str = True

    def score(self, shard: pa.Table, state: State, inputs: Inputs) -> dict[str, object]:
        if isinstance(self.value, str):
            return {self.column: pa.array([self.value] * len(shard), pa.string())}
        return {self.column: np.full(len(shard), self.value)}
