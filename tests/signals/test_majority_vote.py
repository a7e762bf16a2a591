"""signals.majority_vote: votes by hand, ties by the prior, weights, numbers with a schema, refusals."""

import numpy as np
import pytest

from tutelage.core.apply import score_dataset
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.signals.majority_vote import MajorityVote

PROOF = {"signals.majority_vote": ["consistent"]}
MUTATIONS = [
    ("src/tutelage/signals/majority_vote.py", "= weight * np.eye(classes)", "= np.eye(classes)"),
    ("src/tutelage/signals/majority_vote.py", "probs[probs.sum(axis=1) == 0] = prior", "pass"),
    ("src/tutelage/signals/_votes.py", "np.where(top, prior, -1.0).argmax", "top.argmax"),
    ("src/tutelage/signals/_votes.py", "covered & (top", "(top"),
    ("src/tutelage/signals/_votes.py", "place[source]] = index[vote]", "0] = index[vote]"),
]
SCHEMA = Dataset.from_rows([{"label": name} for name in ("c", "b", "a")])


def data_of(votes, sources=None):
    rows = [{"id": f"r{i}", "votes": row} for i, row in enumerate(votes)]
    for i, row in enumerate(rows):
        if sources is not None:
            row["vote_sources"] = sources[i] if isinstance(sources[0], list) else sources
    return Dataset.from_rows(rows)


def run(votes, sources=None, inputs=None, **fields):
    return score_dataset(MajorityVote(**fields), data_of(votes, sources), inputs or {})


def test_votes_by_hand():
    votes = [["a", "a", "b"], [None, "b", None], ["a", "b", None], [None, None, None], ["b", "b", "b"]]
    found = run(votes, ["x", "y", "z"])
    # Of all nine votes a has 3, b has 6.
    assert found.column("vote_label").to_pylist() == ["a", "b", "b", None, "b"]
    assert np.allclose(
        found.column("vote_probs").to_pylist(), [[2 / 3, 1 / 3], [0, 1], [0.5, 0.5], [3 / 9, 6 / 9], [0, 1]]
    )
    assert found.column("classes").to_pylist() == [["a", "b"]] * 5
    assert found.column("vote_tie").to_pylist() == [False, False, True, False, False]
    assert found.column("vote_covered").to_pylist() == [True, True, True, False, True]
    assert run(votes, prior={"a": 0.9, "b": 0.1}).column("vote_label").to_pylist()[2] == "a"
    even = run(votes, prior={"a": 0.5, "b": 0.5})
    assert even.column("vote_tie").to_pylist() == [False, False, True, False, False]


def test_weights_and_sources_in_another_order():
    votes = [["a", "a", "b"], ["b", "a", "a"], ["a", None, "b"]]
    sources = [["x", "y", "z"], ["z", "y", "x"], ["y", "x", "z"]]
    found = run(votes, sources, weights={"z": 3.0})
    assert found.column("vote_label").to_pylist() == ["b", "b", "b"]
    assert np.allclose(found.column("vote_probs").to_pylist(), [[0.4, 0.6], [0.4, 0.6], [0.25, 0.75]])
    # A source that counts nothing covers no row.
    silent = run([["a", None], [None, "b"]], ["x", "y"], weights={"y": 0.0})
    assert silent.column("vote_covered").to_pylist() == [True, False]


def test_numbers_need_a_schema_and_follow_its_order():
    data = Dataset.from_rows({"id": f"r{i}", "weak": row} for i, row in enumerate([[0, 0, 2], [-1, 1, -1]]))
    found = score_dataset(MajorityVote(column="weak"), data, {"labels": SCHEMA})
    assert found.column("vote_label").to_pylist() == ["c", "b"]
    assert found.column("classes").to_pylist()[0] == ["c", "b", "a"]
    with pytest.raises(InputError, match="which class is which"):
        score_dataset(MajorityVote(column="weak"), data, {})


def test_refusals():
    with pytest.raises(InputError, match="no source has voted") as error:
        run([[None, None], [None, None]], ["first rule", "second rule"])
    assert "first rule, second rule" in str(error.value)
    with pytest.raises(InputError, match="nearest is 'a'") as error:
        run([["a", "b"], ["a", "aa"]], ["x", "y"], {"labels": SCHEMA})
    assert "row r1" in str(error.value) and "source y" in str(error.value)
    numbers = Dataset.from_rows([{"id": "n", "votes": [0, 3]}])
    with pytest.raises(InputError, match="row n"):
        score_dataset(MajorityVote(), numbers, {"labels": SCHEMA})
    with pytest.raises(InputError, match="do not fit"):
        run([["a", "b"], ["a"]], ["x", "y"])
    with pytest.raises(InputError, match="has no votes") as error:
        run([["a"], None])
    assert "row r1" in str(error.value)
    with pytest.raises(ConfigError, match="did you mean first"):
        run([["a"]], ["first"], weights={"frist": 2.0})
    for prior in ({"a": 1.0}, {"a": 0.5, "b": 0.6}, {"a": 1.0, "b": 0.0}):
        with pytest.raises(ConfigError, match="no distribution"):
            run([["a", "b"]], prior=prior)
    method = MajorityVote()
    state = method.fit(data_of([["a", "b"]], ["x", "y"]), {})
    with pytest.raises(InputError, match="was not there"):
        score_dataset(method, data_of([["a", "b"]], ["x", "new"]), {}, state)
