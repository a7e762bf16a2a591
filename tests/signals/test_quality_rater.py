"""signals.quality_rater against scikit-learn and planted preferences."""

import warnings

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression

from tutelage.core.apply import score_dataset
from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.signals.quality_rater import QualityRater, accuracy, cut

PROOF = {"signals.quality_rater": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/signals/quality_rater.py", "features[pairs[:, 0]] - features[pairs[:, 1]]", "features[pairs[:, 1]] - features[pairs[:, 0]]"),  # noqa: E501
    ("src/tutelage/signals/quality_rater.py", "sizes / np.maximum", "1.0 / np.maximum"),
    ("src/tutelage/signals/quality_rater.py", "ratings[np.diff(features.indptr) == 0] = np.nan", "pass"),
    ("src/tutelage/signals/quality_rater.py", "if right <= 0.5:", "if right > 0.5:"),
]  # fmt: skip
RNG = np.random.default_rng(0)


DIRECTION = np.array([1.5, -1.0, 0.0, 0.5])


def judged_vectors(count=40):
    """Rows with vectors, preferences by a hidden direction."""
    vectors = np.random.default_rng(1).normal(size=(count, 4))
    return _judged([f"text {i}" for i in range(count)], vectors @ DIRECTION, vectors)


def _judged(texts, truth, vectors=None, by_chance=False):
    rows = []
    rng = np.random.default_rng(7)
    for i, text in enumerate(texts):
        others = [j % len(texts) for j in (i + 1, i + 3, i + 7)]
        p = [float(rng.random()) if by_chance else 1 / (1 + np.exp(truth[j] - truth[i])) for j in others]
        row = {"id": f"r{i}", "text": text, "judged_against": [f"r{j}" for j in others], "judged_preference": p}
        rows.append(row | ({} if vectors is None else {"vector": vectors[i].tolist()}))
    return Dataset.from_rows(rows)


def pairs_of(data):
    found = [
        (int(row["id"][1:]), int(other[1:]), p)
        for row in data.rows()
        for other, p in zip(row["judged_against"], row["judged_preference"])
    ]
    return np.array([f[:2] for f in found]), np.array([f[2] for f in found])


def test_equals_scikit_learn_with_soft_labels():
    data = judged_vectors()
    vectors = np.array(data.column("vector").to_pylist(), dtype=np.float32).astype(float)
    pairs, p = pairs_of(data)
    differences = vectors[pairs[:, 0]] - vectors[pairs[:, 1]]
    library = LogisticRegression(C=1 / 0.7, fit_intercept=False, tol=1e-10, max_iter=5000)
    library.fit(
        np.vstack([differences, differences]),
        np.repeat([1, 0], len(p)),
        sample_weight=np.concatenate([p, 1 - p]),
    )
    method = QualityRater(embedding_column="vector", ridge=0.7, column="rating")
    found = score_dataset(method, data, {"judged": data}).numpy("rating")
    assert np.allclose(found, vectors @ library.coef_[0], atol=1e-4)


def test_planted_scores_are_recovered_on_rows_never_judged():
    data = judged_vectors(60)
    vectors = RNG.normal(size=(30, 4))
    corpus = Dataset.from_rows({"id": f"c{i}", "text": "x", "vector": v.tolist()} for i, v in enumerate(vectors))
    found = score_dataset(QualityRater(embedding_column="vector"), corpus, {"judged": data}).numpy("quality")
    assert spearmanr(found, vectors @ DIRECTION).statistic > 0.95


GOOD, BAD, PLAIN = ["sonata", "fugue"], ["spam", "offer"], ["and", "then", "it", "was", "so"]


def text_rows(count, seed, length=12):
    rng = np.random.default_rng(seed)
    texts, truth = [], []
    for _ in range(count):
        words = rng.choice(GOOD + BAD + PLAIN, length).tolist()
        texts.append(" ".join(words))
        truth.append(sum(w in GOOD for w in words) - sum(w in BAD for w in words))
    return texts, np.array(truth, dtype=float)


def test_words_carry_the_preference_over():
    judged = _judged(*text_rows(200, 0))
    texts, truth = text_rows(40, 1)
    corpus = Dataset.from_rows({"id": f"c{i}", "text": t} for i, t in enumerate([*texts, "", "unseen words"]))
    for fields in ({}, {"ngrams": 2}):
        found = score_dataset(QualityRater(**fields), corpus, {"judged": judged}).numpy("quality")
        assert spearmanr(found[:40], truth).statistic > 0.9
        assert np.isnan(found[40:]).all()


def test_long_rows_are_the_mean_of_their_segments_by_words():
    judged = _judged(*text_rows(60, 0))
    pieces = ["sonata fugue and then", "spam offer it was", "so so"]
    corpus = Dataset.from_rows({"id": f"c{i}", "text": t} for i, t in enumerate([*pieces, " ".join(pieces)]))
    found = score_dataset(QualityRater(segment_words=4), corpus, {"judged": judged}).numpy("quality")
    assert cut(" ".join(pieces), 4) == ["sonata fugue and", "then spam offer", "it was so so"]
    ten = score_dataset(
        QualityRater(segment_words=4),
        Dataset.from_rows({"id": f"s{i}", "text": t} for i, t in enumerate(cut(" ".join(pieces), 4))),
        {"judged": judged},
    ).numpy("quality")
    assert found[3] == pytest.approx((3 * ten[0] + 3 * ten[1] + 4 * ten[2]) / 10, rel=1e-5)
    whole = score_dataset(QualityRater(segment_words=100), corpus, {"judged": judged}).numpy("quality")
    assert whole[3] != pytest.approx(found[3], rel=1e-3)


def test_a_rater_that_learned_nothing_says_so():
    texts, truth = text_rows(60, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        score_dataset(QualityRater(held_out=0.3), _judged(texts, truth), {"judged": _judged(texts, truth)})
    data = _judged(texts, truth, by_chance=True)
    with pytest.warns(UserWarning, match="had not seen"):
        for seed in range(6):
            score_dataset(QualityRater(held_out=0.5, seed=seed), data, {"judged": data})
    assert accuracy(np.array([1.0, -1.0, 0.0]), np.array([0.9, 0.9, 0.9])) == pytest.approx(0.5)


def test_ratings_that_follow_length_are_said():
    words = np.random.default_rng(3).integers(1, 60, 50)
    data = _judged(["filler " * n + "end." for n in words], words / 10.0)
    with pytest.warns(UserWarning, match="follow the length"):
        score_dataset(QualityRater(), data, {"judged": data})


def test_bad_input():
    data = judged_vectors()
    alone = Dataset.from_rows([{"id": "a", "text": "x", "judged_against": ["gone"], "judged_preference": [0.9]}])
    with pytest.raises(InputError, match="no pair of the judged rows"):
        score_dataset(QualityRater(), data, {"judged": alone})
    with pytest.raises(InputError, match="judged_against"):
        score_dataset(QualityRater(), data, {"judged": Dataset.from_rows([{"id": "a", "text": "x"}])})
    small = Dataset.from_rows([{"id": "a", "text": "x", "vector": [1.0, 2.0]}])
    with pytest.raises(InputError, match="another size"):
        score_dataset(QualityRater(embedding_column="vector"), small, {"judged": data})
    wordless = _judged(["..."] * 12, np.arange(12.0))
    with pytest.raises(InputError, match="hold no word"):
        score_dataset(QualityRater(), data, {"judged": wordless})
