"""signals.text_classifier: scikit-learn's logistic regression and calibration, length-matched AUC, refusals."""

import itertools

import numpy as np
import pytest

from toy.planted_pool import make_evaluation, make_pool
from tutelage.core.apply import score_dataset
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.core.text.hashing import uniform
from tutelage.signals.text_classifier import TextClassifier, auc, auc_same_length, platt

PROOF = {"signals.text_classifier": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/signals/text_classifier.py", 'class_weight="balanced"', "class_weight=None"),
    ("src/tutelage/signals/text_classifier.py", "1 / (counts[0] + 2))", "0.0)"),
    (
        "src/tutelage/signals/text_classifier.py",
        "weight = 0.5 / counts[positive.astype(int)]",
        "weight = 1 + z * 0",
    ),
    ("src/tutelage/signals/text_classifier.py", "lengths[positive] / NEAR", "lengths[positive] * 0"),
    ("src/tutelage/signals/text_classifier.py", "1 / np.sqrt(np.maximum", "1 / (np.maximum"),
    ("src/tutelage/signals/text_classifier.py", "(matrix[~held], positive[~held])", "(matrix, positive)"),
    ("src/tutelage/signals/text_classifier.py", "bounds=[(0, None)", "bounds=[(None, None)"),
]


def data_of(texts):
    return Dataset.from_rows({"id": f"r{i}", "text": t} for i, t in enumerate(texts))


def scored(texts, positives, negatives, **fields):
    inputs = {"positives": data_of(positives), "negatives": data_of(negatives)}
    return score_dataset(TextClassifier(**fields), data_of(texts), inputs)


def noisy(count, share, seed, length=12):
    """Texts of which a share of the words is of the own kind: the classes overlap."""
    rng = np.random.default_rng(seed)
    own, common = [f"own{i}" for i in range(30)], [f"all{i}" for i in range(60)]
    return [
        " ".join(rng.choice(own if rng.random() < share else common) for _ in range(length)) for _ in range(count)
    ]


def reference(positives, negatives, ngrams, held_out=0.2, seed=0, C=10.0):
    """The same by scikit-learn's parts: (decision function of texts, held-out scores, their labels)."""
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    texts = [*negatives, *positives]
    labels = np.repeat([0, 1], [len(negatives), len(positives)])
    held = uniform(seed, texts) < held_out
    model = make_pipeline(
        HashingVectorizer(token_pattern=r"[^\W_]+", ngram_range=(1, ngrams), alternate_sign=False),
        LogisticRegression(C=C, class_weight="balanced", max_iter=1000, tol=1e-8),
    )
    model.fit([t for t, h in zip(texts, held) if not h], labels[~held])
    later = [t for t, h in zip(texts, held) if h]
    return model.decision_function, model.decision_function(later), labels[held].astype(bool)


def logit(p):
    return np.log(p) - np.log1p(-p)


@pytest.mark.parametrize(("ngrams", "C"), [(1, 10.0), (1, 0.5), (2, 10.0)])
def test_equals_scikit_learn(ngrams, C):
    positives, negatives = noisy(60, 0.35, 1), noisy(180, 0.2, 2)
    texts = noisy(40, 0.3, 3)
    decide, held, labels = reference(positives, negatives, ngrams, C=C)
    found = scored(texts, positives, negatives, ngrams=ngrams, C=C)
    slope, offset = platt(held, labels)
    assert slope > 0
    # The two hash differently: of thousands of word pairs a few share a bucket, others in each.
    tolerance = 0.02 if ngrams == 1 else 0.1
    assert np.allclose(logit(found.numpy("p_positive")), slope * decide(texts) + offset, atol=tolerance)
    assert np.allclose(found.numpy("classifier_auc"), auc(held, labels), atol=0.01)


def test_calibration_equals_scikit_learn_for_equally_many_of_both():
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    positive = np.arange(300) % 2 == 1
    x = (positive * 1.3 + rng.normal(size=300))[:, None]
    inner = LogisticRegression().fit(x * 0.7, positive)
    theirs = CalibratedClassifierCV(FrozenEstimator(inner), method="sigmoid").fit(x, positive)
    slope, offset = platt(inner.decision_function(x), positive)
    expected = theirs.predict_proba(x)[:, 1]
    assert np.allclose(1 / (1 + np.exp(-(slope * inner.decision_function(x) + offset))), expected, atol=1e-3)


