"""Values of steps as files of an artifact and back: datasets, models, results, scorer states, fit records.

Nothing is pickled: a state is `state.json` with its arrays in `arrays.npz`; everything else has its own format.
"""

import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.core import json_text
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, StoreError
from tutelage.core.items import ItemLog
from tutelage.core.records import Result

DATASET, MODEL, RESULT, ITEMS, STATE, ARRAYS, FIT, FILES = (
    "dataset",
    "model",
    "result.json",
    "items.parquet",
    "state.json",
    "arrays.npz",
    "fit.json",
    "files",
)


def save_result(result: Result, folder: Path) -> None:
    """`result.json` and, when it carries one, the item log."""
    (folder / RESULT).write_text(result.model_dump_json(indent=1), encoding="utf-8")
    if result.items is not None:
        result.items.save(folder / ITEMS)


def load_result(folder: Path) -> Result:
    """The result with its item log."""
    with _whole(folder / RESULT):
        result = Result.model_validate_json((folder / RESULT).read_bytes())
    file = folder / ITEMS
    return result.with_items(ItemLog.load(file)) if file.exists() else result


def load_dataset(folder: Path) -> Dataset:
    """The dataset of an artifact."""
    return Dataset.open(folder / DATASET)


def load_files(folder: Path) -> list[str]:
    """The files that a writer wrote: one file, or all files of one folder."""
    if (folder / FILES).is_file():
        return [str(folder / FILES)]
    return sorted(str(path) for path in (folder / FILES).rglob("*") if path.is_file())


def save_fit(record: Any, folder: Path) -> None:
    """A trainer's record of its fit, as JSON."""
    plain = record.model_dump(mode="json") if hasattr(record, "model_dump") else record
    (folder / FIT).write_text(json.dumps(plain, indent=1, default=_number), encoding="utf-8")


def load_fit(folder: Path) -> dict[str, Any] | None:
    """The fit record beside a trained model, if there is one."""
    file = folder / FIT
    if not file.exists():
        return None
    with _whole(file):
        return dict(json_text.loads(file.read_bytes()))


def save_state(state: Mapping[str, Any], folder: Path) -> None:
    """A scorer's state: JSON values, numpy arrays and SciPy CSR matrices, nested in dicts and lists."""
    arrays: dict[str, np.ndarray] = {}
    plain = _flatten(state, arrays, "state")
    (folder / STATE).write_text(json.dumps(plain), encoding="utf-8")
    np.savez(folder / ARRAYS, **arrays)  # type: ignore[arg-type]


def load_state(folder: Path) -> dict[str, Any]:
    """What `save_state` wrote (tuples come back as lists)."""
    with _whole(folder / ARRAYS), np.load(folder / ARRAYS, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    with _whole(folder / STATE):
        return dict(_rebuild(json_text.loads((folder / STATE).read_bytes()), arrays))


@contextmanager
def _whole(file: Path) -> Iterator[None]:
    """Raise StoreError for whatever a damaged file makes its reader raise."""
    try:
        yield
    except (OSError, EOFError, LookupError, ValueError, TypeError, AttributeError, RecursionError, MemoryError,
            zipfile.BadZipFile, zlib.error, NotImplementedError) as error:  # fmt: skip
        raise StoreError(
            "a stored result is damaged",
            where=file,
            expected="the file as it was written",
            found=f"{type(error).__name__}: {str(error)[:200]}",
            remedy="delete the folder it is in and run again",
        ) from None


def _flatten(value: Any, arrays: dict[str, np.ndarray], path: str) -> Any:
    if isinstance(value, np.ndarray) and value.dtype != object:
        name = f"a{len(arrays)}"
        arrays[name] = value
        return {"__array__": name}
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and not key.startswith("__") for key in value):
            return {key: _flatten(item, arrays, f"{path}.{key}") for key, item in value.items()}
        # Keys that are not text keep their type as pairs.
        pairs = [
            [_flatten(key, arrays, path), _flatten(item, arrays, f"{path}.{key}")] for key, item in value.items()
        ]
        return {"__pairs__": pairs}
    if isinstance(value, list | tuple):
        return [_flatten(item, arrays, f"{path}[{number}]") for number, item in enumerate(value)]
    if type(value).__module__.startswith("scipy.sparse"):
        csr = value.tocsr()
        parts = {name: _flatten(getattr(csr, name), arrays, path) for name in ("data", "indices", "indptr")}
        return {"__csr__": {**parts, "shape": list(csr.shape)}}
    raise ConfigError(
        "a method's state cannot be stored",
        where=path,
        expected="JSON values, numpy arrays or sparse matrices",
        found=type(value).__name__,
        remedy="this is a defect of the method; report it",
    )


def _rebuild(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if isinstance(value, list):
        return [_rebuild(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    if "__array__" in value:
        return arrays[value["__array__"]]
    if "__pairs__" in value:
        return {_rebuild(key, arrays): _rebuild(item, arrays) for key, item in value["__pairs__"]}
    if "__csr__" in value:
        from scipy.sparse import csr_matrix

        parts = {name: _rebuild(part, arrays) for name, part in value["__csr__"].items()}
        return csr_matrix((parts["data"], parts["indices"], parts["indptr"]), shape=tuple(parts["shape"]))
    return {key: _rebuild(item, arrays) for key, item in value.items()}


def _number(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    return str(value)
