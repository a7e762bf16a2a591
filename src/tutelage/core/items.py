"""The item log: one row per item, training seed, decoding sample and system; what every comparison is made from.

An item is named by `item_key` = hash(task id, canonical JSON of the source row, occurrence number among identical
rows), never by its row number: two systems are paired on it, so that a different order, limit or worker count
cannot pair an item with another one. A row whose status is not `ok` carries the task's failure score and stays in
the denominator. For a ratio metric (bits per byte) `score` is the item's own ratio and `weight` its denominator:
the metric is sum(score*weight) / sum(weight).
"""

import hashlib
import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tutelage.core import json_text
from tutelage.core.errors import InputError, suggest

STATUSES = ("ok", "unparsed", "truncated", "refused", "error")

_REQUIRED = {
    "item_key": pa.string(),
    "system_id": pa.string(),
    "train_seed": pa.int64(),
    "sample_index": pa.int64(),
    "score": pa.float64(),
    "status": pa.string(),
    "prediction": pa.string(),
    "target": pa.string(),
    "cluster": pa.string(),
    "group": pa.string(),
    "tokens_in": pa.int64(),
    "tokens_out": pa.int64(),
}
_OPTIONAL = {
    "weight": pa.float64(),
    "choice_ll": pa.list_(pa.float64()),
    "p_correct": pa.float64(),
    "raw": pa.string(),
}
_DEFAULTS: dict[str, Any] = {"system_id": "", "sample_index": 0, "status": "ok"}
_NOT_NULL = ("item_key", "system_id", "sample_index", "score", "status")
_TEXT = ("item_key", "system_id", "status", "prediction", "target", "cluster", "group", "raw")
_METADATA = b"tutelage.item_log"


