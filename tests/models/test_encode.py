"""Encoding: separate tokenisation, what is trained, truncation, and errors that name the row."""

import pytest

from tutelage.core.errors import InputError
from tutelage.models.encode import encode_pair, encode_prompt, encode_row, encode_text, split_text
from tutelage.models.toy import tiny_causal_lm


@pytest.fixture(scope="module")
def model():
    return tiny_causal_lm("llama")


def test_pair_is_two_tokenisations_and_a_trained_end(model):
    prompt, response = "The quick bro", "wn fox"
    encoded = encode_pair(model, prompt, response, max_length=99, example_id="a")
    first, second = model.tokenize([prompt, response])
    assert encoded.ids == [*first, *second, model.eos_id]
    assert encoded.trained == [False] * len(first) + [True] * (len(second) + 1)
    # A joint tokenisation merges across the boundary, so the two really differ.
    assert model.tokenize([prompt + response])[0] != first + second
    partial = encode_pair(model, prompt, response, max_length=99, partial=True)
    assert partial.ids == first + second


def test_pair_truncation_keeps_the_end_of_the_prompt_and_the_start_of_the_response(model):
    prompt, response = "abcdefghij", "klmnopqrst"
    first, second = model.tokenize([prompt, response])
    encoded = encode_pair(model, prompt, response, max_length=len(second) + 4)
    assert encoded.ids == [*first[-3:], *second, model.eos_id]
    shorter = encode_pair(model, prompt, response, max_length=5)
    assert shorter.ids == [first[-1], *second[:4]]
    assert shorter.trained == [False, True, True, True, True]


def test_empty_prompt_starts_with_bos(model):
    encoded = encode_pair(model, "", "yes", max_length=9)
    assert encoded.ids[0] == model.bos_id
    assert encoded.trained[:2] == [False, True]
    assert encode_prompt(model, "") == [model.bos_id]


def test_prefix_of_the_tokenizer_comes_once():
    model = tiny_causal_lm("llama")
    plain = model.tokenize(["hi"])[0]
    model.prefix_ids = [model.bos_id]
    assert encode_prompt(model, "hi") == [model.bos_id, *plain]
    assert encode_prompt(model, "<|endoftext|>hi") == [model.bos_id, *plain]


def test_text_windows_train_every_token_once(model):
    text = "The quick brown fox jumps over the lazy dog. " * 6
    ids = model.tokenize([text])[0]
    parts = split_text(model, text, max_length=16, example_id="t")
    trained = [i for p in parts for i, t in zip(p.ids, p.trained) if t]
    assert trained == [*ids, model.eos_id]
    assert all(p.ids[0] == model.bos_id and not p.trained[0] and len(p) <= 16 for p in parts)
    assert encode_text(model, text, max_length=16).ids == parts[0].ids
    assert split_text(model, "a", max_length=16, eos=False)[0].ids == [model.bos_id, *model.tokenize(["a"])[0]]


def test_rows_go_by_their_columns(model):
    by_text = encode_row({"id": "1", "text": "hello"}, model, 32)
    assert by_text.ids == encode_text(model, "hello", max_length=32).ids
    by_pair = encode_row({"id": "2", "prompt": "a", "completion": "b", "text": None}, model, 32)
    assert by_pair.ids == encode_pair(model, "a", "b", max_length=32).ids
    talk = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}]
    assert encode_row({"id": "3", "messages": talk}, model, 99).n_trained == 2
    with pytest.raises(InputError, match=r"expected: +messages, or prompt"):
        encode_row({"id": "4", "txt": "x"}, model, 32)


def test_errors_name_the_row(model):
    with pytest.raises(InputError, match="response is empty") as error:
        encode_pair(model, "q", "", max_length=9, example_id="row-5")
    assert error.value.where == "row-5"
    with pytest.raises(InputError, match="text is empty"):
        encode_text(model, "", max_length=9, example_id="row-6")
    talk = [{"role": "user", "content": "x" * 40}, {"role": "assistant", "content": "r"}]
    short = encode_row({"id": "row-7", "messages": talk}, model, 4)
    assert short.n_trained == 2
    model.template = None
    with pytest.raises(InputError, match="no chat template"):
        encode_row({"id": "row-8", "messages": talk}, model, 4)
    model.use_template("plain")
    assert model.chat_prompt(talk[:1]).endswith("Assistant:\n")
    model.use_template("chatml")


def test_conversation_truncation_keeps_the_answer():
    model = tiny_causal_lm("llama")
    talk = [{"role": "user", "content": "x" * 60}, {"role": "assistant", "content": "yes"}]
    full = encode_row({"id": "a", "messages": talk}, model, 500)
    cut = encode_row({"id": "a", "messages": talk}, model, 20)
    answer = [i for i, t in zip(full.ids, full.trained) if t]
    assert [i for i, t in zip(cut.ids, cut.trained) if t] == answer
    assert len(cut) == 20
