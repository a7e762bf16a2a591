"""Apply a method to a dataset: run a scorer shard by shard, and check that a transform loses no row silently."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.kept_shards import KeptShards
from tutelage.core.method import Inputs, Scorer, State, Transform, as_column
from tutelage.core.threads import in_threads


def score_dataset(
    scorer: Scorer, dataset: Dataset, inputs: Inputs, state: State | None = None, kept: Path | None = None
) -> Dataset:
    """`dataset` with the scorer's columns; `state` skips the fit (a cached one). What is scored of a dataset of
    several shards is kept below `kept` until the caller removes it, and not scored again after an interruption."""
    fitted = scorer.fit(dataset, inputs) if state is None else state
    finished = KeptShards(kept, inputs) if kept is not None and dataset.num_shards > 1 else None

    def score(shard: pa.Table) -> Mapping[str, Any]:
        found = scorer.score(shard, fitted, inputs)
        return {name: as_column(values, shard.num_rows, name) for name, values in found.items()}

    def numbered(item: tuple[int, pa.Table]) -> Mapping[str, Any]:
        return score(item[1]) if finished is None else finished.columns(*item, score)

    return dataset.with_columns(scorer.name, in_threads(numbered, enumerate(dataset.shards()), scorer.threads))


def apply_transform(transform: Transform, dataset: Dataset, inputs: Inputs) -> Dataset:
    """The transform's output; raises InputError unless rows in = rows kept + rows dropped.

    A kept row is known by `source_id` where the output has that column, else by `id`.
    """
    result = transform.apply(dataset, inputs)
    check_balance(dataset, result, transform.name)
    return result


def check_balance(before: Dataset, after: Dataset, stage: str) -> None:
    """In = kept + dropped, by id; a stage that loses, invents or counts rows twice stops the run."""
    source = set(before.ids())
    dropped = after.dropped.column("id").to_pylist()
    # A row made from a derived row has a `source_id` too, so the column's presence does not tell which one counts.
    keys = [key for key in ("id", "source_id") if key in after.column_names]
    kept_by = {key: set(after.column(key).to_pylist()) for key in keys}
    balanced = any(kept | set(dropped) == source and not kept & set(dropped) for kept in kept_by.values())
    if not balanced or len(dropped) != len(set(dropped)):
        kept = kept_by[keys[-1]]
        lost = sorted(source - kept - set(dropped))[:3]
        invented = sorted((kept | set(dropped)) - source)[:3]
        raise InputError(
            f"{stage} does not account for every row",
            expected=f"{len(source)} in = kept + dropped",
            found=f"{len(kept)} kept + {len(dropped)} dropped; lost {lost}, invented {invented}",
            remedy="this is a defect of the method; report it",
        )
