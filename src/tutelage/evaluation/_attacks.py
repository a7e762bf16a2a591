"""Edits of a text that leave its meaning to a reader, searched for the ones that change a classifier's mind."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

_WORD = re.compile(r"[^\W\d_]+")
# What says nothing about any label; after each of them the text is the same to a reader.
SUFFIXES = ("", " and so on", " (no comment)", " as of today", " https://t.co/xyz", " true is not false")
SHORTEST = 4

Predict = Callable[[Sequence[str]], np.ndarray]
Edit = Callable[[str, np.random.Generator], list[str]]


def typos(word: str, generator: np.random.Generator) -> list[str]:
    """Four slips of the keyboard inside a word of four letters or more: two neighbours change places, a letter is
    lost, doubled, or the last but one is put last; the first letter stays."""
    if len(word) < SHORTEST:
        return []
    at = int(generator.integers(1, len(word) - 1))
    found = [
        word[:at] + word[at + 1] + word[at] + word[at + 2 :],
        word[:at] + word[at + 1 :],
        word[: at + 1] + word[at:],
        word[:-2] + word[-1] + word[-2],
    ]
    return [one for one in found if one != word]


def neighbours(words: Sequence[str], vectors: np.ndarray, count: int, least: float) -> dict[str, list[str]]:
    """word -> up to `count` others of cosine at least `least`, nearest first; vectors [n, d]."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    near = unit @ unit.T
    np.fill_diagonal(near, -1.0)
    order = np.argsort(-near, axis=1, kind="stable")[:, :count]
    return {word: [words[j] for j in order[i] if near[i, j] >= least] for i, word in enumerate(words)}


def word_spans(text: str) -> list[tuple[int, int]]:
    """(start, end) of the words of a text."""
    return [match.span() for match in _WORD.finditer(text)]


def important(text: str, label: int, predict: Predict) -> list[tuple[int, int]]:
    """Spans of the words of a text, those first whose loss costs the label the most probability."""
    spans = word_spans(text)
    if not spans:
        return []
    without = predict([text[:a] + text[b:] for a, b in spans])[:, label]
    return [spans[i] for i in np.argsort(without, kind="stable")]


def greedy(
    text: str,
    label: int,
    spans: Sequence[tuple[int, int]],
    edits: Edit,
    limit: float,
    predict: Predict,
    generator: np.random.Generator,
) -> str | None:
    """The text with words changed one by one, each time as hurts the label most, until the prediction is another;
    None where `limit`, the share of changed characters, is reached first."""
    now = text
    changed: dict[tuple[int, int], str] = {}
    for span in spans:
        options = [{**changed, span: other} for other in edits(text[span[0] : span[1]], generator)]
        options = [one for one in options if edit_rate(text, one) <= limit]
        if not options:
            continue
        texts = [rewritten(text, one) for one in options]
        probs = predict([now, *texts])
        best = int(probs[1:, label].argmin())
        if probs[1 + best, label] >= probs[0, label]:
            continue
        changed, now = options[best], texts[best]
        if probs[1 + best].argmax() != label:
            return now
    return None


def rewritten(text: str, changed: Mapping[tuple[int, int], str]) -> str:
    """The text with the words at these spans replaced."""
    parts, at = [], 0
    for (start, end), other in sorted(changed.items()):
        parts += [text[at:start], other]
        at = end
    return "".join([*parts, text[at:]])


def edit_rate(text: str, changed: Mapping[tuple[int, int], str]) -> float:
    """Characters of replaced words that differ, as a share of the text's; a longer word counts its surplus."""
    moved = 0
    for (start, end), other in changed.items():
        word = text[start:end]
        moved += sum(a != b for a, b in zip(word, other)) + abs(len(word) - len(other))
    return moved / max(len(text), 1)


def new_words(text: str, other: str) -> set[str]:
    """Lower-cased words of `other` that the text does not have."""
    return {w.lower() for w in _WORD.findall(other)} - {w.lower() for w in _WORD.findall(text)}


def vocabulary(texts: Sequence[str], most: int) -> list[str]:
    """The most frequent words of four letters or more, lower-cased."""
    counts: dict[str, int] = {}
    for text in texts:
        for word in _WORD.findall(text):
            counts[word.lower()] = counts.get(word.lower(), 0) + 1
    long = [word for word in counts if len(word) >= SHORTEST]
    return sorted(long, key=lambda word: (-counts[word], word))[:most]


def similarity(encoder: Any, texts: Sequence[str], others: Sequence[str]) -> np.ndarray:
    """[n] cosine of the vectors of two lists of texts."""
    one, other = (np.asarray(encoder.embed(list(side)), dtype=float) for side in (texts, others))
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.asarray((one * other).sum(axis=1) / np.maximum(norms, 1e-12))
