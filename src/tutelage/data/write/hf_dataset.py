"""A folder that Hugging Face `datasets.load_from_disk` opens: one Arrow stream, dataset_info.json, state.json.

Written with pyarrow alone, shard by shard; `data.read.hf_dataset` reads it too. The features are left to be
inferred from the Arrow schema.
"""

import json
from typing import Any

import pyarrow as pa

from tutelage.core.dataset import Dataset
from tutelage.core.method import Writer
from tutelage.data.write._atomic import new_folder, new_target

CARD = {
    "name": "data.write.hf_dataset",
    "paper": {
        "title": "Datasets: A Community Library for Natural Language Processing",
        "identifier": "arXiv:2109.02846",
    },
    "summary": "Writes a dataset folder that Hugging Face datasets opens with load_from_disk.",
    "reads": ["id"],
    "needs": [],
    "cost": "one pass over the rows, memory bounded",
    "baseline": None,
    "headline": "Hands a selection to any trainer of that ecosystem, without its library.",
    "version": 1,
}
_FILE = "data-00000-of-00001.arrow"


class HfDataset(Writer):
    """`columns` None writes all columns; `id` is always written."""

    columns: tuple[str, ...] | None = None

    def write(self, dataset: Dataset, path: str) -> list[str]:
        """Write all rows into the new folder `path`."""
        target = new_target(path, self.name)
        names = list(dict.fromkeys(["id", *(self.columns if self.columns is not None else dataset.column_names)]))
        dataset.require(*names)
        schema = dataset.schema.empty_table().select(names).schema
        state: dict[str, Any] = {
            "_data_files": [{"filename": _FILE}],
            "_fingerprint": dataset.hash[:16],
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": None,
        }
        info = {"citation": "", "description": "", "features": None, "homepage": "", "license": ""}
        with new_folder(target) as folder:
            with pa.OSFile(str(folder / _FILE), "wb") as out, pa.ipc.new_stream(out, schema) as stream:
                for table in dataset.shards(names):
                    stream.write_table(table)
            for name, content in (("state.json", state), ("dataset_info.json", info)):
                (folder / name).write_text(json.dumps(content, indent=2), encoding="utf-8")
        return [str(target / name) for name in (_FILE, "dataset_info.json", "state.json")]
