"""What counts as the same text, and which lines or paragraphs of a corpus repeat earlier ones.

Pieces are lines, paragraphs or whatever a splitter gives. The canonical form is NFC, lower-cased, white space
collapsed; decisions use 128-bit hashes of it, so that two different texts are never taken for one. Of equal pieces
the first in (id, position) order is the original: the result does not depend on the order of the rows.
"""

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Literal

import numpy as np
import pyarrow as pa

from tutelage.core.text.bloom import BloomFilter
from tutelage.core.text.hashing import repeated
from tutelage.core.text.pieces import change_pieces
from tutelage.core.text.words import text_batches, text_bytes

Unit = Literal["line", "paragraph"]
Spans = list[tuple[int, int]]
# A text -> the spans to compare, by their start; they may overlap.
Splitter = Callable[[str], Spans]
# Gives all (id, text), as often as it is called.
Rows = Callable[[], Iterable[tuple[str, str]]]
_BLOCK = 1 << 16  # hashes put into a filter at once
_BATCH_BYTES = 1 << 20
_blake = hashlib.blake2b
_SPACE = 32
_WHITE = re.compile(r"\s")
# Lower-cases ASCII letters and makes all of its white space the same.
_LOWER = bytes(
    _SPACE if b < 128 and chr(b).isspace() else b + 32 if ord("A") <= b <= ord("Z") else b for b in range(256)
)


def canonical(text: str, strict: bool = False) -> str:
    """The form in which texts are compared; `strict` leaves the text as it is."""
    return text if strict else " ".join(unicodedata.normalize("NFC", text).lower().split())


def digest128(text: str) -> bytes:
    """128-bit hash of a text."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def text_keys(array: pa.LargeStringArray, strict: bool = False) -> np.ndarray:
    """`digest128` of the canonical form of every text, uint64 [n, 2]."""
    digests: list[bytes] = []
    for batch in text_batches(array, _BATCH_BYTES):
        data, offsets = text_bytes(batch)
        forms = _slices(data.tobytes(), offsets[:-1], offsets[1:]) if strict else _canonical_forms(data, offsets)
        digests += [_blake(form, digest_size=16).digest() for form in forms]
    return keys_of(digests)


def _canonical_forms(data: np.ndarray, offsets: np.ndarray) -> list[bytes]:
    """`canonical` of every text as UTF-8, all at once: Python looks only at what lies beyond ASCII."""
    text = data.tobytes()
    if (data > 127).any():
        (text,), offsets = change_pieces(data, offsets, _canonical_piece, 1)
    folded = np.frombuffer(text.translate(_LOWER), np.uint8)
    space = folded == _SPACE
    extra = space.copy()
    extra[1:] &= space[:-1]
    filled = np.flatnonzero(np.diff(offsets))
    extra[offsets[filled]] = space[offsets[filled]]
    bounds = offsets - np.searchsorted(np.flatnonzero(extra), offsets)
    ends = bounds[1:].copy()
    # Of the spaces at the end of a text one is left, the first.
    ends[filled] -= space[offsets[filled + 1] - 1] & (bounds[filled] < ends[filled])
    return _slices(folded[~extra].tobytes(), bounds[:-1], ends)


def _canonical_piece(piece: str) -> tuple[str]:
    return (_WHITE.sub(" ", unicodedata.normalize("NFC", piece).lower()),)


def _slices(data: bytes, starts: np.ndarray, ends: np.ndarray) -> list[bytes]:
    return [data[a:b] for a, b in zip(starts.tolist(), ends.tolist())]


def equal_rows(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(members int64 [m], starts int64 [groups + 1]): the rows whose `keys`, uint64 [n, 2], occur at least twice,
    group after group, each rising."""
    members, _ = repeated(keys[:, 0])
    members = members[np.lexsort((members, keys[members, 1], keys[members, 0]))]
    ordered = keys[members]
    fresh = np.ones(len(members), dtype=bool)
    fresh[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    sizes = np.diff(np.append(np.flatnonzero(fresh), len(members)))
    # A row may share only the first half of its key.
    return members[np.repeat(sizes > 1, sizes)], np.append(0, np.cumsum(sizes[sizes > 1]))


def shared_ids(rows: Iterable[tuple[str, str]], others: Iterable[tuple[str, str]]) -> list[str]:
    """Ids of the `rows` (id, text) whose canonical text some of the `others` has too."""
    known = {digest128(canonical(text)) for _, text in others}
    return [identifier for identifier, text in rows if digest128(canonical(text)) in known]


def pieces(text: str, unit: Unit) -> Spans:
    """(start, end) in code points of every line, or run of lines between blank ones, that is not blank.

    A span includes its last line break.
    """
    spans: Spans = []
    start = 0
    while start < len(text):
        end = text.find("\n", start) + 1 or len(text)
        if not text[start:end].isspace():
            if unit == "paragraph" and spans and spans[-1][1] == start:
                spans[-1] = (spans[-1][0], end)
            else:
                spans.append((start, end))
        start = end
    return spans


def cut(text: str, spans: Spans) -> str:
    """`text` without `spans` (sorted, not overlapping)."""
    kept, at = [], 0
    for start, end in spans:
        kept.append(text[at:start])
        at = end
    kept.append(text[at:])
    return "".join(kept)


def repeated_spans(
    rows: Rows, unit: Unit | Splitter, min_characters: int, bloom: float | None = None
) -> dict[str, Spans]:
    """For every id that has any: the spans of its pieces that repeat an earlier piece of the corpus.

    `rows()` gives (id, text), the same ones every time; earlier means a lower id, or the same id and further up.
    Pieces with fewer than `min_characters` in canonical form never count as repeated. `bloom` bounds memory: two
    Bloom filters of this false-positive rate first find the pieces that may occur twice, and only those are held;
    the result is the same.
    """
    split = partial(pieces, unit=unit) if isinstance(unit, str) else unit
    only = None if bloom is None else _seen_twice(rows, split, min_characters, bloom)
    digests: list[bytes] = []
    owners: list[int] = []
    spans: Spans = []
    ids: list[str] = []
    for identifier, text in rows():
        found = _digests(text, split, min_characters)
        if only is not None and found:
            maybe = only.contains(keys_of([digest for digest, _ in found]))
            found = [piece for piece, use in zip(found, maybe.tolist()) if use]
        if not found:
            continue
        digests += [digest for digest, _ in found]
        spans += [span for _, span in found]
        owners += [len(ids)] * len(found)
        ids.append(identifier)
    if not spans:
        return {}
    rank = np.empty(len(ids), dtype=np.int64)
    rank[np.argsort(np.array(ids, dtype=object), kind="stable")] = np.arange(len(ids))
    halves = keys_of(digests)
    starts = np.array([start for start, _ in spans])
    order = np.lexsort((starts, rank[owners], halves[:, 1], halves[:, 0]))
    ordered = halves[order]
    later = order[1:][(ordered[1:] == ordered[:-1]).all(axis=1)]
    repeated: dict[str, Spans] = {}
    for piece in np.sort(later).tolist():
        repeated.setdefault(ids[owners[piece]], []).append(spans[piece])
    return {identifier: union(found) for identifier, found in repeated.items()}


def union(spans: Spans) -> Spans:
    """Sorted spans with those that overlap made one; neighbours that only touch stay two."""
    joined: Spans = []
    for start, end in spans:
        if joined and start < joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def keys_of(digests: list[bytes]) -> np.ndarray:
    """128-bit digests as uint64 [n, 2]."""
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64).reshape(-1, 2)


