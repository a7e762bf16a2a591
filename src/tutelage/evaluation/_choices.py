"""Picking among options by log-likelihood, shared by the tasks that do it."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from tutelage.core.errors import InputError

CHOICE_METRICS = ("acc", "acc_norm", "acc_bytes", "acc_mutual_info")


class Picked(NamedTuple):
    """The first option at the top, how many share the top, and the score against the gold options."""

    first: int
    tied: int
    score: float


def choice_values(
    lls: Sequence[float], choices: Sequence[str], alone: Sequence[float] | None = None
) -> dict[str, list[float]]:
    """The value that each metric maximises, per option; `alone` are the options' lls without the prompt."""
    values = {
        "acc": list(lls),
        "acc_norm": [ll / len(choice) for ll, choice in zip(lls, choices)],
        "acc_bytes": [ll / len(choice.encode("utf-8")) for ll, choice in zip(lls, choices)],
    }
    if alone is not None:
        values["acc_mutual_info"] = [ll - prior for ll, prior in zip(lls, alone)]
    return values


def best_choice(values: Sequence[float], gold: set[int], ties: str) -> Picked:
    """The option of greatest value; with `ties` "split" the k options at the top are worth 1/k each."""
    top = max(values)
    at_top = [index for index, value in enumerate(values) if value == top]
    if ties == "first":
        return Picked(at_top[0], len(at_top), float(at_top[0] in gold))
    return Picked(at_top[0], len(at_top), len(gold.intersection(at_top)) / len(at_top))


def gold_index(answer: object, choices: Sequence[str], where: str, field: str = "answer") -> int:
    """The index of the right option, given as index or as the option itself; otherwise an error with the row."""
    if not isinstance(choices, Sequence) or isinstance(choices, str) or len(choices) < 2 or not all(choices):
        raise InputError(
            "a row has no options to choose from",
            where=f"{where}, field choices",
            expected="a list of at least two strings that are not empty",
            found=repr(choices),
        )
    if isinstance(answer, float) and answer.is_integer():
        answer = int(answer)
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(choices):
        return answer
    if isinstance(answer, str) and answer in choices:
        return list(choices).index(answer)
    # A column of strings may hold indices; an option that looks like a number was found above.
    if isinstance(answer, str) and answer.isdecimal() and int(answer) < len(choices):
        return int(answer)
    raise InputError(
        "the answer is not one of the options",
        where=f"{where}, field {field}",
        expected=f"an index from 0 to {len(choices) - 1}, or one of the options",
        found=repr(answer),
        remedy="count options from 0, or give the option's text exactly",
    )


def softmax(lls: Sequence[float]) -> list[float]:
    """Probabilities proportional to exp(ll)."""
    top = max(lls)
    weights = [math.exp(ll - top) for ll in lls]
    return [weight / sum(weights) for weight in weights]
