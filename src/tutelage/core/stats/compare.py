"""`compare(log_a, log_b)`: the one front door to a paired comparison, and the `Comparison` it returns.

The estimate is direction * (A - B): positive means that A is better. The method follows from the logs:

- three or more training seeds on either side: the two-way t over seeds and clusters of items (`twoway`); a system
  without training randomness (the untouched base) is one run repeated beside each seed of the other;
- fewer: the claim is about these runs only. Binary scores without clusters: mid-p McNemar and Bonett-Price.
  Other scores (and the mean over two seeds): sign-flip test on cluster sums, cluster t interval;
- ratios of sums (bits per byte): the same on linearised items, so that the estimate is the difference of the two
  corpus values and never the mean of per-item ratios; one run: cluster t for p too;
- corpus metrics: clusters are resampled once and both systems recomputed on the same resample.
"""

from dataclasses import replace
from typing import Any, Literal

import numpy as np

from tutelage.core.errors import ComparisonError
from tutelage.core.items import ItemLog, ItemMatrix
from tutelage.core.records import Interval, Record
from tutelage.core.stats import paired, twoway
from tutelage.core.stats.clusters import ClusterDesign, cluster_design
from tutelage.core.stats.intervals import (
    MIN_SEEDS,
    MetricKind,
    Statistic,
    bootstrap_interval,
    cluster_warnings,
    components,
    corpus_columns,
    covers_of,
    kind_of,
    pseudo_values,
    resamples,
    seed_components,
)
from tutelage.core.stats.pairing import paired_items, seed_notes
from tutelage.core.stats.pooled import SeedPrior
from tutelage.core.stats.twoway import Components

MCNEMAR = "mid-p McNemar, Bonett-Price interval"
SIGN_FLIP = "sign-flip test, t interval"
ONE_RUN_T = "paired t"
TWO_WAY = "two-way t over seeds and items"
BOOTSTRAP = "paired bootstrap"


