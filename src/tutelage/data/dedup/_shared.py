"""What the methods that cut repeated pieces out of texts share: the cutting, the counting and the report."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa

from tutelage.core.dataset import Dataset
from tutelage.core.dataset_builder import DatasetBuilder
from tutelage.core.errors import InputError
from tutelage.core.text.duplicates import Spans, cut
from tutelage.core.text.rows import string_column

REMOVED = "removed_characters"


def raw_texts(dataset: Dataset) -> Iterator[tuple[str, str]]:
    """(id, text) of every row, from the column `text` alone."""
    for shard in dataset.shards(["id", "text"]):
        yield from zip(shard.column("id").to_pylist(), string_column(shard, "text").to_pylist())


def cut_repeats(
    dataset: Dataset,
    spans: Mapping[str, Spans],
    count: Callable[[Sequence[str]], np.ndarray],
    minimum: int,
    what: str,
    name: str,
) -> Dataset:
    """The rows without their `spans`; a row that loses text and keeps fewer than `minimum` of what `count` counts
    (called `what`) is dropped with the numbers. The old text is what was kept plus what was cut, in order."""
    if REMOVED in dataset.column_names:
        raise InputError(
            "the rows were cut before",
            where=REMOVED,
            expected="rows that still have their whole text",
            remedy=f"cut repeated pieces once, or drop the column {REMOVED}",
        )
    builder = DatasetBuilder()
    removed = cut_rows = 0
    for shard in dataset.shards():
        ids = shard.column("id").to_pylist()
        before = string_column(shard, "text").to_pylist()
        after = [cut(text, spans.get(i, [])) for i, text in zip(ids, before)]
        lost = np.array([len(b) - len(a) for b, a in zip(before, after)], dtype=np.int64)
        left = count(after)
        keep = (lost == 0) | (left >= minimum)
        removed += int(lost.sum())
        cut_rows += int((lost > 0).sum())
        for row in np.flatnonzero(~keep).tolist():
            builder.drop(ids[row], f"{left[row]} {what} left after {lost[row]} repeated characters were cut")
        place = shard.schema.get_field_index("text")
        table = shard.set_column(place, "text", pa.array(after, shard.schema.field(place).type))
        builder.add_table(table.append_column(REMOVED, pa.array(lost)).filter(pa.array(keep)))
    report = {"method": name, "rows_in": dataset.num_rows, "rows_cut": cut_rows, "characters_cut": removed}
    return builder.finish(report)
