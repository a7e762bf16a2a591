"""Clusters of near-duplicates: rows with an equal MinHash band, checked by exact Jaccard, joined by union-find.

Edges join candidates (see `core.text.minhash`) whose sets of shingles have J = |S & T| / |S | T| >= min_jaccard;
clusters are the connected components, so A ~ B ~ C are one cluster even if A and C differ. Neither the order of
the rows nor how they lie in shards changes the clusters. Texts are read once, a megabyte at a time. In memory is
one 64-bit key per band and row; shingles lie in scratch files.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tutelage.core.text.hashing import repeated
from tutelage.core.text.minhash import MinHash, band_keys, shingles, signatures
from tutelage.core.text.rows import text_array
from tutelage.core.text.shingle_sets import ShingleFile, ShingleSets
from tutelage.core.text.words import text_batches
from tutelage.core.threads import in_threads

if TYPE_CHECKING:
    from tutelage.core.dataset import Dataset

BATCH_BYTES = 1 << 20
LARGE = 10  # rows of a cluster beyond which its diameter is reported
REPORTED = 50  # clusters listed in a report


@dataclass(frozen=True)
class NearDuplicates:
    """`kept` int64 [D]: for every row the row of its cluster that stays, itself where it is alone; `ids` [D]."""

    ids: list[str]
    kept: np.ndarray
    report: dict[str, Any]

    @property
    def sizes(self) -> np.ndarray:
        """Rows in the cluster of every row, int64 [D]."""
        return np.bincount(self.kept, minlength=len(self.kept))[self.kept]


def near_duplicates(
    dataset: "Dataset", minhash: MinHash, min_jaccard: float | None, priority_column: str | None
) -> NearDuplicates:
    """Clusters of a dataset's rows and the row of each that stays: the highest priority (none is the lowest), then
    the longest text, then the lowest id. Without `min_jaccard` every candidate pair is an edge."""

    lengths: list[np.ndarray] = []

    def texts() -> Iterable[pa.LargeStringArray]:
        for shard in dataset.shards():
            for batch in text_batches(text_array(shard), BATCH_BYTES):
                lengths.append(pc.utf8_length(batch).to_numpy())
                yield batch

    priority = np.zeros(dataset.num_rows)
    if priority_column is not None:
        priority = np.nan_to_num(dataset.numpy(priority_column).astype(float), nan=-np.inf)
    labels, report = near_clusters(texts(), minhash, min_jaccard)
    ids = dataset.ids()
    length = np.concatenate(lengths or [np.zeros(0)])
    kept = np.arange(len(ids))
    rows = np.flatnonzero(np.bincount(labels, minlength=len(ids))[labels] > 1)
    rank = np.argsort(np.argsort(np.array([ids[row] for row in rows], dtype=object), kind="stable"))
    order = rows[np.lexsort((rank, -length[rows], -priority[rows], labels[rows]))]
    fresh = np.append(True, labels[order][1:] != labels[order][:-1])[: len(order)]
    kept[order] = np.repeat(order[fresh], np.diff(np.append(np.flatnonzero(fresh), len(order))))
    large = [{"id": ids[kept[one.pop("row")]], **one} for one in report.pop("large")]
    clusters = int(fresh.sum())
    return NearDuplicates(
        ids, kept, {"clusters": clusters, "rows_repeated": len(rows) - clusters, **report, "large_clusters": large}
    )


def near_clusters(
    texts: Iterable[pa.LargeStringArray], minhash: MinHash, min_jaccard: float | None
) -> tuple[np.ndarray, dict[str, Any]]:
    """(labels int64 [D], facts): the lowest row of every row's cluster, its own where it is alone. The texts come
    in order, in batches."""
    with ShingleFile() as file:
        keys, rows, total = _keys(texts, minhash, file)
        members, starts = _buckets(keys, rows)
        candidates = np.unique(members)
        places = np.searchsorted(candidates, members)
        labels = np.arange(total)
        facts: dict[str, Any] = {"rows_too_short": total - len(rows), "pairs_compared": 0}
        if min_jaccard is None:
            joined, _ = _join(places, starts, len(candidates), lambda left, right: np.ones(len(left), dtype=bool))
            labels[candidates] = candidates[joined]
            grouped = _large(labels)
            with ShingleSets(file, np.sort(grouped[0])) as sets:
                facts["large"] = _diameters(sets, labels, *grouped)
            return labels, facts
        with ShingleSets(file, candidates) as sets:
            similar = lambda left, right: sets.jaccard(left, right) >= min_jaccard  # noqa: E731
            joined, facts["pairs_compared"] = _join(places, starts, len(candidates), similar)
            labels[candidates] = candidates[joined]
            facts["large"] = _diameters(sets, labels, *_large(labels))
    return labels, facts


def _keys(
    texts: Iterable[pa.LargeStringArray], minhash: MinHash, file: ShingleFile
) -> tuple[np.ndarray, np.ndarray, int]:
    """(keys uint64 [bands, d], rows int64 [d], number of rows): band keys of the rows with a signature, and the
    shingles of all rows into `file`."""

    def of(batch: pa.LargeStringArray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        found, bounds = shingles(batch, minhash.n)
        minima, documents = signatures(found, bounds, minhash)
        return found, bounds, band_keys(minima, minhash.bands), documents

    keys = [np.zeros((minhash.bands, 0), dtype=np.uint64)]
    rows = [np.zeros(0, dtype=np.int64)]
    total = 0
    for found, bounds, key, documents in in_threads(of, texts):
        file.add(found, bounds)
        keys.append(key)
        rows.append(documents + total)
        total += len(bounds) - 1
    return np.concatenate(keys, axis=1), np.concatenate(rows), total


def _buckets(keys: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(members int64 [m], starts int64 [buckets + 1]): the rows that share a key, bucket after bucket."""
    members, starts, held = [np.zeros(0, dtype=np.int64)], [], 0
    for key in keys:
        found, begins = repeated(key)
        members.append(rows[found])
        starts.append(begins[:-1] + held)
        held += len(found)
    return np.concatenate(members), np.append(np.concatenate(starts), held).astype(np.int64)


