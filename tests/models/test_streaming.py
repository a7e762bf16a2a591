"""Completions handed on while they grow: the pieces are the text, and listening changes nothing."""

import pytest
import torch

from tutelage.core.errors import ModelError
from tutelage.models.streaming import TextStream
from tutelage.models.toy import tiny_causal_lm

MUTATIONS = [
    ("src/tutelage/models/streaming.py", ".rstrip(_UNFINISHED)", ""),
    ("src/tutelage/models/streaming.py", "text[: len(text) - _held_back(text, self._stop)]", "text"),
    ("src/tutelage/models/streaming.py", "self._listen(text[len(self._sent) :])", "self._listen(text)"),
    ("src/tutelage/models/streaming.py", "and text.startswith(self._sent)", ""),
    ("src/tutelage/models/generation.py", "stream.finish(completions[0].text)", "pass"),
    ("src/tutelage/models/generation.py", "self.stream.grow(self.out[i])", "pass"),
]
PROMPT = "The number 3 comes after"


class Stop(Exception):
    pass


@pytest.fixture(scope="module")
def model():
    made = tiny_causal_lm("llama", seed=1)
    with torch.no_grad():
        made.module.get_output_embeddings().weight.mul_(10)
    return made


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_pieces_are_the_text(model, seed, temperature):
    """Sampled bytes are often no whole characters: nothing is shown that changes later."""
    plain = model.generate([PROMPT + str(seed)], 40, temperature, seed=seed)
    pieces = []
    heard = model.generate([PROMPT + str(seed)], 40, temperature, seed=seed, on_text=pieces.append)
    assert heard == plain
    assert "".join(pieces) == plain[0].text and len(pieces) > 3 and all(pieces)


def test_a_stop_string_is_never_shown(model):
    whole = model.generate([PROMPT], 40, 0.0)[0].text
    stop = whole[len(whole) // 2 :][:3]
    assert len(stop) == 3
    pieces = []
    (found,) = model.generate([PROMPT], 40, 0.0, stop=[stop, "never"], on_text=pieces.append)
    assert not found.truncated and "".join(pieces) == found.text == whole[: whole.index(stop)]


def test_what_might_have_been_a_stop_string_is_shown_at_the_end(model):
    (whole,) = model.generate([PROMPT], 40, 0.0)
    assert whole.truncated
    pieces = []
    model.generate([PROMPT], 40, 0.0, stop=[whole.text[-3:] + "never"], on_text=pieces.append)
    assert "".join(pieces) == whole.text


def test_pieces_come_while_the_completion_grows(model, monkeypatch):
    """A listener that gives up after the first piece has cost a token or two, not forty."""
    passes = []
    monkeypatch.setattr(model.module.base_model, "forward", _counted(model.module.base_model.forward, passes))

    def give_up(piece):
        raise Stop

    with pytest.raises(Stop):
        model.generate([PROMPT], 40, 0.0, on_text=give_up)
    assert 1 <= len(passes) < 8


def _counted(forward, passes):
    def counted(*args, **options):
        passes.append(1)
        return forward(*args, **options)

    return counted


def test_one_prompt_at_a_time(model):
    with pytest.raises(ModelError, match="single completion"):
        model.generate(["a", "b"], 4, on_text=print)


def stream(texts, stop=(), final=None):
    """What is shown when the decoder gives `texts` one after the other."""
    shown = []
    made = TextStream(lambda tokens: texts[len(tokens) - 1], shown.append, stop)
    for n in range(1, len(texts) + 1):
        made.grow([0] * n)
    made.finish(texts[-1] if final is None else final)
    return shown


def test_what_is_held_back():
    assert stream(["a", "a\ufffd", "a\ufffd\ufffd", "aé", "aéb"]) == ["a", "é", "b"]
    assert stream(["a\ufffd"]) == ["a", "\ufffd"], "bytes that never become a character are shown at the end"
    assert stream(["x", "x#", "x##", "x##y"], stop=["###"]) == ["x", "##y"]
    assert stream(["x", "x#", "x##"], stop=["###"], final="x") == ["x"]
    assert stream(["ab", "ab ", "ab."]) == ["ab", " "], "what was shown cannot be taken back"
    assert stream(["ab", "wxyz", "abcd"]) == ["ab", "cd"]
