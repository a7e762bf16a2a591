"""signals.loss_difference: equal to the difference of two token losses, and it finds what is worth learning."""

import math

import numpy as np
import pytest

from toy.planted_pool import make_pool
from tutelage.core.apply import apply_transform, score_dataset
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError
from tutelage.data.select.top_share import TopShare
from tutelage.models.ngram import NGramLM
from tutelage.models.toy import tiny_causal_lm
from tutelage.signals.loss_difference import TRAINED_ON, LossDifference
from tutelage.signals.token_loss import TokenLoss

PROOF = {"signals.loss_difference": ["consistent", "verified"]}
MUTATIONS = [
    (
        "src/tutelage/signals/loss_difference.py",
        "small[column] - teacher[column]",
        "teacher[column] - small[column]",
    ),
    ("src/tutelage/signals/loss_difference.py", 'if self.per == "token" else "bpb"', 'if self.per else "bpb"'),
    ("src/tutelage/signals/loss_difference.py", "if theirs != ours:", "if False:"),
    ("src/tutelage/signals/loss_difference.py", "TRAINED_ON if text in known else", "None if text in known else"),
    ("src/tutelage/signals/loss_difference.py", "if mixed.any():", "if mixed.all() and not mixed.any():"),
]
TEXTS = ["The quick brown fox.", "über den Dächern", "", "two words again and again " * 20]


@pytest.fixture(scope="module")
def teacher():
    return tiny_causal_lm(seed=1)


@pytest.fixture(scope="module")
def small():
    return tiny_causal_lm(seed=2, layers=1)


def data(texts):
    return Dataset.from_rows({"id": f"r{i}", "text": text} for i, text in enumerate(texts))


def score(rows, teacher, small, trained_on=None, **fields):
    inputs = {"teacher": teacher, "model": small}
    if trained_on is not None:
        inputs["trained_on"] = trained_on
    return score_dataset(LossDifference(**fields), rows, inputs)


def losses(rows, model, column, **fields):
    return score_dataset(TokenLoss(**fields), rows, {"model": model}).numpy(column)


@pytest.mark.parametrize(("per", "column"), [("token", "nll_mean"), ("byte", "bpb")])
def test_equals_the_difference_of_the_token_losses(teacher, small, per, column):
    rows = data(TEXTS)
    windows = {"window": 32, "stride": 8}
    found = score(rows, teacher, small, per=per, **windows)
    expected = losses(rows, small, column, **windows) - losses(rows, teacher, column, **windows)
    assert np.allclose(found.numpy("diff_score"), expected, atol=1e-6, equal_nan=True)
    assert math.isnan(found.numpy("diff_score")[2]) and found.column("diff_flag")[2].as_py() == "empty text"
    whole = score(rows, teacher, small, per=per).numpy("diff_score")
    assert abs(whole[3] - found.numpy("diff_score")[3]) > 1e-6


def test_the_best_third_of_the_planted_pool_is_prose():
    """A third each of prose, templates and random words; the teacher finds templates likeliest of all."""
    shares = {"prose": 1, "template": 1, "random": 1}
    fitted_on = [row["text"] for row in make_pool(900, seed=5, shares=shares)]
    models = [NGramLM(order).fit(fitted_on) for order in (3, 2)]
    rows = Dataset.from_rows(make_pool(300, seed=6, shares=shares))
    found = score(rows, *models)
    kinds = np.array(rows.column("kind").to_pylist())
    teacher_loss, small_loss = found.numpy("teacher_loss"), found.numpy("small_loss")
    assert teacher_loss[kinds == "template"].mean() < teacher_loss[kinds == "prose"].mean()
    # Prose costs about 2.2 nats a word under a chain of its own order, 4.1 under one of a lower order.
    assert teacher_loss[kinds == "prose"].mean() < 3.0 and 3.9 < small_loss[kinds == "prose"].mean() < 4.3
    best = apply_transform(TopShare(column="diff_score", share=1 / 3), found, {"seed": 0})
    kept = best.column("kind").to_pylist()
    assert kept.count("prose") >= 0.95 * len(kept)


def test_the_same_model_twice_gives_nothing_and_says_so(teacher):
    with pytest.warns(UserWarning, match="are the same"):
        found = score(data(["a fox", "a dog"]), teacher, teacher)
    assert found.numpy("diff_score").tolist() == [0.0, 0.0]


def test_rows_that_the_small_model_was_trained_on_have_no_score(teacher, small):
    found = score(data(["a fox", "a dog", "a hen"]), teacher, small, trained_on=data(["a dog"]))
    assert np.isnan(found.numpy("diff_score")).tolist() == [False, True, False]
    assert found.column("diff_flag").to_pylist() == [None, TRAINED_ON, None]


def test_other_tokenizers_need_bytes(teacher):
    other = tiny_causal_lm(texts=["a fox ran over a hill " * 9], vocab_size=300)
    rows = data(["The quick brown fox jumps"])
    with pytest.raises(ConfigError, match="two tokenizers") as error:
        score(rows, teacher, other)
    assert "per: byte" in error.value.remedy
    assert np.isfinite(score(rows, teacher, other, per="byte").numpy("diff_score")).all()


def test_models_with_and_without_a_start_token_are_not_mixed(teacher):
    other = tiny_causal_lm(seed=2)
    other.bos_id = other.eos_id = None
    with pytest.raises(ConfigError, match="scores the first token"):
        score(data(["The quick brown fox"]), teacher, other)


def test_bad_fields():
    with pytest.raises(ConfigError, match="stride"):
        LossDifference(window=8, stride=8)
    with pytest.raises(ConfigError, match="per"):
        LossDifference(per="word")
