"""data.select.cluster_uncertain: explicit gradients and scikit-learn's k-means++, planted groups, copies, time."""

import time

import numpy as np
import pytest

from tutelage.core.apply import apply_transform
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.core.records import Budget
from tutelage.data.select.cluster_uncertain import ClusterUncertain, seeding

PROOF = {"data.select.cluster_uncertain": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/data/select/cluster_uncertain.py", "- 2.0 * product", "- product"),
    ("src/tutelage/data/select/cluster_uncertain.py", "int(squares.argmax())", "0"),
    ("src/tutelage/data/select/cluster_uncertain.py", "rng.random() * total[-1]", "0.5 * total[-1]"),
    ("src/tutelage/data/select/cluster_uncertain.py", "probs.argmax(axis=1)] -= 1.0", "0] -= 1.0"),
    ("src/tutelage/data/select/cluster_uncertain.py", "here[here <= ROUNDING * sums] = 0.0", ""),
    ("src/tutelage/data/select/cluster_uncertain.py", "errors[by_id].astype(np.float32), vectors[by_id]",
     "errors.astype(np.float32), vectors"),
]  # fmt: skip


def data_of(vectors, probs, ids=None, column="embedding", name="predicted_probs"):
    classes = [f"c{k}" for k in range(len(probs[0]))]
    return Dataset.from_rows(
        {
            "id": ids[i] if ids else f"r{i:03d}",
            "text": "some text",
            "n_tokens": 2,
            "classes": classes,
            column: [float(x) for x in v],
            name: [float(x) for x in p],
        }
        for i, (v, p) in enumerate(zip(vectors, probs))
    )


def taken(data, rows=None, **fields):
    budget = fields.pop("budget", Budget(rows=rows) if rows else None)
    return apply_transform(ClusterUncertain(budget=budget, **fields), data, {})


def planted(count=40, seed=0, classes=3, width=5):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, width)).astype(np.float32), rng.dirichlet(np.ones(classes), count)


def test_distances_are_those_of_the_gradients_themselves():
    vectors, probs = planted()
    errors = probs - np.eye(3)[probs.argmax(1)]
    gradients = np.einsum("nc,nd->ncd", errors, vectors).reshape(40, -1)
    rows, left = seeding(errors, vectors, 7, np.random.default_rng(1))
    assert rows[0] == np.linalg.norm(gradients, axis=1).argmax() and len(set(rows.tolist())) == 7
    every = ((gradients[:, None] - gradients[None, rows]) ** 2).sum(-1)
    assert np.allclose(left, every.min(axis=1), atol=1e-5)


def test_the_second_row_is_drawn_by_squared_distance():
    vectors, probs = planted(6)
    errors = probs - np.eye(3)[probs.argmax(1)]
    gradients = np.einsum("nc,nd->ncd", errors, vectors).reshape(6, -1)
    first = np.linalg.norm(gradients, axis=1).argmax()
    share = ((gradients - gradients[first]) ** 2).sum(1)
    rng = np.random.default_rng(0)
    drawn = [seeding(errors, vectors, 2, rng)[0][1] for _ in range(4000)]
    counts = np.bincount(drawn, minlength=6) / 4000
    assert np.abs(counts - share / share.sum()).max() < 0.03


def test_planted_groups_are_asked_once_and_sure_rows_are_one_more_group():
    # Three far groups of unsure rows; the many rows that the classifier is sure of have gradients near zero.
    rng = np.random.default_rng(3)
    centres = 10 * np.eye(3, 4)[np.repeat(range(3), 20)]
    vectors = np.vstack([centres + 0.01 * rng.normal(size=(60, 4)), rng.normal(size=(60, 4)) * 10])
    probs = np.vstack([np.tile([0.51, 0.49], (60, 1)), np.tile([0.001, 0.999], (60, 1))])
    for seed in range(5):
        found = taken(data_of(vectors, probs), 4, seed=seed)
        assert sorted(min(int(i[1:]) // 20, 3) for i in found.ids()) == [0, 1, 2, 3]
        assert found.report["status"] == "selected"


def test_the_order_of_rows_does_not_matter():
    vectors, probs = planted()
    ids = [f"r{i:03d}" for i in range(40)]
    turned = np.random.default_rng(4).permutation(40)
    moved = data_of(vectors[turned], probs[turned], ids=[ids[i] for i in turned])
    assert sorted(taken(moved, 6, seed=2).ids()) == sorted(taken(data_of(vectors, probs), 6, seed=2).ids())
    assert taken(data_of(vectors, probs), 6).ids() != taken(data_of(vectors, probs), 6, seed=5).ids()


def test_copies_end_the_selection_and_small_pools_are_taken():
    vectors, probs = planted(4)
    copies = data_of(np.tile(vectors, (3, 1)), np.tile(probs, (3, 1)))
    with pytest.warns(UserWarning, match="4 rows are taken"):
        assert taken(copies, 6).num_rows == 4
    # In single precision the distance between equal gradients is not quite 0.
    many, sure = planted(30, width=300)
    with pytest.warns(UserWarning, match="30 rows are taken"):
        assert taken(data_of(np.tile(many, (3, 1)), np.tile(sure, (3, 1))), 40).num_rows == 30
    whole = taken(data_of(vectors, probs), 9)
    assert whole.num_rows == 4 and whole.report["status"] == "pool_exhausted"
    assert taken(data_of(vectors, probs), budget=Budget(tokens=3)).num_rows == 2
    other = data_of(vectors, probs, column="own", name="mine")
    assert taken(other, 2, column="own", probs="mine").num_rows == 2


def test_twenty_thousand_rows_take_seconds():
    vectors, probs = planted(20_000, width=384, classes=10)
    errors = (probs - np.eye(10)[probs.argmax(1)]).astype(np.float32)
    start = time.perf_counter()
    assert len(seeding(errors, vectors, 50, np.random.default_rng(0))[0]) == 50
    assert time.perf_counter() - start < 5


def test_refusals():
    vectors, probs = planted(4)
    with pytest.raises(ConfigError, match="needs a budget"):
        taken(data_of(vectors, probs))
    with pytest.raises(InputError, match="no rows to ask about"):
        taken(data_of(vectors, probs).keep(np.zeros(4, bool), "gone"), 2)
    with pytest.raises(InputError, match="not finite"):
        taken(data_of(vectors * np.nan, probs), 2)
