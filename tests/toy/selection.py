"""A scored toy corpus for the selectors."""

import numpy as np

from tutelage.core.dataset import Dataset


def scored_rows(count: int = 200, seed: int = 0) -> list[dict]:
    """Rows with random lengths, a score, a loss, a source; the score of row 7 is missing."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        tokens = int(rng.integers(1, 40))
        rows.append(
            {
                "id": f"row-{i}",
                "text": "word " * tokens,
                "n_tokens": tokens,
                "score": float("nan") if i == 7 else float(rng.normal()),
                "bpb": float(rng.gamma(2.0)),
                "source": f"source-{i % 3}",
            }
        )
    return rows


def scored(count: int = 200, seed: int = 0) -> Dataset:
    """`scored_rows` as a dataset."""
    return Dataset.from_rows(scored_rows(count, seed))