def test_a_probability_is_what_it_says_at_equal_shares():
    rng = np.random.default_rng(1)
    positive = rng.random(4000) < 0.1
    z = 5 * (positive + rng.normal(size=4000))
    slope, offset = platt(z, positive)
    # Two normal classes of spread 5 and means 0 and 5: the log odds at equal shares are z / 5 - 1 / 2.
    assert slope == pytest.approx(0.2, abs=0.02) and offset == pytest.approx(-0.5, abs=0.1)
    # A score that ranks the wrong way round gives no information, not the reverse.
    assert platt(-z, positive)[0] == 0.0


def test_auc_over_pairs_of_equal_length_by_brute_force():
    rng = np.random.default_rng(2)
    positive = np.arange(80) % 3 == 0
    lengths = rng.integers(5, 60, 80).astype(float)
    scores = np.round(rng.normal(size=80) + 0.05 * lengths, 1)
    pairs = [
        (scores[p] > scores[n]) + 0.5 * (scores[p] == scores[n])
        for p, n in itertools.product(np.flatnonzero(positive), np.flatnonzero(~positive))
        if 1 / 1.1 <= lengths[p] / lengths[n] <= 1.1
    ]
    assert auc_same_length(scores, positive, lengths) == pytest.approx(np.mean(pairs))
    assert np.isnan(auc_same_length(scores, positive, np.where(positive, 1.0, 100.0)))


def test_target_texts_are_told_from_others():
    rows = make_pool(300, seed=4)
    others = [r["text"] for r in make_pool(200, seed=5) if r["kind"] in ("prose", "template", "random")]
    wanted = [r["text"] for r in make_evaluation(60, seed=5)]
    found = scored([r["text"] for r in rows], wanted, others)
    is_target = np.array([r["kind"] in ("target", "leak") for r in rows])
    p = found.numpy("p_positive")
    assert p[is_target].min() > 0.5 > p[~is_target & np.array([r["kind"] != "pair" for r in rows])].max()
    assert found.numpy("classifier_auc").tolist() == [1.0] * 300
    assert found.numpy("classifier_auc_same_length")[0] == 1.0


def test_a_classifier_of_length_is_found_out():
    def repeated(seed, low, high):
        rng = np.random.default_rng(seed)
        return ["start " + "word " * int(rng.integers(low, high)) for _ in range(400)]

    with pytest.warns(UserWarning, match="may be length"):
        found = scored(["start word"], repeated(1, 4, 40), repeated(2, 1, 20), ngrams=1)
    whole, matched = (found.numpy(n)[0] for n in ("classifier_auc", "classifier_auc_same_length"))
    assert whole > 0.7 and abs(matched - 0.5) < 0.1


def test_rows_without_words_and_copies():
    positives, negatives = noisy(40, 0.6, 1), noisy(40, 0.1, 2)
    found = scored(["", "...", positives[0]], positives, ["", *negatives]).numpy("p_positive")
    assert np.isnan(found[:2]).all() and found[2] > 0.5
    # Ten copies of a text fall on one side of the split, whatever their ids.
    held = {uniform(3, [text])[0] < 0.5 for text in [positives[0]] * 10}
    assert len(held) == 1
    splits = [scored(positives, positives, negatives, seed=s, held_out=0.5).numpy("p_positive") for s in (0, 0, 1)]
    assert np.array_equal(splits[0], splits[1]) and not np.array_equal(splits[0], splits[2])


def test_refusals():
    some = noisy(30, 0.5, 1)
    with pytest.raises(InputError, match=r"(?s)one kind of rows is missing.*inputs\.negatives"):
        scored(some, some, ["", "!"])
    with pytest.raises(InputError, match=r"(?s)one kind of rows is missing.*inputs\.positives"):
        scored(some, [], some)
    with pytest.raises(InputError, match=r"(?s)too few rows.*0 positive, "):
        scored(some, some[:1], noisy(30, 0.1, 2))
    with pytest.warns(UserWarning, match="rows is 0.50"):
        scored(some, some, some)
    with pytest.raises(ConfigError, match="held_out"):
        TextClassifier(held_out=1.0)
