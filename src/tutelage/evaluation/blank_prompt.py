"""Blank prompts: multiple choice for base models, by the perplexity of the statement with each option filled in.

An item is a statement with one blank, `___`; a question without one gets "The answer is ___" behind it. Three
scorers on the same items:

    blank   the option with the lowest nll(filled text) / tokens(filled text): what follows the blank counts too
    cloze   the option with the largest ll(option | text before the blank)
    letter  the largest probability of the option's letter after the question with lettered options

`k` demonstrations, the same for every item and filled in right, may stand before them. Where the blank is at
the end and the options are equally long, blank and cloze agree. core.stats.stability says which of them ranks
checkpoints best; the baseline is bits per byte on held-out text, usually the steadiest of all. Departures from
the paper: our wording for items without a blank; the option's own bytes as a second normaliser, beside it.
"""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from tutelage.core.errors import InputError
from tutelage.core.method import Inputs, Task
from tutelage.core.text.hashing import uniform
from tutelage.evaluation._choices import best_choice, gold_index, softmax
from tutelage.evaluation._letters import ALPHABET, lettered
from tutelage.evaluation._shared import Measurement

if TYPE_CHECKING:
    from tutelage.core.dataset import Dataset
    from tutelage.core.records import Result

CARD = {
    "name": "evaluation.blank_prompt",
    "paper": {
        "title": "Toward Stable and Consistent Evaluation Results: A New Methodology for Base Model Evaluation",
        "identifier": "arXiv:2503.00812",
    },
    "summary": "Multiple choice for base models: which option makes the whole statement likeliest.",
    "reads": ["prompt", "choices", "answer"],
    "inputs": {
        "model": "the causal language model that is measured",
        "demonstrations?": "rows of the same kind, some of which stand filled in before every item",
    },
    "needs": ["train"],
    "cost": "three scored continuations per option",
    "baseline": "evaluation.bits_per_byte",
    "headline": "more stable over training than letters, the paper finds; measure it with core.stats.stability",
    "version": 1,
}
BLANK = "___"
SCORERS = ("blank", "blank_bytes", "cloze", "letter")


def parts(prompt: str, where: str) -> tuple[str, str]:
    """(text before the blank, text after it); raises InputError for several blanks."""
    if prompt.count(BLANK) > 1:
        raise InputError(
            "a statement has several blanks",
            where=f"{where}, field prompt",
            expected=f"one {BLANK}",
            found=prompt[:80],
            remedy="one option fills one blank: split the item",
        )
    before, blank, after = prompt.partition(BLANK)
    return (before, after) if blank else (prompt.rstrip() + " The answer is ", "")


class BlankPrompt(Task):
    """Rows: `prompt` (with or without a blank), `choices`, `answer` (index, or the option itself), optional
    `cluster`, `group`. `scorer` carries the interval, the others stand beside it. `k` demonstrations are drawn."""

    scorer: Literal["blank", "blank_bytes", "cloze", "letter"] = "blank"
    k: int = Field(default=5, ge=0)
    seed: int = Field(default=0, ge=0)

    def evaluate(self, model: Any, dataset: "Dataset", inputs: Inputs) -> "Result":
        """Accuracy in [0, 1], larger is better; k options at the top share the point. `extra`: acc[scorer], and
        the mean tokens of filled texts.

        Raises InputError for two blanks, an answer outside the options, and too few demonstrations.
        """
        dataset.require("prompt", "choices", "answer")
        work = Measurement(self, model, dataset, inputs, identity=("prompt", "choices", "answer"))
        shown = self._demonstrations(inputs.get("demonstrations"))
        pairs: list[tuple[str, str]] = []
        golds = []
        for row in work.rows:
            golds.append(gold_index(row["answer"], row["choices"], work.where(row)))
            if len(row["choices"]) > len(ALPHABET):
                raise InputError(
                    "a row has more options than letters", where=work.where(row), found=len(row["choices"])
                )
            pairs += self._pairs(row, work, shown)
        scored = model.loglikelihood(pairs)
        hits: dict[str, list[float]] = {name: [] for name in SCORERS}
        tokens, at = [], 0
        for row, gold in zip(work.rows, golds):
            count = len(row["choices"])
            blank, cloze, letter = (scored[at + part * count : at + (part + 1) * count] for part in range(3))
            at += 3 * count
            values = {
                "blank": [one.sum / max(1, one.n_tokens) for one in blank],
                "blank_bytes": [one.sum / len(option.encode()) for one, option in zip(blank, row["choices"])],
                "cloze": [one.sum for one in cloze],
                "letter": [one.sum for one in letter],
            }
            for name in SCORERS:
                hits[name].append(best_choice(values[name], {gold}, "split").score)
            tokens += [one.n_tokens for one in blank]
            mine = values[self.scorer]
            work.add(
                row,
                score=hits[self.scorer][-1],
                prediction=row["choices"][best_choice(mine, {gold}, "first").first],
                target=row["choices"][gold],
                choice_ll=mine,
                p_correct=softmax([one.sum for one in (blank if "blank" in self.scorer else cloze)])[gold]
                if self.scorer != "letter"
                else softmax(mine)[gold],
            )
        extra = {f"acc[{name}]": float(np.mean(values)) for name, values in hits.items()}
        return work.result("acc", direction=1, extra=extra | {"filled_tokens": float(np.mean(tokens))})

    def _demonstrations(self, rows: "Dataset | None") -> list[dict[str, Any]]:
        """k + 1 rows, so that one may be left out where it is the item itself."""
        if rows is None or not self.k:
            return []
        order = np.argsort(uniform(self.seed, rows.ids()), kind="stable")[: self.k + 1]
        if len(order) <= self.k:
            raise InputError(
                "there are too few demonstrations",
                where=f"{self.name}: demonstrations",
                expected=f"at least {self.k + 1} rows: an item never stands before itself",
                found=f"{len(order)} rows",
                remedy="lower k, or give more rows",
            )
        return rows.take(order.tolist()).to_pylist()

    def _pairs(self, row: dict[str, Any], work: Measurement, shown: list[dict[str, Any]]) -> list[tuple[str, str]]:
        """What is scored for one item: each option filled in, after the text before the blank, as a letter."""
        where = work.where(row)
        others = [one for one in shown if (one["prompt"], one["choices"]) != (row["prompt"], row["choices"])][
            : self.k
        ]
        filled, asked = "", ""
        for one in others:
            gold = gold_index(one["answer"], one["choices"], f"demonstration {one['id']}")
            before, after = parts(one["prompt"], f"demonstration {one['id']}")
            filled += before + one["choices"][gold] + after + "\n\n"
            asked += lettered(one["prompt"], one["choices"], ALPHABET) + f" {ALPHABET[gold]}\n\n"
        before, after = parts(work.text(row, "prompt"), where)
        stem = before.rstrip()
        gap = before[len(stem) :]
        found = [(filled, before + option + after) for option in row["choices"]]
        found += [(filled + stem, gap + option) for option in row["choices"]]
        question = asked + lettered(row["prompt"], row["choices"], ALPHABET)
        return found + [(question, f" {letter}") for letter in ALPHABET[: len(row["choices"])]]
