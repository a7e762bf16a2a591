"""Words of many documents at once, as hashes, straight from the UTF-8 bytes with numpy.

A word is a maximal run of letters and digits, lower-cased; punctuation (underscore too) separates; each
character of the scripts written without spaces (U+3000 to U+9FFF) starts a word. The hash of a word with bytes
b_0..b_m is mix(sum_j b_j * P^j mod 2^64) with an odd P. All words of a block come from one prefix sum c of
b_i * P^i: (c[end] - c[start]) * P^-start. Normalisation never moves a byte, so word offsets point into the
document's text.
"""

import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tutelage.core.text.hashing import mix64
from tutelage.core.text.pieces import change_pieces, without_marks

_BLOCK = 1 << 16  # bytes per prefix sum: its arrays stay in the second-level cache
_P = 0x9E3779B97F4A7C15
_P_INVERSE = pow(_P, -1, 1 << 64)
# Letters whose lower case has another length in UTF-8.
_KEEPS_CASE = re.compile(
    "([\u0130\u023a\u023e\u1e9e\u2126\u212a\u212b\u2c62\u2c64\u2c6d\u2c6e\u2c6f\u2c70\u2c7e\u2c7f"
    "\ua78d\ua7aa\ua7ab\ua7ac\ua7ad\ua7ae\ua7b0\ua7b1\ua7b2\ua7c5])"
)
_NOT_WORD = re.compile(r"[^\w\x00-\x7f]")
_WORD = re.compile(r"[^\W_]+")
_SPACELESS = re.compile("([\u3000-\u9fff])")

_ASCII_WORD = frozenset(b"0123456789abcdefghijklmnopqrstuvwxyz")
# Lower-cases letters and makes every separator zero; bytes of characters beyond ASCII stay as they are.
_LOWER = bytes(b if b in _ASCII_WORD or b > 127 else b + 32 if 65 <= b <= 90 else 0 for b in range(256))
_SPACELESS_LEADS = (0xE3, 0xE9)  # first and last lead byte of U+3000 to U+9FFF
_ZERO = 48
_LOWER_MAPPED = bytes(_ZERO if 48 <= b <= 57 else b for b in _LOWER)


def _powers(base: int, count: int) -> np.ndarray:
    values = np.full(count, base, dtype=np.uint64)
    values[0] = 1
    return np.cumprod(values, dtype=np.uint64)


_POWERS = _powers(_P, _BLOCK)
_INVERSES = _powers(_P_INVERSE, _BLOCK)


@dataclass(frozen=True)
class Words:
    """The words of D documents, flat. Words of document d are `bounds[d]:bounds[d + 1]`.

    `hashes` uint64 [W]; `starts`, `ends` int64 [W], byte offsets into `data` (the documents' text, uint8);
    `bounds` int64 [D + 1]; `offsets` int64 [D + 1], where each document's bytes begin in `data`.
    """

    hashes: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    bounds: np.ndarray
    data: np.ndarray
    offsets: np.ndarray

    @property
    def documents(self) -> np.ndarray:
        """Index of the document of every word, int64 [W]."""
        return np.repeat(np.arange(len(self.bounds) - 1), np.diff(self.bounds))

    def text(self, first: int, last: int) -> str:
        """The text from word `first` to word `last` (inclusive) as it stands in the document."""
        return bytes(self.data[self.starts[first] : self.ends[last]]).decode("utf-8", "replace")


def split_words(text: str) -> list[str]:
    """The normalised words of one text as strings; what `hash_words` hashes."""
    return _WORD.findall(_SPACELESS.sub(r" \1", _lower(unicodedata.normalize("NFC", text))))


def text_bytes(texts: Sequence[str | None] | pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """All texts as one uint8 array and offsets int64 [D + 1], without copying where Arrow allows; null = empty."""
    array = texts if isinstance(texts, pa.Array | pa.ChunkedArray) else pa.array(texts, pa.large_string())
    array = array.cast(pa.large_string())
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if array.null_count:
        array = array.fill_null("")
    if len(array) == 0:
        return np.zeros(0, np.uint8), np.zeros(1, np.int64)
    _, offset_buffer, data_buffer = array.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64)[array.offset : array.offset + len(array) + 1]
    data = np.frombuffer(data_buffer, np.uint8) if data_buffer else np.zeros(0, np.uint8)
    return data[offsets[0] : offsets[-1]], offsets - offsets[0]


