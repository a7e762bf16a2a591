"""The n-gram model against hand computation, exact normalisation and the planted pool."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toy.planted_pool import make_evaluation, make_pool
from tutelage.core.errors import ConfigError, ModelError, StoreError
from tutelage.models.load import load_model
from tutelage.models.ngram import NGramLM

MUTATIONS = [
    (
        "src/tutelage/models/ngram.py",
        "prob = (counter.get(token, 0) + distinct * prob) / (total + distinct)",
        "prob = (counter.get(token, 0) + prob) / (total + 1)",
    ),
    ("src/tutelage/models/ngram.py", "probs *= len(tokens) / (total + len(tokens))", "probs *= 1 / (total + 1)"),
]


def test_hand_computed_probabilities() -> None:
    # Texts "a b" and "a c": tokens eos=0 unk=1 a=2 b=3 c=4, V = 5.
    model = NGramLM(2).fit(["a b", "a c"])
    # Unigram: a 2, b 1, c 1, eos 2; c = 6, T = 4: p0(b) = (1 + 4/5) / 10 = 0.18, p0(a) = (2 + 4/5) / 10 = 0.28.
    # After "a": b 1, c 1; c(a) = 2, T(a) = 2: p(b | a) = (1 + 2 * 0.18) / 4 = 0.34.
    # At the start: a 2; T = 1: p(a | start) = (2 + 0.28) / 3 = 0.76.
    (score,) = model.score_texts(["a b"], per_token=True)
    assert score.per_token == pytest.approx([-math.log(0.76), -math.log(0.34)])
    assert score.nll_sum == pytest.approx(-math.log(0.76 * 0.34))
    assert (score.n_tokens, score.n_bytes_scored, score.first_token_scored) == (2, 3, True)
    (conditional,) = model.loglikelihood([("a", "b")])
    assert conditional.sum == pytest.approx(math.log(0.34))
    assert conditional.is_greedy  # b and c tie, the first of them is the argmax
    assert not model.loglikelihood([("a", "c")])[0].is_greedy


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abcd"), max_size=8).map(" ".join), min_size=1, max_size=6),
    st.lists(st.integers(1, 5), max_size=5),
    st.integers(1, 4),
)
def test_sums_to_one_and_both_routes_agree(texts: list[str], history: list[int], order: int) -> None:
    model = NGramLM(order).fit(texts)
    history = [i for i in history if i < model.vocab_size]
    probs = model.next_probs(history)
    assert probs.sum() == pytest.approx(1.0, abs=1e-12)
    assert probs.min() > 0
    alone = [model.token_logps([token], history)[0] for token in range(model.vocab_size)]
    assert np.exp(alone) == pytest.approx(probs, abs=1e-12)


def test_bytes_know_every_text() -> None:
    model = NGramLM(3, unit="byte").fit(["naïve 猫", "plain"])
    (score,) = model.score_texts(["猫 never seen ü"])
    assert score.n_tokens == score.n_bytes_scored == len("猫 never seen ü".encode())
    assert model.next_probs([]).sum() == pytest.approx(1.0, abs=1e-12)
    assert model.decode(model.tokenize(["naïve 猫"])[0]) == "naïve 猫"


def test_orders_and_planted_kinds() -> None:
    shares = {"prose": 1.0, "template": 1.0, "random": 1.0}
    train, test = make_pool(600, 1, shares), make_pool(300, 0, shares)
    means = {}
    for order in (2, 3):
        model = NGramLM(order).fit([row["text"] for row in train])
        scores = model.score_texts([row["text"] for row in test])
        for kind in shares:
            per_word = [s.nll_sum / s.n_tokens for s, r in zip(scores, test, strict=True) if r["kind"] == kind]
            means[kind, order] = float(np.mean(per_word))
    # The chain has two words of memory: order 3 sees it, order 2 cannot; random words gain nothing.
    assert means["prose", 2] - means["prose", 3] > 1.0
    assert means["random", 3] > means["random", 2] > math.log(60) - 0.2
    assert means["template", 3] < means["prose", 3] < means["random", 3]


def test_generation_is_repeatable_and_stops() -> None:
    model = NGramLM(2).fit(["one two three four"] * 3)
    (greedy,) = model.generate(["one"], max_new_tokens=10)
    assert greedy.text == "two three four"
    assert not greedy.truncated
    assert greedy.prompt_tokens == 1
    (cut,) = model.generate(["one"], max_new_tokens=10, stop=["three"])
    assert cut.text == "two "
    (short,) = model.generate(["one"], max_new_tokens=1)
    assert short.truncated and short.text == "two"
    sampled = [model.generate(["one"] * 8, temperature=2.0, seed=s) for s in (0, 0, 1)]
    assert sampled[0] == sampled[1] != sampled[2]
    own = model.generate(["one"] * 3, temperature=2.0, seed=[5, 6, 5])
    assert own[0] == own[2] and own[1] == model.generate(["one"], temperature=2.0, seed=[6])[0]
    assert model.meter.cost.generated_tokens > 0


def test_a_place_that_cannot_be_written_is_said(tmp_path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(StoreError, match="cannot be saved") as error:
        NGramLM(2).fit(["a b"]).save(tmp_path / "file" / "model")
    assert error.value.remedy


def test_save_and_load(tmp_path) -> None:
    for unit in ("word", "byte"):
        model = NGramLM(3, unit=unit).fit([row["text"] for row in make_pool(30, 0)])
        again = load_model(model.save(tmp_path / unit))
        assert isinstance(again, NGramLM)
        assert again.fingerprint == model.fingerprint
        text = [make_evaluation()[0]["text"]]
        assert again.score_texts(text) == model.score_texts(text)
        assert again.generate(text, 5) == model.generate(text, 5)
    assert NGramLM(2).fit(["a b"]).fingerprint != NGramLM(2).fit(["a b", "a b"]).fingerprint
    (tmp_path / "word" / "counts.npz").write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(ModelError, match="not a saved n-gram model"):
        NGramLM.load(tmp_path / "word")


def test_empty_text_and_mistakes() -> None:
    model = NGramLM(2).fit(["a"])
    (score,) = model.score_texts([""])
    assert math.isnan(score.nll_sum) and score.n_tokens == 0
    with pytest.raises(ConfigError, match="order"):
        NGramLM(0)
    with pytest.raises(ModelError, match="not fitted"):
        NGramLM(2).score_texts(["a"])
    with pytest.raises(ModelError, match="cannot embed"):
        model.embed(["a"])
    with pytest.raises(ModelError, match="item 1"):
        model.score_texts(["a", 3])  # type: ignore[list-item]


def test_pool_is_deterministic_and_true_to_its_kinds() -> None:
    rows = make_pool(400, 3)
    assert rows == make_pool(400, 3) != make_pool(400, 4)
    assert len(rows) == 400 == len({row["id"] for row in rows})
    by_id = {row["id"]: row for row in rows}
    held_out = {row["text"] for row in make_evaluation(seed=3)}
    for row in rows:
        if row["kind"] == "exact":
            assert row["text"] == by_id[row["copy_of"]]["text"]
        if row["kind"] == "near":
            pairs = zip(row["text"].split(), by_id[row["copy_of"]]["text"].split(), strict=True)
            assert sum(a != b for a, b in pairs) == 2
        assert (row["text"] in held_out) == (row["kind"] == "leak")
    pairs = [row for row in rows if row["kind"] == "pair"]
    assert sum(row["swapped"] for row in pairs) == round(0.2 * len(pairs))
