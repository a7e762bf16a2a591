"""A Bloom filter: a set in a few bits per key that forgets no key and takes a share p of strangers for members.

For n keys and a false-positive rate p it has m = ceil(-n ln p / (ln 2)^2) bits and sets k = round((m / n) ln 2) of
them per key. A key is the two halves (a, b) of a 128-bit hash; its bits are (a + i b) mod m for i < k, b made odd.
"""

import math

import numpy as np

from tutelage.core.errors import ConfigError


class BloomFilter:
    """Room for `capacity` keys at false-positive rate `rate`; more keys raise the rate. `bits` uint8 [bytes]."""

    def __init__(self, capacity: int, rate: float, bits: np.ndarray | None = None) -> None:
        if capacity < 0 or not 0 < rate < 1:
            raise ConfigError(
                "a Bloom filter of this size cannot be made",
                where="bloom",
                expected="a false-positive rate strictly between 0 and 1",
                found=f"rate {rate}, capacity {capacity}",
            )
        n = max(capacity, 1)
        self.capacity, self.rate = n, rate
        self.size = math.ceil(-n * math.log(rate) / math.log(2) ** 2)
        self.hashes = max(1, round(self.size / n * math.log(2)))
        self.bits = np.zeros(-(-self.size // 8), dtype=np.uint8) if bits is None else bits

    def add(self, keys: np.ndarray) -> None:
        """Put `keys`, uint64 [n, 2], into the set."""
        for place in self._places(keys):
            np.bitwise_or.at(self.bits, place >> 3, np.left_shift(1, place & 7).astype(np.uint8))

    def contains(self, keys: np.ndarray) -> np.ndarray:
        """Bool [n]: False means certainly not added."""
        found = np.ones(len(keys), dtype=bool)
        for place in self._places(keys):
            found &= (self.bits[place >> 3] >> (place & 7).astype(np.uint8)) & 1 == 1
        return found

    def _places(self, keys: np.ndarray) -> list[np.ndarray]:
        first, second = keys[:, 0], keys[:, 1] | np.uint64(1)
        size = np.uint64(self.size)
        return [((first + np.uint64(i) * second) % size).astype(np.int64) for i in range(self.hashes)]
