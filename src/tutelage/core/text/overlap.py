r"""How much two texts have in common, word by word: the longest common subsequence and ROUGE-L.

F = 2 P R / (P + R) with P = LCS / words of the new text and R = LCS / words of the old one, which is 2 LCS / (m
+ n). The LCS is bit-parallel: one integer of m bits per row, V <- (V + (V & M_w)) | (V & ~M_w) for every word w
of the other text, LCS = zero bits of V at the end. `Neighbours` finds the nearest of many texts exactly: LCS is
at most the number of words that both hold, so a text whose shared words cannot reach the threshold is never
compared.
"""

from array import array
from collections import Counter
from collections.abc import Sequence

import numpy as np

from tutelage.core.text.words import split_words


def lcs_length(a: Sequence[object], b: Sequence[object]) -> int:
    """Length of the longest common subsequence of two sequences."""
    return _lcs(places_of(a), len(a), b)


def rouge_l(new: str, old: str) -> float:
    """ROUGE-L F of two texts over their normalised words; 0 where either has none."""
    a, b = split_words(new), split_words(old)
    return 2 * lcs_length(a, b) / (len(a) + len(b)) if a and b else 0.0


def places_of(words: Sequence[object]) -> dict[object, int]:
    """Word -> an integer with a bit set at every place where the word stands."""
    masks: dict[object, int] = {}
    for place, word in enumerate(words):
        masks[word] = masks.get(word, 0) | 1 << place
    return masks


def _lcs(masks: dict[object, int], length: int, other: Sequence[object]) -> int:
    full = (1 << length) - 1
    row = full
    for word in other:
        matches = row & masks.get(word, 0)
        row = ((row + matches) | (row - matches)) & full
    return length - row.bit_count()


class Neighbours:
    """A growing collection of texts that is asked whether something nearly the same is in it."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._words: list[list[str]] = []
        self._lengths = array("q")
        self._postings: dict[str, tuple[array[int], array[int]]] = {}

    def __len__(self) -> int:
        return len(self._names)

    def add(self, name: str, text: str) -> None:
        """Put a text in under a name."""
        words = split_words(text)
        for word, count in Counter(words).items():
            rows, counts = self._postings.setdefault(word, (array("q"), array("q")))
            rows.append(len(self._names))
            counts.append(count)
        self._names.append(name)
        self._words.append(words)
        self._lengths.append(len(words))

    def nearest(self, text: str, threshold: float) -> tuple[str, float] | None:
        """(name, ROUGE-L F) of the first text with the highest F above `threshold`, or None."""
        words = split_words(text)
        if not words or not self._names:
            return None
        shared = np.zeros(len(self._names), dtype=np.int64)
        for word, count in Counter(words).items():
            if word in self._postings:
                rows, counts = (np.frombuffer(part, dtype=np.int64) for part in self._postings[word])
                shared[rows] += np.minimum(counts, count)
        totals = np.frombuffer(self._lengths, dtype=np.int64) + len(words)
        bounds = 2 * shared / totals
        masks, best = places_of(words), (-1, threshold)
        for row in np.flatnonzero(bounds > threshold).tolist():
            if bounds[row] <= best[1]:
                continue
            found = 2 * _lcs(masks, len(words), self._words[row]) / int(totals[row])
            if found > best[1]:
                best = (row, found)
        return (self._names[best[0]], best[1]) if best[0] >= 0 else None
