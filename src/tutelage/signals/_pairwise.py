"""Scores from preferences between pairs: logistic regression without intercept on differences.

With differences D [P, d] (row = features of a minus features of b), preferences p [P] in [0, 1] that a is better
and z = D w: minimise sum_k [ln(1 + exp(z_k)) - p_k z_k] + ridge / 2 |w|^2, the binary cross-entropy of
sigmoid(s_a - s_b) against p. With one-hot features w is the Bradley-Terry score of every item.
"""

from typing import Any

import numpy as np
from scipy import sparse
from scipy.optimize import minimize
from scipy.special import expit


def preference_loss(weights: np.ndarray, differences: Any, preference: np.ndarray, ridge: float) -> Any:
    """(loss, gradient [d])."""
    z = np.asarray(differences @ weights).ravel()
    value = float((np.logaddexp(0.0, z) - preference * z).sum() + 0.5 * ridge * (weights @ weights))
    return value, np.asarray(differences.T @ (expit(z) - preference)).ravel() + ridge * weights


def fit_preferences(differences: Any, preference: np.ndarray, ridge: float) -> np.ndarray:
    """The weights [d] that minimise the loss; `differences` dense or sparse [P, d], `ridge` > 0."""
    start = np.zeros(differences.shape[1])
    options = {"maxiter": 2000, "maxfun": 4000, "ftol": 1e-14, "gtol": 1e-9}
    given = (differences, preference, ridge)
    return minimize(preference_loss, start, args=given, jac=True, method="L-BFGS-B", options=options).x


def one_hot_differences(pairs: np.ndarray, items: int) -> sparse.csr_matrix:
    """[P, items]: +1 for the first and -1 for the second item of every pair, int [P, 2]."""
    rows = np.repeat(np.arange(len(pairs)), 2)
    return sparse.csr_matrix((np.tile([1.0, -1.0], len(pairs)), (rows, pairs.ravel())), shape=(len(pairs), items))
