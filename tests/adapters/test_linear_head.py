"""adapters.linear_head: logistic regression on frozen vectors, with soft labels and weights."""

import numpy as np
import pytest

from toy.labelled import labelled
from tutelage.core.dataset import Dataset
from tutelage.core.discovery import build
from tutelage.core.errors import ModelError
from tutelage.models.ngram import NGramLM
from tutelage.models.toy import tiny_causal_lm, tiny_encoder

PROOF = {"adapters.linear_head": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/adapters/linear_head.py", 'inputs.get("labels")', "None"),
    ("src/tutelage/adapters/_heads.py", "parts = probs * weights[:, None]", "parts = probs * 1.0"),
    ("src/tutelage/adapters/_heads.py", "sample_weight=parts[rows, classes]", "sample_weight=weights[rows]"),
]


@pytest.fixture(scope="module")
def encoder():
    return tiny_encoder(texts=labelled(10).column("text").to_pylist())


def test_equals_scikit_learn_on_the_same_vectors(encoder):
    from sklearn.linear_model import LogisticRegression

    data = labelled(10)
    made = build("adapters.linear_head", {"C": 3.0, "folds": 2, "seed": 1}).convert({"base": encoder}, data, {})
    texts = data.column("text").to_pylist()
    vectors = encoder.embed(texts)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    model = LogisticRegression(C=3.0, max_iter=10_000, tol=1e-8).fit(vectors, data.column("label").to_pylist())
    assert np.allclose(made.predict_proba(texts), model.predict_proba(vectors), atol=1e-5)
    assert made.n_params == 2 * encoder.width + 2


def test_soft_labels_are_the_optimum_of_the_weighted_soft_cross_entropy(encoder):
    from scipy.optimize import minimize

    rng = np.random.default_rng(0)
    rows = list(labelled(6, ("animals", "tools", "food")).rows())
    for row in rows:
        row["label_probs"] = rng.dirichlet([1, 1, 1]).tolist()
        row["classes"], row["label_weight"] = ["food", "animals", "tools"], float(rng.uniform(0.2, 2))
        row["label"] = None
    rows[0]["label"] = "animals"  # the names must come from somewhere
    schema = Dataset.from_rows([{"label": "food"}, {"label": "animals"}, {"label": "tools"}])
    data = Dataset.from_rows(rows)
    made = build("adapters.linear_head", {"C": 2.0}).convert({"base": encoder}, data, {"labels": schema})
    x = made.embed(data.column("text").to_pylist()).astype(float)
    q = np.array([row["label_probs"] for row in rows])
    w = np.array([row["label_weight"] for row in rows])

    def loss(flat):
        W, b = flat[:-3].reshape(3, -1), flat[-3:]
        z = x @ W.T + b
        logp = z - np.logaddexp.reduce(z, axis=1, keepdims=True)
        return -(w[:, None] * q * logp).sum() + (W**2).sum() / (2 * 2.0)

    found = minimize(
        loss, np.zeros(3 * x.shape[1] + 3), method="L-BFGS-B", options={"maxiter": 2000, "maxfun": 10**6}
    )
    W, b = found.x[:-3].reshape(3, -1), found.x[-3:]
    z = x @ W.T + b
    direct = np.exp(z - np.logaddexp.reduce(z, axis=1, keepdims=True))
    assert np.allclose(made.predict_proba(data.column("text").to_pylist()), direct, atol=1e-3)


def test_a_language_model_gives_vectors_too():
    lm = tiny_causal_lm(texts=labelled(6).column("text").to_pylist())
    made = build("adapters.linear_head").convert({"base": lm}, labelled(6), {})
    assert made.predict_proba(["cat", "saw"]).shape == (2, 2) and made.meter is lm.meter


def test_a_model_without_vectors_is_refused():
    with pytest.raises(ModelError, match="no vectors"):
        build("adapters.linear_head").convert({"base": NGramLM(2)}, labelled(3), {})
