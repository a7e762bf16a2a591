"""signals.dawid_skene: crowd-kit's posteriors, planted sources, copies, keywords, warnings."""

import warnings

import numpy as np
import pytest

from tutelage.core.apply import score_dataset
from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.signals._votes import one_hot
from tutelage.signals.dawid_skene import DawidSkene, copies, expectation
from tutelage.signals.majority_vote import MajorityVote

PROOF = {"signals.dawid_skene": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/signals/dawid_skene.py", "q.mean(axis=0) if fixed", "q[0] if fixed"),
    (
        "src/tutelage/signals/dawid_skene.py",
        "counts.sum(axis=2, keepdims=True)",
        "counts.sum(axis=1, keepdims=True)",
    ),
    ("src/tutelage/signals/dawid_skene.py", "+ np.log(np.maximum(prior, 1e-300))", ""),
    ("src/tutelage/signals/dawid_skene.py", "first[later] = first[earlier]", "pass"),
    ("src/tutelage/signals/dawid_skene.py", "(a == b)[either].mean()", "(a == b)[both].mean()"),
    ("src/tutelage/signals/dawid_skene.py", "matrix == ABSTAIN, classes, matrix", "matrix == ABSTAIN, 0, matrix"),
]
# crowd-kit 1.4.2, DawidSkene(n_iter=8, tol=-1e9), on planted(0, 60, abstain=0.2): the first 12 rows, and the sums
# over all rows. Its own stopping rule is no likelihood: with one the two would end after different rounds.
CROWD_KIT = [
    [0.00018, 0.00011, 0.99971],
    [0.00063, 0.99937, 0.0],
    [0.53778, 0.46221, 1e-05],
    [0.95259, 0.046, 0.00141],
    [0.99904, 0.00071, 0.00024],
    [0.9967, 0.00279, 0.00052],
    [0.99459, 0.00226, 0.00315],
    [0.85921, 0.11857, 0.02222],
    [0.86833, 0.08868, 0.04299],
    [0.0, 0.0, 1.0],
    [0.00014, 0.99986, 0.0],
    [0.0, 5e-05, 0.99995],
]
SUMS = [15.0147, 21.6979, 23.2874]


def planted(seed, rows, accuracies=(0.9, 0.8, 0.7, 0.6, 0.55), classes=3, abstain=0.0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, rows)
    votes = np.empty((rows, len(accuracies)), int)
    for source, accuracy in enumerate(accuracies):
        wrong = (truth + rng.integers(1, classes, rows)) % classes
        votes[:, source] = np.where(rng.random(rows) < accuracy, truth, wrong)
        votes[rng.random(rows) < abstain, source] = -1
    votes[votes.max(1) < 0, 0] = 0
    return truth, votes


def data_of(votes, names="abcdef"):
    named = [[None if v < 0 else names[v] for v in row] for row in votes.tolist()]
    sources = [f"s{j}" for j in range(votes.shape[1])]
    return Dataset.from_rows({"id": f"r{i}", "votes": row, "vote_sources": sources} for i, row in enumerate(named))


def probs(found):
    return np.array(found.column("vote_probs").to_pylist())


def run(votes, method=DawidSkene, **fields):
    return score_dataset(method(**fields), data_of(votes), {})


def accuracy(found, truth, names="abcdef"):
    return np.mean([names[t] == label for t, label in zip(truth, found.column("vote_label").to_pylist())])


def test_equals_crowd_kit():
    _, votes = planted(0, 60, abstain=0.2)
    found = probs(run(votes, smoothing=0.0, rounds=8))
    assert np.abs(found[:12] - CROWD_KIT).max() < 1e-4
    assert np.abs(found.sum(axis=0) - SUMS).max() < 1e-3


def test_planted_sources_are_recovered_and_beat_the_majority():
    gains = []
    for seed in range(4):
        truth, votes = planted(seed, 600)
        state = DawidSkene().fit(data_of(votes), {})
        diagonal = np.asarray(state["errors"])[:, range(3), range(3)].mean(axis=1)
        assert np.abs(diagonal - [0.9, 0.8, 0.7, 0.6, 0.55]).max() < 0.1
        gains.append(accuracy(run(votes), truth) - accuracy(run(votes, MajorityVote), truth))
    assert np.mean(gains) > 0.01


