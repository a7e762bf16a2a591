"""A score that is either the planted worth of a row or noise, at a price in FLOPs per row; for tests only."""

import numpy as np

from tutelage.core.errors import InputError
from tutelage.core.method import Inputs, Scorer, State
from tutelage.core.text.hashing import uniform

CARD = {
    "name": "signals.toy_score",
    "paper": {"title": "Common practice"},
    "summary": "Planted worth or noise.",
    "reads": ["worth"],
    "writes": ["toy_score"],
    "inputs": {"model?": "ignored"},
    "cost": "as told",
    "baseline": None,
    "headline": "none",
    "version": 1,
}


class ToyScore(Scorer):
    """`honest` gives the worth, else noise; `flops_per_row` is charged; `fitted` learns a mean first; `refuses`
    all rows."""

    honest: bool = True
    flops_per_row: float = 0.0
    fitted: bool = False
    refuses: bool = False
    seed: int = 0

    def fit(self, dataset, inputs: Inputs) -> State:
        return {"mean": np.array([dataset.numpy("worth").mean()])} if self.fitted else {}

    def score(self, shard, state: State, inputs: Inputs):
        if self.refuses:
            raise InputError("these rows show nothing", where="signals.toy_score", expected="other rows")
        inputs["meter"].add(forward_flops=self.flops_per_row * shard.num_rows)
        if self.honest:
            return {"toy_score": shard.column("worth").to_numpy()}
        return {"toy_score": uniform(self.seed + 1000, shard.column("id").to_pylist())}
