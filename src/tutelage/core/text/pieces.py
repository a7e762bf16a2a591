"""Changing the characters beyond ASCII of many documents at once, without touching the rest.

A piece is a maximal run of bytes above 127 with the ASCII character before it, if the document has one there: text
may be cut before any ASCII character without changing what Unicode normalisation makes of the parts. Equal pieces
are changed once. Documents with many pieces, and those whose capital sigma is lower-cased by what stands around
it, are one piece as a whole.
"""

import functools
import re
import unicodedata
from collections.abc import Callable

import numpy as np

_SIGMA = (0xCE, 0xA3)
_BASIC_PLANE = range(0x300, 0x10000)
_DENSE = 40  # bytes of a document for each of its pieces below which it is changed as a whole


def change_pieces(
    data: np.ndarray, offsets: np.ndarray, change: Callable[[str], tuple[str, ...]], outputs: int
) -> tuple[list[bytes], np.ndarray]:
    """(`outputs` texts, offsets int64 [D + 1]): the documents (UTF-8 bytes `data`, `offsets` [D + 1]) with every
    piece replaced; the strings that `change` gives for a piece have equal lengths in bytes."""
    starts, ends = _pieces(data, offsets)
    whole = data.tobytes()
    pieces = [whole[a:b] for a, b in zip(starts.tolist(), ends.tolist())]
    changed = {piece: tuple(new.encode() for new in change(piece.decode())) for piece in set(pieces)}
    gained = np.array([len(changed[piece][0]) for piece in pieces], dtype=np.int64) - (ends - starts)
    total = np.concatenate([[0], np.cumsum(gained)])
    between = [whole[a:b] for a, b in zip([0, *ends.tolist()], [*starts.tolist(), len(whole)])]
    made = []
    for number in range(outputs):
        parts = between[:1]
        for piece, after in zip(pieces, between[1:]):
            parts += (changed[piece][number], after)
        made.append(b"".join(parts))
    return made, offsets + total[np.searchsorted(starts, offsets)]


def _pieces(data: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(starts, ends) of all pieces, rising."""
    high = np.flatnonzero(data > 127)
    owner = np.searchsorted(offsets, high, side="right") - 1
    fresh = np.ones(len(high), dtype=bool)
    fresh[1:] = (np.diff(high) > 1) | (owner[1:] != owner[:-1])
    starts, owners = high[fresh], owner[fresh]
    ends = high[np.append(np.flatnonzero(fresh)[1:], len(high)) - 1] + 1
    starts -= starts > offsets[owners]
    first, second = _SIGMA
    sigma = owner[:-1][(data[high[:-1]] == first) & (data[high[:-1] + 1] == second)]
    count = np.bincount(owners, minlength=len(offsets) - 1)
    as_one = count * _DENSE > np.diff(offsets)
    as_one[sigma] = True
    left = ~as_one[owners]
    starts = np.concatenate([starts[left], offsets[:-1][as_one]])
    ends = np.concatenate([ends[left], offsets[1:][as_one]])
    return np.sort(starts), np.sort(ends)


def without_marks(text: str) -> str:
    """The text canonically decomposed, without combining marks (of the basic plane)."""
    return _marks().sub("", unicodedata.normalize("NFD", text))


@functools.cache
def _marks() -> re.Pattern[str]:
    return re.compile("[" + "".join(c for c in map(chr, _BASIC_PLANE) if unicodedata.category(c) == "Mn") + "]+")
