"""Hashed word n-grams of many documents at once, and fast membership in a set of hashes.

The hash of words w_i..w_{i+n-1} is mix(sum_k w_{i+k} * Q^(n-1-k) mod 2^64); all positions come from doubling:
h_{a+b}(i) = h_a(i) * Q^b + h_b(i+a), so n = 12 takes four multiply-adds per word. N-grams never cross documents.
"""

import numpy as np

from tutelage.core.text.hashing import mix64
from tutelage.core.text.words import Words

_Q = 0xD1342543DE82EF95
_MASK = (1 << 64) - 1


def ngram_hashes(words: Words, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(hashes uint64 [G], first int64 [G]): every n-gram inside a document, and the index of its first word."""
    total = len(words.hashes)
    if n < 1:
        raise ValueError(f"n must be at least 1, not {n}")
    if total < n:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    lengths = np.diff(words.bounds)
    ends = np.repeat(words.bounds[1:], lengths)
    first = np.flatnonzero(np.arange(n, total + n) <= ends)
    return mix64(_slide(words.hashes, n)[first]), first


def _slide(words: np.ndarray, n: int) -> np.ndarray:
    """Unmixed hashes of all windows of n words, across documents too."""
    result, length = None, 0
    block, size = words, 1
    while True:
        if n & size:
            result = block if result is None else _join(result, length, block, size)
            length += size
        if length == n:
            assert result is not None
            return result if n > 1 else result.copy()
        block = _join(block, size, block, size)
        size *= 2


def _join(left: np.ndarray, shift: int, right: np.ndarray, size: int) -> np.ndarray:
    count = len(right) - shift
    return left[:count] * np.uint64(pow(_Q, size, _MASK + 1)) + right[shift:]


class HashSet:
    """A fixed set of 64-bit hashes with vectorised look-up: a bitmap refuses most, binary search decides."""

    def __init__(self, hashes: np.ndarray) -> None:
        # Sorting is several times faster here than np.unique, which hashes.
        ordered = np.sort(hashes)
        fresh = np.ones(len(ordered), dtype=bool)
        fresh[1:] = ordered[1:] != ordered[:-1]
        self.sorted = ordered[fresh]
        bits = max(12, int(len(self.sorted) * 16).bit_length())
        self._shift = np.uint64(64 - bits)
        self._map = np.zeros(1 << bits, dtype=bool)
        self._map[self.sorted >> self._shift] = True

    def __len__(self) -> int:
        return len(self.sorted)

    def find(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(places [m], ranks [m]): which of `hashes` are in the set, and their rank in `sorted`."""
        if not len(self.sorted):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        places = np.flatnonzero(self._map[hashes >> self._shift])
        ranks = np.searchsorted(self.sorted, hashes[places])
        ranks[ranks == len(self.sorted)] = 0
        hit = self.sorted[ranks] == hashes[places]
        return places[hit], ranks[hit]
