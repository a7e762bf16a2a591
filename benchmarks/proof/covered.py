"""Simulated intervals of one system: how often each covers the true value, 10,000 draws of every design."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from scipy import special, stats

from benchmarks.proof.draws import DRAWS
from benchmarks.proof.simulated import CHUNK, design_of, f1_of, weights_of
from tutelage.core.stats import twoway
from tutelage.core.stats.clusters import cluster_design, variance_of_mean
from tutelage.core.stats.confusion import lower_bound
from tutelage.core.stats.intervals import bootstrap_interval, mean_of_tasks, wilson


def rows() -> Iterator[dict[str, Any]]:
    yield from wilson_rows()
    yield from mean_rows()
    yield from seeded_rows()
    yield from bootstrap_rows()
    yield group_row()


def wilson_rows() -> Iterator[dict[str, Any]]:
    """Exact coverage, no draws: the sum of the binomial probabilities whose interval holds p. The true share is
    itself drawn (uniform within 5 points), since at one exact p the coverage of any interval jumps."""
    for n in (30, 100, 220, 1000):
        ends = np.array([(i.lo, i.hi) for i in (wilson(k, n) for k in range(n + 1))])
        bounds = np.array([lower_bound(k, n) for k in range(n + 1)])
        for centre in (0.5, 0.8, 0.95):
            grid = np.linspace(centre - 0.05, min(centre + 0.05, 0.999), 201)[:, None]
            mass = stats.binom.pmf(np.arange(n + 1), n, grid)
            inside = (ends[:, 0] <= grid) & (grid <= ends[:, 1])
            base = {"seeds": 1, "items": f"{n} items", "share": centre}
            yield {"test": "Wilson", **base, "coverage": float((mass * inside).sum(axis=1).mean())}
            one_sided = float((mass * (bounds <= grid)).sum(axis=1).mean())
            yield {"test": "Clopper-Pearson lower bound, one-sided", **base, "coverage_at_least": one_sided}


def covered(mean: np.ndarray, variance: np.ndarray, df: float, truth: float) -> float:
    critical = float(twoway.critical_value(np.zeros(1), 0.0, df)[0])
    return float((np.abs(mean - truth) <= critical * np.sqrt(variance)).mean())


def mean_rows() -> Iterator[dict[str, Any]]:
    """Means: normal and skewed scores, clusters; and a ratio of sums."""
    sampled: dict[str, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]] = {
        "normal": lambda rng, shape: rng.standard_normal(shape),
        "skewed (exponential)": lambda rng, shape: rng.exponential(1.0, shape) - 1.0,
    }
    for kind, draw in sampled.items():
        for n in (30, 200, 1000):
            rng = np.random.default_rng([21, n])
            parts = [draw(rng, (CHUNK, n)) for _ in range(DRAWS // CHUNK)]
            mean = np.concatenate([part.mean(axis=1) for part in parts])
            variance = np.concatenate([variance_of_mean(part, cluster_design(None, n)) for part in parts])
            hit = covered(mean, variance, n - 1.0, 0.0)
            yield {
                "test": "t interval of a mean",
                "scores": kind,
                "seeds": 1,
                "items": f"{n} items",
                "coverage": hit,
            }
        for name in ("100 clusters of 4", "84 unequal clusters", "30 clusters of 13", "20 clusters of 10"):
            design, index = design_of(name)
            rng = np.random.default_rng([22, len(index)])
            means, variances = [], []
            for _ in range(DRAWS // CHUNK):
                y = draw(rng, (CHUNK, len(index))) + 0.6 * draw(rng, (CHUNK, design.n_clusters))[:, index]
                means.append(y.mean(axis=1))
                variances.append(variance_of_mean(y, design))
            hit = covered(np.concatenate(means), np.concatenate(variances), design.df, 0.0)
            yield {
                "test": "cluster-robust t of a mean",
                "scores": kind,
                "seeds": 1,
                "items": name,
                "coverage": hit,
            }
    for n in (60, 300):
        rng = np.random.default_rng([23, n])
        hits = []
        for _ in range(DRAWS // CHUNK):
            size = np.exp(rng.normal(6, 0.8, (CHUNK, n)))
            score = 1.0 + 0.1 * rng.gamma(2.0, 0.5, (CHUNK, n))
            for s, y in zip(size, score, strict=True):
                ratio, design = float((s * y).sum() / s.sum()), cluster_design(None, n, s)
                values = ratio + s * (y - ratio) / s.mean()
                half = stats.t.isf(0.025, design.df) * variance_of_mean(values, design) ** 0.5
                hits.append(abs(ratio - 1.1) <= half)
        items = f"{n} documents of log-normal size"
        yield {"test": "ratio of sums", "seeds": 1, "items": items, "coverage": float(np.mean(hits))}


def seeded_rows() -> Iterator[dict[str, Any]]:
    """The two-way interval of one system: runs and items are both new in every draw."""
    for seeds in (3, 5, 10):
        for name in ("400 items", "100 clusters of 4", "30 clusters of 13"):
            design, index = design_of(name)
            for spread in (0.0, 0.2):
                rng = np.random.default_rng([24, seeds, len(index)])
                hits = 0
                for _ in range(DRAWS // CHUNK):
                    y = rng.standard_normal((CHUNK, seeds, len(index))) + spread * rng.standard_normal(
                        (CHUNK, seeds, 1)
                    )
                    y += rng.standard_normal((CHUNK, 1, len(index)))
                    y += (0.5 * rng.standard_normal((CHUNK, 1, design.n_clusters)))[..., index]
                    v_s, v_i = twoway.seed_and_item_parts(*twoway.two_way(y, design))
                    total = v_s + v_i
                    critical = twoway.critical_value(v_s / total, seeds - 1.0, design.df)
                    hits += int((np.abs(y.mean(axis=(1, 2))) <= critical * np.sqrt(total)).sum())
                yield {
                    "test": "two-way interval of one system",
                    "seeds": seeds,
                    "items": name,
                    "spread": spread,
                    "coverage": hits / DRAWS,
                }


def bootstrap_rows() -> Iterator[dict[str, Any]]:
    """Percentile bootstraps over clusters of F1, AUROC and Spearman's correlation."""
    for n, size in ((200, 1), (200, 4), (1000, 1)):
        design = cluster_design(np.repeat(np.arange(n // size), size), n)
        weights = weights_of(design, 1000 if n < 1000 else 500)
        rng = np.random.default_rng([25, n, size])
        truth = f1_truth()
        hits, step = 0, 250
        for _ in range(DRAWS // step):
            gold, called = called_classes(rng, step, n // size, size)
            cells = np.stack([gold & called, ~gold & called, gold & ~called], axis=1).astype(np.float32)
            for values in f1_of(np.moveaxis(cells @ weights.T, 1, -1)):
                found = bootstrap_interval(values, 0.95, design.clustered, design.df)
                hits += int(found.lo <= truth <= found.hi)
        items = f"{n} items" + (f" in {n // size} clusters" if size > 1 else "")
        yield {"test": "F1, percentile bootstrap", "seeds": 1, "items": items, "coverage": hits / DRAWS}
    yield auroc_row()


def called_classes(
    rng: np.random.Generator, draws: int, clusters: int, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """(truth, calls), [draws, clusters * size] of 0/1; items of a cluster are alike in how hard they are."""
    shape = (draws, clusters * size)
    gold = rng.random(shape) < 0.4
    hardness = np.repeat(rng.standard_normal((draws, clusters)), size, axis=1)
    return gold, (rng.random(shape) < special.expit(1.4 + hardness)) == gold


def f1_truth() -> float:
    """F1 of these calls in the limit: right with probability a whatever the class."""
    points, weights = np.polynomial.hermite_e.hermegauss(200)
    a = float(weights @ special.expit(1.4 + points) / weights.sum())
    return 2 * 0.4 * a / (2 * 0.4 * a + 0.6 * (1 - a) + 0.4 * (1 - a))


def auroc_row() -> dict[str, Any]:
    n, shift = 200, 1.0
    weights = weights_of(cluster_design(None, n), 500)
    rng = np.random.default_rng(26)
    truth, hits = float(stats.norm.cdf(shift / 2**0.5)), 0
    for _ in range(DRAWS):
        positive = rng.random(n) < 0.4
        score = rng.standard_normal(n) + shift * positive
        above = (score[positive][:, None] > score[~positive]).astype(np.float32)
        plus, minus = weights[:, positive], weights[:, ~positive]
        values = ((plus @ above) * minus).sum(axis=1) / (plus.sum(axis=1) * minus.sum(axis=1))
        found = bootstrap_interval(values, 0.95, False, n - 1.0)
        hits += int(found.lo <= truth <= found.hi)
    return {"test": "AUROC, percentile bootstrap", "seeds": 1, "items": f"{n} items", "coverage": hits / DRAWS}


def group_row() -> dict[str, Any]:
    """Mean of five tasks of 100 questions."""
    rng, share = np.random.default_rng(27), np.array([0.3, 0.5, 0.6, 0.8, 0.9])
    means = rng.binomial(100, share, (DRAWS, 5)) / 100
    errors = np.sqrt(means * (1 - means) / 99)
    found = [mean_of_tasks(m.tolist(), e.tolist())[1] for m, e in zip(means, errors, strict=True)]
    hit = np.mean([i.lo <= share.mean() <= i.hi for i in found])
    return {"test": "mean of task means", "seeds": 1, "items": "5 tasks of 100 items", "coverage": float(hit)}
