"""Asking a model for the letter of an option: the question as it is written, and what it gives each letter."""

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tutelage.core.errors import InputError

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def lettered(prompt: str, options: Sequence[str], symbols: Sequence[str]) -> str:
    """The question with one option on each line, up to where the letter comes."""
    lines = [f"{symbol}. {option}" for symbol, option in zip(symbols, options)]
    return "\n".join([prompt, *lines, "Answer:"])


class Question(NamedTuple):
    """One question in S orders of its C options: `orders` [S, C], `prompts` [S], what follows them [C]."""

    orders: np.ndarray
    prompts: list[str]
    continuations: list[str]


def letter_probs_of(model: Any, questions: Sequence[Question]) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Per question (orders [S, C], probabilities [S, C] over the letters, their sum [S] before renormalising).

    Raises InputError unless the model tells the letters apart by exactly their last token.
    """
    for continuations in {tuple(question.continuations) for question in questions}:
        _check_symbols(model, continuations)
    pairs = [(prompt, end) for one in questions for prompt in one.prompts for end in one.continuations]
    lls = np.array([found.sum for found in model.loglikelihood(pairs)])
    found, at = [], 0
    for question in questions:
        shape = question.orders.shape
        here = lls[at : at + shape[0] * shape[1]].reshape(shape)
        at += here.size
        top = here.max(axis=1, keepdims=True)
        weights = np.exp(here - top)
        total = weights.sum(axis=1, keepdims=True)
        found.append((question.orders, weights / total, (np.exp(top) * total)[:, 0]))
    return found


def _check_symbols(model: Any, continuations: Sequence[str]) -> None:
    ids = model.tokenize(list(continuations))
    if len({tuple(one[:-1]) for one in ids}) > 1 or len({tuple(one[-1:]) for one in ids}) < len(ids):
        raise InputError(
            "the symbols of the options are not one token each",
            where="symbols",
            expected="symbols that differ in exactly one token, the last",
            found={text: list(one) for text, one in zip(continuations, ids)},
            remedy="choose other symbols, for example ABCD",
        )


def cyclic_orders(count: int) -> np.ndarray:
    """[C, C]: order s puts option (j + s) mod C at position j; the first is the order given."""
    return (np.arange(count)[None, :] + np.arange(count)[:, None]) % count


def all_orders(count: int, most: int, rng: np.random.Generator) -> np.ndarray:
    """[orders, C]: all C! orders, the given one first, or where these are more than `most` random ones, each with
    its cyclic shifts, so that every option still stands at every position equally often."""
    if math.factorial(count) <= most:
        return np.array(list(itertools.permutations(range(count))))
    bases = [np.arange(count), *(rng.permutation(count) for _ in range(max(1, most // count) - 1))]
    return np.concatenate([base[cyclic_orders(count)] for base in bases])


def probs_by_option(probs: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """[orders, C] by option, of `probs` [orders, C] by position."""
    found = np.empty_like(probs)
    np.put_along_axis(found, orders, probs, axis=1)
    return found
