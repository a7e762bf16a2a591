"""Shingles in scratch files: those of all rows as they come, and the sets of the rows that are compared."""

from collections.abc import Iterator
from contextlib import suppress

import numpy as np

from tutelage.core.scratch import scratch_path

_COMPARED = 1 << 20  # shingles compared at once


class ShingleFile:
    """The shingles of all rows, with repeats, in batches; open for adding until it is read."""

    def __init__(self) -> None:
        self._path = scratch_path(".shingles")
        self._out = self._path.open("wb")
        self._counts: list[np.ndarray] = []

    def __enter__(self) -> "ShingleFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._out.close()
        self._path.unlink()

    def add(self, hashes: np.ndarray, bounds: np.ndarray) -> None:
        """One batch: `hashes` uint32 [G], those of its row r in `bounds[r]:bounds[r + 1]`."""
        hashes.tofile(self._out)
        self._counts.append(np.diff(bounds).astype(np.int32))

    def batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(hashes, how many each row has) of every batch."""
        self._out.flush()
        with self._path.open("rb") as stored:
            for count in self._counts:
                yield np.fromfile(stored, np.uint32, int(count.sum())), count


class ShingleSets:
    """The sets of shingles of chosen rows, in a scratch file; `rows` int64 [c], rising."""

    def __init__(self, file: ShingleFile, rows: np.ndarray) -> None:
        self.rows = rows
        self._file = scratch_path(".shingles")
        sizes = np.zeros(len(rows), dtype=np.int64)
        total = 0
        with self._file.open("wb") as out:
            for hashes, count in file.batches() if len(rows) else ():
                first, last = np.searchsorted(rows, (total, total + len(count)))
                distinct = _distinct(hashes, count, rows[first:last] - total)
                sizes[first:last] = np.bincount(_owner(distinct), minlength=last - first)
                distinct.astype(np.uint32).tofile(out)
                total += len(count)
        self._bounds = np.append(0, np.cumsum(sizes))
        self._values: np.ndarray = np.zeros(0, dtype=np.uint32)
        if self._bounds[-1]:
            self._values = np.memmap(self._file, dtype=np.uint32, mode="r")

    def __enter__(self) -> "ShingleSets":
        return self

    def __exit__(self, *_: object) -> None:
        self._values = np.zeros(0, dtype=np.uint32)
        # Where a mapped file cannot be removed it goes with the scratch folder.
        with suppress(OSError):
            self._file.unlink()

    def jaccard(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Exact Jaccard similarity of the sets at places left[i] and right[i] of `rows`, float64."""
        sizes = np.diff(self._bounds)
        joint = sizes[left] + sizes[right]
        found = np.empty(len(left))
        ends = np.cumsum(joint)
        first = 0
        while first < len(left):
            before = ends[first - 1] if first else 0
            last = max(first + 1, int(np.searchsorted(ends, before + _COMPARED, side="right")))
            keys = np.concatenate([self._tagged(left[first:last], sizes), self._tagged(right[first:last], sizes)])
            keys.sort()
            both = np.bincount(_owner(keys[1:][keys[1:] == keys[:-1]]), minlength=last - first)
            found[first:last] = both / np.maximum(joint[first:last] - both, 1)
            first = last
        return found

    def _tagged(self, places: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """The shingles of all the sets, each behind the number of its set."""
        count = sizes[places]
        number = np.repeat(np.arange(len(places)), count)
        within = np.arange(len(number)) - np.repeat(np.cumsum(count) - count, count)
        values = np.asarray(self._values[self._bounds[places][number] + within])
        return number.astype(np.uint64) << np.uint64(32) | values


def _owner(tagged: np.ndarray) -> np.ndarray:
    return (tagged >> np.uint64(32)).astype(np.int64)


def _distinct(hashes: np.ndarray, count: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The sets of the batch's `rows`, each value behind its row's place, sorted, uint64."""
    lengths = count[rows].astype(np.int64)
    starts = (np.cumsum(count, dtype=np.int64) - count)[rows]
    first = np.cumsum(lengths) - lengths
    values = hashes[np.repeat(starts - first, lengths) + np.arange(int(lengths.sum()))]
    tagged = np.sort(np.repeat(np.arange(len(rows), dtype=np.uint64), lengths) << np.uint64(32) | values)
    return tagged[np.append(True, tagged[1:] != tagged[:-1])[: len(tagged)]]
