"""Many comparisons, one verdict each.

Primary comparisons, declared before running: Holm, p_(j) = max over k <= j of (m - k + 1) p_(k), intervals at
level 1 - .05/m. Everything else is exploratory: Benjamini-Hochberg, p_(j) = min over k >= j of (m/k) p_(k), read
at q = .10 and said to be exploratory. A verdict needs the adjusted p and the interval to agree. "No significant
difference" is never reported as equality: `equivalent` needs the 90 % interval inside the margin, and an undecided
comparison says what would decide it, and prints "underpowered" when a true difference of the size that matters
would be missed more than one time in five.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from tutelage.core.errors import ComparisonError
from tutelage.core.records import Interval, Record
from tutelage.core.stats.compare import Comparison
from tutelage.core.stats.equal_cost import CostCheck
from tutelage.core.stats.twoway import POWER

ALPHA = 0.05
EXPLORATORY_Q = 0.10

Outcome = Literal[
    "better", "worse", "equivalent", "undecided", "not comparable", "no interval", "this bed cannot tell"
]


class Verdict(Record):
    """What may be said about one comparison.

    `text` is the whole sentence; `interval` is the one the verdict was read from (widened for primary families);
    `family` says which correction `adjusted_p` holds. `planted_power` is the chance that a true difference of the
    margin would have been found; `underpowered` is set when that is below .80.
    """

    outcome: Outcome
    text: str
    adjusted_p: float | None
    family: Literal["single", "primary", "exploratory"] = "single"
    interval: Interval | None = None
    margin: float | None = None
    planted_power: float | None = None
    underpowered: bool = False
    these_runs_only: bool = False
    items_needed: int | None = None
    seeds_needed: int | None = None
    selected_here: bool = False


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm-adjusted p-values, in the order given."""
    p = _checked(p_values)
    order = np.argsort(p, kind="stable")
    factors = len(p) - np.arange(len(p))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * p[order]), 1.0)
    return adjusted


