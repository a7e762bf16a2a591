"""How far stated probabilities are from the shares that come true, and how well they rank what is right.

With confidence p_i and outcome y_i (1 right, 0 wrong, between for ties), bins b of m_b items and their means:

    ECE      = sum_b m_b/n |pbar_b - ybar_b|
    squared  = sum_b m_b/n [(pbar_b - ybar_b)^2 - ybar_b (1 - ybar_b) / (m_b - 1)]      mean 0 when calibrated

The ECE of a perfectly calibrated model is not 0 but falls as 1/sqrt(n): its distribution is drawn here, y_i ~
Bernoulli(p_i), so that an ECE is read against what perfection would have given.
"""

import numpy as np
from scipy import special, stats

BINS = 15
MASS_BINS = 10


def expected_calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> float:
    """sum over bins of (share of items in it) |mean confidence - share right|, bins of equal width on (0, 1].

    `confidence` [n] of the predicted class, `right` bool [n]. Biased upwards where bins hold few items ("Obtaining
    Well Calibrated Probabilities Using Bayesian Binning", Naeini et al. 2015).
    """
    if not len(confidence):
        return float("nan")
    edge = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    return binned_gap(confidence, right.astype(float), edge)


def brier_score(probs: np.ndarray, labels: np.ndarray) -> float:
    """Mean over items of sum_k (p_k - [k is the label])^2; probs [n, C], labels [n]."""
    truth = np.zeros_like(probs)
    truth[np.arange(len(labels)), labels] = 1.0
    return float(((probs - truth) ** 2).sum(axis=1).mean())


def equal_mass_bins(confidence: np.ndarray, bins: int = MASS_BINS) -> np.ndarray:
    """int [n] bin of each item, all of one size but for ties: equal confidences share a bin, so that the order of
    the items does not matter."""
    rank = stats.rankdata(confidence, method="average") - 1.0
    return np.minimum((rank * bins / len(confidence)).astype(int), bins - 1)


def binned_gap(confidence: np.ndarray, right: np.ndarray, place: np.ndarray) -> float:
    """The ECE with the bins `place` int [n]."""
    return float(np.abs(np.bincount(place, confidence - right)).sum() / len(confidence))


def gaps_if_calibrated(confidence: np.ndarray, place: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """[draws] ECEs of independent outcomes that come true exactly as stated."""
    generator = np.random.default_rng(seed)
    return np.array(
        [binned_gap(confidence, generator.random(len(place)) < confidence, place) for _ in range(draws)]
    )


def squared_gap(confidence: np.ndarray, right: np.ndarray, place: np.ndarray) -> float:
    """The squared calibration error less what chance adds to it; bins of one item are left out, NaN without
    any other."""
    size = np.bincount(place).astype(float)
    used = size > 1
    size, stated, came = size[used], np.bincount(place, confidence)[used], np.bincount(place, right)[used]
    if not len(size):
        return float("nan")
    share = came / size
    each = (stated / size - share) ** 2 - share * (1 - share) / (size - 1)
    return float((size * each).sum() / size.sum())


def auroc(score: np.ndarray, positive: np.ndarray) -> float:
    """Probability that a positive item has the larger score, ties half; NaN where one kind is absent.

    `positive` [n] in [0, 1]: an item between counts as both, in these shares.
    """
    weight, rest = positive.astype(float), 1.0 - positive
    if weight.sum() == 0 or rest.sum() == 0:
        return float("nan")
    order = np.argsort(score, kind="stable")
    _, block = np.unique(score[order], return_inverse=True)
    up, down = np.bincount(block, weight[order]), np.bincount(block, rest[order])
    below = np.cumsum(down) - down / 2
    return float(up @ below / (weight.sum() * rest.sum()))


def risks_by_coverage(confidence: np.ndarray, right: np.ndarray) -> np.ndarray:
    """[n] share of wrong answers among the k + 1 surest items; equal confidences are in random order."""
    order = np.argsort(-confidence, kind="stable")
    _, block = np.unique(-confidence[order], return_inverse=True)
    wrong = 1.0 - right[order]
    mean = np.bincount(block, wrong) / np.bincount(block)
    return np.cumsum(mean[block]) / np.arange(1, len(order) + 1)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The T in [1/100, 100] with the least mean -log softmax(logits / T)[label]; logits [n, C] (minus infinity: no
    such class), labels [n]."""
    from scipy.optimize import minimize_scalar

    def loss(log_t: float) -> float:
        probs = special.softmax(logits / np.exp(log_t), axis=1)
        return float(-np.log(np.maximum(probs[np.arange(len(labels)), labels], 1e-300)).mean())

    found = minimize_scalar(loss, bounds=(np.log(0.01), np.log(100.0)), method="bounded")
    return float(np.exp(found.x))


def isotonic(confidence: np.ndarray, right: np.ndarray, at: np.ndarray) -> np.ndarray:
    """[m] the never-falling function of `confidence` [n] with the least squares to `right` [n], at other
    confidences [m]: straight between the ones it was fitted on, flat beyond."""
    from scipy.optimize import isotonic_regression

    places, back = np.unique(confidence, return_inverse=True)
    count = np.bincount(back)
    fitted = isotonic_regression(np.bincount(back, right) / count, weights=count).x
    return np.asarray(np.interp(at, places, fitted))
