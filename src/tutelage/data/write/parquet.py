"""Parquet: all columns with their types, Zstandard-compressed, one row group per shard; sidecars joined.

The file is written shard by shard, so the dataset may be larger than memory. What `data.read.parquet` reads
back has the same ids, values and types.
"""

import pyarrow.parquet as pq

from tutelage.core.dataset import Dataset
from tutelage.core.method import Writer
from tutelage.core.shards import PARQUET
from tutelage.data.write._atomic import new_file, new_target

CARD = {
    "name": "data.write.parquet",
    "paper": {"title": "Apache Parquet file format", "identifier": "https://parquet.apache.org/docs/file-format/"},
    "summary": "Writes rows with their column types as one Parquet file.",
    "reads": ["id"],
    "needs": [],
    "cost": "one pass over the rows, memory bounded",
    "baseline": None,
    "headline": "Types and values survive exactly; the smallest of the tabular formats.",
    "version": 1,
}


class Parquet(Writer):
    """`columns` None writes all columns; `id` is always written."""

    columns: tuple[str, ...] | None = None

    def write(self, dataset: Dataset, path: str) -> list[str]:
        """Write all rows to the new file `path`."""
        target = new_target(path, self.name)
        names = list(dict.fromkeys(["id", *(self.columns if self.columns is not None else dataset.column_names)]))
        dataset.require(*names)
        schema = dataset.schema.empty_table().select(names).schema
        with new_file(target) as out, pq.ParquetWriter(out, schema, **PARQUET) as writer:
            for table in dataset.shards(names):
                writer.write_table(table)
        return [str(target)]
