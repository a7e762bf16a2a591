"""Intervals for one system.

- Binary scores, one seed, no clusters: Wilson, (p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n). All
  right or all wrong, with clusters or seeds: Wilson with the clusters as n; a variance of 0 is no certainty.
- Means: t with s/sqrt(n), and with clusters the cluster-robust t of `clusters` (warning below 20 clusters).
- Ratios sum(score*weight)/sum(weight): the same t on the linearised items w_i (y_i - ratio) / wbar.
- Three or more training seeds: the two-way interval of `twoway`, which covers items and seeds.
- Corpus metrics (F1, MCC, AUROC, Spearman, BLEU): percentile bootstrap over clusters, its percentiles moved out
  from level a to Phi(t_{a,df} sqrt((df + 1) / df)): resampling C clusters makes the variance (C - 1) / C times too
  small and reads it as if it were known ("What Teachers Should Know About the Bootstrap", Hesterberg 2015).
  Without that fifty clusters covered 94.0 %.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from scipy import special, stats

from tutelage.core.errors import ComparisonError, InputError
from tutelage.core.items import ItemLog, ItemMatrix
from tutelage.core.records import Interval, Record
from tutelage.core.stats.clusters import ClusterDesign, cluster_design, variance_of_mean
from tutelage.core.stats.pooled import SeedPrior, moderated, seed_prior
from tutelage.core.stats.twoway import NORMAL_DF, Components, half_width, seed_and_item_parts, two_way

MetricKind = Literal["auto", "binary", "mean", "ratio", "corpus"]
Statistic = Callable[[Mapping[str, np.ndarray]], float]
FEW_CLUSTERS = 20
MIN_SEEDS = 3


class Summary(Record):
    """One system's estimate and interval; the fields a `Result` needs from its item log."""

    estimate: float
    interval: Interval | None
    no_interval: str | None = None
    n_items: int
    n_clusters: int
    seeds: tuple[int, ...]
    status_counts: dict[str, int]
    warnings: tuple[str, ...] = ()


def wilson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's interval for a proportion."""
    if not 0 <= successes <= n or n < 1:
        raise InputError("no proportion", expected="0 <= successes <= n, n >= 1", found=f"{successes} of {n}")
    z2 = stats.norm.isf((1 - level) / 2) ** 2
    p = successes / n
    half = (z2 * (p * (1 - p) / n + z2 / (4 * n * n))) ** 0.5
    scale = 1 + z2 / n
    low = 0.0 if successes == 0 else (p + z2 / (2 * n) - half) / scale
    high = 1.0 if successes == n else (p + z2 / (2 * n) + half) / scale
    return Interval(lo=low, hi=high, level=level, method="Wilson", covers="items")


def mean_interval(
    scores: Sequence[float] | np.ndarray, clusters: Sequence[str] | np.ndarray | None = None, level: float = 0.95
) -> Interval:
    """t interval of a mean; with clusters ([n] labels) the cluster-robust t. Needs two clusters."""
    values = np.asarray(scores, dtype=float)
    design = cluster_design(None if clusters is None else np.asarray(clusters), len(values))
    if design.n_clusters < 2:
        raise InputError("no interval", expected="at least two clusters of items", found=design.n_clusters)
    half = half_width(Components(0.0, float(variance_of_mean(values, design)), 0.0, 0.0, design.df), level)
    mean = float(values.mean())
    return _interval(mean, half, level, covers_of(design, 1), "cluster-robust t" if design.clustered else "t")


def bootstrap_interval(replicates: np.ndarray, level: float, clustered: bool, df: float = NORMAL_DF) -> Interval:
    """Percentile interval of bootstrap replicates ([B]); NaN replicates (metric undefined) are left out. `df`, the
    degrees of freedom of the clusters, widens it as the module says."""
    usable = replicates[np.isfinite(replicates)]
    if len(usable) < 0.9 * len(replicates):
        raise ComparisonError(
            "the metric is undefined on too many resamples",
            expected="at least 90 % of them usable",
            found=f"{len(usable)} of {len(replicates)}",
            remedy="use more items, or a metric that exists on every resample",
        )
    outer = float(special.ndtr(special.stdtrit(df, (1 - level) / 2) * ((df + 1) / df) ** 0.5))
    low, high = np.quantile(usable, [outer, 1 - outer])
    covers: Literal["clusters", "items"] = "clusters" if clustered else "items"
    return Interval(lo=low, hi=high, level=level, method=f"percentile bootstrap over {covers}", covers=covers)


