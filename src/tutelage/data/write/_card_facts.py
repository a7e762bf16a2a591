"""The numbers of a data card: the corpus in one pass, then every stage behind it."""

import heapq
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.lineage import Stage
from tutelage.core.text.hashing import hash64
from tutelage.core.text.rows import text_array
from tutelage.core.text.words import text_bytes

# Labels of one stage, and values of one column, that are listed by name.
LISTED = 25
# Quoted values that tell labels apart, beyond which they are one label.
VARIANTS = 10
CLIP = 300
OTHER = "other reasons"
# Signals that look for evaluation items -> their columns: the mark, the item found, the piece of it.
LOOK_FOR_ITEMS: dict[str, tuple[str, str | None, str | None]] = {
    "signals.ngram_overlap": ("contaminated", "contamination_item", "contamination_snippet"),
    "signals.paragraph_overlap": ("leaked", None, None),
}
_NUMBER = re.compile(r"(?<![\w.-])-?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?%?(?!\w)")
_ORIGINAL = re.compile(r"(\bduplicate of|\bcopy of|^\w*duplicate_of is) (.+)")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_COPY = re.compile(r"\bduplicate of |^\w*duplicate_of is |\bcopy of |^dup_keep is ")


def gather(dataset: Dataset, stages: Sequence[Stage], by: Sequence[str], examples: int) -> dict[str, Any]:
    """Everything that the card tells, as JSON values."""
    behind = {stage.key: stage for stage in stages}
    told = [_stage(stage, behind, examples) for stage in stages]
    cost = {"seconds": sum(s["seconds"] for s in told), "flops": sum(s["flops"] for s in told)}
    cost["peak_bytes"] = max((s["peak_bytes"] for s in told), default=0)
    return {
        "hash": dataset.hash,
        **corpus(dataset, by),
        "stages": told,
        "duplicates": _duplicates(told),
        "contamination": _contamination(stages, examples),
        "cost": cost,
    }


def corpus(dataset: Dataset, by: Sequence[str]) -> dict[str, Any]:
    """Rows, characters, bytes, tokens, a histogram of lengths by powers of two, and counts per value of `by`."""
    characters = size = tokens = removed = 0
    lengths: Counter[int] = Counter()
    values: dict[str, dict[str, list[int]]] = {name: {} for name in by if name in dataset.column_names}
    for shard in dataset.shards():
        array = text_array(shard)
        sizes = np.diff(text_bytes(array)[1])
        counts = pc.utf8_length(array).to_numpy(zero_copy_only=False).astype(np.int64)
        characters += int(counts.sum())
        size += int(sizes.sum())
        lengths.update(np.frexp(counts)[1].tolist())
        if "n_tokens" in shard.column_names:
            tokens += pc.sum(shard.column("n_tokens")).as_py() or 0
        if "removed_characters" in shard.column_names:
            removed += pc.sum(shard.column("removed_characters")).as_py() or 0
        for name, found in values.items():
            for value, n_bytes in zip(shard.column(name).to_pylist(), sizes.tolist(), strict=True):
                entry = found.setdefault("missing" if value is None else str(value), [0, 0])
                entry[0] += 1
                entry[1] += n_bytes
    bins = [
        {"from": 2 ** (n - 1) if n else 0, "below": 2**n, "rows": lengths[n]}
        for n in range(min(lengths, default=0), max(lengths, default=-1) + 1)
    ]
    estimated = "n_tokens_estimated" in dataset.column_names and bool(dataset.numpy("n_tokens_estimated").any())
    return {
        "rows": dataset.num_rows,
        "characters": characters,
        "bytes": size,
        "tokens": tokens if "n_tokens" in dataset.column_names else None,
        "tokens_estimated": estimated,
        "removed_characters": removed if "removed_characters" in dataset.column_names else None,
        "columns": {field.name: str(field.type) for field in dataset.schema},
        "lengths": bins,
        "by": {name: _largest(found) for name, found in values.items()},
    }


def labels(reasons: Sequence[str]) -> list[str]:
    """Reasons without what is particular to a row: numbers become N, ids of originals "another
    row", quoted values of more than `VARIANTS` kinds three dots."""
    found = [_label(reason) for reason in reasons]
    variants: dict[str, set[str]] = {}
    for label in set(found):
        variants.setdefault(_unquoted(label), set()).add(label)
    found = [bare if len(variants[bare := _unquoted(label)]) > VARIANTS else label for label in found]
    counts = Counter(found)
    if len(counts) > LISTED:
        listed = {label for label, _ in counts.most_common(LISTED - 1)}
        found = [label if label in listed else OTHER for label in found]
    return found


def _label(reason: str) -> str:
    head, wanted, bound = reason.partition(", wanted")
    return _NUMBER.sub("N", _ORIGINAL.sub(r"\1 another row", head)) + wanted + bound


def _unquoted(label: str) -> str:
    head, wanted, bound = label.partition(", wanted")
    return _QUOTED.sub("'...'", head) + wanted + bound


def _original(reason: str) -> str | None:
    """The id of the row that a dropped one repeats, where its reason names it."""
    found = _ORIGINAL.search(reason)
    if found is None:
        return None
    # What follows the id in words, such as a similarity, stands in brackets.
    name = found[2].split(" (")[0]
    return name[1:-1] if name[:1] == name[-1:] == "'" else name


