"""Simulated comparisons of a method with itself: 10,000 draws for every paired test, clusters and seeds too."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy import special

from benchmarks.proof.draws import DRAWS, rates
from tutelage.core.stats import paired, twoway
from tutelage.core.stats.clusters import ClusterDesign, cluster_design, variance_of_mean
from tutelage.core.stats.intervals import bootstrap_interval, resamples

CHUNK = 500
UNEQUAL = np.repeat(np.arange(90), np.random.default_rng(5).integers(1, 9, 90))[:400]
DESIGNS = {
    "400 items": np.arange(400),
    "100 clusters of 4": np.repeat(np.arange(100), 4),
    "84 unequal clusters": UNEQUAL,
    "30 clusters of 13": np.repeat(np.arange(30), 13),
    "20 clusters of 10": np.repeat(np.arange(20), 10),
}
# Standard deviation in logits of a run's ability, and of how differently two methods do on a cluster of items.
SPREADS = ((0.0, 0.0), (0.1, 0.0), (0.2, 0.4))


def design_of(name: str) -> tuple[ClusterDesign, np.ndarray]:
    clusters = DESIGNS[name]
    return cluster_design(clusters, len(clusters)), np.unique(clusters, return_inverse=True)[1]


def right_or_wrong(
    rng: np.random.Generator, seeds: int, index: np.ndarray, spread: float, interaction: float
) -> np.ndarray:
    """Differences [CHUNK, R, n] of 0/1 scores of two systems that are equally good on average over all items."""
    n, c = len(index), int(index.max()) + 1
    difficulty = 0.3 + 1.5 * rng.standard_normal((CHUNK, 1, n), dtype=np.float32)
    sides = []
    for _ in range(2):
        logit = difficulty + rng.normal(0, spread, (CHUNK, seeds, 1)).astype(np.float32)
        per_cluster = interaction * rng.standard_normal((CHUNK, 1, c), dtype=np.float32)
        if c < n:
            per_cluster = per_cluster + 0.3 * rng.standard_normal((CHUNK, seeds, c), dtype=np.float32)
        logit = logit + per_cluster[..., index]
        sides.append(rng.random((CHUNK, seeds, n), dtype=np.float32) < special.expit(logit))
    return sides[0].astype(np.float64) - sides[1]


def losses(
    rng: np.random.Generator, seeds: int, index: np.ndarray, spread: float, interaction: float
) -> np.ndarray:
    """The same for skewed continuous scores, such as losses."""
    n, c = len(index), int(index.max()) + 1
    sides = []
    for _ in range(2):
        noise = rng.gamma(2.0, 0.5, (CHUNK, seeds, n)) + rng.normal(0, spread, (CHUNK, seeds, 1))
        sides.append(noise + (interaction * rng.standard_normal((CHUNK, 1, c)))[..., index])
    return sides[0] - sides[1]


def over_seeds(draw: Any, seeds: int, name: str, spread: float, interaction: float) -> dict[str, Any]:
    """The two-way t over seeds and items."""
    design, index = design_of(name)
    rng = np.random.default_rng([11, seeds, len(index), design.n_clusters])
    columns = []
    for _ in range(DRAWS // CHUNK):
        d = draw(rng, seeds, index, spread, interaction)
        columns.append([d.mean(axis=(1, 2)), *twoway.two_way(d, design)])
    mean, v_s, v_i, v_e = (np.concatenate(column) for column in zip(*columns, strict=True))
    return rates(mean, *twoway.seed_and_item_parts(v_s, v_i, v_e), seeds - 1.0, design.df)


def two_way_rows() -> Iterator[dict[str, Any]]:
    for scores, draw in (("right or wrong", right_or_wrong), ("losses", losses)):
        for seeds in (3, 5, 10):
            for name in ("400 items", "100 clusters of 4", "84 unequal clusters", "30 clusters of 13"):
                for spread, interaction in SPREADS if scores == "right or wrong" else SPREADS[2:3]:
                    yield {
                        "test": "two-way t over seeds and items",
                        "scores": scores,
                        "seeds": seeds,
                        "items": name,
                        "spread": spread,
                        "interaction": interaction,
                        **over_seeds(draw, seeds, name, spread, interaction),
                    }


def one_run_rows() -> Iterator[dict[str, Any]]:
    """One run each, continuous scores: the sign-flip test with its t interval, and ratios of sums."""
    for name in ("400 items", "100 clusters of 4", "84 unequal clusters", "20 clusters of 10", "8 clusters of 10"):
        clusters = DESIGNS.get(name, np.repeat(np.arange(8), 10))
        design, index = cluster_design(clusters, len(clusters)), np.unique(clusters, return_inverse=True)[1]
        rng = np.random.default_rng([12, len(index)])
        means, variances, sums = [], [], []
        for _ in range(DRAWS // CHUNK):
            d = losses(rng, 1, index, 0.0, 0.4 if design.clustered else 0.0)[:, 0]
            means.append(d.mean(axis=1))
            variances.append(variance_of_mean(d, design))
            sums.append(design.sums(d))
        mean, variance = np.concatenate(means), np.concatenate(variances)
        found = rates(mean, np.zeros_like(mean), variance, 0.0, design.df)
        totals = np.concatenate(sums)
        p = np.concatenate([paired.sign_flip_p(part, flips=4000) for part in np.array_split(totals, 10)])
        better, worse = ((p < 0.05) & (mean > 0)).mean(), ((p < 0.05) & (mean < 0)).mean()
        planted = totals + found["effect"] * np.bincount(index)
        q = np.concatenate([paired.sign_flip_p(part, flips=4000) for part in np.array_split(planted, 10)])
        power = ((q < 0.05) & (planted.sum(axis=1) > 0)).mean()
        base = {"seeds": 1, "items": name}
        yield {"test": "t interval and paired t, one run each", **base, **found}
        signs = {"false_better": float(better), "false_worse": float(worse), "power": float(power)}
        yield {"test": "sign-flip test, one run each", **base, **signs}
    for items, clustered in ((300, False), (300, True)):
        yield {
            "test": "ratio of sums (bits per byte), one run each",
            "seeds": 1,
            "items": f"{items} documents of log-normal size" + (" in 60 clusters" if clustered else ""),
            **ratio(items, clustered, 1),
        }
        yield {
            "test": "ratio of sums (bits per byte), two-way t",
            "seeds": 3,
            "items": f"{items} documents of log-normal size" + (" in 60 clusters" if clustered else ""),
            **ratio(items, clustered, 3),
        }


def ratio(items: int, clustered: bool, seeds: int) -> dict[str, Any]:
    rng = np.random.default_rng([13, items, clustered, seeds])
    size = np.exp(rng.normal(6, 0.8, items))
    index = np.repeat(np.arange(60), items // 60) if clustered else np.arange(items)
    design = cluster_design(index, items, size)
    weight = size / size.mean()
    columns = []
    for _ in range(DRAWS // CHUNK):
        d = 0.1 * losses(rng, seeds, index, 0.05 if seeds > 1 else 0.0, 0.4 if clustered else 0.0)
        run = (d * weight).mean(axis=-1, keepdims=True)
        values = run + weight * (d - run)
        if seeds == 1:
            columns.append([run[:, 0, 0], np.zeros(CHUNK), variance_of_mean(values[:, 0], design)])
        else:
            columns.append([run.mean(axis=(1, 2)), *twoway.seed_and_item_parts(*twoway.two_way(values, design))])
    mean, v_s, v_i = (np.concatenate(column) for column in zip(*columns, strict=True))
    return rates(mean, v_s, v_i, seeds - 1.0, design.df)


def mcnemar_rows() -> Iterator[dict[str, Any]]:
    """Right or wrong, one run each, no clusters."""
    for n in (30, 60, 100, 220, 500, 1000):
        rng = np.random.default_rng([14, n])
        sure = special.expit(rng.normal(0.3, 1.5, (DRAWS, n)))
        right = [rng.random((DRAWS, n)) < sure for _ in range(2)]
        only_a, only_b = (right[0] & ~right[1]).sum(axis=1), (right[1] & ~right[0]).sum(axis=1)
        low, high = paired.bonett_price(only_a, only_b, n)
        reject = paired.mcnemar_mid_p(only_a, only_b) < 0.05
        difference = (only_a - only_b) / n
        variance = ((only_a + only_b) / n - difference**2) / (n - 1)
        stated = twoway.detectable_effect(twoway.Components(0.0, 1.0, 0.0, 0.0, twoway.NORMAL_DF))
        effect = float(stated * np.sqrt(variance).mean())
        # Planted where A was wrong: a share of those items is now right.
        wrong = ~right[0]
        better = right[0] | (wrong & (rng.random((DRAWS, n)) < effect / wrong.mean()))
        b, c = (better & ~right[1]).sum(axis=1), (right[1] & ~better).sum(axis=1)
        yield {
            "test": "mid-p McNemar, Bonett-Price interval",
            "seeds": 1,
            "items": f"{n} items",
            "false_better": float((reject & (only_a > only_b)).mean()),
            "false_worse": float((reject & (only_a < only_b)).mean()),
            "coverage": float(((low <= 0) & (high >= 0)).mean()),
            "power": float(((paired.mcnemar_mid_p(b, c) < 0.05) & (b > c)).mean()),
            "effect": effect,
        }


def f1_of(counts: np.ndarray) -> np.ndarray:
    """F1 of [..., 3] (true positives, false positives, false negatives)."""
    denominator = 2 * counts[..., 0] + counts[..., 1] + counts[..., 2]
    return np.divide(
        2 * counts[..., 0], denominator, out=np.full(denominator.shape, np.nan), where=denominator > 0
    )


def weights_of(design: ClusterDesign, count: int = 1000, seed: int = 0) -> np.ndarray:
    """How often each item is in each of the library's own resamples: [count, n]."""
    drawn = resamples(design, count, seed)
    return np.stack([np.bincount(rows, minlength=design.n_items) for rows in drawn]).astype(np.float32)


