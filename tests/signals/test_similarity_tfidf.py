"""signals.similarity_tfidf against scikit-learn."""

import numpy as np
import pytest

from toy.planted_pool import make_evaluation, make_pool
from tutelage.core.apply import score_dataset
from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.signals.similarity_tfidf import SimilarityTfidf, top_mean

PROOF = {"signals.similarity_tfidf": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/signals/similarity_tfidf.py", "mean / np.linalg.norm(mean)", "mean"),
    ("src/tutelage/signals/_tfidf.py", "(1.0 + frequency)) + 1.0", "(1.0 + frequency))"),
    ("src/tutelage/signals/_tfidf.py", "1.0 + np.log(counts.data)", "counts.data"),
    ("src/tutelage/signals/similarity_tfidf.py", "[:, -top:].mean", "[:, :top].mean"),
]
POOL = [row["text"] for row in make_pool(120, seed=1)]
REFERENCE = [row["text"] for row in make_evaluation(8, seed=1)]


def similarity(pool, reference, **fields):
    data = Dataset.from_rows({"id": f"r{i}", "text": t} for i, t in enumerate(pool))
    inputs = {"reference": Dataset.from_rows({"text": t} for t in reference)}
    return score_dataset(SimilarityTfidf(**fields), data, inputs).numpy("similarity")


def vectors(ngrams=1, sublinear=True):
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(token_pattern=r"[^\W_]+", ngram_range=(1, ngrams), sublinear_tf=sublinear)
    vectorizer.fit(POOL + REFERENCE)
    return vectorizer.transform(POOL).toarray(), vectorizer.transform(REFERENCE).toarray()


@pytest.mark.parametrize(("ngrams", "sublinear"), [(1, True), (1, False), (2, True)])
def test_centroid_equals_scikit_learn(ngrams, sublinear):
    pool, reference = vectors(ngrams, sublinear)
    centre = reference.mean(0)
    expected = pool @ centre / np.linalg.norm(centre)
    found = similarity(POOL, REFERENCE, ngrams=ngrams, sublinear=sublinear)
    # Thousands of word pairs share a million buckets: a few collide, so pairs agree less exactly than words.
    assert np.abs(found - expected).max() < (1e-6 if ngrams == 1 else 5e-3)


def test_nearest_equals_scikit_learn():
    pool, reference = vectors()
    products = pool @ reference.T
    assert np.allclose(similarity(POOL, REFERENCE, to="nearest"), products.max(1), atol=1e-6)
    top = np.sort(products, axis=1)[:, -3:].mean(1)
    assert np.allclose(similarity(POOL, REFERENCE, to="nearest", top=3), top, atol=1e-6)
    assert np.allclose(top_mean(products, 99), products.mean(1))


def test_target_texts_are_most_similar_to_the_target():
    rows = make_pool(200, seed=2)
    found = similarity([r["text"] for r in rows], REFERENCE)
    is_target = np.array([r["kind"] in ("target", "leak") for r in rows])
    assert found[is_target].min() > found[~is_target].max()


def test_shards_do_not_matter_and_empty_rows_have_no_score():
    found = similarity([*POOL[:3], "", "..."], REFERENCE)
    assert np.isnan(found[3:]).all() and not np.isnan(found[:3]).any()
    with pytest.raises(InputError, match="hold no word"):
        similarity(POOL[:3], ["", "!"])
