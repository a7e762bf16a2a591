"""What the selectors share: sizes, orders, budgets and the report of what was taken from where.

A selection is a prefix of an order. Rows are taken until a row budget is full or the cumulative tokens reach a
token budget, the crossing row included; so a smaller budget always gives a subset of a larger one.
"""

import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError, suggest
from tutelage.core.records import Budget
from tutelage.core.text.hashing import hash64_many
from tutelage.core.text.rows import text_array
from tutelage.core.text.words import text_bytes

Direction = Literal["higher", "lower"]
# (stock of every group, what is to be shared out) -> whole numbers that sum to it.
Quotas = Callable[[np.ndarray, int], np.ndarray]
TOKENS = "n_tokens"
BYTES_PER_TOKEN = 4
# Columns by which a selection is broken down in its report, where they exist.
BREAKDOWN = ("source", "kind")
# A column with one value per row would drown the report.
LISTED = 100
_LOSS_LIKE = re.compile(r"(.*_)?(nll|ppl|perplexity|bpb|bpc|loss)(_.*)?")


@dataclass(frozen=True)
class Sizes:
    """Tokens per row [n] and where the numbers come from."""

    tokens: np.ndarray
    origin: str


@dataclass
class Selection:
    """Which rows are taken, in order of preference, and what the report says about it."""

    rows: np.ndarray
    facts: dict[str, Any] = field(default_factory=dict)


