"""Quality of each row by a judge that compares it with other rows, one criterion at a time.

Rows of similar length are paired, every row about `pairs_per_row` times, and clipped; the judge sees each pair in
both orders. p = (P(A | a first) + 1 - P(A | b first)) / 2, so a liking for one place averages to 1/2. `read:
probabilities` takes P(A) from the log-probabilities of the letters A and B, `read: text` from a written answer
of fixed form (0 or 1). Pairs with |p - 1/2| >= confidence / 2 are kept, and Bradley-Terry scores s fitted to them:
minimise sum BCE(sigmoid(s_a - s_b), p) + ridge / 2 |s|^2. Rows without a kept pair have no score (NaN).
`judged_against` and `judged_preference` hold the kept pairs, for signals.quality_rater. Scores compare only within
one step.
"""

from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError, suggest
from tutelage.core.method import Inputs, Scorer, State
from tutelage.core.text.hashing import hash64_many
from tutelage.core.text.rows import text_rows
from tutelage.models.judge import CRITERIA, ask, clip, judge_prompt, without_turns
from tutelage.signals._pairwise import fit_preferences, one_hot_differences

CARD = {
    "name": "signals.pairwise_quality",
    "paper": {
        "title": "QuRating: Selecting High-Quality Data for Training Language Models",
        "identifier": "arXiv:2402.09739",
    },
    "summary": "Bradley-Terry scores of rows from a judge's comparisons of pairs, both orders asked.",
    "reads": ["text"],
    "writes": ["quality", "judged_pairs", "judged_against", "judged_preference"],
    "inputs": {"judge": "the model that compares two texts"},
    "needs": ["train"],
    "cost": "two judge calls per pair, each of two clipped texts",
    "baseline": "signals.length",
    "headline": "judges agree more on pairs than on marks; for a sample, since every pair costs two calls",
    "version": 1,
}

# Rows this near in length may meet.
NEIGHBOURS = 16


def draw_pairs(lengths: np.ndarray, ids: list[str], rounds: int, seed: int) -> np.ndarray:
    """int64 [P, 2] pairs of rows: in each round every row (of an even number) meets one of similar length once.

    Rows in order of length are cut into blocks of `NEIGHBOURS`, shuffled by hash within each; every other round
    the blocks are shifted by half, so that the comparisons hang together. A pair drawn again is left out.
    """
    order = np.lexsort((hash64_many(seed, ids), lengths))
    drawn = []
    for number in range(rounds):
        block = (np.arange(len(order)) + (number % 2) * (NEIGHBOURS // 2)) // NEIGHBOURS
        noise = hash64_many(seed, [f"{number} {identifier}" for identifier in ids])
        arranged = order[np.lexsort((noise[order], block))]
        even = len(arranged) // 2 * 2
        drawn.append(arranged[:even].reshape(-1, 2))
    pairs = np.concatenate(drawn) if drawn else np.zeros((0, 2), dtype=np.int64)
    _, first = np.unique(np.sort(pairs, axis=1), axis=0, return_index=True)
    return pairs[np.sort(first)]


def both_orders(forward: np.ndarray, backward: np.ndarray) -> np.ndarray:
    """Mean probability [P] that a is better: P(A) with a first, and 1 - P(A) with b first."""
    return (forward + 1.0 - backward) / 2.0


def bradley_terry(pairs: np.ndarray, preference: np.ndarray, items: int, ridge: float) -> np.ndarray:
    """Scores [items] of the items that occur in `pairs` [P, 2], NaN for the others; by the ridge they sum to 0
    over items that comparisons connect."""
    scores = fit_preferences(one_hot_differences(pairs, items), preference, ridge)
    met = np.zeros(items, dtype=bool)
    met[pairs.ravel()] = True
    return np.where(met, scores, np.nan)


class PairwiseQuality(Scorer):
    """`criterion`: writing, expertise, facts, education, or a question of your own that ends with "?".
    `confidence` is how decided a pair must be, 0 keeps all; `clip_words` of each text are shown."""

    criterion: str = "writing"
    pairs_per_row: int = Field(default=4, ge=1)
    read: Literal["probabilities", "text"] = "probabilities"
    confidence: float = Field(default=0.5, ge=0, le=1)
    clip_words: int = Field(default=200, ge=1)
    ridge: float = Field(default=0.1, gt=0)
    max_new_tokens: int = Field(default=24, ge=1)
    seed: int = Field(default=0, ge=0)

    @field_validator("criterion")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in CRITERIA and not value.rstrip().endswith("?"):
            raise ValueError(f"a criterion ({suggest(value, CRITERIA)}) or a question that ends with '?'")
        return value

    def fit(self, dataset: Dataset, inputs: Inputs) -> State:
        ids, texts = (list(column) for column in zip(*text_rows(dataset))) if dataset.num_rows else ([], [])
        judge = inputs["judge"]
        shown = [without_turns(clip(text.strip(), self.clip_words), judge) for text in texts]
        filled = np.array([row for row, text in enumerate(shown) if text], dtype=np.int64)
        lengths = np.array([len(shown[row].split()) for row in filled])
        pairs = filled[draw_pairs(lengths, [ids[row] for row in filled], self.pairs_per_row, self.seed)]
        if not len(pairs):
            raise InputError(
                f"{self.name}: there is nothing to compare",
                expected="two rows with text",
                found=f"{len(filled)} of {len(ids)} rows with text",
            )
        question = CRITERIA.get(self.criterion, self.criterion)
        prompts = [judge_prompt(shown[a], shown[b], question, self.read) for a, b in pairs.tolist()]
        prompts += [judge_prompt(shown[b], shown[a], question, self.read) for a, b in pairs.tolist()]
        answers = ask(judge, prompts, self.read, self.max_new_tokens)
        preference = both_orders(*answers.reshape(2, -1))
        # A pair with an answer that cannot be read is no preference: the comparison with NaN is false.
        kept = np.abs(preference - 0.5) >= self.confidence / 2
        if not kept.any():
            raise InputError(
                f"{self.name}: the judge is decided about no pair",
                where="confidence",
                expected=f"a preference of at least {0.5 + self.confidence / 2:.2f} for one of two texts",
                found=f"{len(pairs)} pairs, {int(np.isnan(preference).sum())} with an answer that cannot be read",
                remedy="use a stronger judge, or lower confidence",
            )
        pairs, preference = pairs[kept], preference[kept]
        return {
            "ids": ids,
            "scores": bradley_terry(pairs, preference, len(ids), self.ridge),
            "pairs": pairs,
            "preference": preference,
        }

    def score(self, shard: pa.Table, state: State, inputs: Inputs) -> dict[str, Any]:
        place = {identifier: row for row, identifier in enumerate(state["ids"])}
        rows = [place[identifier] for identifier in shard.column("id").to_pylist()]
        against: dict[int, list[str]] = {}
        preferred: dict[int, list[float]] = {}
        counts = np.bincount(state["pairs"].ravel(), minlength=len(place))
        for (a, b), p in zip(state["pairs"].tolist(), state["preference"].tolist()):
            # Each pair stands once, with its first row.
            against.setdefault(a, []).append(state["ids"][b])
            preferred.setdefault(a, []).append(p)
        return {
            "quality": state["scores"][rows],
            "judged_pairs": counts[rows],
            "judged_against": pa.array([against.get(row, []) for row in rows], pa.list_(pa.string())),
            "judged_preference": pa.array([preferred.get(row, []) for row in rows], pa.list_(pa.float64())),
        }