def item_key(task_id: str, row: Mapping[str, Any], occurrence: int = 0) -> str:
    """The stable name of an item: 32 hex digits of hash(task id, canonical JSON of the row, occurrence)."""
    text = json.dumps([task_id, row, occurrence], sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def item_keys(task_id: str, rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """`item_key` of every row, counting how often an identical row came before."""
    seen: dict[str, int] = {}
    keys = []
    for row in rows:
        first = item_key(task_id, row)
        occurrence = seen.get(first, 0)
        seen[first] = occurrence + 1
        keys.append(item_key(task_id, row, occurrence) if occurrence else first)
    return keys


@dataclass(frozen=True)
class ItemMatrix:
    """The scores of one system as arrays.

    `scores` is [R, n] (R training seeds in ascending order, n items in the order of `keys`), decoding samples
    averaged. `seeds` is empty for a system without training randomness, and then R = 1. `weights` is [R, n] or
    None. `clusters` is [n]: items without a cluster are their own.
    """

    keys: list[str]
    seeds: tuple[int, ...]
    scores: np.ndarray
    weights: np.ndarray | None
    clusters: np.ndarray


class ItemLog:
    """A validated, immutable table of item scores.

    Columns: item_key, system_id, train_seed (null: no training randomness), sample_index, score, status,
    prediction, target, cluster, group, tokens_in, tokens_out; optional weight, choice_ll, p_correct, raw.
    `metadata` is JSON-able and travels with the file (task, metric, direction, unit).
    """

    def __init__(self, table: pa.Table, metadata: Mapping[str, Any] | None = None) -> None:
        self.metadata: dict[str, Any] = dict(metadata or {})
        self._table = _validated(table)
        self._hash: str | None = None

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Any]], metadata: Mapping[str, Any] | None = None) -> "ItemLog":
        """Build a log from mappings; absent columns get null (status `ok`, sample_index 0, system_id "")."""
        rows = list(rows)
        names = {name for row in rows for name in row}
        for name in sorted(names - _REQUIRED.keys() - _OPTIONAL.keys()):
            raise InputError(
                f"an item log has no column {name!r}", where=name, remedy=suggest(name, {**_REQUIRED, **_OPTIONAL})
            )
        columns = {}
        for name, kind in {**_REQUIRED, **{n: t for n, t in _OPTIONAL.items() if n in names}}.items():
            values = [row.get(name, _DEFAULTS.get(name)) for row in rows]
            if name in _TEXT:
                values = [value if value is None or isinstance(value, str) else str(value) for value in values]
            columns[name] = _column(name, values, kind, rows)
        return cls(pa.table(columns), metadata)

    @classmethod
    def load(cls, path: str | Path) -> "ItemLog":
        """Read a log that `save` wrote."""
        try:
            table = pq.read_table(path)
            table.validate(full=True)  # a damaged text is no UTF-8
            text = (table.schema.metadata or {}).get(_METADATA)
            metadata = json_text.loads(text) if text else None
            if not isinstance(metadata, dict | None):
                raise ValueError(f"the facts beside the rows are {metadata!r}")
        except (OSError, ValueError, pa.ArrowException) as error:
            raise InputError(
                "cannot read an item log", where=path, expected="a Parquet file as `save` wrote it", found=error
            ) from None
        return cls(table.replace_schema_metadata(None), metadata)

    def save(self, path: str | Path) -> Path:
        """Write the log as one Parquet file (complete or not at all) and return its path."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.metadata, sort_keys=True)
        temporary = path.with_name(path.name + ".part")
        pq.write_table(self._table.replace_schema_metadata({_METADATA: text.encode()}), temporary)
        temporary.replace(path)
        return path

    @property
    def table(self) -> pa.Table:
        """The rows as an Arrow table."""
        return self._table

    @property
    def hash(self) -> str:
        """Content hash of the rows; their order and the metadata do not matter."""
        if self._hash is None:
            ordered = self._table.sort_by([(name, "ascending") for name in _IDENTITY])
            digest = hashlib.blake2b(digest_size=16)
            for name in sorted(ordered.column_names):
                digest.update(json.dumps([name, ordered[name].to_pylist()]).encode())
            self._hash = digest.hexdigest()
        return self._hash

    def __len__(self) -> int:
        return self._table.num_rows

    @property
    def n_items(self) -> int:
        """Number of distinct items."""
        return len(self._table["item_key"].unique())

    @property
    def systems(self) -> tuple[str, ...]:
        """The systems in the log."""
        return tuple(sorted(self._table["system_id"].unique().to_pylist()))

    @property
    def seeds(self) -> tuple[int, ...]:
        """The training seeds in the log; empty for a system without training randomness."""
        return tuple(sorted(seed for seed in self._table["train_seed"].unique().to_pylist() if seed is not None))

    def of_seeds(self, seeds: Collection[int]) -> "ItemLog":
        """The rows of the runs with these training seeds."""
        wanted = pc.is_in(self._table.column("train_seed"), pa.array(sorted(seeds), pa.int64()))
        return ItemLog(self._table.filter(wanted), self.metadata)

    @property
    def status_counts(self) -> dict[str, int]:
        """Rows by status."""
        counts = {
            entry["values"]: entry["counts"]
            for entry in self._table["status"].combine_chunks().value_counts().to_pylist()
        }
        return {status: counts[status] for status in STATUSES if status in counts}

    @property
    def failure_rate(self) -> float:
        """Share of rows whose status is not `ok` (a report shows a banner above 0.05)."""
        return 1.0 - self.status_counts.get("ok", 0) / len(self)

    def scores(self, *, train_seed: int | None = None) -> dict[str, float]:
        """item_key -> score, averaged over decoding samples, and over training seeds unless one is named."""
        matrix = self.matrix()
        if train_seed is None:
            return dict(zip(matrix.keys, matrix.scores.mean(axis=0).tolist(), strict=True))
        if train_seed not in matrix.seeds:
            raise InputError("no such training seed", found=train_seed, expected=f"one of {list(matrix.seeds)}")
        return dict(zip(matrix.keys, matrix.scores[matrix.seeds.index(train_seed)].tolist(), strict=True))

    def matrix(self, cluster: str = "cluster") -> ItemMatrix:
        """The scores as [seeds, items]; every item must be there for every seed. One system only.

        `cluster` names the column whose equal values make items one cluster (`cluster` or `group`).
        """
        if len(self.systems) != 1:
            raise InputError(
                "scores of one system are needed",
                found=f"systems {list(self.systems)}",
                remedy="filter the log first",
            )
        if cluster not in self._table.column_names:
            raise InputError("no such cluster column", found=cluster, expected="cluster or group")
        seeds = self.seeds
        rows = {seed: r for r, seed in enumerate(seeds or (None,))}
        if seeds and self._table["train_seed"].null_count:
            raise InputError(
                "some rows have a training seed and others have none",
                where="train_seed",
                remedy="give every row one",
            )
        names = self._table["item_key"].to_pylist()
        keys = list(dict.fromkeys(names))
        position = {key: i for i, key in enumerate(keys)}
        cell = np.array([rows[s] for s in self._table["train_seed"].to_pylist()]) * len(keys)
        cell += np.array([position[name] for name in names])
        size = len(rows) * len(keys)
        count = np.bincount(cell, minlength=size)
        if (count == 0).any():
            r, i = divmod(int(np.argmin(count)), len(keys))
            raise InputError(
                "an item has no score for one of the training seeds",
                where=f"item {keys[i]}, seed {seeds[r]}",
                expected=f"{len(keys)} items for each of {len(seeds)} seeds",
                found=f"{int((count == 0).sum())} missing",
            )
        shape = (len(rows), len(keys))

        def averaged(name: str) -> np.ndarray:
            values = self._table[name].to_numpy()
            return (np.bincount(cell, weights=values, minlength=size) / count).reshape(shape)

        return ItemMatrix(
            keys=keys,
            seeds=seeds,
            scores=averaged("score"),
            weights=averaged("weight") if "weight" in self._table.column_names else None,
            clusters=self._clusters(keys, names, cluster),
        )

    def _clusters(self, keys: Sequence[str], names: Sequence[str], column: str) -> np.ndarray:
        found: dict[str, str] = {}
        for name, cluster in zip(names, self._table[column].to_pylist(), strict=True):
            # A prefix keeps an item's own key apart from a cluster that happens to be named like it.
            label = "item " + name if cluster is None else "cluster " + cluster
            if found.setdefault(name, label) != label:
                raise InputError(
                    "an item is in two clusters", where=f"item {name}", found=f"{found[name]}, {label}"
                )
        return np.array([found[key] for key in keys])


_IDENTITY = ("item_key", "system_id", "train_seed", "sample_index")


def _column(name: str, values: list[Any], kind: pa.DataType, rows: Sequence[Mapping[str, Any]]) -> pa.Array:
    try:
        return pa.array(values, kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError, OverflowError, UnicodeEncodeError):
        for row, value in zip(rows, values, strict=True):
            try:
                pa.array([value], kind)
            except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError, OverflowError, UnicodeEncodeError):
                raise InputError(
                    f"column {name!r} of an item log has a value of the wrong type",
                    where=f"item {row.get('item_key')}",
                    expected=kind,
                    found=repr(value),
                ) from None
        raise


def _validated(table: pa.Table) -> pa.Table:
    known = {**_REQUIRED, **_OPTIONAL}
    for name in _REQUIRED:
        if name not in table.column_names:
            raise InputError("an item log lacks a column", where=name, expected=", ".join(_REQUIRED))
    for name in table.column_names:
        if name not in known:
            raise InputError(f"an item log has no column {name!r}", where=name, remedy=suggest(name, known))
    try:
        table = table.cast(pa.schema([(name, known[name]) for name in table.column_names])).combine_chunks()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError("a column of an item log has the wrong type", found=error) from None
    if table.num_rows == 0:
        raise InputError("an item log has no rows", expected="at least one scored item")
    keys = table["item_key"].to_pylist()
    for name in _NOT_NULL:
        if table[name].null_count:
            where = keys[table[name].to_pylist().index(None)]
            raise InputError(f"column {name!r} of an item log is null", where=f"item {where}", expected="a value")
    for name in ("score", "weight", "p_correct"):
        if name not in table.column_names:
            continue
        for key, value in zip(keys, table[name].to_pylist(), strict=True):
            if value is None and name != "weight":
                continue
            if value is None or not math.isfinite(value) or (name == "weight" and value <= 0):
                raise InputError(
                    f"column {name!r} of an item log is not usable",
                    where=f"item {key}",
                    expected="a positive number" if name == "weight" else "a finite number",
                    found=value,
                    remedy="score a failed item with the task's failure score and say so in its status",
                )
    for key, status in zip(keys, table["status"].to_pylist(), strict=True):
        if status not in STATUSES:
            raise InputError("unknown status in an item log", where=f"item {key}", expected=STATUSES, found=status)
    _refuse_duplicates(table)
    return table


def _refuse_duplicates(table: pa.Table) -> None:
    seen = set()
    for identity in zip(*(table[name].to_pylist() for name in _IDENTITY), strict=True):
        if identity in seen:
            key, system, seed, sample = identity
            raise InputError(
                "the same item is in the log twice",
                where=f"item {key}, system {system!r}, seed {seed}, sample {sample}",
                expected="one row for each item, system, seed and sample",
                found="two",
                remedy="keep one row, or number decoding samples in sample_index",
            )
        seen.add(identity)
