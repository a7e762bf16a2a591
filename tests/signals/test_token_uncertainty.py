"""signals.token_uncertainty against scipy and by hand."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from tutelage.core.apply import score_dataset
from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.models.toy import tiny_causal_lm
from tutelage.signals.token_uncertainty import TokenUncertainty, summarise

PROOF = {"signals.token_uncertainty": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/signals/token_uncertainty.py", "at += len(windows)", "at += 0"),
    ("src/tutelage/signals/token_uncertainty.py", "parts[name][place]", "parts[name][0]"),
    (
        "src/tutelage/signals/token_uncertainty.py",
        "done, begin = stop, begin + stride",
        "done, begin = stop, stop",
    ),
    ("src/tutelage/signals/token_uncertainty.py", "ordered[-count:] if largest", "ordered[:count] if largest"),
    ("src/tutelage/signals/token_uncertainty.py", '"margin": False', '"margin": True'),
]
TEXTS = ["The quick brown fox jumps.", "", "zebra"]


@pytest.fixture(scope="module")
def model():
    return tiny_causal_lm()


def score(rows, model, **fields):
    return list(score_dataset(TokenUncertainty(**fields), Dataset.from_rows(rows), {"model": model}).rows())


def expected_values(model, prompt, ids):
    """Entropy, margin and rank per token of `ids`, with scipy, from transformers' logits."""
    with torch.no_grad():
        logits = model.module(input_ids=torch.tensor([prompt + ids])).logits[0].double()
    rows = logits[len(prompt) - 1 : len(prompt) + len(ids) - 1]
    p = torch.softmax(rows, dim=1).numpy()
    best = np.sort(p, axis=1)
    rank = [1 + int((p[t] > p[t, token]).sum()) for t, token in enumerate(ids)]
    return entropy(p, axis=1), best[:, -1] - best[:, -2], np.array(rank)


def check(row, values):
    for (name, largest), found in zip((("entropy", True), ("margin", False), ("rank", True)), values):
        count = max(1, round(0.1 * len(found)))
        ordered = sorted(found, reverse=largest)
        assert row[name] == pytest.approx(np.mean(found), rel=1e-3)
        assert row[f"{name}_top"] == pytest.approx(np.mean(ordered[:count]), rel=1e-3)


def test_equals_scipy_on_texts_and_responses(model):
    found = score([{"text": t} for t in TEXTS], model)
    for text, row in zip(TEXTS, found):
        ids = model.tokenize([text])[0]
        if ids:
            check(row, expected_values(model, [model.bos_id], ids))
        else:
            assert all(math.isnan(row[name]) for name in ("entropy", "margin_top", "rank"))
    row = score([{"prompt": "Say it:", "completion": " brown fox"}], model)[0]
    prompt = model.prefix_ids + model.tokenize(["Say it:"])[0]
    check(row, expected_values(model, prompt, model.tokenize([" brown fox"])[0]))


def test_uniform_logits():
    flat = tiny_causal_lm(seed=1)
    with torch.no_grad():
        flat.module.get_output_embeddings().weight.zero_()
    row = score([{"text": "any text"}], flat)[0]
    assert row["entropy"] == pytest.approx(math.log(len(flat.tokenizer)), rel=1e-5)
    assert row["margin"] == pytest.approx(0, abs=1e-7)


def test_windows_score_every_token_once(model):
    text = "two words again and again " * 8
    ids = model.tokenize([text])[0]
    window, stride = 24, 12
    full = [model.bos_id, *ids]
    parts, done, begin = [], 1, 0
    while done < len(full):
        stop = min(begin + window, len(full))
        parts.append(expected_values(model, full[begin:done], full[done:stop]))
        done, begin = stop, begin + stride
    joined = [np.concatenate(values) for values in zip(*parts)]
    assert len(joined[0]) == len(ids)
    check(score([{"text": text}], model, window=window, stride=stride)[0], joined)


def test_rows_scored_together_are_as_alone(model):
    rows = [{"id": f"r{i}", "text": t * (1 + i)} for i, t in enumerate(TEXTS * 4)]
    together = score(rows, model, window=24, stride=12)
    for row, found in zip(rows, together):
        alone = score([row], model, window=24, stride=12)[0]
        for name in ("entropy", "entropy_top", "margin", "margin_top", "rank", "rank_top"):
            assert found[name] == pytest.approx(alone[name], rel=1e-4, nan_ok=True)


def test_summary_of_many():
    assert summarise(np.arange(100.0), True) == (49.5, 94.5)
    assert summarise(np.arange(100.0), False) == (49.5, 4.5)


def test_broken_weights_name_the_row():
    broken = tiny_causal_lm(seed=2)
    with torch.no_grad():
        broken.module.get_output_embeddings().weight[0] = float("nan")
    with pytest.raises(InputError, match="not a number") as error:
        score([{"id": "r9", "text": "some text"}], broken)
    assert "r9" in str(error.value)
