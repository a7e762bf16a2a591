"""signals.neighbour_distance against scikit-learn's exact neighbours."""

import numpy as np
import pytest

from tutelage.core.apply import score_dataset
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.signals import neighbour_distance as module
from tutelage.signals.neighbour_distance import NeighbourDistance

PROOF = {"signals.neighbour_distance": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/signals/neighbour_distance.py", "= np.inf", "= 0"),
    ("src/tutelage/signals/neighbour_distance.py", "exact.max(axis=1)", "exact.min(axis=1)"),
    ("src/tutelage/signals/neighbour_distance.py", "squares[None, :] - 2.0", "squares[None, :] - 1.0"),
]


def distances(vectors, **fields):
    rows = [{"id": f"r{i}", "embedding": [float(x) for x in v]} for i, v in enumerate(vectors)]
    return score_dataset(NeighbourDistance(**fields), Dataset.from_rows(rows), {}).numpy("neighbour_distance")


@pytest.mark.parametrize("k", [1, 6])
def test_equals_scikit_learn(k, monkeypatch):
    from sklearn.neighbors import NearestNeighbors

    vectors = np.random.default_rng(0).normal(size=(80, 5)).astype(np.float32) * [1, 2, 3, 1, 1]
    monkeypatch.setattr(module, "BLOCK", 700)
    # scikit-learn counts the row itself as its first neighbour.
    expected = NearestNeighbors(n_neighbors=k + 1, algorithm="brute").fit(vectors).kneighbors(vectors)[0][:, -1]
    assert np.allclose(distances(vectors, k=k), expected, atol=1e-4)


def test_outliers_stand_alone_and_copies_do_not():
    vectors = np.random.default_rng(1).normal(size=(60, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[50:58] = vectors[50]
    vectors[59] = 3 * vectors[59]
    found = distances(vectors)
    assert found.argmax() == 59 and (found[50:58] == 0).all() and (found[:50] > 0).all()
    assert NeighbourDistance().k == 6


def test_the_column_is_the_one_asked_for():
    rows = [{"id": f"r{i}", "embedding": [0.0, 0.0], "own": [float(i), 0.0]} for i in range(4)]
    found = score_dataset(NeighbourDistance(column="own", k=1), Dataset.from_rows(rows), {})
    assert found.numpy("neighbour_distance").tolist() == [1.0] * 4


def test_bad_input():
    points = np.eye(6)
    assert len(distances(points, k=5)) == 6
    with pytest.raises(InputError, match="too few rows"):
        distances(points, k=6)
    with pytest.raises(InputError, match="not finite") as error:
        distances([[0.0], [np.nan], [1.0]], k=1)
    assert "r1" in str(error.value)
    with pytest.raises(InputError, match="embedding"):
        score_dataset(NeighbourDistance(), Dataset.from_rows([{"text": "a"}] * 9), {})
    with pytest.raises(ConfigError, match="k"):
        NeighbourDistance(k=0)