def resamples(design: ClusterDesign, count: int, seed: int) -> list[np.ndarray]:
    """Item indices of `count` bootstrap resamples of whole clusters."""
    generator = np.random.default_rng(seed)
    members = design.members()
    return [
        np.concatenate([members[c] for c in generator.integers(0, len(members), len(members))])
        for _ in range(count)
    ]


def corpus_columns(log: ItemLog, keys: Sequence[str]) -> list[dict[str, np.ndarray]]:
    """Per training seed, what a statistic reads (score, prediction, target, p_correct), in the order of `keys`."""
    names = [n for n in ("score", "prediction", "target", "p_correct") if n in log.table.column_names]
    per_seed = []
    for seed in log.seeds or (None,):
        wanted = {
            row["item_key"]: row
            for row in log.table.select(["item_key", "train_seed", "sample_index", *names]).to_pylist()
            if row["train_seed"] == seed
        }
        columns = {}
        for name in names:
            values = [wanted[key][name] for key in keys]
            numeric = name in ("score", "p_correct")
            columns[name] = np.array(values, dtype=float if numeric else object)
        per_seed.append(columns)
    if len(per_seed) * len(keys) != len(log) and len(log.table["sample_index"].unique()) > 1:
        raise ComparisonError("a corpus metric needs one decoding sample per item", found="several sample_index")
    return per_seed


def pseudo_values(matrix: ItemMatrix, kind: MetricKind) -> tuple[np.ndarray, np.ndarray]:
    """([R] estimate per seed, [R, n] values whose row means are these estimates).

    For a mean the values are the scores; for a ratio they are the linearised items
    ratio_r + w_ri (y_ri - ratio_r) / wbar_r.
    """
    if kind != "ratio":
        return matrix.scores.mean(axis=1), matrix.scores
    if matrix.weights is None:
        raise InputError("a ratio metric needs the column `weight` in its item log", expected="each item's bytes")
    total = matrix.weights.sum(axis=1, keepdims=True)
    ratio = (matrix.scores * matrix.weights).sum(axis=1, keepdims=True) / total
    spread = matrix.weights * (matrix.scores - ratio) / (total / matrix.scores.shape[1])
    return ratio[:, 0], ratio + spread


def kind_of(log: ItemLog, matrix: ItemMatrix) -> MetricKind:
    """`ratio` when the log has weights, `binary` for one run of 0/1 scores, else `mean`."""
    if matrix.weights is not None:
        return "ratio"
    binary = len(matrix.scores) == 1 and bool(np.isin(matrix.scores, (0.0, 1.0)).all())
    return "binary" if binary and len(matrix.keys) == len(log) else "mean"


def covers_of(design: ClusterDesign, seeds: int) -> Literal["items", "clusters", "items+seeds", "clusters+seeds"]:
    """What an interval covers."""
    if seeds >= MIN_SEEDS:
        return "clusters+seeds" if design.clustered else "items+seeds"
    return "clusters" if design.clustered else "items"


