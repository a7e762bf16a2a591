"""Rank stability and consistency: SciPy's tau, the figures of a known rise, no signal, intervals over items."""

import numpy as np
import pytest
import scipy.stats

from tutelage.core.errors import InputError
from tutelage.core.stats.stability import consistency, stability, tau_b

MUTATIONS = [
    ("src/tutelage/core/stats/stability.py", "return None if np.isnan(found) else found", "return found"),
    ("src/tutelage/core/stats/stability.py", "rise / noise if noise", "noise / rise if noise"),
    ("src/tutelage/core/stats/stability.py", "float(fitted[-1] - fitted[0])", "float(means[-1] - means[0])"),
    ("src/tutelage/core/stats/stability.py", "tau_b(at, scores[:, rows]", "tau_b(at, scores"),
    (
        "src/tutelage/core/stats/stability.py",
        "(first[:, rows].mean(axis=1), second[:, rows]",
        "(first[:, rows].mean(axis=1), first[:, rows]",
    ),
]


def test_tau_is_scipys_and_a_constant_has_none():
    scores = np.array([0.2, 0.3, 0.25, 0.4, 0.4, 0.5])
    items = np.repeat(scores[:, None], 4, axis=1)
    found = stability(range(6), items)
    assert found.tau == pytest.approx(scipy.stats.kendalltau(range(6), scores).statistic)
    assert found.interval.lo == found.interval.hi == pytest.approx(found.tau)
    fitted = np.array([0.2, 0.275, 0.275, 0.4, 0.4, 0.5])
    assert found.signal_to_noise == pytest.approx(0.3 / np.std(scores - fitted, ddof=1))
    flat = stability(range(6), np.full((6, 4), 0.25))
    assert (flat.tau, flat.interval, flat.signal_to_noise) == (None, None, None)
    assert tau_b([1, 2, 3], [3, 2, 1]) == -1.0


def test_the_isotonic_rise_ignores_a_lucky_last_point():
    scores = np.array([0.2, 0.3, 0.4, 0.5, 0.1])
    found = stability(range(5), np.repeat(scores[:, None], 3, axis=1))
    fitted = scipy.optimize.isotonic_regression(scores).x
    assert found.signal_to_noise == pytest.approx((fitted[-1] - 0.2) / np.std(scores - fitted, ddof=1))


@pytest.mark.parametrize(("rise", "noise", "mean"), [(0.1, 0.02, 0.73), (0.1, 0.05, 0.41), (0.0, 0.05, 0.0)])
def test_what_a_known_rise_gives(rise, noise, mean):
    rng = np.random.default_rng(0)
    taus = [tau_b(range(10), np.linspace(0, rise, 10) + rng.normal(0, noise, 10)) for _ in range(2000)]
    assert np.mean(taus) == pytest.approx(mean, abs=0.02)
    if not rise:
        assert np.std(taus) == pytest.approx(0.25, abs=0.01)


def test_intervals_cover_the_items():
    rng = np.random.default_rng(1)
    chances = np.linspace(0.3, 0.7, 8)[:, None]
    items = (rng.random((8, 300)) < chances).astype(float)
    found = stability(range(8), items)
    assert found.interval.lo < found.tau <= found.interval.hi and found.interval.covers == "items"
    few = stability(range(8), items[:, :30])
    assert few.interval.hi - few.interval.lo > found.interval.hi - found.interval.lo
    grouped = stability(range(8), items, clusters=np.arange(300) // 10)
    assert grouped.interval.covers == "clusters"
    assert stability(range(8), items, clusters=np.zeros(300)).interval is None
    again = stability(range(8), items, draws=50, seed=3)
    assert again.tau == found.tau and again.interval != found.interval


def test_consistency_over_models():
    rng = np.random.default_rng(2)
    chances = np.array([0.3, 0.4, 0.5, 0.6, 0.7, 0.8])[:, None]
    base = (rng.random((6, 400)) < chances).astype(float)
    tuned = (rng.random((6, 400)) < chances[::-1]).astype(float)
    found = consistency(base, tuned)
    assert found.tau == pytest.approx(scipy.stats.kendalltau(base.mean(1), tuned.mean(1)).statistic)
    assert found.tau < -0.8 and found.interval.hi < 0
    assert consistency(base, base, draws=100, seed=1, clusters=np.arange(400) // 4).tau == pytest.approx(1.0)


def test_refusals():
    with pytest.raises(InputError, match="at least 5 rising steps"):
        stability(range(4), np.ones((4, 3)))
    with pytest.raises(InputError, match="rising steps"):
        stability([1, 2, 2, 3, 4], np.ones((5, 3)))
    with pytest.raises(InputError, match="are a table"):
        stability(range(5), np.full((5, 3), np.nan))
    with pytest.raises(InputError, match="same models on the same items"):
        consistency(np.ones((5, 3)), np.ones((5, 4)))
    with pytest.raises(InputError, match="same models"):
        consistency(np.ones((3, 3)), np.ones((3, 3)))
