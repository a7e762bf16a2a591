"""MinHash signatures and their bands: texts that share most word n-grams meet without comparing all pairs.

A document is the set S of its word n-grams as 32-bit hashes x: lower case, punctuation to spaces, every run of
digits the same, diacritics stripped. Entry k of its signature is the minimum over S of h_k(x) = (a_k x + b_k) mod
2^32 with a_k odd; two documents agree in an entry with probability about J = |S & T| / |S | T|. The bands * rows
entries are cut into `bands` keys, and documents with an equal key are candidates:
P(candidate) = 1 - (1 - J^rows)^bands. Departure: arithmetic mod 2^32 instead of mod 2^61 - 1, which takes half the
memory and a fraction of the time; shingles are mixed before, so the order of the h_k is as good as random.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tutelage.core.text.hashing import hash64_many, mix64
from tutelage.core.text.ngrams import ngram_hashes
from tutelage.core.text.words import hash_words

_BLOCK = 1 << 16  # shingles whose hash values are held at once: they stay in the second-level cache
_P = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class MinHash:
    """What two signatures must share to be comparable: words per shingle, bands, rows per band, seed."""

    n: int = 5
    bands: int = 14
    rows: int = 8
    seed: int = 0

    def constants(self) -> tuple[np.ndarray, np.ndarray]:
        """(a odd, b), uint32 [bands * rows] each."""
        count = self.bands * self.rows
        drawn = (hash64_many(self.seed, map(str, range(2 * count))) >> np.uint64(32)).astype(np.uint32)
        return drawn[:count] | np.uint32(1), drawn[count:]


def shingles(array: pa.LargeStringArray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(hashes uint32 [G], bounds int64 [D + 1]): the word n-grams of every text, with repeats; a text of fewer
    than n words has none."""
    words = hash_words(array, map_numbers=True, strip_marks=True)
    hashes, first = ngram_hashes(words, n)
    return (hashes >> np.uint64(32)).astype(np.uint32), np.searchsorted(first, words.bounds)


def signatures(found: np.ndarray, bounds: np.ndarray, minhash: MinHash) -> tuple[np.ndarray, np.ndarray]:
    """(minima uint32 [bands * rows, d], documents int64 [d]): signatures of the d documents with a shingle."""
    factors, shifts = minhash.constants()
    documents = np.flatnonzero(np.diff(bounds))
    begins, ends = bounds[documents], bounds[documents + 1]
    minima = np.empty((len(factors), len(documents)), dtype=np.uint32)
    first = 0
    while first < len(documents):
        last = max(first + 1, int(np.searchsorted(ends, begins[first] + _BLOCK, side="right")))
        block = found[begins[first] : ends[last - 1]]
        starts = begins[first:last] - begins[first]
        values = np.empty_like(block)
        for factor, shift, row in zip(factors, shifts, minima):
            np.multiply(block, factor, out=values)
            np.add(values, shift, out=values)
            np.minimum.reduceat(values, starts, out=row[first:last])
        first = last
    return minima, documents


def band_keys(minima: np.ndarray, bands: int) -> np.ndarray:
    """One key for every band of every signature, uint64 [bands, d]; equal bands have equal keys."""
    keys = np.zeros((bands, minima.shape[1]), dtype=np.uint64)
    for key, rows in zip(keys, np.split(minima, bands)):
        for row in rows:
            key *= _P
            key += row
        mix64(key)
    return keys
