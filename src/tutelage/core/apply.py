"""Apply a method to a dataset: run a scorer shard by shard, and check that a transform loses no row silently."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.kept_shards import KeptShards, as_table, meters_of_models
from tutelage.core.method import Inputs, Scorer, State, Transform, as_column
from tutelage.core.threads import in_threads

# Of a shard, at once, where a model looks at it: a quarter of a million tokens.
PIECE_BYTES = 2**20


def score_dataset(
    scorer: Scorer, dataset: Dataset, inputs: Inputs, state: State | None = None, kept: Path | None = None
) -> Dataset:
    """`dataset` with the scorer's columns; `state` skips the fit (a cached one).

    Where a model looks at the rows, they are scored in pieces of some minutes. What is scored of several shards or
    pieces is kept below `kept` until the caller removes it, and not scored again after an interruption.
    """
    fitted = scorer.fit(dataset, inputs) if state is None else state
    finished = None if kept is None else KeptShards(kept, inputs)
    # What a model looks at takes minutes for a megabyte, and not a moment.
    slow = bool(meters_of_models(inputs))

    def score(rows: pa.Table) -> Mapping[str, Any]:
        found = scorer.score(rows, fitted, inputs)
        return {name: as_column(values, rows.num_rows, name) for name, values in found.items()}

    def of_shard(item: tuple[int, pa.Table]) -> Mapping[str, Any]:
        number, shard = item
        pieces = cut(shard) if slow else [shard]
        if finished is None or (len(pieces) == 1 and dataset.num_shards == 1):
            found = list(map(score, pieces))
        else:
            found = [finished.columns(number, place, rows, score) for place, rows in enumerate(pieces)]
        return found[0] if len(found) == 1 else joined(found)

    return dataset.with_columns(scorer.name, in_threads(of_shard, enumerate(dataset.shards()), scorer.threads))


def cut(shard: pa.Table) -> list[pa.Table]:
    """A shard in pieces of about as many rows, each of some `PIECE_BYTES`; copies, since a scorer may read the
    buffers of a column as if nothing came before."""
    pieces = max(1, min(len(shard), round(shard.nbytes / PIECE_BYTES)))
    ends = [len(shard) * number // pieces for number in range(pieces + 1)]
    return [shard] if pieces == 1 else [shard.take(list(range(*pair))) for pair in itertools.pairwise(ends)]


def joined(pieces: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The columns of a shard from those of its pieces."""
    whole = pa.concat_tables(map(as_table, pieces), promote_options="permissive")
    return {name: whole.column(name) for name in whole.column_names}


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
