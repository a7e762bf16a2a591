"""Byte kernels: words, n-grams, hashes, rows, against plain Python."""

import itertools
import random
import unicodedata
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.core.errors import InputError
from tutelage.core.text import pieces as piecewise
from tutelage.core.text import words as module
from tutelage.core.text.duplicates import canonical, cut, pieces, repeated_spans
from tutelage.core.text.hashing import hash64, hash64_many, uniform
from tutelage.core.text.ngrams import HashSet, ngram_hashes
from tutelage.core.text.rows import text_array, texts
from tutelage.core.text.words import hash_words, split_words

MUTATIONS = [
    ("src/tutelage/core/text/words.py", "inverses[starts])", "inverses[ends])"),
    ("src/tutelage/core/text/words.py", "start[inner] = word[inner]", "pass"),
    ("src/tutelage/core/text/words.py", "extra[first] = False", "pass"),
    ("src/tutelage/core/text/pieces.py", "starts -= starts > offsets[owners]", "pass"),
    ("src/tutelage/core/text/pieces.py", "as_one[sigma] = True", "pass"),
    ("src/tutelage/core/text/ngrams.py", "<= ends)", "<= ends + 1)"),
    ("src/tutelage/core/text/ngrams.py", "pow(_Q, size, _MASK + 1)", "1"),
    ("src/tutelage/core/text/hashing.py", "+ 0.5) / 2.0**53", "+ 0.5) / 2.0**54"),
]
TEXTS = [
    "The quick_brown fox; it's 3.14, really!",
    "",
    "THE QUICK brown-fox",
    "über Straße ÜBER façade\u2014“quoted”",
    "cafe\u0301 café",
    "x",
    "中文字 and 日本語 text",
    "İstanbul ẞ Ω",
    "kosmoΣ is written ΚΟΣΜΟΣ, aΣa aσa",
    "...",
]


def names_of(texts, **options):
    """{hash: the words that have it} and the words per document as hashes."""
    found = hash_words(texts, **options)
    return [found.hashes[a:b].tolist() for a, b in itertools.pairwise(found.bounds)]


def check_equal_to_plain(texts):
    expected = [split_words(text) for text in texts]
    got = names_of(texts)
    assert [len(g) for g in got] == [len(e) for e in expected]
    by_hash, by_word = {}, {}
    for e, g in zip(expected, got):
        for word, number in zip(e, g):
            assert by_hash.setdefault(number, word) == word
            assert by_word.setdefault(word, number) == number


def test_words_equal_the_regular_expression(monkeypatch):
    check_equal_to_plain(TEXTS)
    monkeypatch.setattr(piecewise, "_DENSE", 0)
    check_equal_to_plain(TEXTS)
    assert split_words(TEXTS[0]) == ["the", "quick", "brown", "fox", "it", "s", "3", "14", "really"]
    assert split_words(TEXTS[6]) == ["中", "文", "字", "and", "日", "本", "語", "text"]
    assert names_of(["café"]) == names_of(["CAFE\u0301"])


@pytest.mark.parametrize("dense", [0, 40])
@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(max_size=40) | st.text("a E.\u0301\u0327éΣσ\u2126Ǆ漢가", max_size=9), max_size=8))
def test_words_equal_the_regular_expression_on_any_text(dense, texts):
    with patch.object(piecewise, "_DENSE", dense):
        check_equal_to_plain(texts)


def test_documents_do_not_run_together_and_offsets_point_into_the_text():
    assert names_of(["ab", "cd"]) == [names_of(["ab"])[0], names_of(["cd"])[0]]
    found = hash_words(["Uno, DOS tres", "Vier ünf Sechs"])
    assert found.text(0, 1) == "Uno, DOS"
    assert found.text(4, 5) == "ünf Sechs"


def test_pieces_end_with_their_document_and_marks_are_stripped(monkeypatch):
    assert names_of(["cafe", "\u0301x", "é"]) == [names_of([text])[0] for text in ("cafe", "\u0301x", "é")]
    monkeypatch.setattr(piecewise, "_DENSE", 0)
    stripped = names_of(["Café NAÏVE Åe\u0301", "caf\u0301e naive aé"], strip_marks=True)
    assert stripped == names_of(["cafe naive ae", "cafe naive ae"])


def test_blocks_do_not_matter(monkeypatch):
    rng = random.Random(0)
    texts = [" ".join(rng.choices(["alpha", "Beta", "g", "delta1"], k=200)) for _ in range(5)] + ["w" * 999]
    whole = names_of(texts)
    monkeypatch.setattr(module, "_BLOCK", 64)
    assert names_of(texts) == whole


