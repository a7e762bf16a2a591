"""Rewriting the label columns of a dataset, shard by shard."""

from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa

from tutelage.core.dataset import Dataset
from tutelage.core.dataset_builder import DatasetBuilder

# Lists hold text.
Columns = Mapping[str, "list[Any] | pa.Array"]


def rewritten(dataset: Dataset, change: Callable[[pa.Table], Columns]) -> DatasetBuilder:
    """A builder with the same rows, their columns replaced by those that `change(shard)` gives."""
    builder = DatasetBuilder()
    for shard in dataset.shards():
        columns = change(shard)
        kept = shard.drop_columns([name for name in columns if name in shard.column_names])
        for name, given in columns.items():
            kept = kept.append_column(name, pa.array(given, pa.string()) if isinstance(given, list) else given)
        builder.add_table(kept)
    return builder


def values(shard: pa.Table, name: str) -> list[Any]:
    """A column's values, or as many nulls when it is not there."""
    return shard.column(name).to_pylist() if name in shard.column_names else [None] * len(shard)
