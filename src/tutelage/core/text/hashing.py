"""Hashes that never change: the same seed and id give the same number on every machine, in every order.

`hash64(seed, id)` is blake2b over the seed and the id, so noise and tie-breaks made from it do not depend on
row order, sharding or the size of the budget. `uniform` maps it into the open interval (0, 1).
"""

import hashlib
from collections.abc import Iterable

import numpy as np

_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def hash64(seed: int, identifier: str) -> int:
    """64-bit hash of a seed and an id."""
    key = int(seed).to_bytes(16, "little", signed=True)
    return int.from_bytes(hashlib.blake2b(identifier.encode(), digest_size=8, key=key).digest(), "little")


def hash64_many(seed: int, identifiers: Iterable[str]) -> np.ndarray:
    """`hash64` of every id, uint64 [n]."""
    key = int(seed).to_bytes(16, "little", signed=True)
    blake = hashlib.blake2b
    digests = b"".join(blake(i.encode(), digest_size=8, key=key).digest() for i in identifiers)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def uniform(seed: int, identifiers: Iterable[str]) -> np.ndarray:
    """(hash64 + 0.5) / 2^64 of every id, float64 [n], strictly between 0 and 1."""
    # Rounding to 53 bits first keeps the largest hash below 1.0.
    return ((hash64_many(seed, identifiers) >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53


def mix64(values: np.ndarray) -> np.ndarray:
    """The splitmix64 finaliser, in place on a uint64 array: every input bit reaches every output bit."""
    values ^= values >> np.uint64(30)
    values *= _MIX_1
    values ^= values >> np.uint64(27)
    values *= _MIX_2
    values ^= values >> np.uint64(31)
    return values


def repeated(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(members [m], starts [groups + 1]): indices of the keys that occur at least twice, group after group, each
    group rising; group g is `members[starts[g]:starts[g + 1]]`."""
    # One plain sort: the index takes the place of the low bits, and the whole keys are compared afterwards.
    low = np.uint64((1 << len(keys).bit_length()) - 1)
    tagged = np.sort((keys & ~low) | np.arange(len(keys), dtype=np.uint64))
    order = (tagged & low).astype(np.int64)
    ordered = keys[order]
    same = ordered[1:] == ordered[:-1]
    if (((tagged[1:] ^ tagged[:-1]) <= low) & ~same).any():
        # Two keys differ in the low bits only and may lie mixed.
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        same = ordered[1:] == ordered[:-1]
    within = np.zeros(len(keys) + 1, dtype=bool)
    within[1:-1] = same
    member = within[:-1] | within[1:]
    begins = np.flatnonzero(~within[:-1][member])
    return order[member], np.append(begins, int(member.sum()))
