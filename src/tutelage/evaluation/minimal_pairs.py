"""Minimal pairs: of two texts that differ in one thing, the model should find the good one more likely.

Item i is right when ll(good_i) > ll(bad_i), with ll the sum of token log-probabilities after an optional shared
prompt (without one, after the model's start token). A tie is worth 1/2 and counted.
"""

from typing import TYPE_CHECKING, Any

from tutelage.core.method import Inputs, Task
from tutelage.evaluation._shared import Measurement

if TYPE_CHECKING:
    from tutelage.core.dataset import Dataset
    from tutelage.core.records import Result

CARD = {
    "name": "evaluation.minimal_pairs",
    "paper": {
        "title": "BLiMP: The Benchmark of Linguistic Minimal Pairs for English",
        "identifier": "arXiv:1912.00582",
    },
    "summary": "Share of pairs in which the model finds the good text more likely than the bad one.",
    "reads": ["good", "bad"],
    "inputs": {"model": "the causal language model that is measured"},
    "needs": ["train"],
    "cost": "one forward pass over both texts of each pair",
    "baseline": None,
    "headline": "tests one contrast at a time, without generation or instructions",
    "version": 1,
}


class MinimalPairs(Task):
    """Rows: `good`, `bad`, optional `prompt`, `cluster`, `group`. `delimiter` is put between prompt and text."""

    delimiter: str = " "

    def evaluate(self, model: Any, dataset: "Dataset", inputs: Inputs) -> "Result":
        """Accuracy in [0, 1], larger is better. Raises InputError for a missing column."""
        dataset.require("good", "bad")
        work = Measurement(self, model, dataset, inputs, identity=("prompt", "good", "bad"))
        pairs = []
        for row in work.rows:
            prompt = row.get("prompt") or ""
            joint = self.delimiter if prompt else ""
            pairs += [(prompt, joint + work.text(row, "good")), (prompt, joint + work.text(row, "bad"))]
        found = model.loglikelihood(pairs)
        ties = 0
        for number, row in enumerate(work.rows):
            good, bad = found[2 * number], found[2 * number + 1]
            tied = good.sum == bad.sum
            ties += tied
            work.add(
                row,
                score=0.5 if tied else float(good.sum > bad.sum),
                prediction=row["good"] if good.sum > bad.sum else row["bad"],
                target=row["good"],
                choice_ll=[good.sum, bad.sum],
                tokens_in=good.n_tokens + bad.n_tokens,
            )
        return work.result("acc", direction=1, extra={"ties": ties / len(work.rows)})