def piece_filter(rows: Rows, unit: Unit | Splitter, min_characters: int, rate: float) -> BloomFilter:
    """A Bloom filter that holds every piece of the rows, to be asked about others (`pieces_in`)."""
    split = partial(pieces, unit=unit) if isinstance(unit, str) else unit
    held = BloomFilter(_count(rows, split), rate)
    for keys in _key_blocks(rows, split, min_characters):
        held.add(keys)
    return held


def pieces_in(text: str, unit: Unit | Splitter, min_characters: int, held: BloomFilter) -> Spans:
    """The spans of the pieces of `text` that are in the filter."""
    split = partial(pieces, unit=unit) if isinstance(unit, str) else unit
    found = _digests(text, split, min_characters)
    if not found:
        return []
    inside = held.contains(keys_of([digest for digest, _ in found]))
    return union([span for (_, span), hit in zip(found, inside.tolist()) if hit])


def _seen_twice(rows: Rows, split: Splitter, min_characters: int, rate: float) -> BloomFilter:
    """A filter that holds every piece that occurs twice, and a share of about `rate` of the others."""
    count = _count(rows, split)
    seen, twice = BloomFilter(count, rate), BloomFilter(count, rate)
    for keys in _key_blocks(rows, split, min_characters):
        # Half a digest decides here: two pieces taken for one only put one key too many into the filter.
        _, place, times = np.unique(keys[:, 0], return_inverse=True, return_counts=True)
        twice.add(keys[seen.contains(keys) | (times[place] > 1)])
        seen.add(keys)
    return twice


def _count(rows: Rows, split: Splitter) -> int:
    return sum(len(split(text)) for _, text in rows())


def _key_blocks(rows: Rows, split: Splitter, min_characters: int) -> Iterator[np.ndarray]:
    block: list[bytes] = []
    for _, text in rows():
        block += [digest for digest, _ in _digests(text, split, min_characters)]
        if len(block) >= _BLOCK:
            yield keys_of(block)
            block = []
    if block:
        yield keys_of(block)


def _digests(text: str, split: Splitter, min_characters: int) -> list[tuple[bytes, tuple[int, int]]]:
    forms = ((canonical(text[start:end]), (start, end)) for start, end in split(text))
    return [(digest128(form), span) for form, span in forms if len(form) >= min_characters]
