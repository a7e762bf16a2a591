"""The same promises on real reruns, where nothing is normal by construction.

A draw takes the runs of two sides without replacement, topics with replacement (the topics at hand are the
population), and asks the library's own functions. Full against full: the truth is no difference. Full against
short: the truth is the difference of the means over all runs and topics. `se` is how far the rate may be off
because there are only so many runs: the standard error over eight blocks of runs, each drawn from on its own.
"""

from typing import Any

import numpy as np

from benchmarks.proof.draws import rates
from tutelage.core.items import ItemMatrix
from tutelage.core.stats import paired, twoway
from tutelage.core.stats.clusters import cluster_design
from tutelage.core.stats.intervals import components, pseudo_values
from tutelage.core.stats.pooled import SeedPrior, seed_prior

DRAWS, BLOCKS, RERUNS = 5_000, 8, 20
METRICS = {"bits per byte": "ratio", "right answers": "mean"}


class Bed:
    """The scores of all runs of two recipes, [runs, items], and who is in which topic."""

    def __init__(self, found: dict[str, Any], metric: str) -> None:
        name = "bits" if METRICS[metric] == "ratio" else "right"
        self.kind: Any = METRICS[metric]
        self.direction = -1 if self.kind == "ratio" else 1
        self.scores = {recipe: found[recipe][name] for recipe in ("full", "short")}
        self.weights = found["full"]["bytes"][0] if self.kind == "ratio" else None
        _, index = np.unique(found["clusters"], return_inverse=True)
        self.members = [np.flatnonzero(index == c) for c in range(int(index.max()) + 1)]

    def run_means(self, recipe: str, runs: np.ndarray) -> np.ndarray:
        weights = self.weights if self.weights is not None else np.ones(self.scores[recipe].shape[1])
        return (self.scores[recipe][runs] * weights).sum(axis=1) / weights.sum()

    def truth(self, other: str) -> float:
        """The difference that the intervals should cover."""
        if other == "full":
            return 0.0
        every = [self.run_means(name, np.arange(len(self.scores[name]))).mean() for name in ("full", other)]
        return float(self.direction * (every[0] - every[1]))

    def drawn(
        self, rng: np.random.Generator, other: str, seeds: int, pool: np.ndarray
    ) -> tuple[np.ndarray, Any, np.ndarray]:
        """(per-item differences [R, n], design, the runs of the full recipe that were taken)."""
        picked = rng.permutation(pool)
        mine = picked[:seeds]
        theirs = picked[seeds : 2 * seeds] if other == "full" else rng.permutation(len(self.scores[other]))[:seeds]
        topics = [self.members[c] for c in rng.integers(0, len(self.members), len(self.members))]
        items = np.concatenate(topics)
        labels = np.repeat(np.arange(len(topics)), [len(topic) for topic in topics])
        weights = None if self.weights is None else self.weights[items]
        design = cluster_design(labels, len(items), weights)
        sides = []
        for recipe, runs in (("full", mine), (other, theirs)):
            scores = self.scores[recipe][np.ix_(runs, items)]
            every = None if weights is None else np.tile(weights, (seeds, 1))
            matrix = ItemMatrix([], tuple(range(seeds)), scores, every, labels)
            sides.append(pseudo_values(matrix, self.kind)[1])
        return self.direction * (sides[0] - sides[1]), design, picked[2 * seeds :]


def compared(
    bed: Bed, other: str, seeds: int, pooled: bool, draws: int, pool: np.ndarray, seed: int
) -> dict[str, Any]:
    """Rates over `draws` comparisons of runs out of `pool`; `pooled` moderates the variance by 20 further runs."""
    rng, truth = np.random.default_rng([31, seeds, pooled, seed]), bed.truth(other)
    means, parts = [], []
    for _ in range(draws):
        d, design, rest = bed.drawn(rng, other, seeds, pool)
        prior: SeedPrior | None = seed_prior(bed.run_means("full", rest[:RERUNS])) if pooled else None
        means.append(d.mean() - truth)
        parts.append(components(d, design, prior))
    v_s, items, df_items = np.array([(part.seeds, part.items, part.df_items) for part in parts]).T
    return rates(np.array(means), v_s, items, parts[0].df_seeds, df_items)


def rows(found: dict[str, Any], draws: int = DRAWS) -> list[dict[str, Any]]:
    made = []
    for metric in METRICS:
        bed = Bed(found, metric)
        runs = np.arange(len(bed.scores["full"]))
        for other, seeds, pooled in [
            (other, seeds, pooled) for other in ("full", "short") for seeds in (3, 5) for pooled in (False, True)
        ]:
            rate = compared(bed, other, seeds, pooled, draws, runs, 0)
            blocks = np.array_split(np.random.default_rng(32).permutation(runs), BLOCKS)
            parts = [
                compared(bed, other, seeds, False, draws // 10, block, 1 + i) for i, block in enumerate(blocks)
            ]
            error = {name: float(np.std([p[name] for p in parts], ddof=1) / BLOCKS**0.5) for name in rate}
            variance = ", variance pooled with 20 reruns" if pooled else ""
            made.append(
                {
                    "test": "two-way t over seeds and topics" + variance,
                    "metric": metric,
                    "against": other,
                    "runs": {name: len(bed.scores[name]) for name in {"full", other}},
                    "seeds": seeds,
                    **rate,
                    "se": {name: error[name] for name in ("false_better", "coverage", "power")},
                }
            )
        made.append(one_run(bed, metric, runs))
    return made


def one_run(bed: Bed, metric: str, runs: np.ndarray, draws: int = 4000) -> dict[str, Any]:
    """One run a side: how often a test of items alone calls one rerun better than another of the same recipe."""
    rng, claims = np.random.default_rng(33), 0
    for _ in range(draws):
        d, design, _ = bed.drawn(rng, "full", 1, runs)
        if bed.kind == "ratio":
            parts = components(d, design)
            claims += bool(abs(d.mean()) > twoway.half_width(parts))
        else:
            claims += bool(paired.sign_flip_p(design.sums(d[0]), flips=1000) < 0.05)
    return {
        "test": "one run each, items alone (a claim about these runs, not about the recipe)",
        "metric": metric,
        "against": "full",
        "seeds": 1,
        "read_as_claim_about_the_recipe": {"false_better_or_worse": claims / draws},
    }


def described(found: dict[str, Any]) -> dict[str, Any]:
    """The runs themselves: how far apart reruns of one recipe are."""
    told: dict[str, Any] = {"topics": len(set(found["clusters"])), "items": len(found["clusters"])}
    for metric in METRICS:
        bed = Bed(found, metric)
        for recipe in ("full", "short"):
            means = bed.run_means(recipe, np.arange(len(bed.scores[recipe])))
            told[f"{metric}, {recipe}"] = {
                "runs": len(means),
                "mean": float(means.mean()),
                "sd_between_runs": float(means.std(ddof=1)),
            }
    return told