def test_numbers_can_be_mapped_to_one():
    mapped = names_of(["in 1999 a12b 7 12 345 67", "in 5 a7b 123456 7 8 9"], map_numbers=True)
    assert mapped[0] == mapped[1]
    assert names_of(["a 7", "12 b"], map_numbers=True) == [
        names_of([t], map_numbers=True)[0] for t in ("a 7", "12 b")
    ]
    kept = names_of(["in 1999", "in 5"])
    assert kept[0] != kept[1]


def test_arrow_slices_and_nulls():
    array = pa.array(["no", "one two", None, "three"], pa.large_string())[1:]
    assert [len(w) for w in names_of(array)] == [2, 0, 1]
    assert names_of([]) == []


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 12, 13])
def test_ngrams_equal_windows_of_words(n):
    rng = random.Random(n)
    texts = [" ".join(rng.choices("abcd", k=rng.randrange(0, 30))) for _ in range(30)]
    hashes, first = ngram_hashes(hash_words(texts), n)
    expected = []
    for text in texts:
        words = text.split()
        expected += [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    assert len(hashes) == len(expected) == len(first)
    groups = {}
    for number, gram in zip(hashes.tolist(), expected):
        assert groups.setdefault(number, gram) == gram
    assert len(groups) == len(set(expected))


def test_hash_set_finds_exactly_its_members():
    rng = np.random.default_rng(0)
    members = rng.integers(0, 2**63, 5000).astype(np.uint64)
    asked = np.concatenate([members[:100], rng.integers(0, 2**63, 5000).astype(np.uint64)])
    places, ranks = HashSet(members).find(asked)
    assert places.tolist() == np.flatnonzero(np.isin(asked, members)).tolist()
    assert (HashSet(members).sorted[ranks] == asked[places]).all()
    assert len(HashSet(np.zeros(0, np.uint64)).find(asked)[0]) == 0


def test_hashes_are_fixed_for_ever_and_uniform():
    # Values computed once; a change would silently redraw every random selection.
    assert hash64(0, "row") == 1661212141981094371
    assert hash64(1, "row") != hash64(0, "row")
    ids = [str(i) for i in range(20_000)]
    assert hash64_many(3, ids[:5]).tolist() == [hash64(3, i) for i in ids[:5]]
    u = uniform(0, ids)
    assert u.min() > 0 and u.max() < 1
    assert abs(u.mean() - 0.5) < 4 / np.sqrt(12 * 20_000)
    assert abs(np.corrcoef(u, uniform(1, ids))[0, 1]) < 4 / np.sqrt(20_000)


def test_row_text_of_every_shape():
    assert texts(pa.table({"id": ["a"], "text": ["t"], "prompt": ["p"], "completion": ["c"]})) == ["t"]
    assert texts(pa.table({"id": ["a"], "prompt": ["p"], "completion": ["c"]})) == ["p\nc"]
    messages = [[{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]]
    assert texts(pa.table({"id": ["a"], "messages": messages})) == ["hi\nho"]
    with pytest.raises(InputError, match="no text"):
        text_array(pa.table({"id": ["a"], "n": [1]}))
    with pytest.raises(InputError, match="does not hold text") as error:
        text_array(pa.table({"id": ["a7"], "text": [1]}))
    assert "a7" in str(error.value)


def test_canonical_and_paragraphs():
    assert canonical(" A\tb\n\nC ") == canonical("a b c") == "a b c"
    assert canonical("é") == canonical("e\u0301") == unicodedata.normalize("NFC", "é")
    assert canonical(" A ", strict=True) == " A "
    text = "one\n\n  \ntwo\r\nthree"
    spans = pieces(text, "line")
    assert [text[a:b] for a, b in spans] == ["one\n", "two\r\n", "three"]
    assert cut(text, spans[1:2]) == "one\n\n  \nthree"
    spans = pieces("\n a\nb\n \nc", "paragraph")
    assert ["\n a\nb\n \nc"[a:b] for a, b in spans] == [" a\nb\n", "c"]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text("ab \n", max_size=12), max_size=6), st.sampled_from(["line", "paragraph"]))
def test_repeated_pieces_equal_a_plain_scan(texts, unit):
    ids = [f"r{(7 * i) % 13}" for i in range(len(texts))]
    expected, seen = {}, set()
    for identifier, text in sorted(zip(ids, texts)):
        for start, end in pieces(text, unit):
            form = canonical(text[start:end])
            if len(form) >= 2 and form in seen:
                expected.setdefault(identifier, []).append((start, end))
            seen.add(form)
    for bloom in (None, 0.5, 1e-3):
        assert repeated_spans(lambda: zip(ids, texts), unit, 2, bloom) == expected
    for text in texts:
        spans = pieces(text, unit)
        assert cut(text, spans).strip() == ""
        assert sorted(spans) == spans