def test_the_likelihood_never_falls():
    from tutelage.signals.dawid_skene import fit

    _, votes = planted(5, 200, abstain=0.3)
    coded, q = one_hot(votes, 3), np.random.default_rng(0).dirichlet(np.ones(3), 200)
    found = []
    for _ in range(30):
        q, prior, errors, _ = fit(coded, q, 3, 0.0, 1)
        found.append(expectation(coded, prior, errors)[1])
    assert (np.diff(found) > -1e-9).all() and found[-1] > found[0] + 1


def test_a_copied_source_counts_once():
    _, votes = planted(1, 300)
    copied = np.hstack([votes, votes[:, [4]], votes[:, [4]]])
    copied[:3, 5] = -1
    copied[3, 6] = (copied[3, 6] + 1) % 3
    with pytest.warns(UserWarning, match="'s6' repeats 's4'"):
        found = run(copied)
    assert np.abs(probs(found) - probs(run(votes))).max() < 0.02
    # Too few shared votes to tell; and agreement by chance of unlike sources is none.
    assert copies(copied[:49]).tolist() == list(range(7))
    assert copies(votes).tolist() == list(range(5))


def test_keywords_inform_by_being_silent():
    # Each source knows one class: which one it votes for says nothing, whether it votes does.
    rng = np.random.default_rng(2)
    truth = rng.integers(0, 2, 2000)
    votes = np.full((2000, 6), -1)
    for source in range(6):
        kind = source % 2
        fires = rng.random(2000) < np.where(truth == kind, 0.4, 0.1)
        votes[fires, source] = kind
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = run(votes)
    # The best that can be known: the true rates of firing and of silence.
    rates = np.array([[0.4, 0.1] if s % 2 == 0 else [0.1, 0.4] for s in range(6)])
    logs = np.where(votes[:, :, None] >= 0, np.log(rates), np.log(1 - rates)).sum(axis=1)
    bayes = np.exp(logs[:, 1]) / np.exp(logs).sum(axis=1)
    assert np.abs(probs(found)[:, 1] - bayes).mean() < 0.04
    # Nobody voted: a guess, and so no label.
    silent = int((votes < 0).all(axis=1).argmax())
    assert found.column("vote_label").to_pylist()[silent] is None
    with pytest.warns(UserWarning, match="no effect: s0, s1"):
        assert np.ptp(probs(run(votes, abstention="ignored")), axis=0).max() < 0.01


def test_a_known_prior_stays():
    _, votes = planted(3, 200)
    prior = {"a": 0.6, "b": 0.3, "c": 0.1}
    assert np.allclose(DawidSkene(prior=prior).fit(data_of(votes), {})["prior"], [0.6, 0.3, 0.1])
    votes[7] = -1
    found = run(votes, prior=prior, abstention="ignored")
    assert np.allclose(probs(found)[7], [0.6, 0.3, 0.1])
    assert found.column("vote_label").to_pylist()[7] is None


def test_what_cannot_be_known_is_said():
    truth, votes = planted(0, 300)
    with pytest.warns(UserWarning, match="not identifiable"):
        run(votes[:, :2])
    # A prior turned round makes the other class of each pair the likelier name for the same split.
    rng = np.random.default_rng(0)
    truth = (rng.random(400) < 0.9).astype(int)
    turned = np.where(rng.random((400, 3)) < 0.9, truth[:, None], 1 - truth[:, None])
    with pytest.warns(UserWarning, match="label switching suspected"):
        run(turned, prior={"a": 0.999, "b": 0.001}, smoothing=1.0)
    with pytest.raises(InputError, match="no source has voted") as error:
        run(np.full((4, 2), -1))
    assert "s0, s1" in str(error.value)


def test_a_fitted_state_labels_other_rows():
    _, votes = planted(4, 300)
    method = DawidSkene(column="votes")
    state = method.fit(data_of(votes), {})
    some = score_dataset(method, data_of(votes[::5]), {}, state)
    assert np.allclose(probs(some), probs(run(votes))[::5])