def summarise(
    log: ItemLog,
    *,
    metric_kind: MetricKind = "auto",
    statistic: Statistic | None = None,
    cluster: str = "cluster",
    level: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Summary:
    """Estimate and interval of one system's log.

    `statistic` (for `metric_kind="corpus"`) maps columns ([n] arrays `prediction`, `target`, `score`,
    `p_correct`) to a number. Fewer than two clusters, or no variance at all, give no interval and say why.
    """
    matrix = log.matrix(cluster)
    kind = kind_of(log, matrix) if metric_kind == "auto" else metric_kind
    weights = matrix.weights.mean(axis=0) if kind == "ratio" and matrix.weights is not None else None
    design = cluster_design(matrix.clusters, len(matrix.keys), weights)
    interval, reason = None, None
    if kind == "corpus":
        if statistic is None:
            raise InputError("a corpus metric needs its statistic", expected="a function of columns")
        per_seed = corpus_columns(log, matrix.keys)
        estimate = float(np.mean([statistic(columns) for columns in per_seed]))
        if design.n_clusters >= 2:
            replicates = [
                np.mean([statistic({name: column[rows] for name, column in c.items()}) for c in per_seed])
                for rows in resamples(design, n_resamples, seed)
            ]
            interval = bootstrap_interval(np.array(replicates), level, design.clustered, design.df)
    else:
        per_run, values = pseudo_values(matrix, kind)
        estimate = float(per_run.mean())
        alike = kind != "ratio" and np.ptp(matrix.scores) == 0 and bool(matrix.scores.flat[0] in (0.0, 1.0))
        if kind == "binary" and not design.clustered:
            interval = wilson(int(matrix.scores.sum()), len(matrix.keys), level)
        elif alike and design.n_clusters >= 2:
            found = wilson(int(matrix.scores.flat[0]) * design.n_clusters, design.n_clusters, level)
            interval = found.model_copy(update={"covers": covers_of(design, len(values))})
        elif design.n_clusters >= 2:
            parts = components(values, design)
            method = "two-way t" if parts.df_seeds else ("cluster-robust t" if design.clustered else "t")
            covers = covers_of(design, len(values))
            interval = _interval(estimate, half_width(parts, level), level, covers, method)
    if interval is None:
        reason = f"{design.n_clusters} cluster of items; an interval needs at least two"
    return Summary(
        estimate=estimate,
        interval=interval,
        no_interval=reason,
        n_items=len(matrix.keys),
        n_clusters=design.n_clusters,
        seeds=matrix.seeds,
        status_counts=log.status_counts,
        warnings=cluster_warnings(design),
    )


def components(values: np.ndarray, design: ClusterDesign, prior: SeedPrior | None = None) -> Components:
    """Variance components of the mean of [R, n] values; fewer than three seeds are averaged per item. `prior`
    moderates the variance between runs (`pooled`)."""
    seeds = len(values)
    if seeds < MIN_SEEDS:
        return Components(0.0, float(variance_of_mean(values.mean(axis=0), design)), 0.0, 0.0, design.df)
    v_s, v_i, v_e = two_way(values, design)
    if prior is None:
        return seed_components(v_s, v_i, v_e, seeds, design)
    v_s, df = moderated(v_s, seeds, prior)
    return replace(seed_components(v_s, v_i, v_e, seeds, design), df_seeds=df)


def prior_of(reruns: ItemLog) -> SeedPrior:
    """What the item log of baseline runs outside a comparison, one per training seed, says of their variance."""
    matrix = reruns.matrix()
    return seed_prior(pseudo_values(matrix, "mean" if matrix.weights is None else "ratio")[0])


def seed_components(
    v_s: np.ndarray, v_i: np.ndarray, v_e: np.ndarray, seeds: int, design: ClusterDesign
) -> Components:
    """Components from the three two-way variances of `seeds` runs."""
    between, items = seed_and_item_parts(v_s, v_i, v_e)
    return Components(float(between), float(items), float(v_e), float(seeds - 1), design.df)


def mean_of_tasks(
    estimates: Sequence[float], errors: Sequence[float], level: float = 0.95
) -> tuple[float, Interval]:
    """Mean of task means with SE = sqrt(sum se_j^2) / J (normal interval)."""
    if not estimates or len(estimates) != len(errors):
        raise InputError("a group needs tasks", expected="one error per estimate", found=f"{len(estimates)} tasks")
    mean = float(np.mean(estimates))
    half = float(stats.norm.isf((1 - level) / 2) * np.sqrt(np.sum(np.square(errors))) / len(errors))
    return mean, _interval(mean, half, level, "items", "normal, mean of tasks")


def cluster_warnings(design: ClusterDesign) -> tuple[str, ...]:
    """A warning when there are so few clusters that the interval leans on the shape of their distribution."""
    if design.clustered and design.n_clusters < FEW_CLUSTERS:
        return (f"only {design.n_clusters} clusters of items: the interval is rough below {FEW_CLUSTERS}",)
    return ()


def _interval(
    estimate: float,
    half: float,
    level: float,
    covers: Literal["items", "clusters", "items+seeds", "clusters+seeds"],
    method: str,
) -> Interval:
    return Interval(lo=estimate - half, hi=estimate + half, level=level, method=method, covers=covers)
