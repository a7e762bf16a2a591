"""Keep the rows whose perplexity is neither among the lowest nor among the highest of their length.

The lowest perplexity is boilerplate, templates and repetition, the highest noise; so a band is kept. Short texts
have more bits per byte, so rows are ranked among rows of similar length: with n rows in a length bin the row of
rank k (from 0, ties by a hash of the id) stands at (k + 0.5) / n and stays if low <= position < high. Bins are
quantiles of the length in bytes. `by: value` keeps low <= value <= high instead. Duplicates have low perplexity
and crowd the band: rows of equal text are a warning. The default band is ours; the papers keep the lowest part.
"""

import warnings
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.method import Inputs, Transform
from tutelage.core.text.duplicates import canonical, digest128
from tutelage.core.text.hashing import hash64_many
from tutelage.core.text.rows import text_array
from tutelage.core.text.words import text_bytes
from tutelage.data.filter._profiles import GOPHER
from tutelage.data.select._shared import breakdown, row_sizes, scores

CARD = {
    "name": "data.filter.band",
    "paper": {
        "title": "POINTS: Improving Your Vision-language Model with Affordable Strategies",
        "identifier": "arXiv:2409.04828",
    },
    "summary": "Keeps rows whose perplexity lies between two quantiles of its length, or between two values.",
    "reads": ["{column}", "text"],
    "cost": "one sort, one hash per text",
    "baseline": "data.select.random",
    "headline": "drops boilerplate and noise at once; on small clean corpora it often hurts what is rare",
    "version": 1,
}
REPETITION = tuple(name for name in GOPHER if name.startswith(("rule_duplicate_", "rule_top_", "rule_repeated_")))


def positions(values: np.ndarray, lengths: np.ndarray, ties: np.ndarray, bins: int) -> np.ndarray:
    """(rank + 0.5) / n of every value among those of its length bin, float64 [n]; NaN where there is no value."""
    scored = np.flatnonzero(~np.isnan(values))
    found = np.full(len(values), np.nan)
    if not len(scored):
        return found
    edges = np.quantile(lengths[scored], np.arange(1, bins) / bins)
    owner = np.searchsorted(edges, lengths[scored], side="right")
    order = scored[np.lexsort((ties[scored], values[scored], owner))]
    counts = np.bincount(owner, minlength=bins)
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    found[order] = (np.arange(len(order)) - starts + 0.5) / np.repeat(counts, counts)
    return found


class Band(Transform):
    """Keep `column` (such as `bpb` of signals.token_loss) from `low` to `high`, as quantiles among rows of similar
    length (`length_bins`; 1 ranks all rows together) or, with `by: value`, as values."""

    column: str | None = None
    by: Literal["quantile", "value"] = "quantile"
    low: float = 0.05
    high: float = 0.5
    length_bins: int = Field(default=10, ge=1)

    @model_validator(mode="after")
    def _bounds_in_order(self) -> "Band":
        if self.low >= self.high:
            raise ValueError("low must be smaller than high")
        if self.by == "quantile" and not (self.low >= 0 and self.high <= 1):
            raise ValueError("quantiles lie between 0 and 1")
        return self

    def apply(self, dataset: Dataset, inputs: Inputs) -> Dataset:
        if dataset.num_rows == 0:
            raise InputError(
                f"{self.name}: there are no rows to filter", remedy="look at the steps before this one"
            )
        values = scores(dataset, self.column, self.name)
        lengths, copies = self._texts(dataset)
        if self.by == "value":
            place, inside = values, (values >= self.low) & (values <= self.high)
        else:
            place = positions(values, lengths, hash64_many(0, dataset.ids()), self.length_bins)
            inside = (place >= self.low) & (place < self.high)
        reasons = {}
        for row in np.flatnonzero(~inside).tolist():
            reasons[row] = f"no {self.column}"
            if not np.isnan(values[row]):
                at = "" if self.by == "value" else f" at {place[row]:.4f} of its length"
                reasons[row] = f"{self.column} is {values[row]:.6g}{at}, wanted {self.low:g} to {self.high:g}"
        report = {
            "method": self.name,
            "column": self.column,
            "by": self.by,
            "rows_in": dataset.num_rows,
            "rows_kept": int(inside.sum()),
            "rows_without_score": int(np.isnan(values).sum()),
            "rows_with_equal_text": copies,
            "mean_bytes_kept": float(lengths[inside].mean()) if inside.any() else None,
            "mean_bytes_dropped": float(lengths[~inside].mean()) if not inside.all() else None,
            "repetitive_kept": self._repetitive(dataset, inside),
            "repetitive_dropped": self._repetitive(dataset, ~inside),
            **breakdown(dataset, inside, row_sizes(dataset).tokens),
        }
        return dataset.keep(inside, reasons, report)

    def _texts(self, dataset: Dataset) -> tuple[np.ndarray, int]:
        """Bytes of every text, int64 [n], and how many rows repeat the text of another; those are a warning."""
        sizes: list[np.ndarray] = []
        seen: set[bytes] = set()
        for shard in dataset.shards():
            array = text_array(shard)
            sizes.append(np.diff(text_bytes(array)[1]))
            seen.update(digest128(canonical(text)) for text in array.to_pylist())
        copies = dataset.num_rows - len(seen)
        if copies:
            warnings.warn(
                f"{self.name}: {copies} rows repeat the text of another; duplicates have low perplexity, so "
                "remove them first (data.dedup.exact)",
                stacklevel=3,
            )
        return np.concatenate(sizes), copies

    def _repetitive(self, dataset: Dataset, rows: np.ndarray) -> float | None:
        """Share of `rows` that break one of Gopher's repetition rules; None where they were not scored."""
        known = [name for name in REPETITION if name in dataset.column_names]
        if not known or not rows.any():
            return None
        broken = np.zeros(dataset.num_rows, dtype=bool)
        for name in known:
            broken |= dataset.numpy(name) > GOPHER[name][1]
        return float(broken[rows].mean())