def benjamini_hochberg(p_values: Sequence[float]) -> np.ndarray:
    """Benjamini-Hochberg-adjusted p-values, in the order given."""
    p = _checked(p_values)
    order = np.argsort(p, kind="stable")
    scaled = p[order] * len(p) / np.arange(1, len(p) + 1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return adjusted


def judge(
    comparison: Comparison,
    *,
    margin: float | None = None,
    adjusted_p: float | None = None,
    level: float = 1 - ALPHA,
    alpha: float = ALPHA,
    family: Literal["single", "primary", "exploratory"] = "single",
    cost: CostCheck | None = None,
    bed: Comparison | None = None,
    selected_here: bool = False,
) -> Verdict:
    """The verdict on A against B.

    `margin` is the size of difference that matters (in the metric's unit). `bed` is the comparison of the bed's
    oracle with its placebo or random arm: where that is not `better`, nothing is concluded. `selected_here` marks
    a system chosen as the best on these very items: it gets no verdict until measured on others.
    """
    p = comparison.p if adjusted_p is None else adjusted_p
    interval = comparison.at_level(level)
    fields: dict[str, object] = {
        "adjusted_p": p,
        "family": family,
        "interval": interval,
        "margin": margin,
        "these_runs_only": comparison.scope != "method",
        "selected_here": selected_here,
    }
    if cost is not None and not cost.comparable:
        return _verdict("not comparable", f"not comparable: {cost.reason}", fields)
    if bed is not None and judge(bed).outcome != "better":
        text = "this bed cannot tell: its oracle is not distinguishable from its placebo or random arm"
        return _verdict("this bed cannot tell", text, fields)
    if interval is None or p is None:
        return _verdict("no interval", f"no interval: {comparison.no_interval}", fields)
    if selected_here:
        text = "no verdict: chosen as the best on these items; measure it on held-out ones"
        return _verdict("undecided", text, fields)
    if margin is not None:
        power = comparison.power_at(margin)
        fields |= {"planted_power": power, "underpowered": power is not None and power < POWER}
    if p < alpha and interval.lo > 0:
        return _verdict("better", "better" + _scope(comparison), fields)
    if p < alpha and interval.hi < 0:
        return _verdict("worse", "worse" + _scope(comparison), fields)
    if margin is not None and comparison.equivalent_within(margin):
        return _verdict("equivalent", f"equivalent within {margin:g}" + _scope(comparison), fields)
    effect = abs(comparison.estimate) if margin is None else margin
    items, seeds = comparison.items_needed(effect), comparison.seeds_needed(effect)
    fields |= {"items_needed": items, "seeds_needed": seeds}
    return _verdict("undecided", _undecided(comparison, fields, effect), fields)


def judge_family(
    comparisons: Mapping[str, Comparison],
    *,
    primary: Sequence[str] = (),
    margin: float | None = None,
    costs: Mapping[str, CostCheck] | None = None,
    bed: Comparison | None = None,
) -> dict[str, Verdict]:
    """Verdicts for named comparisons: Holm over `primary` (declared before running), Benjamini-Hochberg over the
    rest. A comparison without a p-value still counts in m, with p = 1."""
    unknown = [name for name in primary if name not in comparisons]
    if unknown:
        raise ComparisonError(
            "a primary comparison was never made", found=unknown[0], expected=", ".join(sorted(comparisons))
        )
    rest = [name for name in comparisons if name not in set(primary)]
    verdicts: dict[str, Verdict] = {}
    for names, kind in ((list(primary), "primary"), (rest, "exploratory")):
        if not names:
            continue
        p_values = [1.0 if (p := comparisons[name].p) is None else p for name in names]
        adjusted = holm(p_values) if kind == "primary" else benjamini_hochberg(p_values)
        for name, p in zip(names, adjusted.tolist(), strict=True):
            verdicts[name] = judge(
                comparisons[name],
                margin=margin,
                adjusted_p=p,
                level=1 - ALPHA / len(names) if kind == "primary" else 1 - ALPHA,
                alpha=ALPHA if kind == "primary" else EXPLORATORY_Q,
                family="primary" if kind == "primary" else "exploratory",
                cost=(costs or {}).get(name),
                bed=bed,
            )
    return {name: verdicts[name] for name in comparisons}


def _undecided(comparison: Comparison, fields: Mapping[str, object], effect: float) -> str:
    items, seeds = fields["items_needed"], fields["seeds_needed"]
    size = f"a difference of {effect:.3g}" if fields["margin"] is not None else "the difference seen here"
    if comparison.mde is None:
        needs = "no item differs"
    elif isinstance(items, int) and items <= comparison.n_items and fields["margin"] is not None:
        # Enough power for the margin and still no verdict: the truth is somewhere between.
        needs = f"{size} would have been found"
    elif (isinstance(items, int) and items <= comparison.n_items) or (
        isinstance(seeds, int) and seeds <= comparison.n_seeds
    ):
        # Enough for a comparison that stands alone; the correction for the others is what it misses.
        needs = f"{size} would be found in a single comparison, not after correction for several"
    else:
        ways = [f"about {items - comparison.n_items} more items"] if isinstance(items, int) else []
        if isinstance(seeds, int):
            ways.append(f"{seeds - comparison.n_seeds} more seeds")
        needs = "needs " + " or ".join(ways) if ways else "no number of items or seeds in reach would decide"
        needs += f" to find {size}"
    underpowered = "; underpowered" if fields.get("underpowered") else ""
    return f"undecided ({needs}{underpowered})" + _scope(comparison)


def _scope(comparison: Comparison) -> str:
    if comparison.scope == "method":
        return ""
    if comparison.n_seeds:
        runs = "run" if comparison.n_seeds == 1 else "runs"
        return f", of these runs only ({comparison.n_seeds} {runs} a side; a claim about the method needs 3 seeds)"
    return ", of these runs only"


def _verdict(outcome: Outcome, text: str, fields: Mapping[str, object]) -> Verdict:
    if fields["family"] == "exploratory":
        text += " (exploratory)"
    return Verdict.model_validate({**fields, "outcome": outcome, "text": text})


def _checked(p_values: Sequence[float]) -> np.ndarray:
    p = np.asarray(p_values, dtype=float)
    if len(p) == 0 or not bool(((p >= 0) & (p <= 1)).all()):
        raise ComparisonError("a family needs p-values", expected="at least one, each in [0, 1]", found=list(p))
    return p