def _join(
    members: np.ndarray,
    starts: np.ndarray,
    count: int,
    similar: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> tuple[np.ndarray, int]:
    """(labels int64 [count], pairs compared): components over all similar pairs inside buckets.

    Step s compares each member with the one s places on, unless they are joined already; a bucket leaves when it
    is one component or all its pairs are done. So buckets of copies take one step and no pair is left out.
    """
    labels = np.arange(count)
    refused = np.zeros(0, dtype=np.int64)
    compared, step = 0, 1
    while len(members):
        ends = np.repeat(starts[1:], np.diff(starts))
        here = np.flatnonzero(np.arange(len(members)) + step < ends)
        left, right = members[here], members[here + step]
        pairs = np.unique((left * count + right)[labels[left] != labels[right]])
        pairs = pairs[~np.isin(pairs, refused)]
        if len(pairs):
            left, right = pairs // count, pairs % count
            edge = similar(left, right)
            compared += len(pairs)
            refused = np.concatenate([refused, pairs[~edge]])
            labels = _union(labels, left[edge], right[edge])
        step += 1
        sizes = np.diff(starts)
        of_member = labels[members]
        split = np.minimum.reduceat(of_member, starts[:-1]) != np.maximum.reduceat(of_member, starts[:-1])
        stay = split & (sizes > step)
        members = members[np.repeat(stay, sizes)]
        starts = np.append(0, np.cumsum(sizes[stay]))
    return labels, compared


def _union(labels: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Labels (each the lowest member) after joining left[i] with right[i] for all i."""
    while True:
        a, b = labels[left], labels[right]
        apart = a != b
        if not apart.any():
            return labels
        np.minimum.at(labels, np.maximum(a, b)[apart], np.minimum(a, b)[apart])
        while not np.array_equal(shorter := labels[labels], labels):
            labels = shorter


def _large(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rows [m], starts [clusters + 1]) of the clusters with more than `LARGE` rows, the largest first."""
    sizes = np.bincount(labels, minlength=len(labels))
    rows = np.flatnonzero(sizes[labels] > LARGE)
    rows = rows[np.lexsort((rows, labels[rows], -sizes[labels[rows]]))]
    heads = np.flatnonzero(np.append(True, labels[rows][1:] != labels[rows][:-1])[: len(rows)])
    starts = np.append(heads, len(rows))[: REPORTED + 1]
    return rows[: starts[-1]], starts


def _diameters(
    sets: ShingleSets, labels: np.ndarray, rows: np.ndarray, starts: np.ndarray
) -> list[dict[str, Any]]:
    """Size and diameter of every large cluster, by two sweeps: the largest distance from its first row, then from
    the row found. That is the diameter of a chain and at least half of it in any cluster."""
    if not len(rows):
        return []
    sizes = np.diff(starts)
    places = np.searchsorted(sets.rows, rows)
    ends = places[starts[:-1]]
    for _ in range(2):
        distance = 1 - sets.jaccard(np.repeat(ends, sizes), places)
        largest = np.maximum.reduceat(distance, starts[:-1])
        at = np.flatnonzero(distance == np.repeat(largest, sizes))
        ends = places[at[np.searchsorted(at, starts[:-1])]]
    return [
        {"row": int(labels[rows[start]]), "rows": int(size), "diameter": round(float(wide), 4)}
        for start, size, wide in zip(starts[:-1], sizes, largest)
    ]
