"""evaluation.rankme: known ranks, invariances, the jackknife by finite differences and by resampling, refusals."""

import numpy as np
import pytest
import torch

from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.evaluation.rankme import RankMe, effective_rank
from tutelage.models.toy import tiny_causal_lm, tiny_encoder

PROOF = {"evaluation.rankme": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/evaluation/rankme.py", "-np.log(share + eps)", "-np.log2(share + eps)"),
    ("src/tutelage/evaluation/rankme.py", "rank / 2 *", "rank *"),
    ("src/tutelage/evaluation/rankme.py", "(surprise - share @ surprise)", "surprise"),
    ("src/tutelage/evaluation/rankme.py", "share = values / total", "share = values**2 / (values**2).sum()"),
    ("src/tutelage/evaluation/rankme.py", "vectors[: count // 2]", "vectors"),
    ("src/tutelage/evaluation/rankme.py", "vectors if self.centre else", "vectors if not self.centre else"),
]
WORDS = "the quick brown fox jumps over a lazy dog while seven calm readers note every little word".split()


def texts(count, seed=0):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, 6)) for _ in range(count)]


def data_of(rows):
    return Dataset.from_rows({"id": f"r{i:03d}", "text": text} for i, text in enumerate(rows))


def gaussian(n, k, seed=0):
    return np.random.default_rng(seed).normal(size=(n, k))


def test_known_ranks():
    assert effective_rank(np.eye(8))[0] == pytest.approx(8.0, abs=1e-3)
    assert effective_rank(np.outer(np.arange(1, 50), np.arange(1, 9)))[0] == pytest.approx(1.0, abs=1e-3)
    assert effective_rank(gaussian(2000, 64))[0] == pytest.approx(63.7, abs=0.1)
    # Two directions of singular values 3 and 1: the entropy of (3/4, 1/4).
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert effective_rank(np.diag([3.0, 1.0]))[0] == pytest.approx(np.exp(entropy), abs=1e-5)


def test_invariances():
    Z = gaussian(60, 7) * np.arange(1, 8)
    turn = np.linalg.qr(gaussian(7, 7, 1))[0]
    rank = effective_rank(Z)[0]
    for same in (1000 * Z, Z @ turn, np.repeat(Z, 3, axis=0), Z[::-1]):
        assert effective_rank(same)[0] == pytest.approx(rank, rel=1e-9)


@pytest.mark.parametrize("centre", [False, True])
def test_scores_are_the_derivative_by_a_rows_weight(centre):
    Z = gaussian(40, 5) * np.arange(1, 6) + 2.0

    def weighted(weight):
        moved = Z - (weight @ Z) / weight.sum() if centre else Z
        return effective_rank(moved * np.sqrt(weight)[:, None])[0]

    rank, scores = effective_rank(Z - Z.mean(axis=0) if centre else Z)
    step = 1e-5
    for row in (0, 7, 39):
        high, low = (np.ones(40) + sign * step * (np.arange(40) == row) for sign in (1, -1))
        assert (scores[row] - rank) / 40 == pytest.approx((weighted(high) - weighted(low)) / (2 * step), rel=1e-4)
    assert scores.mean() == pytest.approx(rank)


def test_the_interval_is_as_wide_as_new_draws_scatter():
    scale = np.array([5.0, 3, 2, 1, 1, 0.5])
    found = [effective_rank(gaussian(400, 6, seed) * scale) for seed in range(200)]
    scatter = np.std([rank for rank, _ in found])
    errors = np.mean([scores.std(ddof=1) / 20 for _, scores in found])
    assert errors == pytest.approx(scatter, rel=0.15)


@pytest.mark.parametrize("layer", [None, 1])
def test_the_states_are_the_models(layer):
    model = tiny_causal_lm()
    rows = texts(80)
    Z = []
    for text in rows:
        ids = torch.tensor([[model.bos_id, *model.tokenize([text])[0]]])
        with torch.no_grad():
            states = model.module(input_ids=ids, output_hidden_states=True).hidden_states
        Z.append(states[1][0, 1:].double().mean(0).numpy())
    Z = np.array(Z)
    result = RankMe(layer=layer).evaluate(model, data_of(rows), {})
    assert result.estimate == pytest.approx(effective_rank(Z - Z.mean(0))[0], rel=1e-3)
    assert result.extra["raw"] == pytest.approx(effective_rank(Z)[0], rel=1e-3)
    assert result.interval.lo < result.estimate < result.interval.hi and result.direction == 1
    assert result.extra["half_rows"] < result.estimate
    assert result.cost.forward_flops > 0
    raw = RankMe(layer=layer, centre=False).evaluate(model, data_of(rows), {})
    assert (raw.estimate, raw.extra["centred"]) == pytest.approx((result.extra["raw"], result.estimate))


def test_the_same_rows_for_every_model_and_a_collapsed_one_is_lower():
    model = tiny_causal_lm()
    flat = model.copy()
    with torch.no_grad():
        table = flat.module.get_input_embeddings().weight
        table.copy_(table[:, :1] * torch.ones_like(table) + 0.01 * table)
    rows = [*texts(100), ""]
    ours, theirs = (RankMe(rows=90, layer=0, seed=3).evaluate(m, data_of(rows), {}) for m in (model, flat))
    assert ours.items.scores().keys() == theirs.items.scores().keys()
    assert theirs.estimate < 0.5 * ours.estimate
    other = RankMe(rows=90, layer=0, seed=4).evaluate(model, data_of(rows), {})
    assert other.items.scores().keys() != ours.items.scores().keys()
    everything = RankMe(layer=0).evaluate(model, data_of(rows), {})
    assert (everything.n_items, everything.extra["excluded_empty"]) == (100, 1.0)


def test_an_encoder_can_be_measured():
    result = RankMe().evaluate(tiny_encoder(), data_of(texts(70)), {})
    assert 1 < result.estimate < 32


def test_warnings_and_refusals():
    model = tiny_causal_lm()
    with pytest.warns(UserWarning, match="bounded by the texts"):
        RankMe().evaluate(model, data_of(texts(20)), {})
    with pytest.raises(InputError, match="too few texts"):
        RankMe().evaluate(model, data_of([*texts(3), "", ""]), {})
    with pytest.raises(InputError, match="all vectors are equal"), pytest.warns(UserWarning):
        RankMe().evaluate(model, data_of(["same"] * 9), {})
    with pytest.raises(InputError, match=r"(?s)not finite.*vector 2"):
        effective_rank(np.where(np.arange(12).reshape(4, 3) == 7, np.nan, 1.0))
    with pytest.raises(ConfigError, match="rows"):
        RankMe(rows=1)
