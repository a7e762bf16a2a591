"""Bits per byte: hand values, the loss of transformers, contexts, long texts, the ratio's interval."""

import math

import numpy as np
import pytest
import scipy.stats

from toy.lookup_model import LookupModel
from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.evaluation.bits_per_byte import BitsPerByte, segments, windows

PROOF = {"evaluation.bits_per_byte": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/evaluation/bits_per_byte.py", "score.nll_sum / math.log(2)", "score.nll_sum"),
    ("src/tutelage/evaluation/bits_per_byte.py", "bits[number] -= ll.sum / math.log(2)", "bits[number] = -ll.sum"),
    ("src/tutelage/evaluation/bits_per_byte.py", 'len(_scored(row).encode("utf-8"))', "len(_scored(row))"),
    ("src/tutelage/evaluation/bits_per_byte.py", "if size > window:", "if size > 2 * window:"),
]


def evaluate(rows, model=None, **fields):
    return BitsPerByte(**fields).evaluate(model or LookupModel(), Dataset.from_rows(rows), {})


def test_a_ratio_of_sums_not_a_mean_of_ratios():
    model = LookupModel({"ab": -2 * math.log(2), "äöü": -30 * math.log(2)})
    result = evaluate([{"text": "ab"}, {"text": "äöü"}], model)
    assert result.estimate == pytest.approx((2 + 30) / (2 + 6))
    assert sorted(result.items.scores().values()) == pytest.approx([1.0, 5.0])
    assert sorted(result.items.table["weight"].to_pylist()) == [2.0, 6.0]
    assert (result.direction, result.unit) == (-1, "bits/byte")
    assert result.cost.scored_tokens == 8


def test_the_interval_is_the_delta_method_over_clusters():
    bits = [[4.0, 6.0], [3.0, 3.0], [9.0, 5.0], [2.0, 8.0]]
    rows, lls = [], {}
    for number, cluster in enumerate(bits):
        for place, value in enumerate(cluster):
            text = f"{number}{place}" * 2
            lls[text] = -value * math.log(2)
            rows.append({"text": text, "group": f"topic {number}"})
    result = evaluate(rows, LookupModel(lls))
    ratio = 40 / 32
    residuals = [sum(cluster) - ratio * 8 for cluster in bits]
    error = math.sqrt(4 / 3 * sum(r * r for r in residuals)) / 32
    assert result.estimate == pytest.approx(ratio)
    assert result.interval.hi - ratio == pytest.approx(scipy.stats.t.ppf(0.975, 3) * error)
    assert result.n_clusters == 4


def test_only_the_completion_is_scored_and_a_context_leaves_the_item_the_same():
    rows = [{"prompt": "Hello ", "completion": "wörl"}]
    model = LookupModel({("Hello ", "wörl"): -10 * math.log(2), ("seen\n\nHello ", "wörl"): -5 * math.log(2)})
    plain = evaluate(rows, model)
    helped = evaluate([rows[0] | {"context": "seen"}], model)
    ignored = evaluate([rows[0] | {"context": "seen"}], model, use_context=False)
    assert (plain.estimate, helped.estimate, ignored.estimate) == pytest.approx((2.0, 1.0, 2.0))
    assert plain.items.scores().keys() == helped.items.scores().keys()


def test_empty_items_are_left_out_and_counted():
    result = evaluate([{"text": "ab"}, {"text": ""}])
    assert (result.n_items, result.extra["excluded_empty"]) == (1, 1.0)


def test_errors_name_the_row():
    with pytest.raises(InputError, match="completion"):
        evaluate([{"prompt": "only"}])
    with pytest.raises(InputError, match="row r1"):
        evaluate([{"id": "r0", "text": "a"}, {"id": "r1", "text": None}])
    with pytest.raises(InputError, match="not finite"):
        evaluate([{"text": "ab"}], LookupModel({"ab": float("nan")}))
    with pytest.raises(InputError, match="no item could be scored"):
        evaluate([{"text": ""}])


def test_windows_cover_the_text_once_and_keep_the_prefix():
    model = LookupModel()
    text = " ".join(f"word{i}" for i in range(40)) + "\n"
    pairs = windows("PASSAGE ", text, model, window=64, stride=32)
    assert "".join(piece for _, piece in pairs) == text
    assert len(pairs) > 4
    before = ""
    for context, piece in pairs:
        assert context.startswith("PASSAGE ")
        history = context.removeprefix("PASSAGE ")
        assert before.endswith(history)
        assert len((history + piece).encode()) <= 64
        # As much history as fits: one piece more would not have.
        assert len(history) >= min(len(before), 20)
        before += piece


def test_segments_never_cut_a_word():
    assert segments("aa bb  cc ", LookupModel(), 5) == [("aa bb", 5), ("  cc ", 5)]
    assert segments("x" * 9, LookupModel(), 4) == [("x" * 9, 9)]


def test_equals_the_loss_of_transformers():
    import torch

    from tutelage.models.toy import tiny_causal_lm

    model = tiny_causal_lm("llama")
    texts = ["The quick brown fox.", "Question: what is größer?", "def add(first, second):"]
    result = evaluate([{"text": text} for text in texts], model)
    total = 0.0
    for text in texts:
        ids = torch.tensor([[model.bos_id, *model.tokenizer(text, add_special_tokens=False)["input_ids"]]])
        with torch.no_grad():
            total += float(model.module(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
    expected = total / math.log(2) / sum(len(text.encode()) for text in texts)
    assert result.estimate == pytest.approx(expected, rel=1e-5)


def test_completions_equal_the_loss_of_transformers_with_a_masked_prompt():
    import torch

    from tutelage.models.toy import tiny_causal_lm

    model = tiny_causal_lm("llama")
    result = evaluate([{"prompt": "The quick", "completion": " brown fox", "context": "A lazy dog."}], model)
    prompt = model.tokenizer("A lazy dog.\n\nThe quick")["input_ids"]
    answer = model.tokenizer(" brown fox", add_special_tokens=False)["input_ids"]
    labels = torch.tensor([[-100] * len(prompt) + answer])
    with torch.no_grad():
        loss = float(model.module(input_ids=torch.tensor([prompt + answer]), labels=labels).loss)
    assert result.estimate == pytest.approx(loss * len(answer) / math.log(2) / 10, rel=1e-5)


def test_long_texts_use_windows_with_and_without_context():
    from tutelage.models.toy import tiny_causal_lm

    model = tiny_causal_lm("llama", max_length=256)
    rng = np.random.default_rng(0)
    text = " ".join(rng.choice(["fox", "dog", "value", "lazy", "returns"], 300))
    plain = evaluate([{"text": text}, {"text": "short"}], model, window=64)
    helped = evaluate([{"text": text, "context": "fox"}, {"text": "short", "context": "fox"}], model, window=64)
    assert plain.n_items == helped.n_items == 2
    # An untrained model does not profit from a passage: nearly equal, though split into windows by words.
    assert helped.estimate == pytest.approx(plain.estimate, rel=0.02)
    assert plain.items.scores().keys() == helped.items.scores().keys()
