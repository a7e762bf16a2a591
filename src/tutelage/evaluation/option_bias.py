"""Option bias: how far answers to multiple-choice questions depend on the order of the options.

The model is asked for the letter of an option, p_s(j) = P(letter at position j | order s), renormalised over
the C letters; the mass before that is kept. Over the orders s (the C cyclic shifts, or all C!):

    first-option bias = mean_s p_s(1) - 1/C           adjusted p(o) = mean_s p_s(position of o in s)

An item is `changed` when no option is at the top in every order. With logits u_option + b_position the largest
adjusted p is that of the largest u when all orders are asked; with the C cyclic shifts only the mean of log p,
reported beside it, promises that. Entropies of both are divided by log2 C: that of the logs near 1 says that no
signal is left once the order is taken out (a strong pull hides what there is from the mean of probabilities).
Departure from the paper: C! orders beyond `max_orders` are drawn with their cyclic shifts, so that positions
stay balanced.
"""

import warnings
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, field_validator

from tutelage.core.errors import InputError
from tutelage.core.method import Inputs, Task
from tutelage.core.stats.intervals import mean_interval
from tutelage.core.text.hashing import hash64
from tutelage.evaluation._choices import best_choice, gold_index
from tutelage.evaluation._labels import clusters_of
from tutelage.evaluation._letters import (
    ALPHABET,
    Question,
    all_orders,
    cyclic_orders,
    letter_probs_of,
    lettered,
    probs_by_option,
)
from tutelage.evaluation._shared import Measurement, prompt_of

if TYPE_CHECKING:
    from tutelage.core.dataset import Dataset
    from tutelage.core.records import Result

CARD = {
    "name": "evaluation.option_bias",
    "paper": {
        "title": "Questioning the Survey Responses of Large Language Models",
        "identifier": "arXiv:2306.07951",
    },
    "summary": "How far answers depend on the order of the options, and what is left when order is averaged out.",
    "reads": ["prompt", "choices", "answer?", "reference?"],
    "inputs": {"model": "the causal language model that is measured"},
    "needs": ["train"],
    "cost": "C prompts per item with C options (cyclic), up to max_orders prompts with all orders",
    "baseline": "evaluation.multiple_choice",
    "headline": "small models answer by position more than by content, the paper finds; no letters, no such bias",
    "version": 1,
}
NO_SIGNAL = 0.98
TINY = 1e-300


def bits_from(reference: np.ndarray, adjusted: np.ndarray) -> float:
    """KL(reference || adjusted) in bits, over the options that the reference ever chooses."""
    held = reference > 0
    return float((reference[held] * np.log2(reference[held] / np.maximum(adjusted[held], TINY))).sum())


def _entropy(p: np.ndarray) -> float:
    """Entropy of [C] probabilities, in units of that of C equal ones."""
    held = p[p > 0]
    return float(-(held * np.log2(held)).sum() / np.log2(len(p)))


def measures(options: np.ndarray, gold: int | None) -> dict[str, float]:
    """What one item gives: `options` [orders, C] are the options' probabilities in every order, the first of them
    the order given; accuracies only where the right option is known."""
    adjusted = options.mean(axis=0)
    logs = np.log(np.maximum(options, TINY)).mean(axis=0)
    at_top = options == options.max(axis=1, keepdims=True)
    found = {
        "changed": float(not at_top.all(axis=0).any()),
        "entropy": _entropy(adjusted),
        "entropy_log": _entropy(np.exp(logs - np.logaddexp.reduce(logs))),
    }
    if gold is not None:
        each = [best_choice(one, {gold}, "split").score for one in options.tolist()]
        found |= {
            "accuracy_given": each[0],
            "accuracy_worst": min(each),
            "accuracy_adjusted": best_choice(adjusted.tolist(), {gold}, "split").score,
            "accuracy_adjusted_log": best_choice(logs.tolist(), {gold}, "split").score,
        }
    return found


