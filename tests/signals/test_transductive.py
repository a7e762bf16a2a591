"""signals.transductive: scikit-learn's k-means, an objective that never rises, planted groups, names, refusals."""

import numpy as np
import pytest

from tutelage.core.apply import score_dataset
from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.signals.transductive import Transductive, cluster, means, neighbour_graph, objective

PROOF = {"signals.transductive": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/signals/transductive.py", "scores = -scale * u +", "scores = -u +"),
    ("src/tutelage/signals/transductive.py", "z[support] = anchor\n            now", "now"),
    ("src/tutelage/signals/transductive.py", "z.T @ vectors / np.maximum(mass, 1e-9)", "prototypes"),
    ("src/tutelage/signals/transductive.py", "-scale * u + (coupling", "-scale * u - (coupling"),
    ("src/tutelage/signals/transductive.py", "unit(vectors - vectors.mean(axis=0))", "unit(vectors)"),
    ("src/tutelage/signals/transductive.py", "int(right.argmax())", "int(right.argmin())"),
    ("src/tutelage/signals/transductive.py", "np.where(mass > 1e-9, ", "np.where(mass > -1, "),
]  # fmt: skip


def rows_of(vectors, prefix="q", labels=None, column="embedding"):
    rows = [{"id": f"{prefix}{i}", column: [float(x) for x in v]} for i, v in enumerate(vectors)]
    return Dataset.from_rows(rows if labels is None else [{**r, "label": y} for r, y in zip(rows, labels)])


def planted(groups=3, each=40, width=6, noise=0.6, seed=0):
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(groups), each)
    centres = 2 * rng.normal(size=(groups, width))
    return centres[truth] + noise * rng.normal(size=(len(truth), width)), truth


def run(queries, support, names="abc", **fields):
    labels = [names[y] for y in support[1]]
    column = fields.get("column", "embedding")
    given = {"support": rows_of(support[0], "s", labels, column)}
    return score_dataset(Transductive(**fields), rows_of(queries, column=column), given)


def predicted(found, names="abc"):
    return np.array([names.index(label) for label in found.column("predicted").to_pylist()])


@pytest.mark.parametrize("seed", range(3))
def test_hard_and_uncoupled_is_k_means(seed):
    from sklearn.cluster import KMeans

    vectors, _ = planted(seed=seed, noise=1.5)
    start = vectors[np.random.default_rng(seed).permutation(len(vectors))[:4]]
    theirs = KMeans(4, init=start, n_init=1, algorithm="lloyd", tol=0).fit(vectors)
    z, history = cluster(vectors, start, np.full(len(vectors), -1), None, 0.0, hard=True)
    assert (z.argmax(axis=1) == theirs.labels_).all()
    assert history[-1] == pytest.approx(theirs.inertia_) and (np.diff(history) <= 1e-9).all()


@pytest.mark.parametrize("coupling", [0.0, 0.5, 2.0])
def test_the_objective_never_rises_with_a_kernel(coupling):
    vectors, truth = planted(noise=1.5)
    squares = ((vectors[:, None] - vectors[None]) ** 2).sum(-1)
    kernel = np.exp(-squares / np.median(squares))
    fixed = np.full(len(truth), -1)
    fixed[[0, 40, 80]] = [0, 1, 2]
    z, history = cluster(vectors, means(vectors, fixed), fixed, kernel, coupling)
    assert len(history) > 3 and (np.diff(history) <= 1e-9 * np.abs(history[:-1])).all()
    assert (z[[0, 40, 80]] == np.eye(3)).all() and np.allclose(z.sum(axis=1), 1)
    # A step in any other direction costs: the assignments are the best for their prototypes where nothing couples.
    if not coupling:
        prototypes = z.T @ vectors / z.sum(axis=0)[:, None]
        u = ((vectors[:, None] - prototypes[None]) ** 2).sum(-1)
        other = np.random.default_rng(0).dirichlet(np.ones(3), len(z))
        mixed = 0.9 * z + 0.1 * other
        assert objective(mixed, u, None, 0.0, 1.0) > objective(z, u, None, 0.0, 1.0)


def test_a_graph_that_is_no_kernel_keeps_the_best():
    vectors, truth = planted(noise=1.5)
    fixed = np.where(np.arange(120) % 40 == 0, truth, -1)
    _, history = cluster(vectors, means(vectors, fixed), fixed, neighbour_graph(vectors, 5), 50.0)
    assert (np.diff(history) <= 1e-9 * np.abs(history[:-1])).all()
    graph = neighbour_graph(vectors, 5)
    assert abs(graph - graph.T).max() == 0 and graph.sum() == pytest.approx(120) and graph.diagonal().max() == 0


