"""How much the base model trusts each answer of an instruction set, and whether that trust means anything.

c = beta O + (1 - beta) S. O is the mean over k sampled answers y' of alpha s(y, y') + (1 - alpha) exact(y, y'),
s the agreement of two answers; S the mean over two self-check questions of P(yes) / (P(yes) + P(no)). Small models
check themselves near chance: beta 1 uses O alone and asks nothing. Whether c finds bad answers here is measured: a
share `swapped` of up to `check_rows` rows gets another row's answer, and `clear_auroc`, the same in every row, is
the probability that an untouched answer has the larger c (mistakes already in the data lower it). Every row has
its own seeds, hash(seed, id and sample), so its answers depend on no other row.

Departures: the paper's s is one minus the contradiction that an NLI model sees; ours is token F1 or equality of
numbers. alpha and beta are as we remember them, the wording of the questions is ours.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from tutelage.core.answers import exact_match, normalise, numeric_match
from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.method import Inputs, Scorer, State
from tutelage.core.stats import calibration
from tutelage.core.text.hashing import hash64, uniform
from tutelage.signals._shared import response_pairs

CARD = {
    "name": "signals.clear",
    "paper": {
        "title": "Automated Data Curation for Robust Language Model Fine-Tuning",
        "identifier": "arXiv:2403.12776",
    },
    "summary": "Confidence of a base model in each answer, with its measured power to tell wrong answers.",
    "reads": ["messages?", "prompt?", "completion?"],
    "writes": ["clear_conf", "clear_observed", "clear_self", "clear_auroc"],
    "inputs": {"model": "the base model that answers and checks"},
    "needs": ["train"],
    "cost": "k generations per row, and two short forward passes where beta is below 1",
    "baseline": "signals.token_loss",
    "headline": "the paper: gains on three noised sets; useless where the model cannot answer the questions",
    "version": 1,
}
QUESTIONS = (
    "Is the proposed answer correct?",
    "Does the proposed answer do what the question asks?",
)


def token_f1(first: str, second: str) -> float:
    """Harmonic mean of precision and recall of the words two normalised texts share, counted with repeats."""
    a, b = Counter(normalise(first).split()), Counter(normalise(second).split())
    shared = (a & b).total()
    return 2 * shared / (a.total() + b.total()) if shared else 0.0


def observed(answer: str, samples: Sequence[str], alpha: float, numeric: bool = False) -> float:
    """O of one answer against its k samples, in [0, 1]."""
    agree = (lambda y, z: float(numeric_match(z, y))) if numeric else token_f1
    return sum(alpha * agree(answer, z) + (1 - alpha) * exact_match(z, answer) for z in samples) / len(samples)


def auroc(good: np.ndarray, bad: np.ndarray) -> float:
    """P(good > bad) + P(good = bad) / 2 for scores drawn from the two; NaN where one is empty."""
    return calibration.auroc(np.concatenate([good, bad]), np.repeat([1.0, 0.0], [len(good), len(bad)]))


def swap(pairs: Sequence[tuple[str, str]], share: float) -> tuple[list[tuple[str, str]], np.ndarray]:
    """The pairs with the first `share` of them given the answer of the next such row, round in a circle; bool [n]
    says whose answer is another text now."""
    count = round(share * len(pairs))
    moved = [pairs[(i + 1) % count][1] if i < count else answer for i, (_, answer) in enumerate(pairs)]
    changed = np.array([normalise(new) != normalise(old) for new, (_, old) in zip(moved, pairs)], dtype=bool)
    return [(prompt, answer) for (prompt, _), answer in zip(pairs, moved)], changed


class Clear(Scorer):
    """`samples` answers at `temperature`, of at most `max_new_tokens` tokens and ended by `stop`; `agreement` of
    two answers; `alpha`, `beta`, `swapped` and `check_rows` as above."""

    samples: int = Field(default=5, ge=1)
    temperature: float = Field(default=1.0, ge=0)
    max_new_tokens: int = Field(default=64, ge=1)
    stop: tuple[str, ...] = ()
    agreement: Literal["token_f1", "numeric"] = "token_f1"
    alpha: float = Field(default=0.8, ge=0, le=1)
    beta: float = Field(default=0.7, ge=0, le=1)
    swapped: float = Field(default=0.2, gt=0, lt=1)
    check_rows: int = Field(default=100, ge=2)
    seed: int = Field(default=0, ge=0)

    def fit(self, dataset: Dataset, inputs: Inputs) -> State:
        pairs = [pair for shard in dataset.shards() for pair in _pairs(shard, inputs["model"])]
        order = np.argsort(uniform(self.seed, dataset.ids()), kind="stable")
        chosen = [i for i in order if pairs[i][1]][: self.check_rows]
        ids = dataset.ids()
        mixed, changed = swap([pairs[i] for i in chosen], self.swapped)
        values = np.zeros(len(mixed))
        if changed.any():
            values = self._confidence(mixed, [ids[i] for i in chosen], inputs["model"])[0]
        return {"auroc": auroc(values[~changed], values[changed])}

    def score(self, shard: pa.Table, state: State, inputs: Inputs) -> dict[str, Any]:
        pairs = _pairs(shard, inputs["model"])
        ids = shard.column("id").to_pylist()
        confidence, seen, checked = self._confidence(pairs, ids, inputs["model"])
        empty = np.array([not answer for _, answer in pairs], dtype=bool)
        confidence[empty] = math.nan
        return {
            "clear_conf": confidence,
            "clear_observed": seen,
            "clear_self": checked,
            "clear_auroc": np.full(len(pairs), state["auroc"]),
        }

    def _confidence(
        self, pairs: list[tuple[str, str]], ids: list[str], model: Any
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(c, O, S) of each pair; S is NaN where beta is 1, O where it is 0."""
        seen = checked = np.full(len(pairs), math.nan)
        if self.beta > 0 and pairs:
            drawn = [
                model.generate(
                    [prompt for prompt, _ in pairs],
                    max_new_tokens=self.max_new_tokens,
                    temperature=self.temperature,
                    stop=self.stop,
                    seed=[hash64(self.seed, f"{one} {j}") % 2**31 for one in ids],
                )
                for j in range(self.samples)
            ]
            texts = [[generations[i].text for generations in drawn] for i in range(len(pairs))]
            numeric = self.agreement == "numeric"
            seen = np.array([observed(y, t, self.alpha, numeric) for (_, y), t in zip(pairs, texts)])
        if self.beta < 1 and pairs:
            checked = self_check(pairs, model)
        parts = [(self.beta, seen), (1 - self.beta, checked)]
        return np.sum([share * values for share, values in parts if share > 0], axis=0), seen, checked