def _stage(stage: Stage, behind: Mapping[str, Stage], examples: int) -> dict[str, Any]:
    made = stage.load()
    dropped = made.dropped
    reasons = dropped.column("reason").to_pylist()
    named = labels(reasons)
    kept = _kept(stage, made)
    told: dict[str, Any] = {
        "name": stage.name,
        "method": stage.method,
        "rows_in": stage.rows_in,
        "rows_kept": kept,
        "rows_dropped": dropped.num_rows,
        "rows_quarantined": stage.quarantined,
        "rows_out": made.num_rows,
        "reasons": dict(Counter([*named, *labels(made.quarantined.column("reason").to_pylist())]).most_common()),
        "facts": {
            key: value
            for key, value in made.report.items()
            if isinstance(value, int | float | str) and key not in ("method", "reader", "rows_in", "rows_kept")
        }
        if made.report.get("method", made.report.get("reader")) == stage.method
        else {},
        "within": made.report.get("stages", []) if made.report.get("method") == stage.method else [],
        "seconds": stage.cost.seconds,
        "peak_bytes": stage.cost.peak_bytes,
        "flops": stage.cost.flops,
    }
    ids = dropped.column("id").to_pylist()
    told["examples"] = _examples(ids, reasons, named, [behind[key] for key in stage.parents], examples)
    return told


def _kept(stage: Stage, made: Dataset) -> int:
    """Rows of the input that are still there, themselves or as what was made of them; they must add up."""
    gone = made.dropped.num_rows + stage.quarantined
    for column in ("id", "source_id"):
        if column in made.column_names:
            kept = made.num_rows if column == "id" else pc.count_distinct(made.column(column)).as_py()
            if kept + gone == stage.rows_in:
                return kept
    raise InputError(
        "a stage does not account for every row",
        where=f"step {stage.name!r}",
        expected=f"{stage.rows_in} rows in = kept + dropped + quarantined",
        found=f"{made.num_rows} kept, {made.dropped.num_rows} dropped, {stage.quarantined} quarantined",
        remedy="this is a defect of the method; report it",
    )


def _examples(
    ids: Sequence[str], reasons: Sequence[str], named: Sequence[str], parents: Sequence[Stage], count: int
) -> list[dict[str, Any]]:
    """For every label some dropped rows, drawn by hash, with their texts and those of what they repeat."""
    rows: dict[str, list[tuple[int, int]]] = {}
    for row, label in enumerate(named):
        # The `count` smallest hashes so far, largest on top.
        heap = rows.setdefault(label, [])
        entry = (-hash64(0, ids[row]), row)
        if len(heap) < count:
            heapq.heappush(heap, entry)
        elif count:
            heapq.heappushpop(heap, entry)
    chosen = [(label, row) for label, heap in rows.items() for _, row in sorted(heap, reverse=True)]
    originals = {row: _original(reasons[row]) for _, row in chosen}
    texts = _texts({ids[row] for _, row in chosen} | {o for o in originals.values() if o}, parents)
    return [
        {
            "label": label,
            "id": ids[row],
            "reason": reasons[row],
            "text": texts.get(ids[row], ""),
            **({"of": originals[row], "of_text": texts.get(originals[row] or "", "")} if originals[row] else {}),
        }
        for label, row in chosen
    ]


def _texts(wanted: set[str], parents: Iterable[Stage]) -> dict[str, str]:
    """The beginnings of the texts of these rows, from the stages that they came from."""
    found: dict[str, str] = {}
    for parent in parents:
        left = pa.array(sorted(wanted - found.keys()), pa.string())
        if not len(left):
            break
        data = parent.load()
        names = [n for n in ("id", "text", "prompt", "completion", "messages") if n in data.column_names]
        if len(names) < 2:
            continue
        for shard in data.shards(names):
            part = shard.filter(pc.is_in(shard.column("id"), value_set=left))
            if part.num_rows:
                texts = [text[:CLIP] for text in text_array(part).to_pylist()]
                found.update(zip(part.column("id").to_pylist(), texts, strict=True))
    return found


def _duplicates(told: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Rows that were dropped because they repeat another, per stage and label."""
    found = [
        {"stage": stage["name"], "label": label, "rows": rows}
        for stage in told
        for label, rows in stage["reasons"].items()
        if _COPY.search(label)
    ]
    return {"rows": sum(entry["rows"] for entry in found), "stages": found}


def _contamination(stages: Sequence[Stage], examples: int) -> list[dict[str, Any]]:
    """Per stage that looked for evaluation items: the rows that hold some, and the items they hold."""
    found = []
    for stage in stages:
        if stage.method not in LOOK_FOR_ITEMS:
            continue
        mark, item, snippet = LOOK_FOR_ITEMS[stage.method]
        items: Counter[str] = Counter()
        rows = 0
        shown: list[dict[str, Any]] = []
        for shard in stage.load().shards(["id", mark, *filter(None, (item, snippet))]):
            hits = shard.filter(shard.column(mark))
            rows += hits.num_rows
            items.update(hits.column(item).to_pylist() if item else [])
            for row in hits.slice(0, max(0, examples - len(shown))).to_pylist():
                told = {"item": row[item] if item else None, "snippet": row[snippet] if snippet else None}
                shown.append({"id": row["id"], **told})
        found.append(
            {
                "stage": stage.name,
                "rows": rows,
                "items": len(items),
                "most": dict(items.most_common(LISTED)),
                "examples": shown,
            }
        )
    return found


def _largest(found: Mapping[str, list[int]]) -> list[dict[str, Any]]:
    """The values with the most bytes, the others as one entry."""
    order = sorted(found.items(), key=lambda item: (-item[1][1], item[0]))
    listed = [{"value": value, "rows": rows, "bytes": size} for value, (rows, size) in order[:LISTED]]
    rest = [entry for _, entry in order[LISTED:]]
    if rest:
        name = f"{len(rest)} others"
        listed.append({"value": name, "rows": sum(r for r, _ in rest), "bytes": sum(b for _, b in rest)})
    return listed
