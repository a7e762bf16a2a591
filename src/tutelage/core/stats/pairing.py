"""Which items and runs of two systems belong together, and what to say where they do not."""

from collections.abc import Sequence

import numpy as np

from tutelage.core.errors import ComparisonError
from tutelage.core.items import ItemMatrix


def paired_items(a: ItemMatrix, b: ItemMatrix, intersect: bool) -> tuple[ItemMatrix, ItemMatrix]:
    """The two systems over shared items in one order; the items must be the same unless `intersect`."""
    in_a, in_b = set(a.keys), set(b.keys)
    only_a, only_b = [k for k in a.keys if k not in in_b], [k for k in b.keys if k not in in_a]
    shared = [key for key in a.keys if key in in_b]
    if (only_a or only_b) and not (intersect and shared):
        raise ComparisonError(
            "the two systems were not scored on the same items",
            where="first keys: " + ", ".join((only_a + only_b)[:3]),
            expected="the same item keys on both sides",
            found=f"{len(only_a)} of {len(a.keys)} in A only, {len(only_b)} of {len(b.keys)} in B only",
            remedy="score the missing items" + (", or compare the shared ones with intersect" if shared else ""),
        )
    a, b = _taken(a, shared), _taken(b, shared)
    for key, cluster_a, cluster_b in zip(shared, a.clusters, b.clusters, strict=True):
        if cluster_a != cluster_b:
            raise ComparisonError(
                "the two systems put an item into different clusters", where=key, found=f"{cluster_a}, {cluster_b}"
            )
    return a, b


def _taken(matrix: ItemMatrix, keys: Sequence[str]) -> ItemMatrix:
    position = {key: i for i, key in enumerate(matrix.keys)}
    rows = np.array([position[key] for key in keys])
    weights = None if matrix.weights is None else matrix.weights[:, rows]
    return ItemMatrix(list(keys), matrix.seeds, matrix.scores[:, rows], weights, matrix.clusters[rows])


def seed_notes(a: ItemMatrix, b: ItemMatrix) -> tuple[str, ...]:
    """What to say about the pairing of runs; a single run without a seed is broadcast over the other side's."""
    if not (a.seeds and b.seeds):
        side = "B" if a.seeds else "A"
        return (f"{side} has no training randomness: one run repeated",) if a.seeds or b.seeds else ()
    if len(a.seeds) != len(b.seeds):
        raise ComparisonError(
            "the two systems have different numbers of training seeds",
            expected="one run per seed on both sides",
            found=f"A has seeds {list(a.seeds)}, B has seeds {list(b.seeds)}",
            remedy="train the missing runs, or leave the extra ones out of both",
        )
    if a.seeds != b.seeds:
        return (f"seeds {list(a.seeds)} and {list(b.seeds)} were paired in order",)
    return ()