def test_one_label_per_class_is_enough_for_separate_groups():
    vectors, truth = planted(noise=0.5, seed=4)
    support = [7, 55, 119]
    queries = np.setdiff1d(np.arange(120), support)
    found = run(vectors[queries], (vectors[support], truth[support]))
    assert (predicted(found) == truth[queries]).mean() > 0.97
    assert set(found.column("transductive").to_pylist()) == {True}
    probs = np.array(found.column("predicted_probs").to_pylist())
    assert np.allclose(found.numpy("confidence"), probs.max(axis=1)) and np.allclose(probs.sum(axis=1), 1)
    # An offset that all vectors share says nothing.
    moved = run(vectors[queries] + 50.0, (vectors[support] + 50.0, truth[support]))
    assert np.allclose(probs, moved.column("predicted_probs").to_pylist(), atol=1e-3)


def test_other_names_permute_the_result():
    vectors, truth = planted(noise=1.2)
    support, queries = [0, 41, 82], np.setdiff1d(np.arange(120), [0, 41, 82])
    here = run(vectors[queries], (vectors[support], truth[support]), coupling=1.0)
    there = run(vectors[queries], (vectors[support], truth[support]), names="bca", coupling=1.0)
    assert [{"a": "b", "b": "c", "c": "a"}[x] for x in here.column("predicted").to_pylist()] == there.column(
        "predicted"
    ).to_pylist()


def test_the_coupling_is_chosen_on_the_support():
    vectors, truth = planted(each=60, width=20, noise=3.0, seed=3)
    support = np.concatenate([np.flatnonzero(truth == c)[:8] for c in range(3)])
    queries = np.setdiff1d(np.arange(180), support)
    right = []
    for coupling in (0.0, 0.1, 0.5, 1.0, 3.0):
        right.append(0)
        for turn in range(5):
            # The rows left out are classified in their place, with the queries.
            out = support[turn::8]
            kept = np.setdiff1d(support, out)
            others = np.concatenate([queries, out])
            found = run(vectors[others], (vectors[kept], truth[kept]), coupling=coupling, scale=2.0)
            right[-1] += (predicted(found)[len(queries) :] == truth[out]).sum()
    assert len(set(right)) > 1 and right.index(max(right)) > 0
    given = {"support": rows_of(vectors[support], "s", ["abc"[k] for k in truth[support]])}
    state = Transductive(scale=2.0, k=5).fit(rows_of(vectors[queries]), given)
    assert state["coupling"] == (0.0, 0.1, 0.5, 1.0, 3.0)[right.index(max(right))]
    one = {"support": rows_of(vectors[[0, 60, 120]], "s", ["a", "b", "c"])}
    assert Transductive().fit(rows_of(vectors[queries]), one)["coupling"] == 1.0


def test_labelled_rows_of_the_batch_keep_their_labels():
    vectors, truth = planted()
    labels = ["abc"[y] for y in truth]
    data = rows_of(vectors, "r")
    support = rows_of(vectors, "r", [label if i % 40 == 0 else None for i, label in enumerate(labels)])
    wrong = support.rows()
    turned = Dataset.from_rows(
        {**row, "label": row["label"] and {"a": "b", "b": "a", "c": "c"}[row["label"]]} for row in wrong
    )
    found = score_dataset(Transductive(hard=True, scale=2.0), data, {"support": turned})
    assert [found.column("predicted").to_pylist()[i] for i in (0, 40, 80)] == ["b", "a", "c"]
    assert set(np.array(found.column("predicted_probs").to_pylist()).ravel()) == {0.0, 1.0}


def test_a_class_that_nothing_chooses_keeps_its_prototype():
    vectors = np.array([[0.0], [1.0]])
    z, history = cluster(vectors, np.array([[0.5], [99.0]]), np.full(2, -1), None, 0.0, hard=True)
    assert z[:, 0].tolist() == [1.0, 1.0] and np.isfinite(history).all()


def test_refusals():
    vectors, truth = planted()
    schema = Dataset.from_rows([{"label": name} for name in "abcd"])
    given = {"support": rows_of(vectors[:3], "s", ["a", "b", "c"])}
    with pytest.raises(InputError, match="none of d"):
        score_dataset(Transductive(), rows_of(vectors), {**given, "labels": schema})
    with pytest.raises(InputError, match="another length"):
        run(vectors, (vectors[:3, :2], truth[:3]))
    method = Transductive(column="own")
    support = {"support": rows_of(vectors[:3], "s", ["a", "b", "c"], "own")}
    state = method.fit(rows_of(vectors, column="own"), support)
    with pytest.raises(InputError, match="classified together") as error:
        score_dataset(method, rows_of(vectors, "z", column="own"), support, state)
    assert "row z0" in str(error.value)


def test_without_coupling_assignments_follow_the_distances():
    from scipy.special import softmax

    vectors, _ = planted(noise=1.0)
    z, _ = cluster(vectors, vectors[[0, 40, 80]], np.full(120, -1), None, 0.0, scale=0.3)
    prototypes = z.T @ vectors / z.sum(axis=0)[:, None]
    squares = ((vectors[:, None] - prototypes[None]) ** 2).sum(-1)
    assert np.allclose(z, softmax(-0.3 * squares, axis=1), atol=1e-3)
