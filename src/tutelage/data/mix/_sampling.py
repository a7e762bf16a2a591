"""Shares of sources under a budget: quotas, the rows that fill them, weights for sources that are too small."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tutelage.core.errors import ConfigError, InputError, suggest
from tutelage.core.records import Budget

# Sources whose reached shares the report lists.
LISTED = 100


@dataclass(frozen=True)
class Sample:
    """Which rows are taken [n], why others are not, the weight of every row [n], facts for the report."""

    mask: np.ndarray
    reasons: dict[int, str]
    weights: np.ndarray | None
    facts: dict[str, Any]


def quotas(
    stock: np.ndarray, shares: np.ndarray, total: float | None, most: float
) -> tuple[np.ndarray, np.ndarray]:
    """(what each source is to give [k], its weight [k]); `total` None: the largest with which the shares hold."""
    shares = shares / shares.sum()
    used = shares > 0
    if total is None:
        total = float((most * stock[used] / shares[used]).min())
    wanted = shares * total
    weights = np.where(used, np.clip(wanted / np.maximum(stock, 1), 1, most), 0.0)
    return wanted, weights


def sample(
    names: Sequence[str],
    tokens: np.ndarray,
    draws: np.ndarray,
    shares: Mapping[str, float],
    budget: Budget | None,
    max_weight: float,
    *,
    allow_short: bool,
    what: str,
    who: str,
) -> Sample:
    """Rows of each source `names` [n], smallest of `draws` [n] first, until its quota of tokens (or rows) is met,
    the crossing row included. Without shares all rows are one source."""
    sizes, unit, total = _measure(tokens, budget, who)
    kinds, owner = np.unique(np.array(names, dtype=object), return_inverse=True)
    plain = shares or dict.fromkeys(kinds.tolist(), 1.0)
    unknown = [name for name in plain if name not in kinds and plain[name] > 0]
    if unknown and not allow_short:
        raise InputError(
            f"{who}: no row is left of a source that has a share",
            where=f"shares.{unknown[0]}",
            expected=f"rows whose {what} is {unknown[0]!r}",
            found=", ".join(map(str, kinds[:20])) or "no rows",
            remedy=suggest(unknown[0], kinds.tolist()) if len(kinds) else "look at the conditions before",
        )
    share = np.array([plain.get(name, 0.0) for name in kinds])
    stock = np.bincount(owner, sizes, len(kinds))
    mask, weights = np.zeros(len(names), dtype=bool), np.zeros(len(names))
    if share.sum():
        wanted, weight = quotas(stock, share, total, max_weight)
        short = np.flatnonzero(wanted > stock * weight * (1 + 1e-9))
        if len(short) and not allow_short:
            worst = short[np.argmax(wanted[short] - stock[short] * weight[short])]
            raise ConfigError(
                f"{who}: the budget is larger than what there is",
                where=f"source {kinds[worst]!r}" if shares else "budget",
                expected=f"at most {int(stock[worst] * max_weight):,} {unit}",
                found=f"{int(wanted[worst]):,} {unit}",
                remedy="lower the budget or the share, raise max_weight, or set allow_short: true",
            )
        for kind in np.flatnonzero(share > 0).tolist():
            rows = np.flatnonzero(owner == kind)
            rows = rows[np.argsort(draws[rows], kind="stable")]
            if wanted[kind] < stock[kind]:
                rows = rows[: int(np.searchsorted(np.cumsum(sizes[rows]), wanted[kind] - 1e-6, side="left")) + 1]
            mask[rows], weights[rows] = True, weight[kind]
    reasons = {}
    for row in np.flatnonzero(~mask).tolist():
        named = f"{what} {names[row]!r}"
        if not shares:
            reasons[row] = "not sampled: the budget is full"
        elif share[owner[row]] > 0:
            reasons[row] = f"not sampled: {named} has filled its share"
        else:
            reasons[row] = f"not sampled: {named} has no share"
    facts = {"budget": None if budget is None else budget.model_dump(exclude_none=True), "counted_in": unit}
    facts |= {"sources": _table(kinds, owner, sizes, mask, weights, share) if shares else {}}
    return Sample(mask, reasons, weights if shares else None, facts)


def _measure(tokens: np.ndarray, budget: Budget | None, who: str) -> tuple[np.ndarray, str, float | None]:
    if budget is None:
        return tokens.astype(np.float64), "tokens", None
    if budget.flops is not None or budget.seconds is not None or (budget.rows and budget.tokens):
        raise ConfigError(
            f"{who}: a mixture is paid in rows or tokens",
            where="budget",
            expected="rows or tokens",
            found=budget.model_dump(exclude_none=True),
        )
    if budget.rows is not None:
        return np.ones(len(tokens)), "rows", float(budget.rows)
    assert budget.tokens is not None
    return tokens.astype(np.float64), "tokens", float(budget.tokens)


def _table(
    kinds: np.ndarray,
    owner: np.ndarray,
    sizes: np.ndarray,
    mask: np.ndarray,
    weights: np.ndarray,
    share: np.ndarray,
) -> dict[str, dict[str, float]]:
    """Per source: rows and amount in and taken, its weight, the share wanted and the share reached."""
    count = len(kinds)
    given = np.bincount(owner[mask], sizes[mask] * weights[mask], count)
    columns = {
        "rows_in": np.bincount(owner, minlength=count),
        "rows_taken": np.bincount(owner[mask], minlength=count),
        "amount_in": np.bincount(owner, sizes, count),
        "amount_taken": np.bincount(owner[mask], sizes[mask], count),
        "weight": np.array([weights[owner == k].max(initial=0.0) for k in range(count)]),
        "share_wanted": share / max(share.sum(), 1e-300),
        "share_reached": given / max(given.sum(), 1e-300),
    }
    order = np.argsort(-given, kind="stable")[:LISTED]
    return {str(kinds[k]): {name: values[k].item() for name, values in columns.items()} for k in order}