class OptionBias(Task):
    """Rows: `prompt` (or `messages`), `choices`; optional `answer`, `reference` (shares of people), `cluster`,
    `group`. `metric` is the share of items whose answer changes with the order, or the adjusted accuracy.
    `symbols` are the letters in order; others (RSN) tell a letter's pull from a position's."""

    metric: Literal["changed", "adjusted_accuracy"] = "changed"
    orders: Literal["cyclic", "all"] = "cyclic"
    max_orders: int = Field(default=5000, ge=2)
    symbols: str = Field(default=ALPHABET, min_length=2)
    delimiter: str = " "
    chat: bool = False
    seed: int = Field(default=0, ge=0)

    @field_validator("symbols")
    @classmethod
    def _different(cls, value: str) -> str:
        if len(set(value)) < len(value):
            raise ValueError("symbols that are all different")
        return value

    def evaluate(self, model: Any, dataset: "Dataset", inputs: Inputs) -> "Result":
        """`extra`: first_bias with `_lo` and `_hi`, position[j] (mean probability), mass, entropies; where
        answers are known accuracy_given, _adjusted, _adjusted_log, _worst (right in every order).

        Raises InputError for equal options, letters that are not one token each, or more options than symbols.
        """
        dataset.require("choices")
        work = Measurement(self, model, dataset, inputs, identity=("prompt", "messages", "choices", "answer"))
        asked = letter_probs_of(model, [self._questions(model, row, work) for row in work.rows])
        facts: list[dict[str, float]] = []
        profiles: dict[int, list[np.ndarray]] = {}
        for row, (orders, probs, mass) in zip(work.rows, asked):
            options, profile = probs_by_option(probs, orders), probs.mean(axis=0)
            profiles.setdefault(len(profile), []).append(profile)
            gold = self._gold(row, work)
            found = measures(options, gold) | {"mass": float(mass.mean()), "bias": profile[0] - 1 / len(profile)}
            if row.get("reference") is not None:
                found["kl_reference"] = bits_from(self._shares(row, work), options.mean(axis=0))
            facts.append(found)
            adjusted = options.mean(axis=0)
            work.add(
                row,
                score=found["changed" if self.metric == "changed" else "accuracy_adjusted"],
                prediction=row["choices"][int(adjusted.argmax())],
                target=None if gold is None else row["choices"][gold],
                choice_ll=np.log(np.maximum(adjusted, TINY)).tolist(),
            )
        extra = _summary(facts, clusters_of(work.rows), profiles)
        if extra["entropy_log"] > NO_SIGNAL:
            extra["no_signal"] = 1.0
            warnings.warn(
                f"{self.name}: without order the answers are uniform (entropy {extra['entropy_log']:.3f} of 1): "
                "there is no signal in them",
                stacklevel=2,
            )
        direction: Literal[1, -1] = -1 if self.metric == "changed" else 1
        return work.result(self.metric, direction=direction, extra=extra)

    def _questions(self, model: Any, row: dict[str, Any], work: Measurement) -> Question:
        """One row in every order."""
        choices = row["choices"]
        gold_index(0, choices, work.where(row))
        if len({choice.strip() for choice in choices}) < len(choices):
            raise InputError(
                "two options of a row are equal",
                where=f"{work.where(row)}, field choices",
                expected="different options",
                found=choices,
                remedy="drop one of them, or the row",
            )
        if len(choices) > len(self.symbols):
            raise InputError(
                "a row has more options than there are symbols",
                where=work.where(row),
                expected=f"at most {len(self.symbols)}",
                found=len(choices),
            )
        rng = np.random.default_rng(hash64(self.seed, work.key(row)))
        cyclic = self.orders == "cyclic"
        orders = cyclic_orders(len(choices)) if cyclic else all_orders(len(choices), self.max_orders, rng)
        prompts = []
        for order in orders:
            options = [choices[option] for option in order]
            if row.get("messages") is None:
                changed = {**row, "prompt": lettered(work.text(row, "prompt"), options, self.symbols)}
            else:
                *before, last = row["messages"]
                content = lettered(last["content"], options, self.symbols)
                changed = {**row, "messages": [*before, {**last, "content": content}]}
            prompts.append(prompt_of(changed, model, self.chat))
        return Question(orders, prompts, [self.delimiter + symbol for symbol in self.symbols[: len(choices)]])

    def _gold(self, row: dict[str, Any], work: Measurement) -> int | None:
        if row.get("answer") is None and self.metric == "changed":
            return None
        return gold_index(row.get("answer"), row["choices"], work.where(row))

    def _shares(self, row: dict[str, Any], work: Measurement) -> np.ndarray:
        shares = np.asarray(row["reference"], dtype=float)
        if shares.shape != (len(row["choices"]),) or not (shares >= 0).all() or abs(shares.sum() - 1) > 1e-3:
            raise InputError(
                "a reference is no distribution over the options",
                where=f"{work.where(row)}, field reference",
                expected=f"{len(row['choices'])} shares that sum to 1",
                found=row["reference"],
            )
        return shares


def _summary(
    facts: list[dict[str, float]], clusters: np.ndarray, profiles: dict[int, list[np.ndarray]]
) -> dict[str, float]:
    names = {name for one in facts for name in one}
    extra = {name: float(np.mean([one[name] for one in facts if name in one])) for name in sorted(names)}
    extra["first_bias"] = extra.pop("bias")
    if len(set(clusters.tolist())) > 1:
        interval = mean_interval([one["bias"] for one in facts], clusters)
        extra |= {"first_bias_lo": interval.lo, "first_bias_hi": interval.hi}
    for count, found in profiles.items():
        suffix = f" of {count}" if len(profiles) > 1 else ""
        for place, value in enumerate(np.mean(found, axis=0), 1):
            extra[f"position[{place}{suffix}]"] = float(value)
    return extra
