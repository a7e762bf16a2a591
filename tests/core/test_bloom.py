"""core.text.bloom and core.text.sentences: no key forgotten, strangers at the promised rate, spans that tile."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.core.errors import ConfigError
from tutelage.core.text.bloom import BloomFilter
from tutelage.core.text.duplicates import digest128, keys_of
from tutelage.core.text.sentences import sentence_spans, sentence_windows

MUTATIONS = [
    ("src/tutelage/core/text/bloom.py", "/ math.log(2) ** 2", "/ math.log(2)"),
    ("src/tutelage/core/text/bloom.py", "np.uint64(i) * second", "np.uint64(i)"),
    (
        "src/tutelage/core/text/bloom.py",
        "np.bitwise_or.at(self.bits, place >> 3, ",
        "np.put(self.bits, place >> 3, ",
    ),
    ("src/tutelage/core/text/sentences.py", "spans[i + count - 1][1]", "spans[i][1]"),
]


@pytest.mark.parametrize("rate", [0.1, 0.01, 0.001])
def test_members_are_found_and_strangers_at_the_rate(rate):
    members = keys_of([digest128(f"in {i}") for i in range(20_000)])
    strangers = keys_of([digest128(f"out {i}") for i in range(100_000)])
    held = BloomFilter(20_000, rate)
    held.add(members[:7000])
    held.add(members[7000:])
    assert held.contains(members).all()
    found = held.contains(strangers).mean()
    # Rounding k to a whole number moves the rate of the ideal k a little.
    expected = (1 - math.exp(-held.hashes * 20_000 / held.size)) ** held.hashes
    assert expected == pytest.approx(rate, rel=0.03)
    assert abs(found - expected) < 3 * math.sqrt(expected * (1 - expected) / 100_000)
    assert len(held.bits) * 8 == pytest.approx(-20_000 * math.log(rate) / math.log(2) ** 2, abs=8)


def test_a_read_only_copy_answers_alike_and_nothing_is_in_an_empty_one():
    held = BloomFilter(10, 0.01)
    keys = keys_of([digest128(t) for t in "abc"])
    assert not held.contains(keys).any() and not BloomFilter(0, 0.5).contains(keys).any()
    held.add(keys[:2])
    assert BloomFilter(10, 0.01, held.bits).contains(keys).tolist() == held.contains(keys).tolist()


@pytest.mark.parametrize("rate", [0, 1, -0.1])
def test_impossible_rates_are_refused(rate):
    with pytest.raises(ConfigError, match="Bloom"):
        BloomFilter(10, rate)


def test_sentences_by_hand():
    text = 'One. Two? "Three!" he said\nfour 3.5 five...  \n\nsix。七！八'
    found = [text[a:b] for a, b in sentence_spans(text)]
    assert found == ["One. ", "Two? ", '"Three!" ', "he said\n", "four 3.5 five...  \n\n", "six。", "七！", "八"]
    windows = sentence_windows("A. B. C. D.", 3)
    assert ["A. B. C. D."[a:b] for a, b in windows] == ["A. B. C. ", "B. C. D."]
    assert sentence_windows("A. B.", 3) == [] and sentence_spans(" \n ") == []


@settings(max_examples=200, deadline=None)
@given(st.text("aB.!? \n\"'", max_size=30))
def test_sentences_tile_the_text(text):
    spans = sentence_spans(text)
    assert all(not text[a:b].isspace() and a < b for a, b in spans)
    assert all(a[1] == b[0] for a, b in itertools.pairwise(spans))
    if text.strip():
        assert text[: spans[0][0]].strip() == "" and spans[-1][1] == len(text)