def bootstrap_rows() -> Iterator[dict[str, Any]]:
    """F1 of two classifiers: the paired bootstrap with one run each, and with three seeds the two-way t."""
    for seeds in (1, 3):
        for name, clusters in (("200 items", np.arange(200)), ("50 clusters of 4", np.repeat(np.arange(50), 4))):
            yield {
                "test": "F1, paired bootstrap" if seeds == 1 else "F1, two-way t with bootstrap",
                "seeds": seeds,
                "items": name,
                **bootstrap(seeds, clusters),
            }


def classified(rng: np.random.Generator, draws: int, seeds: int, index: np.ndarray) -> tuple[np.ndarray, ...]:
    """(truth [draws, 1, n], calls of two systems [draws, R, n]) of equally good classifiers."""
    n, c = len(index), int(index.max()) + 1
    truth = rng.random((draws, 1, n)) < 0.4
    hardness = rng.standard_normal((draws, 1, c))[..., index]
    calls = []
    for _ in range(2):
        own = rng.normal(0, 0.1, (draws, seeds, 1)) if seeds > 1 else 0.0
        calls.append((rng.random((draws, seeds, n)) < special.expit(1.4 + hardness + own)) == truth)
    return truth, calls[0], calls[1]


def bootstrap(seeds: int, clusters: np.ndarray) -> dict[str, Any]:
    from tutelage.core.stats.intervals import seed_components

    design, index = cluster_design(clusters, len(clusters)), clusters
    weights, rng = weights_of(design), np.random.default_rng([15, seeds, design.n_clusters])
    step, parts = 200, []
    for _ in range(DRAWS // step):
        truth, *calls = classified(rng, step, seeds, index)
        sides = []
        for call in calls:
            cells = np.stack([call & truth, call & ~truth, ~call & truth], axis=2).astype(np.float32)
            sides.append((f1_of(cells.sum(axis=-1)), f1_of(np.moveaxis(cells @ weights.T, 2, -1))))
        parts.append((sides[0][0] - sides[1][0], sides[0][1] - sides[1][1]))
    runs = np.concatenate([part[0] for part in parts])
    replicates = np.concatenate([part[1] for part in parts])
    if seeds > 1:
        rest = replicates - replicates.mean(axis=1, keepdims=True)
        v_i = replicates.mean(axis=1).var(axis=-1, ddof=1)
        v_e = rest.var(axis=-1, ddof=1).sum(axis=1) / (seeds * (seeds - 1))
        columns = [
            seed_components(s, i, e, seeds, design)
            for s, i, e in zip(runs.var(axis=1, ddof=1) / seeds, v_i, v_e, strict=True)
        ]
        v_s, items = np.array([[c.seeds, c.items] for c in columns]).T
        return rates(runs.mean(axis=1), v_s, items, seeds - 1.0, design.df)
    mean, replicates = runs[:, 0], replicates[:, 0]
    intervals = [bootstrap_interval(row, 0.95, design.clustered, design.df) for row in replicates]
    low, high = np.array([(i.lo, i.hi) for i in intervals]).T
    error = replicates.std(axis=1, ddof=1) * ((design.df + 1) / design.df) ** 0.5
    effect = float(twoway.detectable_effect(twoway.Components(0.0, 1.0, 0.0, 0.0, design.df)) * error.mean())

    def p(values: np.ndarray) -> np.ndarray:
        return np.array([paired.bootstrap_p(row, design.df) for row in values])

    reject, found = p(replicates) < 0.05, p(replicates + effect) < 0.05
    return {
        "false_better": float((reject & (mean > 0)).mean()),
        "false_worse": float((reject & (mean < 0)).mean()),
        "coverage": float(((low <= 0) & (high >= 0)).mean()),
        "power": float((found & (mean + effect > 0)).mean()),
        "effect": effect,
    }


def family_rows() -> Iterator[dict[str, Any]]:
    """Several arms against one baseline: any false claim under Holm, false discoveries among exploratory ones."""
    for seeds, arms in ((3, 3), (3, 10), (5, 10)):
        design, _ = design_of("100 clusters of 4")
        index = DESIGNS["100 clusters of 4"]
        rng = np.random.default_rng([16, seeds, arms])
        any_claim = 0.0
        grid, step = np.linspace(0, 1, 101), 100
        table = twoway.critical_value(grid, seeds - 1.0, design.df, 0.05 / arms)
        for _ in range(DRAWS // step):
            systems = rng.gamma(2.0, 0.5, (step, arms + 1, seeds, 400)) + rng.normal(
                0, 0.05, (step, arms + 1, seeds, 1)
            )
            systems += (0.2 * rng.standard_normal((step, arms + 1, 1, 100)))[..., index]
            d = systems[:, 1:] - systems[:, :1]
            v_s, items = twoway.seed_and_item_parts(*twoway.two_way(d, design))
            t = np.abs(d.mean(axis=(-1, -2))) / np.sqrt(v_s + items)
            any_claim += float((t > np.interp(v_s / (v_s + items), grid, table)).any(axis=1).sum())
        yield {
            "test": "Holm over arms that share a baseline: any false claim",
            "seeds": seeds,
            "items": f"{arms} arms, 100 clusters of 4",
            "false_claim": any_claim / DRAWS,
            "at_most": 0.05,
        }
    yield {
        "test": "Benjamini-Hochberg at q = .10: false among the claims",
        "seeds": 1,
        "items": "50 arms, 10 of them truly better, 100 items",
        **discoveries(),
    }


def discoveries() -> dict[str, float]:
    from scipy import stats

    from tutelage.core.stats.families import benjamini_hochberg

    rng = np.random.default_rng(17)
    true = np.arange(50) < 10
    shares, found = [], []
    for _ in range(DRAWS // 100):
        systems = rng.standard_normal((100, 51, 100))
        d = systems[:, 1:] - systems[:, :1] + 0.4 * true[:, None]
        t = d.mean(axis=-1) / (d.std(axis=-1, ddof=1) / 10)
        for row in 2 * stats.t.sf(np.abs(t), 99):
            claimed = benjamini_hochberg(row.tolist()) < 0.10
            shares.append((claimed & ~true).sum() / max(claimed.sum(), 1))
            found.append(claimed[true].mean())
    return {"false_discovery": float(np.mean(shares)), "found": float(np.mean(found)), "at_most": 0.10}
