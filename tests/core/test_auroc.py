"""AUROC: the area of scikit-learn, DeLong's variance by its own double sum and by simulation, pairs, clusters."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from tutelage.core.errors import InputError
from tutelage.core.stats.auroc import auroc, auroc_difference

MUTATIONS = [
    ("src/tutelage/core/stats/auroc.py", "(values[hit])) / n", "(values[hit])) / m"),
    ("src/tutelage/core/stats/auroc.py", "np.where(hit, m, n)", "np.where(hit, n, m)"),
    ("src/tutelage/core/stats/auroc.py", "one.parts - other.parts", "one.parts"),
    ("src/tutelage/core/stats/auroc.py", "* m / (m - 1)", "* m"),
    ("src/tutelage/core/stats/auroc.py", "few = min(self.m, self.n, self.n_clusters)", "few = len(self.parts)"),
    ("src/tutelage/core/stats/auroc.py", "(12 * self.m * self.n)", "(6 * self.m * self.n)"),
    ("src/tutelage/core/stats/auroc.py", "(sums**2).sum() * len(sums)", "(sums**2).sum() * len(parts)"),
]


def draws(seed, m=30, n=45, shift=0.8, levels=None):
    rng = np.random.default_rng(seed)
    values = np.concatenate([rng.normal(shift, 1, m), rng.normal(0, 1, n)])
    return (values if levels is None else np.round(values * levels)), np.arange(m + n) < m


@pytest.mark.parametrize("levels", [None, 1.0])
def test_area_and_variance(levels):
    scores, hit = draws(1, levels=levels)
    found = auroc(scores, hit)
    assert found.area == pytest.approx(roc_auc_score(hit, scores))
    psi = (scores[hit][:, None] > scores[~hit]) + 0.5 * (scores[hit][:, None] == scores[~hit])
    expected = psi.mean(1).var(ddof=1) / hit.sum() + psi.mean(0).var(ddof=1) / (~hit).sum()
    assert found.variance == pytest.approx(expected)
    half = stats.norm.ppf(0.975) * expected**0.5
    interval = found.interval()
    assert (interval.lo, interval.hi) == pytest.approx((found.area - half, min(1, found.area + half)))
    assert (interval.method, interval.covers) == ("DeLong", "items")
    assert found.influence.mean() == pytest.approx(found.area)
    assert found.influence.std(ddof=1) / len(scores) ** 0.5 == pytest.approx(expected**0.5, rel=0.03)


def test_coverage_and_null_spread():
    areas = [auroc(*draws(seed, shift=0.0)) for seed in range(400)]
    assert np.std([one.area for one in areas]) == pytest.approx(areas[0].null_sd, rel=0.1)
    assert np.mean([one.interval().lo <= 0.5 <= one.interval().hi for one in areas]) > 0.92
    five = auroc(np.arange(1000) % 7, np.arange(1000) < 500)
    assert five.null_sd == pytest.approx(0.018, abs=5e-4)


def test_difference_of_two_scores():
    first, hit = draws(3)
    second = 0.7 * first + draws(4)[0]
    gap, interval, p = auroc_difference(first, second, hit)

    def placements(scores):
        psi = (scores[hit][:, None] > scores[~hit]) + 0.0
        return psi.mean(1), psi.mean(0)

    (a_one, a_two), (b_one, b_two) = placements(first), placements(second)
    error = ((a_one - b_one).var(ddof=1) / hit.sum() + (a_two - b_two).var(ddof=1) / (~hit).sum()) ** 0.5
    assert gap == pytest.approx(roc_auc_score(hit, first) - roc_auc_score(hit, second))
    assert p == pytest.approx(2 * stats.norm.sf(abs(gap) / error))
    assert interval.hi - gap == pytest.approx(1.959964 * error, rel=1e-6)
    assert auroc_difference(first, 3 * first + 1, hit)[::2] == (0.0, 1.0)


def test_duplicated_items_in_one_cluster_bring_nothing_new():
    scores, hit = draws(5)
    twice = auroc(np.tile(scores, 2), np.tile(hit, 2), np.tile(np.arange(len(scores)), 2))
    once = auroc(scores, hit)
    assert twice.area == pytest.approx(once.area)
    assert twice.variance == pytest.approx(once.variance, rel=0.03)
    assert twice.interval().covers == "clusters"
    assert auroc(np.tile(scores, 2), np.tile(hit, 2)).variance == pytest.approx(once.variance / 2, rel=0.05)


def test_perfect_separation_is_not_certain():
    found = auroc([3, 4, 5, 1, 2], [True, True, True, False, False]).interval()
    assert (found.lo, found.hi) == (pytest.approx(2 / (2 + stats.norm.ppf(0.975) ** 2)), 1.0)
    worst = auroc([1, 2, 3, 4], [True, True, False, False]).interval()
    assert worst.lo == 0.0 and worst.hi > 0.5


@pytest.mark.parametrize(("scores", "hit"), [([1, 2, 3], [1, 1, 1]), ([1, 2, np.nan, 3], [1, 1, 0, 0])])
def test_what_has_no_curve_is_refused(scores, hit):
    with pytest.raises(InputError, match="no ROC curve"):
        auroc(scores, hit)
