"""signals.polar: scikit-learn's logistic regression, shares of votes, planted errors, folds, refusals."""

import numpy as np
import pytest

from tutelage.core.apply import score_dataset
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.signals.polar import FOLDS, Polar, harmonise, log_softmax, scalarised

PROOF = {"signals.polar": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/signals/polar.py", "2.0 * value[:, None]", "value[:, None]"),
    ("src/tutelage/signals/polar.py", "1.0 - probs[np.arange", "probs[np.arange"),
    ("src/tutelage/signals/polar.py", "(folds != fold)", "(folds >= 0)"),
    ("src/tutelage/signals/polar.py", "decay[-1] = 0.0", "pass"),
    ("src/tutelage/signals/polar.py", "votes * each / sources / np", "votes * each / np"),
    ("src/tutelage/signals/polar.py", "(best if stops else found.x)", "found.x"),
    ("src/tutelage/signals/polar.py", "risk > self.repair_over", "risk > 2"),
]
NAMES = "abc"


def data_of(vectors, votes, texts=None, column="embedding", field="votes"):
    sources = ["machine", *(f"rule_{j}" for j in range(1, votes.shape[1]))]
    return Dataset.from_rows(
        {
            "id": f"r{i}",
            "text": texts[i] if texts else f"text {i}",
            column: [float(x) for x in vectors[i]],
            field: [None if v < 0 else NAMES[v] for v in votes[i]],
            "vote_sources": sources,
        }
        for i in range(len(votes))
    )


def run(data, **fields):
    return score_dataset(Polar(**{"machine": "machine", **fields}), data, {})


def shares(weights, vectors):
    return np.exp(log_softmax(vectors @ weights[:-1] + weights[-1]))


