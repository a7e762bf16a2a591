"""data.select.k_centre: twice the optimum by brute force, order by hand, copies, seeds, budgets, refusals."""

import itertools
import warnings

import numpy as np
import pytest

from tutelage.core.apply import apply_transform
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.core.records import Budget
from tutelage.data.select.k_centre import KCentre, greedy

PROOF = {"data.select.k_centre": ["consistent", "verified"]}
MUTATIONS = [
    (
        "src/tutelage/data/select/k_centre.py",
        "        following = int(nearest.argmax())\n    return",
        "    return",
    ),
    (
        "src/tutelage/data/select/k_centre.py",
        "np.minimum(nearest, distances(vectors, vectors[following]), out=nearest)",
        "nearest = distances(vectors, vectors[following])",
    ),
    ("src/tutelage/data/select/k_centre.py", "vectors.mean(axis=0)).argmin()", "vectors.mean(axis=0)).argmax()"),
    ("src/tutelage/data/select/k_centre.py", "and nearest[following] > 0", ""),
    (
        "src/tutelage/data/select/k_centre.py",
        "rows, tokens, self._seeds(inputs, vectors.shape[1])",
        "rows, tokens",
    ),
    ("src/tutelage/data/select/k_centre.py", "vectors[by_id], sizes[by_id]", "vectors[by_id], sizes"),
]


def data_of(vectors, sizes=None, name="embedding", ids=None):
    return Dataset.from_rows(
        {
            "id": ids[i] if ids else f"r{i:03d}",
            name: [float(x) for x in v],
            "text": "word",
            "n_tokens": 1 if sizes is None else sizes[i],
        }
        for i, v in enumerate(vectors)
    )


def taken(data, inputs=None, **fields):
    return apply_transform(KCentre(**fields), data, inputs or {})


def radius(vectors, centres):
    return np.linalg.norm(vectors[:, None] - vectors[list(centres)][None], axis=2).min(axis=1).max()


@pytest.mark.parametrize("seed", range(20))
def test_within_twice_the_best_radius(seed):
    vectors = np.random.default_rng(seed).normal(size=(12, 2)).astype(np.float32)
    best = min(radius(vectors, centres) for centres in itertools.combinations(range(12), 3))
    found = taken(data_of(vectors), budget=Budget(rows=3))
    rows = [int(i[1:]) for i in found.ids()]
    assert len(rows) == 3
    assert found.report["radius"] == pytest.approx(radius(vectors, rows), rel=1e-5)
    assert found.report["radius"] <= 2 * best * (1 + 1e-5)


def test_the_order_by_hand_and_ties_by_id():
    # The mean is (4, 0): 4.5 and 3.5 are equally near it, 4.5 comes first; then 0 and 9, both 4.5 away.
    line = np.array([[0.0, 0], [3, 0], [9, 0], [4.5, 0], [3.5, 0]])
    order, nearest = greedy(line, np.ones(5), 3, np.inf)
    assert order.tolist() == [3, 0, 2]
    assert nearest.tolist() == [0, 1.5, 0, 0, 1.0]
    # Four corners around the centre: the one whose id sorts first joins, wherever it stands.
    square = [[1.0, 1], [0, 0], [-1, 1], [1, -1], [-1, -1]]
    for ids in (["b", "m", "a", "d", "c"], ["d", "m", "c", "a", "b"]):
        found = taken(data_of(square, ids=ids), budget=Budget(rows=2))
        assert sorted(found.ids()) == ["a", "m"]


def test_the_order_of_rows_does_not_matter_and_budgets_nest():
    vectors = np.random.default_rng(3).normal(size=(40, 4))
    ids = [f"r{i:03d}" for i in range(40)]
    turned = np.random.default_rng(4).permutation(40)
    smaller: set[str] = set()
    for count in (1, 5, 17):
        here = set(taken(data_of(vectors), budget=Budget(rows=count)).ids())
        moved = data_of(vectors[turned], ids=[ids[i] for i in turned])
        assert here == set(taken(moved, budget=Budget(rows=count)).ids())
        assert smaller < here and len(here) == count
        smaller = here


def test_a_token_budget_includes_the_crossing_row():
    line = [[0.0], [1.0], [10.0], [20.0]]
    found = taken(data_of(line, sizes=[1, 5, 50, 7], ids=["d", "c", "b", "a"]), budget=Budget(tokens=56))
    # The mean 7.75 is nearest 10 (50 tokens), then 20 and 0 are equally far: by id "a", 20, with 7 tokens.
    assert found.ids() == ["b", "a"]
    assert (found.report["tokens_taken"], found.report["overshoot_tokens"]) == (57, 1)
    assert (found.report["rows_without_score"], found.report["radius"]) == (0, 10.0)
    reasons = dict(zip(*(found.dropped.column(c).to_pylist() for c in ("id", "reason"))))
    assert reasons == {
        "d": "not selected: distance to the nearest row held 10",
        "c": "not selected: distance to the nearest row held 9",
    }


def test_copies_end_the_selection_early():
    points = np.repeat(np.eye(3), 4, axis=0)
    with pytest.warns(UserWarning, match="3 rows are taken"):
        found = taken(data_of(points), budget=Budget(rows=5))
    assert found.num_rows == 3 and found.report["radius"] == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert taken(data_of(points), budget=Budget(rows=3)).num_rows == 3
        assert taken(data_of(np.eye(3)), budget=Budget(rows=3)).num_rows == 3


def test_what_the_seeds_cover_is_left_out():
    line = data_of([[0.0], [1.0], [10.0], [20.0]])
    held = data_of([[20.5], [1.0]], ids=["x", "y"])
    found = taken(line, {"seeds": held}, budget=Budget(rows=1))
    assert found.ids() == ["r002"]
    assert found.report["radius"] == 1.0
    assert taken(line, {"seeds": held.keep(np.zeros(2, bool), "gone")}, budget=Budget(rows=1)).ids() == ["r002"]
    with pytest.warns(UserWarning, match="0 rows are taken"):
        assert taken(line, {"seeds": line}, budget=Budget(rows=1)).num_rows == 0
    with pytest.raises(InputError, match="another length"):
        taken(line, {"seeds": data_of([[1.0, 2.0]])}, budget=Budget(rows=1))


def test_refusals():
    data = data_of(np.eye(3))
    with pytest.raises(ConfigError, match="larger than what there is"):
        taken(data, budget=Budget(rows=4))
    assert taken(data, budget=Budget(rows=4), allow_short=True).num_rows == 3
    with pytest.raises(ConfigError, match="needs a budget"):
        taken(data)
    with pytest.raises(InputError, match="not finite") as error:
        taken(data_of([[0.0], [np.nan]]), budget=Budget(rows=1))
    assert "r001" in str(error.value)
    assert taken(data_of(np.eye(3), name="own"), column="own", budget=Budget(rows=2)).num_rows == 2
