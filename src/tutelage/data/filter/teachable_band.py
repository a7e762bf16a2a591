"""Keep the prompts at the edge of a model's ability: those that it sometimes solves, not too rarely nor too often.

With k of n sampled answers right (signals.pass_rate) a prompt stays if 1 <= k <= n - 1 and
low <= (k + 1) / (n + 2) <= high. With low = 0 and high = 1 exactly the prompts stay whose rewards differ, those
that give a group-relative advantage other than 0. The band is noisy: of prompts with evenly spread ability 8, 16
and 32 samples put some 80, 85 and 89 % on the right side. The numbers of the band are ours; the report names none.
Spread what is left over topics (data.select.cluster_balanced) and compare with the evaluation
(signals.ngram_overlap) before teaching it.
"""

import numpy as np
from pydantic import Field, model_validator

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.method import Inputs, Transform

CARD = {
    "name": "data.filter.teachable_band",
    "paper": {"title": "Phi-4-reasoning Technical Report", "identifier": "arXiv:2504.21318"},
    "summary": "Keeps prompts that the model solves sometimes: neither always, nor never, nor nearly so.",
    "reads": ["n_correct", "n_samples"],
    "cost": "one pass over two columns; the samples cost far more",
    "baseline": "data.select.random",
    "headline": "spares training and rollouts on prompts that teach nothing",
    "version": 1,
}


def in_band(correct: np.ndarray, samples: np.ndarray, low: float, high: float) -> np.ndarray:
    """bool [m]: whether k [m] of n [m] right answers lie in the band."""
    mean = (correct + 1.0) / (samples + 2.0)
    return (correct >= 1) & (correct < samples) & (mean >= low) & (mean <= high)


class TeachableBand(Transform):
    """`low` and `high` bound the mean of the posterior chance of success."""

    low: float = Field(default=0.15, ge=0, le=1)
    high: float = Field(default=0.75, ge=0, le=1)

    @model_validator(mode="after")
    def _ordered(self) -> "TeachableBand":
        if self.low >= self.high:
            raise ValueError("low must be smaller than high")
        return self

    def apply(self, dataset: Dataset, inputs: Inputs) -> Dataset:
        dataset.require("n_correct", "n_samples")
        correct, samples = (dataset.numpy(name).astype(np.float64) for name in ("n_correct", "n_samples"))
        wrong = np.flatnonzero(~((correct >= 0) & (correct <= samples) & (samples >= 1)))
        if len(wrong):
            raise InputError(
                f"{self.name}: a prompt was not tried",
                where=f"row {dataset.take([int(wrong[0])]).column('id')[0].as_py()}",
                expected="0 <= n_correct <= n_samples, at least one sample",
                found=f"{correct[wrong[0]]:g} of {samples[wrong[0]]:g}",
                remedy="run signals.pass_rate on these rows",
            )
        if not ((correct > 0) & (correct < samples)).any() and len(correct):
            share = float((correct / samples).mean())
            raise InputError(
                f"{self.name}: no prompt is solved sometimes",
                where="n_correct",
                expected="prompts of which some answers are right and some are wrong",
                found=f"{share:.0%} of all answers are right",
                remedy="look at some answers and at the verifier; take easier or harder prompts, or more samples",
            )
        keep = in_band(correct, samples, self.low, self.high)
        reasons = {
            row: f"solved {int(correct[row])} of {int(samples[row])} times"
            for row in np.flatnonzero(~keep).tolist()
        }
        facts = {
            "method": self.name,
            "never_solved": int((correct == 0).sum()),
            "always_solved": int((correct == samples).sum()),
            "outside_the_band": int((~keep & (correct > 0) & (correct < samples)).sum()),
            "kept": int(keep.sum()),
        }
        return dataset.keep(keep, reasons, facts)