def planted(rows=900, seed=0):
    """Separable classes; a machine right in 75 % of all rows; two rules right in 80 % of those they know."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, rows)
    vectors = np.eye(3)[truth] * 2 + rng.normal(size=(rows, 3)) * 0.7
    votes = np.full((rows, 3), -1)
    for source, (accuracy, coverage) in enumerate([(0.75, 1.0), (0.8, 0.7), (0.8, 0.7)]):
        wrong = (truth + rng.integers(1, 3, rows)) % 3
        vote = np.where(rng.random(rows) < accuracy, truth, wrong)
        votes[:, source] = np.where(rng.random(rows) < coverage, vote, -1)
    return truth, vectors, votes


@pytest.mark.parametrize("kind", ["linear", "square"])
def test_with_a_feature_of_its_own_a_row_gets_the_shares_of_its_votes(kind):
    votes = np.array([[2, 1, 0], [1, 1, 1], [0, 1, 0], [3, 0, 0]])
    weights = harmonise(np.eye(4), votes, 3, kind)
    assert np.abs(shares(weights, np.eye(4)) - votes / votes.sum(1, keepdims=True)).max() < 2e-3


def test_the_linear_loss_is_logistic_regression_on_every_vote():
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(1)
    vectors, votes = rng.normal(size=(80, 4)), rng.integers(0, 3, (80, 3))
    ridge, sources = 0.02, 5
    weights = harmonise(vectors, votes, sources, "linear", ridge)
    row, label = np.nonzero(votes)
    voted = (votes.sum(1) > 0).sum()
    theirs = LogisticRegression(C=1 / (ridge * voted), tol=1e-9, max_iter=5000)
    theirs.fit(vectors[row], label, sample_weight=votes[row, label] / sources)
    assert np.abs(shares(weights, vectors) - theirs.predict_proba(vectors)).max() < 1e-4


@pytest.mark.parametrize("kind", ["square", "linear", "norm", "max"])
def test_losses_by_hand_and_their_slopes(kind):
    losses, votes = np.array([[1.0, 2.0, 4.0]]), np.array([[2, 1, 0]])
    # Three of four sources voted: their losses are 1 / 4, 1 / 4 and 2 / 4.
    expected = {"linear": 1.0, "square": 1.0, "norm": np.sqrt(6) / 4, "max": 0.5}[kind]
    value, slope = scalarised(losses, votes, 4, kind)
    assert value[0] == pytest.approx(expected)
    for k in range(3):
        moved = losses + 1e-6 * np.eye(3)[[k]]
        assert slope[0, k] == pytest.approx((scalarised(moved, votes, 4, kind)[0][0] - value[0]) / 1e-6, abs=1e-5)


def test_two_sources_that_contradict_each_other_leave_half():
    votes = np.array([[0, 1], [1, 0]] * 40)
    found = run(data_of(np.ones((80, 1)), votes), folds_below=0)
    assert np.allclose(found.numpy("label_risk"), 0.5, atol=0.02)


@pytest.mark.parametrize("kind", ["square", "linear", "norm", "max"])
def test_risk_finds_planted_errors_and_repairs_them(kind):
    from sklearn.metrics import roc_auc_score

    truth, vectors, votes = planted()
    found = run(data_of(vectors, votes), loss=kind)
    wrong, risk = votes[:, 0] != truth, found.numpy("label_risk")
    assert roc_auc_score(wrong, risk) > 0.93
    repaired = np.array([NAMES.index(name) for name in found.column("repaired_label").to_pylist()])
    assert (repaired == truth).mean() > 0.9 > (votes[:, 0] == truth).mean() + 0.1
    if kind == "square":
        bins = np.array_split(np.argsort(risk), 5)
        rates = [wrong[b].mean() for b in bins]
        assert rates == sorted(rates) and rates[0] < 0.05 and rates[-1] > 0.85


def test_a_row_is_judged_without_its_own_votes():
    _, vectors, votes = planted(200)
    other = votes.copy()
    other[7, 1] = (votes[7, 1] + 2) % 3

    def probs(given, **fields):
        return np.array(run(data_of(vectors, given), **fields).column("harmonised_probs").to_pylist())

    apart = probs(votes) == probs(other)
    assert apart[7].all() and not apart.all()
    assert not (probs(votes, folds_below=200) == probs(other, folds_below=200))[7].any()
    # Copies are in one fold: equal texts are judged alike.
    texts = [f"text {i % 100}" for i in range(200)]
    twice = data_of(np.vstack([vectors[:100]] * 2), np.vstack([votes[:100]] * 2), texts)
    risk = run(twice).numpy("label_risk")
    assert np.allclose(risk[:100], risk[100:])


def test_held_out_votes_decide_when_to_stop():
    rng = np.random.default_rng(3)
    _, _, votes = planted(200)
    counts = (votes[:, :, None] == np.arange(3)).sum(1)
    vectors = rng.normal(size=(200, 150))
    held = np.arange(200) < 60
    stopped = harmonise(vectors, counts, 3, held=held, patience=1000)
    full = harmonise(vectors[~held], counts[~held], 3)

    def loss(weights):
        return scalarised(-np.log(shares(weights, vectors[held])), counts[held], 3, "square")[0].mean()

    assert loss(stopped) < 0.99 * loss(full)
    early = harmonise(vectors, counts, 3, held=held, patience=1)
    assert loss(stopped) <= loss(early) < loss(full)


def test_a_machine_that_abstains_has_no_risk():
    _, vectors, votes = planted(200)
    votes[3, 0] = -1
    found = run(
        data_of(vectors, votes, column="own", field="said"), column="own", votes="said", seed=1, ridge=1e-3
    )
    assert np.isnan(found.numpy("label_risk")[3]) and found.column("repaired_label").to_pylist()[3] is None
    assert np.isfinite(np.delete(found.numpy("label_risk"), 3)).all()
    assert np.allclose(np.sum(found.column("harmonised_probs").to_pylist(), axis=1), 1)
    never = run(data_of(vectors, votes), repair_over=1.0)
    labels = [None if v < 0 else NAMES[v] for v in votes[:, 0]]
    assert never.column("repaired_label").to_pylist() == labels


def test_refusals():
    _, vectors, votes = planted(60)
    data = data_of(vectors, votes)
    with pytest.raises(ConfigError, match="whose labels it judges"):
        run(data, machine="")
    with pytest.raises(ConfigError, match="did you mean machine"):
        run(data, machine="machin")
    silent = votes.copy()
    silent[:, 0] = -1
    with pytest.raises(InputError, match="not labelled any row"):
        run(data_of(vectors, silent))
    with pytest.raises(InputError, match="no source has voted"):
        run(data_of(vectors, np.full_like(votes, -1)))
    state = Polar(machine="machine").fit(data, {})
    with pytest.raises(InputError, match="another length"):
        score_dataset(Polar(machine="machine"), data_of(vectors[:, :2], votes), {}, state)
    assert len(state["weights"]) == FOLDS
