"""From a sampler's draws to the documents of one optimiser step, and from those to micro-batches.

A step takes whole documents until it holds `step_tokens` tokens. Documents of a long row that did not fit wait,
encoded, for the next step; they are part of the cursor, so a resumed run continues with exactly these. Only where
the budget ends is a document cut: its rest is discarded, since no step comes after.
"""

import copy
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import pyarrow as pa

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError, TrainingError
from tutelage.core.method import Draws, Objective
from tutelage.core.scratch import scratch_path
from tutelage.models.encode import Encoded
from tutelage.models.packing import TokenBatch, even_size, pack

# Above this a dataset is read through a memory map instead of being held.
BYTES_HELD = 512 * 2**20


@dataclass(frozen=True)
class Step:
    """The documents of one optimiser step, the rows they come from (in order, once each), rows used up, tokens.

    `last`: the tokens that were left are used up, or what they would hold of the next document trains nothing.
    `sizes`: how many documents each draw gave, where the objective computes those of a row together.
    """

    documents: tuple[Encoded, ...]
    ids: tuple[str, ...]
    rows: int
    tokens: int
    last: bool
    sizes: tuple[int, ...] | None = None


class RandomAccess:
    """Single rows of a dataset by index, without reading a shard for each."""

    def __init__(self, dataset: Dataset) -> None:
        size = 0
        tables: list[pa.Table] = []
        stream = None
        path = None
        for table in dataset.shards():
            size += table.nbytes
            if stream is None and size > BYTES_HELD:
                path = scratch_path(".arrow")
                stream = pa.ipc.new_file(str(path), dataset.schema)
                for earlier in tables:
                    stream.write_table(earlier)
                tables = []
            if stream is None:
                tables.append(table)
            else:
                stream.write_table(table)
        if stream is not None:
            stream.close()
            self._table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        else:
            self._table = pa.concat_tables(tables).combine_chunks() if tables else dataset.schema.empty_table()

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._table.slice(index, 1).to_pylist()[0]


class Batches:
    """A resumable stream of steps."""

    def __init__(
        self, dataset: Dataset, draws: Draws, objective: Objective, model: Any, *, max_length: int
    ) -> None:
        self._rows = RandomAccess(dataset)
        self._count = dataset.num_rows
        self._draws = draws
        self._objective = objective
        self._model = model
        self._max_length = max_length
        self._waiting: deque[Encoded] = deque()
        self.dropped = 0
        self.truncated = 0

    def take(self, tokens: int, rows: int | None = None, most: int | None = None) -> Step:
        """Documents of at least `tokens` tokens, less only where `rows` rows are used up, never above `most`.

        A row counts when its last document is taken; the others may wait for the next step unless the objective
        keeps a row's documents together. A document that would pass `most` keeps its first tokens, or is left out
        when none of these is trained, which may leave the step empty. Documents kept together are never cut: their
        row may pass `most`.
        """
        documents: list[Encoded] = []
        sizes: list[int] = []
        total = finished = 0
        nothing_fits = False
        while total < tokens and not nothing_fits and (rows is None or finished < rows):
            if not self._waiting:
                self._draw()
            sizes.append(len(self._waiting))
            while self._waiting and (total < tokens or self._objective.whole_rows):
                document = self._waiting.popleft()
                if most is not None and total + len(document) > most and not self._objective.whole_rows:
                    document = _first_tokens(document, most - total)
                    nothing_fits = document.n_trained == 0
                    if nothing_fits:
                        break
                documents.append(document)
                total += len(document)
            finished += not self._waiting and not nothing_fits
        ids = dict.fromkeys(document.example_id for document in documents)
        last = nothing_fits or (most is not None and total >= most)
        joint = tuple(sizes) if self._objective.joint_rows else None
        return Step(tuple(documents), tuple(ids), finished, total, last, joint)

    def _draw(self) -> None:
        """Encode the next row that gives at least one document."""
        skipped: list[str] = []
        while True:
            row = self._rows[self._draws.next()]
            found = self._objective.encode(row, self._model, self._max_length)
            documents = found if isinstance(found, list) else [found]
            for document in documents:
                if len(document) > self._max_length:
                    raise InputError(
                        "a document is longer than the context",
                        where=f"row {row['id']}",
                        expected=f"at most {self._max_length} tokens",
                        found=f"{len(document)} tokens",
                        remedy="this is a defect of the objective's encode; report it",
                    )
            if documents:
                self.truncated += any(document.cut for document in documents)
                self._waiting.extend(documents)
                return
            self.dropped += 1
            skipped.append(str(row["id"]))
            if len(skipped) >= self._count:
                raise TrainingError(
                    "no row can be trained on",
                    where=f"rows {', '.join(skipped[:5])}",
                    expected="at least one row with a trained token",
                    found=f"{len(skipped)} rows dropped by {self._objective.name}",
                    remedy="raise max_length, or look at the rows with `tutelage inspect`",
                    repeats=True,
                )

    def micro_batches(self, step: Step, micro_tokens: int) -> list[TokenBatch]:
        """The step's documents as packs of at most `micro_tokens` tokens (or one longer document), as few as that
        allows and of like size: a nearly empty one wastes what a small matrix product costs more per token."""
        lengths = [len(document) for document in step.documents]
        longest = max(lengths)
        isolation = self._model.isolation
        if isolation == "padding":
            size = max(micro_tokens, longest)
            rows = max(1, size // longest)
        else:
            given = iter(lengths)
            groups = [sum(islice(given, n)) for n in step.sizes or [1] * len(lengths)]
            size = even_size(groups, max(micro_tokens, *groups))
            rows = 1
        return pack(
            step.documents, size, rows=rows, pad_id=self._model.pad_id, isolation=isolation, together=step.sizes
        )

    def state_dict(self) -> dict[str, Any]:
        waiting = [[d.ids, d.trained, d.example_id, d.weights, d.columns] for d in self._waiting]
        counts = {"dropped": self.dropped, "truncated": self.truncated}
        # What an objective learns while rows are drawn (thresholds of a selection) goes with the cursor.
        kept: dict[str, Any] = getattr(self._objective, "state_dict", dict)()
        return {"draws": self._draws.state_dict(), "waiting": waiting, "objective": copy.deepcopy(kept), **counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._draws.load_state_dict(state["draws"])
        if state.get("objective"):
            self._objective.load_state_dict(state["objective"])  # type: ignore[attr-defined]
        self._waiting = deque(
            Encoded(ids, trained, name, weights, columns=columns)
            for ids, trained, name, weights, columns in state["waiting"]
        )
        self.dropped, self.truncated = state["dropped"], state["truncated"]


def _first_tokens(document: Encoded, n: int) -> Encoded:
    """The document's first `n` tokens with what belongs to them."""
    return replace(
        document,
        ids=document.ids[:n],
        trained=document.trained[:n],
        weights=None if document.weights is None else document.weights[:n],
        columns=None if document.columns is None else {k: v[:n] for k, v in document.columns.items()},
    )


def names(batch: TokenBatch) -> list[str]:
    """The row ids of a micro-batch, once each, in order."""
    return list(dict.fromkeys(name for row in batch.example_ids for name in row))


def name_some(ids: Sequence[str], most: int = 8) -> str:
    """`a, b, c` or `a, b, c ... (12 rows)`."""
    return ", ".join(ids[:most]) + (f" ... ({len(ids)} rows)" if len(ids) > most else "")
