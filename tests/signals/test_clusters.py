"""signals.clusters: scikit-learn's k-means, planted groups, empty clusters, refusals."""

import numpy as np
import pytest

from tutelage.core.apply import score_dataset
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.signals import clusters as module
from tutelage.signals.clusters import Clusters, nearest, reseed

PROOF = {"signals.clusters": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/signals/clusters.py", "squares - 2.0", "squares - 1.0"),
    ("src/tutelage/signals/clusters.py", "(len(vectors) / 2) ** 0.5", "len(vectors) ** 0.5"),
    ("src/tutelage/signals/clusters.py", "min(MOST, max(1, round(", "min(len(vectors), max(1, round("),
    ("src/tutelage/signals/clusters.py", "int(distance.argmax())", "int(distance.argmin())"),
    ("src/tutelage/signals/clusters.py", "n_init=self.restarts", "n_init=1"),
    ("src/tutelage/core/vectors.py", "~np.isfinite(vectors)", "np.isinf(vectors)"),
]


def data_of(vectors, name="embedding"):
    return Dataset.from_rows({"id": f"r{i}", name: [float(x) for x in v]} for i, v in enumerate(vectors))


def run(vectors, **fields):
    found = score_dataset(Clusters(**fields), data_of(vectors), {})
    return found.numpy("cluster"), found.numpy("dist_to_centre")


def blobs(groups=6, each=40, width=8, seed=0):
    rng = np.random.default_rng(seed)
    centres = 10.0 * rng.normal(size=(groups, width))
    truth = np.repeat(np.arange(groups), each)
    return (centres[truth] + rng.normal(size=(len(truth), width))).astype(np.float32), truth


def test_planted_groups_are_found_with_the_distance_to_their_mean():
    from sklearn.metrics import adjusted_rand_score

    vectors, truth = blobs()
    found, distance = run(vectors, clusters=6, batch=len(vectors))
    assert adjusted_rand_score(truth, found) == 1.0
    means = np.array([vectors[found == c].mean(0) for c in range(6)])
    assert np.allclose(distance, np.linalg.norm(vectors - means[found], axis=1), atol=0.2)


def test_equals_scikit_learn_where_no_cluster_is_empty():
    from sklearn.cluster import MiniBatchKMeans

    vectors = np.random.default_rng(1).normal(size=(300, 5)).astype(np.float32)
    fields = {"clusters": 7, "restarts": 4, "batch": 64, "seed": 3}
    theirs = MiniBatchKMeans(7, n_init=4, batch_size=64, random_state=3).fit(vectors)
    found, distance = run(vectors, **fields)
    assert (found == theirs.predict(vectors)).all()
    assert np.allclose(distance, theirs.transform(vectors).min(axis=1), atol=1e-4)


def test_the_number_of_clusters_goes_with_the_rows_and_seeds_repeat():
    vectors = np.random.default_rng(2).normal(size=(98, 4))
    found, _ = run(vectors, seed=5)
    assert len(set(found.tolist())) == round(49**0.5) == 7
    assert (run(vectors, seed=5)[0] == found).all()
    assert any((run(vectors, seed=s)[0] != found).any() for s in (6, 7, 8))


def test_many_rows_get_no_more_clusters_than_the_most(monkeypatch):
    vectors = np.random.default_rng(2).normal(size=(98, 4))
    monkeypatch.setattr(module, "MOST", 5)
    assert len(set(run(vectors)[0].tolist())) == 5
    assert len(set(run(vectors, clusters=7)[0].tolist())) == 7


def test_empty_clusters_move_to_the_farthest_rows():
    vectors = np.array([[0.0, 0.0], [0.1, 0.0], [0.0, 9.0], [5.0, 0.0], [5.1, 0.0]])
    centres, empty = reseed(vectors, np.array([[0.0, 0.0], [100.0, 0.0], [200.0, 0.0]]))
    # The farthest row from (0, 0) is (0, 9); once it has its own centre, (5.1, 0) is.
    assert centres.tolist() == [[0.0, 0.0], [0.0, 9.0], [5.1, 0.0]] and empty == 0
    assert nearest(vectors, centres)[0].tolist() == [0, 0, 1, 2, 2]


@pytest.mark.parametrize("seed", range(5))
def test_no_cluster_is_empty_whatever_the_start(seed):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(60, 3)).astype(np.float32)
    centres, empty = reseed(vectors, rng.normal(size=(30, 3)) * 20)
    index, distance = nearest(vectors, centres)
    assert empty == 0 and len(set(index.tolist())) == 30
    every = np.linalg.norm(vectors[:, None].astype(float) - centres[None], axis=2)
    assert (index == every.argmin(1)).all() and np.allclose(distance, every.min(1))


def test_blocks_do_not_change_the_answer(monkeypatch):
    vectors, _ = blobs()
    whole = run(vectors, clusters=6)
    monkeypatch.setattr(module, "BLOCK", 50)
    assert all(np.array_equal(a, b) for a, b in zip(whole, run(vectors, clusters=6)))


def test_copies_leave_clusters_empty_with_a_warning():
    vectors = np.repeat(np.eye(3), 4, axis=0)
    with pytest.warns(UserWarning, match="2 of 5 clusters are empty"):
        found, distance = run(vectors, clusters=5)
    assert len(set(found.tolist())) == 3 and np.allclose(distance, 0, atol=1e-6)


def test_a_fitted_state_scores_other_rows():
    vectors, _ = blobs()
    method = Clusters(clusters=6, column="own")
    state = method.fit(data_of(vectors, "own"), {})
    other = score_dataset(method, data_of(vectors[::7], "own"), {}, state)
    whole = score_dataset(method, data_of(vectors, "own"), {}, state)
    assert (other.numpy("cluster") == whole.numpy("cluster")[::7]).all()
    with pytest.raises(InputError, match="another length"):
        score_dataset(method, data_of(vectors[:, :3], "own"), {}, state)


def test_refusals():
    points = np.eye(4)
    assert len(set(run(points, clusters=4)[0].tolist())) == 4
    with pytest.raises(InputError, match="fewer rows than clusters"):
        run(points, clusters=5)
    with pytest.raises(InputError, match="not finite") as error:
        run([[0.0], [np.nan], [1.0]], clusters=1)
    assert "r1" in str(error.value)
    with pytest.raises(InputError, match="holds no vectors"):
        score_dataset(Clusters(column="id"), data_of(points), {})
    with pytest.raises(InputError, match="embeddings"):
        score_dataset(Clusters(column="embeddings"), data_of(points), {})
    with pytest.raises(ConfigError, match="clusters"):
        Clusters(clusters=0)
