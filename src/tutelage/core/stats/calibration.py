"""How far stated probabilities are from the shares that come true."""

import numpy as np

BINS = 15


def expected_calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> float:
    """sum over bins of (share of items in it) |mean confidence - share right|, bins of equal width on (0, 1].

    `confidence` [n] of the predicted class, `right` bool [n]. Biased upwards where bins hold few items ("Obtaining
    Well Calibrated Probabilities Using Bayesian Binning", Naeini et al. 2015).
    """
    if not len(confidence):
        return float("nan")
    edge = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gap = np.bincount(edge, confidence - right.astype(float), bins)
    return float(np.abs(gap).sum() / len(confidence))


def brier_score(probs: np.ndarray, labels: np.ndarray) -> float:
    """Mean over items of sum_k (p_k - [k is the label])^2; probs [n, C], labels [n]."""
    truth = np.zeros_like(probs)
    truth[np.arange(len(labels)), labels] = 1.0
    return float(((probs - truth) ** 2).sum(axis=1).mean())
