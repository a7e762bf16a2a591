"""A dataset folder as Hugging Face `datasets` saves it: `state.json`, `dataset_info.json` and Arrow streams.

The Arrow files are read with pyarrow alone, batch by batch. A folder of several splits
(`dataset_dict.json`) is read one split at a time. Class labels, stored as numbers, become their names (-1, no
label, becomes null). A stream without its end mark was cut off and is an error.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import Field

from tutelage.core import json_text
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError, suggest
from tutelage.core.method import Reader
from tutelage.data.read._files import damaged, existing
from tutelage.data.read._rows import OnError, Rows, check_rename

CARD = {
    "name": "data.read.hf_dataset",
    "paper": {
        "title": "Datasets: A Community Library for Natural Language Processing",
        "identifier": "arXiv:2109.02846",
    },
    "summary": "Reads a dataset folder saved by Hugging Face datasets, without that library.",
    "writes": ["text"],
    "needs": [],
    "cost": "one pass over the Arrow files, memory bounded",
    "baseline": None,
    "headline": "Reads what save_to_disk wrote, splits and class names included.",
    "version": 1,
}
_END_MARK = b"\xff\xff\xff\xff\x00\x00\x00\x00"


class HfDataset(Reader):
    """`split` names the split of a folder with several; `columns` renames columns (from -> to)."""

    split: str | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    limit: int | None = Field(default=None, ge=1)
    on_error: OnError = "raise"

    def read(self, path: str | None = None) -> Dataset:
        """All rows of the dataset folder, or of its chosen split, at `path`."""
        folder = existing(path, self.name)
        rows = Rows(self.name, folder, self.on_error, self.limit)
        self.read_into(folder, rows)
        return rows.finish()

    def read_into(self, folder: Path, rows: Rows) -> None:
        """Add the rows of one folder to `rows`."""
        folder = self._split(folder)
        names = _class_names(folder)
        for file in _arrow_files(folder):
            rows.files += 1
            first = 1
            try:
                for table in _tables(file):
                    check_rename(table.column_names, self.columns)
                    table = _with_names(table, names)
                    table = table.rename_columns([self.columns.get(n, n) for n in table.column_names])
                    rows.add_table(table, file.name, first)
                    first += table.num_rows
                    if rows.full:
                        return
            except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
                rows.bad(damaged(error), file.name, f"from row {first}")
            except InputError as error:
                if error.where is not None:
                    raise
                rows.bad(error, file.name)

    def _split(self, folder: Path) -> Path:
        if not (folder / "dataset_dict.json").is_file():
            if self.split is not None and not (folder / "state.json").is_file():
                raise _no_dataset(folder)
            if self.split is not None and _state(folder).get("_split") not in (self.split, None):
                raise ConfigError(
                    "the folder holds another split",
                    where=folder,
                    expected=self.split,
                    found=_state(folder)["_split"],
                )
            return folder
        splits = _names(_json(folder / "dataset_dict.json").get("splits", []), folder / "dataset_dict.json")
        if self.split is None and len(splits) == 1:
            return folder / _inside(folder, splits[0])
        if self.split not in splits:
            raise ConfigError(
                "the folder holds several splits" if self.split is None else f"there is no split {self.split!r}",
                where=folder,
                expected="one of " + ", ".join(splits),
                found="no split named" if self.split is None else self.split,
                remedy="set the field split: " + suggest(self.split or "", splits),
            )
        return folder / _inside(folder, self.split)


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json_text.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise _damaged_folder(file, "a JSON object", str(error)) from None
    return found if isinstance(found, dict) else {}


def _damaged_folder(file: Path, expected: str, found: object) -> InputError:
    return InputError(
        "a dataset folder is damaged",
        where=file,
        expected=expected,
        found=str(found)[:200],
        remedy="save it again",
    )


def _names(found: Any, file: Path) -> list[str]:
    if not isinstance(found, list) or not all(isinstance(name, str) and name for name in found):
        raise _damaged_folder(file, "a list of names", found)
    try:
        "".join(found).encode()
    except UnicodeEncodeError as error:
        raise _damaged_folder(file, "names of complete characters", error) from None
    return found


def _no_dataset(folder: Path) -> InputError:
    return InputError(
        "not a Hugging Face dataset folder",
        where=folder,
        expected="the files state.json and dataset_info.json, or dataset_dict.json",
        found=", ".join(sorted(p.name for p in folder.iterdir())[:10]) if folder.is_dir() else "a file",
        remedy="pass the folder given to save_to_disk, or use another reader (data.read.auto chooses one)",
    )


def _state(folder: Path) -> dict[str, Any]:
    if not (folder / "state.json").is_file():
        raise _no_dataset(folder)
    return _json(folder / "state.json")


def _inside(folder: Path, name: str) -> str:
    try:
        inside = (folder / name).resolve().is_relative_to(folder.resolve())
        (folder / name).exists()  # asked here, since a name may be too long to ask
    except (ValueError, OSError) as error:  # a name that no file can have
        raise _damaged_folder(folder, "names of files", error) from None
    if not inside:
        raise InputError(
            "a dataset names a file outside its folder",
            where=folder,
            expected="files below the folder",
            found=name,
            remedy="save it again; do not use this one if you do not know who wrote it",
        )
    return name


def _arrow_files(folder: Path) -> list[Path]:
    state = _state(folder)
    if state.get("_indices_data_files"):
        raise InputError(
            "the dataset was saved with an index over its rows",
            where=folder / "state.json",
            expected="rows stored in order",
            found="_indices_data_files",
            remedy="call flatten_indices() and save it again",
        )
    entries = state.get("_data_files", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise _damaged_folder(folder / "state.json", "_data_files: a list of {filename: ...}", entries)
    names = _names([entry.get("filename") for entry in entries], folder / "state.json")
    return [folder / _inside(folder, name) for name in names]


def _class_names(folder: Path) -> dict[str, list[str]]:
    info = folder / "dataset_info.json"
    features = (_json(info).get("features") or {}) if info.is_file() else {}
    if not isinstance(features, dict):
        raise _damaged_folder(info, "features: {column: {...}}", features)
    return {
        column: _names(feature["names"], info)
        for column, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
    }


def _tables(file: Path) -> Iterator[pa.Table]:
    with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as stream:
        for batch in stream:
            # Before anything looks at it: offsets and indices that lead out of their buffers end the process.
            batch.validate(full=True)
            yield pa.Table.from_batches([batch])
    # Arrow takes the end of the file for the end of the stream, so a stream cut between batches looks complete.
    if _tail(file) != _END_MARK:
        raise pa.ArrowInvalid("the end of the Arrow stream is missing")


def _tail(file: Path) -> bytes:
    with file.open("rb") as source:
        source.seek(-len(_END_MARK), 2)
        return source.read()


def _with_names(table: pa.Table, names: dict[str, list[str]]) -> pa.Table:
    for column, classes in names.items():
        if column not in table.column_names:
            continue
        if not pa.types.is_integer(table.schema.field(column).type):
            raise InputError(
                f"column {column!r} of classes does not hold their numbers",
                expected="whole numbers",
                found=str(table.schema.field(column).type)[:80],
                remedy="correct dataset_info.json, or save the dataset again",
            )
        values = []
        for number in table.column(column).to_pylist():
            if number is not None and number >= len(classes):
                raise InputError(
                    f"column {column!r} holds a class that has no name",
                    expected=f"0 to {len(classes) - 1}",
                    found=number,
                    remedy="correct dataset_info.json, or save the dataset again",
                )
            values.append(None if number is None or number < 0 else classes[number])
        place = table.column_names.index(column)
        table = table.set_column(place, column, pa.array(values, pa.string()))
    return table