class Comparison(Record):
    """A against B on the same items; `estimate` > 0 means that A is better, in the metric's unit.

    `mde` is the smallest difference that this comparison finds with probability .80 at the 5 % level. `scope`
    says whether the claim is about the method (three or more training seeds) or these runs only. `exact_p` stands
    beside the mid-p of binary scores. `components` holds what intervals at other levels and the planning need.
    """

    estimate: float
    estimate_a: float
    estimate_b: float
    direction: Literal[1, -1]
    interval: Interval | None
    no_interval: str | None = None
    p: float | None
    exact_p: float | None = None
    df: float | None
    mde: float | None
    method: str
    metric_kind: str
    covers: str
    scope: Literal["method", "these runs"]
    n_items: int
    n_clusters: int
    n_seeds: int
    unpaired_p: float | None
    cost_ratio: float | None = None
    intersected: bool = False
    only_in_a: int = 0
    only_in_b: int = 0
    notes: tuple[str, ...] = ()
    components: dict[str, float]

    def at_level(self, level: float) -> Interval | None:
        """The interval at another confidence level (a bootstrap interval is stretched by normal quantiles)."""
        if self.interval is None or level == self.interval.level:
            return self.interval
        if self.method == MCNEMAR:
            counts = (int(self.components["better"]), int(self.components["worse"]))
            low, high = (float(end) for end in paired.bonett_price(*counts, self.n_items, level))
        elif self.method == BOOTSTRAP:
            stretch = twoway.normal_quantile(level) / twoway.normal_quantile(self.interval.level)
            low = self.estimate + (self.interval.lo - self.estimate) * stretch
            high = self.estimate + (self.interval.hi - self.estimate) * stretch
        else:
            half = twoway.half_width(self._parts(), level)
            low, high = self.estimate - half, self.estimate + half
        return self.interval.model_copy(update={"lo": low, "hi": high, "level": level})

    def not_worse_by(self, margin: float) -> bool:
        """No harm: the lower end of the two-sided 90 % interval is above -margin."""
        interval = self.at_level(0.90)
        return interval is not None and interval.lo > -_positive(margin)

    def equivalent_within(self, margin: float) -> bool:
        """The two-sided 90 % interval lies within (-margin, margin): two one-sided tests at 5 %."""
        interval = self.at_level(0.90)
        return interval is not None and -_positive(margin) < interval.lo and interval.hi < margin

    def power_at(self, effect: float) -> float | None:
        """Probability that a true difference of this size would have been found at the 5 % level."""
        return None if self.mde is None else twoway.power_at(effect, self._parts())

    def items_needed(self, effect: float) -> int | None:
        """Items in all that would find `effect` with probability .80, seeds as they are; None: no number would."""
        return self._needed(effect, self.n_items, "items", 1000.0)

    def seeds_needed(self, effect: float) -> int | None:
        """Seeds in all that would find `effect` with probability .80, items as they are; None: not up to 100."""
        if self.scope != "method":
            return None
        return self._needed(effect, self.n_seeds, "seeds", 100 / self.n_seeds)

    def _needed(self, effect: float, now: int, axis: str, most: float) -> int | None:
        if self.mde is None or effect == 0:
            return None

        def enough(total: int) -> bool:
            factor = total / now
            larger = twoway.rescaled(
                self._parts(), items=factor if axis == "items" else 1.0, seeds=factor if axis == "seeds" else 1.0
            )
            return twoway.detectable_effect(larger) <= abs(effect)

        low, high = now - 1, now
        while not enough(high):
            if high >= now * most:
                return None
            low, high = high, min(high * 2, int(now * most))
        while high - low > max(1, high // 100):
            middle = (low + high) // 2
            low, high = (low, middle) if enough(middle) else (middle, high)
        return high

    def _parts(self) -> Components:
        c = self.components
        return Components(c["v_seeds"], c["v_items"], c["v_rest"], c["df_seeds"], c["df_items"])


def compare(
    log_a: ItemLog,
    log_b: ItemLog,
    *,
    direction: Literal[1, -1] = 1,
    metric_kind: MetricKind = "auto",
    statistic: Statistic | None = None,
    cluster: str = "cluster",
    intersect: bool = False,
    level: float = 0.95,
    cost_ratio: float | None = None,
    n_resamples: int = 5000,
    seed: int = 0,
    prior: SeedPrior | None = None,
) -> Comparison:
    """Compare two systems item by item.

    `direction` is +1 when larger scores are better. `metric_kind` "auto" takes `ratio` when the logs have
    weights, `binary` for single runs of 0/1 scores, else `mean`; "corpus" needs `statistic` (columns -> number).
    `cluster` names the column that groups items which share a source. `cost_ratio` (A / B) is only carried along.
    `prior`, from reruns of the baseline, moderates the variance between three or more runs (no corpus metric).

    Raises ComparisonError for unpaired items (unless `intersect`), different numbers of seeds, different clusters.
    """
    a, b = log_a.matrix(cluster), log_b.matrix(cluster)
    only_a, only_b = len(set(a.keys) - set(b.keys)), len(set(b.keys) - set(a.keys))
    a, b = paired_items(a, b, intersect)
    notes = seed_notes(a, b)
    kind = metric_kind
    if kind == "auto":
        kinds = {kind_of(log_a, a), kind_of(log_b, b)}
        if "ratio" in kinds and len(kinds) > 1:
            raise ComparisonError(
                "one item log has weights and the other has none", remedy="score both the same way"
            )
        kind = kinds.pop() if len(kinds) == 1 else "mean"
    weights = None
    if kind == "ratio" and a.weights is not None and b.weights is not None:
        weights = (a.weights + b.weights).mean(axis=0)
    design = cluster_design(a.clusters, len(a.keys), weights)
    runs = max(len(a.scores), len(b.scores))
    facts: dict[str, Any] = {
        "direction": direction,
        "metric_kind": kind,
        "covers": covers_of(design, runs),
        "scope": "method" if runs >= MIN_SEEDS else "these runs",
        "n_items": len(a.keys),
        "n_clusters": design.n_clusters,
        "n_seeds": runs if a.seeds or b.seeds else 0,
        "cost_ratio": cost_ratio,
        "intersected": intersect and only_a + only_b > 0,
        "only_in_a": only_a,
        "only_in_b": only_b,
        "notes": (*notes, *cluster_warnings(design)),
    }
    if kind == "corpus":
        if statistic is None:
            raise ComparisonError("a corpus metric needs its statistic", expected="a function of columns")
        columns = (corpus_columns(log_a, a.keys), corpus_columns(log_b, a.keys))
        found = _corpus(columns, design, statistic, direction, level, n_resamples, seed)
    else:
        found = _means(a, b, kind, design, direction, level, seed, prior)
        if prior is not None and runs >= MIN_SEEDS:
            facts["notes"] += (f"variance between runs pooled with {prior.runs} reruns of the baseline",)
    return Comparison(**{**facts, **found})


def _means(
    a: ItemMatrix,
    b: ItemMatrix,
    kind: MetricKind,
    design: ClusterDesign,
    direction: int,
    level: float,
    seed: int,
    prior: SeedPrior | None,
) -> dict[str, Any]:
    (runs_a, values_a), (runs_b, values_b) = pseudo_values(a, kind), pseudo_values(b, kind)
    differences = direction * (values_a - values_b)
    estimate = float(direction * (runs_a - runs_b).mean())
    found: dict[str, Any] = {
        "estimate": estimate,
        "estimate_a": float(runs_a.mean()),
        "estimate_b": float(runs_b.mean()),
        "unpaired_p": paired.unpaired_p(values_a.mean(axis=0), values_b.mean(axis=0)),
    }
    if design.n_clusters < 2:
        reason = f"{design.n_clusters} cluster of items; an interval needs at least two"
        return {**found, **_without_interval(reason), "method": "none", "components": {}}
    parts = components(differences, design, prior)
    counts: dict[str, float] = {}
    low_high: tuple[float, float] | None = None
    p: float | None
    if kind == "binary" and not design.clustered and len(differences) == 1:
        method = MCNEMAR
        better, worse = int((differences > 0).sum()), int((differences < 0).sum())
        counts = {"better": float(better), "worse": float(worse)}
        p = float(paired.mcnemar_mid_p(better, worse))
        low, high = paired.bonett_price(better, worse, design.n_items, level)
        low_high = (float(low), float(high))
        # Both refer to the normal distribution, so the smallest detectable effect does too.
        parts = replace(parts, df_items=twoway.NORMAL_DF)
    elif parts.df_seeds:
        method = TWO_WAY
        p = twoway.p_value(estimate, parts) if parts.variance > 0 else None
    elif kind == "ratio":
        method = ONE_RUN_T
        p = twoway.p_value(estimate, parts) if parts.variance > 0 else None
    else:
        method = SIGN_FLIP
        p = float(paired.sign_flip_p(design.sums(differences.mean(axis=0)), seed))
    identical = not differences.any()
    if identical and kind == "binary":
        # No item differs: Bonett-Price of no discordant pair, of clusters; a variance of 0 would be no certainty.
        parts = replace(parts, items=2 / (design.n_clusters + 2) ** 2, df_items=twoway.NORMAL_DF)
    if low_high is None and (parts.variance > 0 or identical):
        half = twoway.half_width(parts, level)
        low_high = (estimate - half, estimate + half)
    stored = {"method": method, "components": {**_stored(parts), **counts}}
    if counts:
        found["exact_p"] = paired.mcnemar_exact(int(counts["better"]), int(counts["worse"]))
    if low_high is None:
        reason = "every seed and item shows the same difference, so its uncertainty cannot be estimated"
        return {**found, **_without_interval(reason), **stored, "p": p}
    interval = Interval(
        lo=low_high[0], hi=low_high[1], level=level, method=method, covers=covers_of(design, len(differences))
    )
    return {
        **found,
        **stored,
        "interval": interval,
        "p": 1.0 if identical else p,
        "df": None if method == MCNEMAR else parts.df,
        "mde": twoway.detectable_effect(parts) if parts.variance > 0 else None,
    }


def _corpus(
    columns: tuple[list[dict[str, np.ndarray]], list[dict[str, np.ndarray]]],
    design: ClusterDesign,
    statistic: Statistic,
    direction: int,
    level: float,
    n_resamples: int,
    seed: int,
) -> dict[str, Any]:
    def measured(rows: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        sides = [
            np.array([statistic(c if rows is None else {n: v[rows] for n, v in c.items()}) for c in side])
            for side in columns
        ]
        return sides[0], sides[1]

    side_a, side_b = measured(None)
    runs = direction * (side_a - side_b)
    estimate = float(runs.mean())
    found: dict[str, Any] = {
        "estimate": estimate,
        "estimate_a": float(side_a.mean()),
        "estimate_b": float(side_b.mean()),
        "unpaired_p": None,
        "method": BOOTSTRAP,
    }
    if design.n_clusters < 2:
        return {**found, **_without_interval("one cluster of items; nothing to resample"), "components": {}}
    drawn = [measured(rows) for rows in resamples(design, n_resamples, seed)]
    replicates = np.array([direction * (x - y) for x, y in drawn])
    mean_over_runs = replicates.mean(axis=1)
    interval = bootstrap_interval(mean_over_runs, level, design.clustered, design.df)
    seeds = len(runs)
    if seeds < MIN_SEEDS:
        usable = mean_over_runs[np.isfinite(mean_over_runs)]
        wider = (design.df + 1) / design.df
        parts = Components(0.0, float(usable.var(ddof=1)) * wider, 0.0, 0.0, design.df)
        p: float | None = paired.bootstrap_p(usable, design.df)
    else:
        # The bootstrap stands in for the cluster sums of the two-way components.
        usable = replicates[np.isfinite(replicates).all(axis=1)]
        rest = usable - usable.mean(axis=1, keepdims=True)
        v_i = usable.mean(axis=1).var(ddof=1)
        v_e = rest.var(axis=0, ddof=1).sum() / (seeds * (seeds - 1))
        parts = seed_components(runs.var(ddof=1) / seeds, v_i, v_e, seeds, design)
        found["method"] = TWO_WAY
        if parts.variance > 0:
            half = twoway.half_width(parts, level)
            interval = Interval(
                lo=estimate - half,
                hi=estimate + half,
                level=level,
                method=TWO_WAY,
                covers=covers_of(design, seeds),
            )
        p = twoway.p_value(estimate, parts) if parts.variance > 0 else 1.0
    mde = twoway.detectable_effect(parts) if parts.variance > 0 else None
    return {**found, "interval": interval, "p": p, "df": parts.df, "mde": mde, "components": _stored(parts)}


def _stored(parts: Components) -> dict[str, float]:
    return {
        "v_seeds": parts.seeds,
        "v_items": parts.items,
        "v_rest": parts.rest,
        "df_seeds": parts.df_seeds,
        "df_items": parts.df_items,
    }


def _without_interval(reason: str) -> dict[str, Any]:
    return {"interval": None, "no_interval": reason, "p": None, "df": None, "mde": None}


def _positive(margin: float) -> float:
    if not margin > 0:
        raise ComparisonError("a margin must be positive", expected="> 0, in the metric's unit", found=margin)
    return margin