def text_batches(array: pa.LargeStringArray, size: int) -> Iterator[pa.LargeStringArray]:
    """The texts in runs of about `size` bytes, at least one: the words then fit the processor's cache."""
    cuts = [0, *(np.flatnonzero(np.diff(text_bytes(array)[1] // size)) + 1).tolist(), len(array)]
    yield from (array[a:b] for a, b in itertools.pairwise(cuts) if b > a or b == 0)


def hash_words(
    texts: Sequence[str | None] | pa.Array | pa.ChunkedArray,
    *,
    map_numbers: bool = False,
    strip_marks: bool = False,
) -> Words:
    """Hash every word of every text. `map_numbers` makes every run of digits the same ("0"); `strip_marks` takes
    diacritics off the text first."""
    data, offsets = text_bytes(texts)
    data, folded, offsets = _fold(data, offsets, strip_marks)
    folded = np.frombuffer(folded.tobytes().translate(_LOWER_MAPPED if map_numbers else _LOWER), np.uint8)
    starts, ends = _word_edges(folded, offsets)
    hashes = np.empty(len(starts), dtype=np.uint64)
    first = 0
    while first < len(starts):
        begin = int(starts[first])
        last = max(first + 1, int(np.searchsorted(ends, begin + _BLOCK, side="right")))
        block = folded[begin : int(ends[last - 1])]
        hashes[first:last] = _hash_block(block, starts[first:last] - begin, ends[first:last] - begin)
        first = last
    if map_numbers:
        _hash_numbers(folded, starts, ends, hashes)
    bounds = np.searchsorted(starts, offsets)
    return Words(hashes, starts, ends, bounds, data, offsets)


def _fold(data: np.ndarray, offsets: np.ndarray, strip: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(text, text for hashing, offsets): what lies beyond ASCII is composed (NFC) and lower-cased by Python."""
    if not (data > 127).any():
        return data, data, offsets
    (raw, folded), offsets = change_pieces(data, offsets, _stripped if strip else _composed, 2)
    return np.frombuffer(raw, np.uint8), np.frombuffer(folded, np.uint8), offsets


def _composed(piece: str) -> tuple[str, str]:
    text = unicodedata.normalize("NFC", piece)
    return text, _NOT_WORD.sub(_blank, _lower(text))


def _stripped(piece: str) -> tuple[str, str]:
    return _composed(without_marks(piece))


def _lower(text: str) -> str:
    # Letters that change their length in bytes when lower-cased stay, so that offsets hold.
    parts = _KEEPS_CASE.split(text)
    parts[::2] = [part.lower() for part in parts[::2]]
    return "".join(parts)


def _blank(match: re.Match[str]) -> str:
    return " " * len(match[0].encode())


def _word_edges(data: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if not len(data):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    word = data != 0
    start = word.copy()
    start[1:] &= ~word[:-1]
    # A word ends with its document even when the next one begins with a letter.
    inner = offsets[:-1][np.diff(offsets) > 0]
    start[inner] = word[inner]
    low, high = _SPACELESS_LEADS
    if data.max() >= low:
        start |= (data >= low) & (data <= high)
    end = word.copy()
    end[:-1] &= ~word[1:] | start[1:]
    return np.flatnonzero(start), np.flatnonzero(end) + 1


def _hash_block(block: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    powers, inverses = _tables(len(block))
    prefix = np.zeros(len(block) + 1, dtype=np.uint64)
    np.multiply(block, powers, out=prefix[1:])
    np.cumsum(prefix, out=prefix)
    return mix64((prefix[ends] - prefix[starts]) * inverses[starts])


def _hash_numbers(data: np.ndarray, starts: np.ndarray, ends: np.ndarray, hashes: np.ndarray) -> None:
    """Hash the words with several digits in a row again, with one zero for each run; all digits are zeros."""
    zeros = np.flatnonzero(data == _ZERO)
    second = zeros[1:][zeros[1:] - zeros[:-1] == 1]
    if not len(second):
        return
    again = np.searchsorted(starts, second, side="right") - 1
    again = again[np.append(True, again[1:] != again[:-1])]
    lengths = ends[again] - starts[again]
    last = np.cumsum(lengths)
    first = last - lengths
    block = data[np.repeat(starts[again] - first, lengths) + np.arange(last[-1])]
    extra = np.zeros(len(block), dtype=bool)
    extra[1:] = (block[1:] == _ZERO) & (block[:-1] == _ZERO)
    extra[first] = False
    gone = np.flatnonzero(extra)
    moved = [edges - np.searchsorted(gone, edges) for edges in (first, last)]
    hashes[again] = _hash_block(block[~extra], *moved)


def _tables(length: int) -> tuple[np.ndarray, np.ndarray]:
    if length <= _BLOCK:
        return _POWERS[:length], _INVERSES[:length]
    return _powers(_P, length), _powers(_P_INVERSE, length)