def self_check(pairs: Sequence[tuple[str, str]], model: Any) -> np.ndarray:
    """S [n]: the mean over the questions of P(yes) / (P(yes) + P(no))."""
    asked = [
        (f"Question: {prompt}\nProposed answer: {answer}\n{question} Answer yes or no:", word)
        for prompt, answer in pairs
        for question in QUESTIONS
        for word in (" yes", " no")
    ]
    found = np.array([likelihood.sum for likelihood in model.loglikelihood(asked)])
    yes, no = found.reshape(len(pairs), len(QUESTIONS), 2).transpose(2, 0, 1)
    return np.exp(yes - np.logaddexp(yes, no)).mean(axis=1)


def _pairs(shard: pa.Table, model: Any) -> list[tuple[str, str]]:
    """(prompt, answer) of every row; a row without a prompt is an error."""
    pairs = response_pairs(shard.drop_columns("text") if "text" in shard.column_names else shard, model)
    missing = 0 if pairs is None else next((i for i, (prompt, _) in enumerate(pairs) if not prompt), None)
    if pairs is None or missing is not None:
        where = f"row {shard.column('id')[missing].as_py()}" if len(shard) else None
        raise InputError(
            "a row has no prompt to answer",
            where=where,
            expected="prompt and completion, or messages that end with the assistant",
            found=", ".join(shard.column_names),
            remedy="make pairs with a data recipe (data.recipes.*), or drop such rows",
        )
    return pairs
