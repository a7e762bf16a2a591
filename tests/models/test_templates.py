"""Chat templates: what is trained, what generation sees, and that the rendering is ours and sandboxed."""

import pytest

from tutelage.core.errors import InputError, ModelError
from tutelage.models.encode import encode_messages
from tutelage.models.templates import SHIPPED, ChatTemplate
from tutelage.models.toy import tiny_causal_lm

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is two and two?"},
    {"role": "assistant", "content": "Four."},
    {"role": "user", "content": "And three?"},
    {"role": "assistant", "content": "Seven, of course."},
]
TOKENS = {"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>"}
# The end-of-turn text of each template; all are single tokens of the vocabulary built below.
ENDS = {
    "chatml": "<|im_end|>",
    "gemma": "<end_of_turn>",
    "llama3": "<|eot_id|>",
    "mistral": "<|im_end|>",
    "plain": "<|im_end|>",
    "zephyr": "<|im_end|>",
}


@pytest.fixture(scope="module")
def model():
    model = tiny_causal_lm("llama")
    model.tokenizer.add_special_tokens(
        {
            "additional_special_tokens": [
                "<|im_start|>", "<end_of_turn>", "<start_of_turn>", "<|eot_id|>", "<|start_header_id|>",
                "<|end_header_id|>",
            ]
        }
    )  # fmt: skip
    return model


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_template_trains_answers_and_ends_of_turn_and_nothing_else(model, name):
    model.template = ChatTemplate.shipped(name, TOKENS, model.tokenizer.all_special_tokens)
    encoded = encode_messages(model, TALK, max_length=512, example_id="talk")
    decode = model.tokenizer.decode
    assert decode(encoded.ids) == model.template.render(TALK)
    runs, current = [], []
    for token, trained in zip(encoded.ids, encoded.trained):
        if trained:
            current.append(token)
        elif current:
            runs.append(current)
            current = []
    runs += [current] if current else []
    assert [decode(r).strip() for r in runs] == ["Four." + ENDS[name], "Seven, of course." + ENDS[name]]
    end = model.tokenizer.convert_tokens_to_ids(ENDS[name])
    assert [r[-1] for r in runs] == [end, end]


@pytest.mark.parametrize("name", SHIPPED)
def test_generation_prompt_is_the_beginning_of_what_was_trained(model, name):
    template = ChatTemplate.shipped(name, TOKENS, model.tokenizer.all_special_tokens)
    assert template.prefix_preserving(TALK)
    pieces = template.pieces(TALK)
    first = next(i for i, p in enumerate(pieces) if p.trained)
    assert "".join(p.text for p in pieces[:first]) == template.render(TALK[:2], add_generation_prompt=True)
    assert "".join(p.text for p in pieces) == template.render(TALK)


def test_last_turn_only(model):
    model.template = ChatTemplate.shipped("chatml", TOKENS, model.tokenizer.all_special_tokens)
    encoded = encode_messages(model, TALK, max_length=512, turns="last")
    trained = [i for i, t in zip(encoded.ids, encoded.trained) if t]
    assert model.tokenizer.decode(trained) == "Seven, of course.<|im_end|>"


def test_arbitrary_template_that_trims_and_adds_text():
    source = (
        "{% for m in messages %}[{{ m.role }}] {{ m.content | trim }}"
        "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant] {% endif %}"
    )
    template = ChatTemplate(source, TOKENS)
    talk = [{"role": "user", "content": " hi "}, {"role": "assistant", "content": "  yes \n"}]
    trained = [p.text for p in template.pieces(talk) if p.trained]
    assert trained == ["yes<|im_end|>"]


def test_template_that_opens_the_answer_itself_trains_only_what_generation_must_write():
    source = (
        "{% for m in messages %}<{{ m.role }}>"
        "{% if m.role == 'assistant' %}<think></think>{% endif %}{{ m.content }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    trained = [p.text for p in ChatTemplate(source, TOKENS).pieces(TALK[1:3]) if p.trained]
    assert trained == ["<think></think>Four.<|im_end|>"]


def test_template_without_generation_prompt_or_end_of_turn(model):
    # Generation then starts right after the question: the role is part of what the model has to write.
    source = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    model.template = ChatTemplate(source, TOKENS, model.tokenizer.all_special_tokens)
    encoded = encode_messages(model, TALK[1:3], max_length=512)
    trained = [i for i, t in zip(encoded.ids, encoded.trained) if t]
    assert trained[-1] == model.eos_id
    assert model.tokenizer.decode(trained[:-1]) == "assistant: Four."


def test_generation_blocks_render():
    template = ChatTemplate(
        "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
    )
    assert template.render(TALK[:2]) == "Be brief.What is two and two?"


def test_same_text_as_the_tokenizers_own_rendering(model):
    template = ChatTemplate.shipped("chatml", TOKENS)
    model.tokenizer.chat_template = template.source
    own = model.tokenizer.apply_chat_template(TALK, tokenize=False, add_generation_prompt=True)
    assert template.render(TALK, add_generation_prompt=True) == own


def test_content_parts_and_missing_fields():
    template = ChatTemplate.shipped("chatml", TOKENS)
    parts = [{"type": "text", "text": "Fo"}, {"type": "text", "text": "ur."}]
    talk = [TALK[1], {"role": "assistant", "content": parts, "name": None}]
    assert [p.text for p in template.pieces(talk) if p.trained] == ["Four.<|im_end|>"]
    with pytest.raises(InputError, match="no text content"):
        template.pieces([{"role": "user", "content": None}], "row-3")
    with pytest.raises(InputError, match="no role"):
        template.pieces([{"content": "x"}], "row-3")


def test_empty_answer_and_missing_answer_name_the_row(model):
    model.template = ChatTemplate.shipped("chatml", TOKENS, model.tokenizer.all_special_tokens)
    with pytest.raises(InputError, match=r"row-7.*message 1"):
        encode_messages(model, [TALK[1], {"role": "assistant", "content": ""}], max_length=99, example_id="row-7")
    with pytest.raises(InputError, match="row-8"):
        encode_messages(model, TALK[:2], max_length=99, example_id="row-8")


def test_sandbox_and_bad_templates():
    evil = ChatTemplate("{{ messages.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises(InputError, match="refuses"):
        evil.render(TALK)
    with pytest.raises(ModelError, match="not valid Jinja"):
        ChatTemplate("{% for m in %}")
    with pytest.raises(ModelError, match="did you mean chatml"):
        ChatTemplate.shipped("chatm")
    with pytest.raises(InputError, match="only system, user"):
        ChatTemplate.shipped("mistral", TOKENS).render([{"role": "tool", "content": "x"}])