def row_sizes(dataset: Dataset) -> Sizes:
    """Tokens of every row: column `n_tokens`, or one per four bytes of text where there is none."""
    if TOKENS in dataset.column_names:
        tokens = dataset.numpy(TOKENS)
        if np.isnan(tokens.astype(np.float64)).any() or (tokens < 0).any():
            bad = int(np.flatnonzero(np.isnan(tokens.astype(np.float64)) | (tokens < 0))[0])
            raise InputError(
                f"column {TOKENS!r} holds a value that is no count",
                where=f"row {dataset.take([bad]).column('id')[0].as_py()}",
                found=tokens[bad],
                remedy="run signals.length again",
            )
        estimated = "n_tokens_estimated" in dataset.column_names and bool(
            dataset.numpy("n_tokens_estimated").any()
        )
        return Sizes(tokens.astype(np.int64), "estimated: bytes / 4" if estimated else "column n_tokens")
    columns = [n for n in dataset.column_names if n != "id"]
    counts = [np.diff(text_bytes(text_array(shard))[1]) for shard in dataset.shards(columns)]
    joined = np.concatenate(counts) if counts else np.zeros(0, np.int64)
    return Sizes(-(-joined // BYTES_PER_TOKEN), "estimated: bytes / 4")


def scores(dataset: Dataset, column: str | None, who: str) -> np.ndarray:
    """The column to select by, float64 [n]; NaN where a row has no score. All NaN is an error."""
    numeric = [f.name for f in dataset.schema if str(f.type) in ("double", "float", "int64", "int32", "bool")]
    if column is None:
        raise ConfigError(
            f"{who} needs the column to select by",
            where="column",
            expected=", ".join(numeric) or "a numeric column",
        )
    if column not in dataset.column_names:
        raise InputError(
            f"there is no column {column!r} to select by",
            where="column",
            expected=column,
            found=", ".join(dataset.column_names),
            remedy=suggest(column, numeric) if numeric else "add it with a scorer (`signals.*`) first",
        )
    values = dataset.numpy(column).astype(np.float64)
    values[np.isinf(values)] = np.nan
    if len(values) and np.isnan(values).all():
        raise InputError(
            f"column {column!r} holds no number at all",
            where=column,
            expected="at least one score that is not NaN",
            found=f"{len(values)} times NaN",
            remedy="look at how the scorer ran; empty texts have no score",
        )
    return values


def signed(values: np.ndarray, direction: Direction | None, column: str) -> np.ndarray:
    """Scores with larger = better. A loss-like column needs its direction said."""
    if direction is None and _LOSS_LIKE.fullmatch(column):
        raise ConfigError(
            f"column {column!r} is a loss: say whether high or low is wanted",
            where="direction",
            expected="lower (what the model finds likely) or higher (what it finds hard)",
            found="nothing",
            remedy="set direction: lower or direction: higher",
        )
    return -values if direction == "lower" else values


def preference_order(keys: np.ndarray, ids: list[str], seed: int) -> np.ndarray:
    """Row indices, best key first, ties by hash(seed, id); rows whose key is NaN are left out."""
    order = np.lexsort((hash64_many(seed, ids), -keys))
    return order[~np.isnan(keys[order])]


def take(
    dataset: Dataset,
    order: np.ndarray,
    budget: Budget | None,
    who: str,
    allow_short: bool = False,
    group_column: str | None = None,
    *,
    quotas: Quotas | None = None,
) -> Selection:
    """The prefix of `order` that the budget pays for; with `group_column` one prefix per group, the budget shared
    out by `quotas` (default: in proportion to size)."""
    if dataset.num_rows == 0:
        raise InputError(f"{who}: there are no rows to select from", remedy="look at the steps before this one")
    if budget is None:
        raise ConfigError(f"{who} needs a budget", where="budget", expected="budget: {rows: N} or {tokens: N}")
    if budget.flops is not None or budget.seconds is not None:
        raise ConfigError(
            f"{who}: a selection is paid in rows or tokens",
            where="budget",
            expected="rows or tokens",
            found=budget.model_dump(exclude_none=True),
        )
    sizes = row_sizes(dataset)
    if not allow_short:
        _refuse_short(order, sizes.tokens, budget, who)
    if group_column is None:
        rows = _prefix(order, sizes.tokens, budget.rows, budget.tokens)
    else:
        rows = _per_group(dataset, order, sizes.tokens, budget, group_column, quotas or in_proportion)
    taken = int(sizes.tokens[rows].sum())
    facts: dict[str, Any] = {
        "budget": budget.model_dump(exclude_none=True),
        "rows_without_score": dataset.num_rows - len(order),
        "token_counts": sizes.origin,
    }
    if budget.tokens is not None:
        facts["overshoot_tokens"] = max(0, taken - budget.tokens)
    return Selection(rows, facts)


def finish(
    dataset: Dataset,
    selection: Selection,
    facts: Mapping[str, Any],
    values: np.ndarray | None = None,
    column: str = "",
) -> Dataset:
    """The taken rows in their old order; the others dropped with their score as the reason."""
    mask = np.zeros(dataset.num_rows, dtype=bool)
    mask[selection.rows] = True
    sizes = row_sizes(dataset)
    report = {
        **facts,
        **selection.facts,
        "rows_in": dataset.num_rows,
        "rows_taken": int(mask.sum()),
        "tokens_in": int(sizes.tokens.sum()),
        "tokens_taken": int(sizes.tokens[mask].sum()),
        **breakdown(dataset, mask, sizes.tokens),
    }
    if values is None:
        return dataset.keep(mask, "not selected: not drawn", report)
    reasons = {}
    for row in np.flatnonzero(~mask).tolist():
        score = values[row]
        reasons[row] = f"not selected: no {column}" if score != score else f"not selected: {column} {score:.6g}"
    return dataset.keep(mask, reasons, report)


def warn_share(kept: int, total: int, who: str) -> None:
    """A threshold that keeps nearly nothing or nearly everything is probably a mistake."""
    if total and not 0.01 <= kept / total <= 0.99:
        warnings.warn(f"{who} keeps {kept} of {total} rows ({kept / total:.1%})", stacklevel=3)


def _prefix(order: np.ndarray, tokens: np.ndarray, rows: float | None, budget: float | None) -> np.ndarray:
    count = len(order) if rows is None else min(len(order), int(rows))
    if budget is not None:
        # The first place where the sum reaches the budget: that row still belongs to the selection.
        count = min(count, int(np.searchsorted(np.cumsum(tokens[order]), budget, side="left")) + 1)
    return order[:count]


def _per_group(
    dataset: Dataset, order: np.ndarray, tokens: np.ndarray, budget: Budget, column: str, quotas: Quotas
) -> np.ndarray:
    names, groups = _groups(dataset, column)
    usable = groups[order]
    rows = [order[usable == g] for g in range(len(names))]
    by_rows = by_tokens = None
    if budget.rows is not None:
        by_rows = quotas(np.array([len(r) for r in rows]), budget.rows)
    if budget.tokens is not None:
        by_tokens = quotas(np.array([tokens[r].sum() for r in rows]), budget.tokens)
    parts = [
        _prefix(r, tokens, None if by_rows is None else by_rows[g], None if by_tokens is None else by_tokens[g])
        for g, r in enumerate(rows)
        if len(r) and (by_tokens is None or by_tokens[g] > 0)
    ]
    return np.concatenate(parts)


def _groups(dataset: Dataset, column: str) -> tuple[list[str], np.ndarray]:
    """The values of a column as strings, in order, and the index of each row's value [n]."""
    coded = dataset.column(column).combine_chunks().dictionary_encode(null_encoding="encode")
    names = [str(value) for value in coded.dictionary.to_pylist()]
    order = np.argsort(np.array(names, dtype=object), kind="stable")
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    return [names[i] for i in order], place[coded.indices.to_numpy()]


def in_proportion(stock: np.ndarray, total: int) -> np.ndarray:
    """Each group's share of `total` by its stock."""
    return largest_remainder(stock / max(1, stock.sum()), total)


def largest_remainder(shares: np.ndarray, total: int) -> np.ndarray:
    """Whole numbers in proportion to `shares` that sum to `total`."""
    exact = shares * total
    whole = np.floor(exact).astype(np.int64)
    missing = total - int(whole.sum())
    whole[np.argsort(whole - exact, kind="stable")[:missing]] += 1
    return whole


def _refuse_short(order: np.ndarray, tokens: np.ndarray, budget: Budget, who: str) -> None:
    stock = {"rows": len(order), "tokens": int(tokens[order].sum())}
    for unit, have in stock.items():
        wanted = getattr(budget, unit)
        if wanted is not None and wanted > have:
            raise ConfigError(
                f"{who}: the budget is larger than what there is",
                where=f"budget.{unit}",
                expected=f"at most {have:,} {unit}",
                found=f"{wanted:,} {unit}",
                remedy="lower the budget, or set allow_short: true to take everything",
            )


def breakdown(dataset: Dataset, mask: np.ndarray, tokens: np.ndarray) -> dict[str, dict[str, Any]]:
    """Per column: the values that contributed, most tokens first, and how many others there are."""
    tables: dict[str, dict[str, dict[str, int]]] = {}
    others: dict[str, dict[str, int]] = {}
    for column in BREAKDOWN:
        if column not in dataset.column_names:
            continue
        names, groups = _groups(dataset, column)
        counts = {
            "rows_in": np.bincount(groups, minlength=len(names)),
            "rows_taken": np.bincount(groups[mask], minlength=len(names)),
            "tokens_in": np.bincount(groups, tokens, len(names)),
            "tokens_taken": np.bincount(groups[mask], tokens[mask], len(names)),
        }
        order = np.argsort(-counts["tokens_taken"], kind="stable")
        gave = order[counts["rows_taken"][order] > 0]
        tables[column] = {
            names[g]: {name: int(values[g]) for name, values in counts.items()} for g in gave[:LISTED]
        }
        others[column] = {"nothing_taken": len(names) - len(gave), "not_listed": max(0, len(gave) - LISTED)}
    return {"taken_from": tables, "others": others}
