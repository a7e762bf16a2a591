"""Nearest rows by dot product, exact and in blocks."""

import numpy as np

BLOCK = 1 << 24  # similarities held at once


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows [n, d] at length 1; a zero row stays zero."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def neighbours(vectors: np.ndarray, k: int) -> np.ndarray:
    """[n, k] indices of the k rows with the largest dot product, the row itself left out; in no order."""
    found = np.empty((len(vectors), k), dtype=np.int64)
    step = max(1, BLOCK // len(vectors))
    for at in range(0, len(vectors), step):
        block = vectors[at : at + step] @ vectors.T
        rows = np.arange(len(block))
        block[rows, at + rows] = -np.inf
        found[at : at + step] = np.argpartition(block, len(vectors) - k, axis=1)[:, -k:]
    return found
