"""signals.embedding_tfidf against scikit-learn's TF-IDF and numpy's SVD."""

import numpy as np
import pytest

from toy.planted_pool import make_pool
from tutelage.core.apply import score_dataset
from tutelage.core.dataset import Dataset, embedding_matrix
from tutelage.core.errors import InputError
from tutelage.signals.embedding_tfidf import EmbeddingTfidf

PROOF = {"signals.embedding_tfidf": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/signals/embedding_tfidf.py", "moved = vectors - mean", "moved = vectors"),
    ("src/tutelage/signals/embedding_tfidf.py", "frequency >= self.min_rows", "frequency >= 1"),
    ("src/tutelage/signals/embedding_tfidf.py", "np.argsort(-frequency[columns]", "np.argsort(frequency[columns]"),
]
POOL = make_pool(150, seed=4)
TEXTS = [row["text"] for row in POOL]


def embed(texts, **fields):
    data = Dataset.from_rows({"id": f"r{i}", "text": t} for i, t in enumerate(texts))
    return embedding_matrix(score_dataset(EmbeddingTfidf(**fields), data, {}).column("embedding"))


def test_equals_an_exact_svd_up_to_sign():
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(token_pattern=r"[^\W_]+", sublinear_tf=True, min_df=2)
    matrix = vectorizer.fit_transform(TEXTS).toarray()
    _, _, components = np.linalg.svd(matrix, full_matrices=False)
    expected = matrix @ components[:5].T
    expected -= expected.mean(0)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = embed(TEXTS, ngrams=1, dimensions=5)
    signs = np.sign((found * expected).sum(0))
    assert np.abs(found * signs - expected).max() < 5e-3


def test_domains_separate_and_lengths_are_one():
    found = embed(TEXTS, dimensions=16)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    target = np.array([row["kind"] in ("target", "leak") for row in POOL])
    cosine = found @ found.T
    assert cosine[np.ix_(target, target)].mean() > 0.5 > cosine[np.ix_(target, ~target)].mean()


def test_the_most_frequent_features_stay():
    texts = ["common word"] * 2 + ["common thing"] * 2 + [f"common x{i} x{i}" for i in range(20)] * 2
    assert embed(texts, ngrams=1, features=4).shape[1] == 3
    state = EmbeddingTfidf(ngrams=1, features=4).fit(Dataset.from_rows({"text": t} for t in texts), {})
    assert np.isclose(state["idf"].min(), 1.0), "the word of every row has idf 1"


def test_words_of_few_rows_are_left_out():
    data = Dataset.from_rows({"id": f"r{i}", "text": t} for i, t in enumerate(["a b c", "a b d", "a e f"]))
    sizes = [len(EmbeddingTfidf(ngrams=1, min_rows=n).fit(data, {})["columns"]) for n in (1, 2)]
    assert sizes == [6, 2], "a and b stand in two rows"


def test_rows_without_known_words_are_zero_and_the_fit_may_sample():
    found = embed([*TEXTS, "", "zzqx qqzv"], dimensions=8)
    assert not found[-2:].any()
    sampled = embed(TEXTS, dimensions=8, fit_rows=60)
    assert sampled.shape == (150, 8)


def test_bad_input():
    with pytest.raises(InputError, match="too little text"):
        embed(["one two", "three four"])
    with pytest.raises(InputError, match="too little text"):
        embed(["alone"])
