"""signals.neighbour_agreement: scikit-learn's neighbours, votes by hand, no vote for oneself, refusals."""

import numpy as np
import pytest

from tutelage.core.apply import score_dataset
from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.signals import _neighbours as module
from tutelage.signals._neighbours import neighbours
from tutelage.signals.neighbour_agreement import NeighbourAgreement, agreement

PROOF = {"signals.neighbour_agreement": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/signals/_neighbours.py", "block[rows, at + rows] = -np.inf", "pass"),
    ("src/tutelage/signals/_neighbours.py", "axis=1)[:, -k:]", "axis=1)[:, :k]"),
    ("src/tutelage/signals/_neighbours.py", "block[rows, at + rows]", "block[rows, rows]"),
    (
        "src/tutelage/signals/neighbour_agreement.py",
        "unit(vector_column(dataset, self.column)[chosen])",
        "vector_column(dataset, self.column)[chosen]",
    ),
    ("src/tutelage/signals/neighbour_agreement.py", "[: self.sample])", ")"),
]


def data_of(vectors, labels, classes=None, label_column="predicted", column="embedding"):
    rows = [{"id": f"r{i}", column: [float(x) for x in v], label_column: y} for i, (v, y) in
            enumerate(zip(vectors, labels))]  # fmt: skip
    return Dataset.from_rows(rows if classes is None else [{**row, "classes": classes} for row in rows])


def run(data, **fields):
    found = score_dataset(NeighbourAgreement(**fields), data, {})
    return found.column("neighbour_label").to_pylist(), found.numpy("neighbour_agreement")


def test_neighbours_are_those_of_scikit_learn(monkeypatch):
    from sklearn.neighbors import NearestNeighbors

    vectors = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    theirs = NearestNeighbors(n_neighbors=5, metric="cosine").fit(vectors).kneighbors(return_distance=False)
    monkeypatch.setattr(module, "BLOCK", 7 * 60)
    assert (np.sort(neighbours(unit, 5), axis=1) == np.sort(theirs, axis=1)).all()
    labels = np.random.default_rng(1).integers(0, 3, 60)
    found, share = run(data_of(vectors * np.arange(1, 61)[:, None], [f"c{y}" for y in labels]), k=5)
    for row in range(60):
        counts = np.bincount(labels[theirs[row]], minlength=3)
        assert found[row] == f"c{counts.argmax()}" and share[row] == counts.max() / 5


def test_a_copy_does_not_let_a_row_vote_for_itself():
    vectors = [[1, 0], [1, 0], [1, 0.01], [0, 1], [0.01, 1]]
    found, share = run(data_of(vectors, ["a", "b", "b", "c", "c"]), k=2)
    assert found[:3] == ["b", "a", "a"] and share.tolist()[:3] == [1.0, 0.5, 0.5]


def test_ties_go_to_the_first_class():
    near = np.array([[1, 2], [0, 2], [0, 1]])
    best, share = agreement(np.array([2, 0, 1]), near, 3)
    assert best.tolist() == [0, 1, 0] and share.tolist() == [0.5] * 3
    data = data_of(np.eye(3) + 1, ["z", "y", "x"], classes=["z", "y", "x"], label_column="said", column="own")
    assert run(data, k=2, label_column="said", column="own")[0] == ["y", "z", "z"]
    assert run(data_of(np.eye(3) + 1, ["z", "y", "x"]), k=2)[0] == ["x", "x", "y"]


def test_a_sample_bounds_the_cost():
    vectors = np.random.default_rng(2).normal(size=(50, 3))
    data = data_of(vectors, ["a", "b"] * 25)
    found, share = run(data, k=3, sample=20)
    inside = ~np.isnan(share)
    assert inside.sum() == 20 and [label is not None for label in found] == inside.tolist()
    other = run(data, k=3, sample=20, seed=1)[1]
    assert (np.isnan(other) != ~inside).any()
    part = [i for i in range(50) if inside[i]]
    alone = run(data_of(vectors[part], [["a", "b"][i % 2] for i in part]), k=3)[1]
    assert (alone == share[inside]).all()


def test_refusals():
    with pytest.raises(InputError, match="too few rows"):
        run(data_of(np.eye(3), "abc"), k=3)
    with pytest.raises(InputError, match="no class that is known") as error:
        run(data_of(np.eye(3), ["a", None, "b"]), k=1)
    assert "row r1" in str(error.value)
    with pytest.raises(InputError, match="no class that is known"):
        run(data_of(np.eye(3), "abc", classes=["a", "b"]), k=1)
    with pytest.raises(InputError, match="predicted"):
        run(data_of(np.eye(3), "abc", label_column="other"), k=1)
