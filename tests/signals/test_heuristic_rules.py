"""signals.heuristic_rules against a plain reading of each rule, and one text just inside and outside of each."""

import itertools
import random
from collections import Counter

import numpy as np
import pytest

from tutelage.core.apply import score_dataset
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError
from tutelage.core.text.hashing import repeated
from tutelage.core.text.words import split_words
from tutelage.signals import heuristic_rules as module
from tutelage.signals.heuristic_rules import HeuristicRules

PROOF = {"signals.heuristic_rules": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/signals/_rules.py", "free = place + n", "free = place + 1"),
    ("src/tutelage/signals/_rules.py", "letters[at[lead]] + n - 1", "letters[at[lead]]"),
    ("src/tutelage/signals/_rules.py", "size <= 30 for size", "size < 30 for size"),
    ("src/tutelage/signals/heuristic_rules.py", "owner[~all_digits]", "owner[all_digits]"),
    ("src/tutelage/signals/_rules.py", "(hashes ^ salt[first])", "(hashes)"),
    ("src/tutelage/signals/_rules.py", "seen[group] or not jumped[firsts[group]]", "True"),
    ("src/tutelage/core/text/hashing.py", "<= low) & ~same).any()", "<= low) & ~same).all()"),
    ("src/tutelage/signals/_rules.py", ".strip(), True", ".strip(), notices"),
    ("src/tutelage/signals/heuristic_rules.py", "documents[first[places]]", "documents[places]"),
]


def score(texts):
    data = Dataset.from_rows({"id": f"r{i}", "text": t} for i, t in enumerate(texts))
    return list(score_dataset(HeuristicRules(), data, {}).rows())


def plain_top(words, n):
    """Length of the most frequent n-gram times its count; the first of equals; 0 if none repeats."""
    grams = Counter(" ".join(words[i : i + n]) for i in range(len(words) - n + 1))
    if not grams or grams.most_common(1)[0][1] < 2:
        return 0
    gram, count = grams.most_common(1)[0]
    return len(gram) * count


def plain_repeated(words, n):
    """The scan as published: on a repeat jump n words, else one."""
    seen, at, characters = set(), 0, 0
    while at < len(words) - n + 1:
        gram = tuple(words[at : at + n])
        if gram in seen:
            characters += sum(map(len, gram))
            at += n
        else:
            seen.add(gram)
            at += 1
    return characters


def generated(count=200):
    rng = random.Random(0)
    words = ["alpha", "be", "Gamma", "d", "épsilon", "7", "the"]
    texts = []
    for _ in range(count):
        size = rng.randrange(0, 120)
        picks = rng.choices(words, k=size)
        if size > 20:
            picks[-9:] = picks[:9]
        breaks = [rng.choice([" ", " ", " ", "\n", ". ", "\n\n", " - "]) for _ in picks]
        texts.append("".join(a + b for a, b in zip(picks, breaks)))
    return texts


def test_ngram_rules_equal_the_plain_scan():
    # A jump goes over the first "b c d e f": its next occurrence is not a repeat yet, the one after that is.
    texts = [*generated(), "a b c d e a b c d e f x b c d e f y b c d e f z"]
    for text, row in zip(texts, score(texts)):
        words = split_words(text)
        size = max(len(text), 1)
        for n in (2, 3, 4):
            assert row[f"rule_top_{n}gram"] == pytest.approx(plain_top(words, n) / size), (n, text)
        for n in range(5, 11):
            assert row[f"rule_repeated_{n}grams"] == pytest.approx(plain_repeated(words, n) / size), (n, text)


def test_groups_of_equal_keys_even_where_the_sort_cannot_tell_them_apart():
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 2**64, 60, dtype=np.uint64)
    keys[[3, 40]] = keys[7]
    keys[[5, 9]] = keys[50]
    # Apart in the low bits only, and mixed: the index takes the place of these bits.
    keys[[11, 13]] = np.uint64(1 << 40)
    keys[[12, 14]] = np.uint64((1 << 40) + 1)
    for given in (keys, np.delete(keys, [11, 12, 13, 14]), keys[:2], keys[:0]):
        members, starts = repeated(given)
        found = sorted(members[a:b].tolist() for a, b in itertools.pairwise(starts.tolist()))
        expected = {}
        for i, key in enumerate(given.tolist()):
            expected.setdefault(key, []).append(i)
        assert found == sorted(group for group in expected.values() if len(group) > 1)


def test_batches_do_not_matter(monkeypatch):
    texts = generated(60)
    whole = score(texts)
    monkeypatch.setattr(module, "BATCH_BYTES", 256)
    assert score(texts) == whole


def test_word_rules_by_hand():
    row = score(["The be, to 42 épée! of_7"])[0]
    assert row["rule_words"] == 7
    assert row["rule_mean_word"] == pytest.approx((3 + 2 + 2 + 2 + 4 + 2 + 1) / 7)
    assert row["rule_alpha_words"] == pytest.approx(5 / 7)
    assert row["rule_stop_words"] == 4
    assert row["rule_alphanumeric"] == pytest.approx(16 / 24)


@pytest.mark.parametrize(
    ("column", "text", "value"),
    [
        ("rule_hashes_per_word", "# one # two", 1.0),
        ("rule_ellipses_per_word", "one... two… three", 2 / 3),
        ("rule_bullet_lines", "• a\n- b\nc\n  - d", 3 / 4),
        ("rule_ellipsis_lines", "a...\nb… \nc", 2 / 3),
        ("rule_duplicate_lines", "a\nb\na\n\na", 2 / 4),
        ("rule_duplicate_line_characters", "abc\nx\nabc", 3 / 9),
        ("rule_duplicate_paragraphs", "a\nb\n\n\nc\n\na\nb", 1 / 3),
        ("rule_duplicate_paragraph_characters", "ab\n\nc\n\nab", 2 / 9),
        ("rule_lorem_ipsum", "Lorem IPSUM dolor", 1),
        ("rule_braces", "{a} {", 2),
        ("rule_c4_lines", "This is fine.\nno end\nToo short.\nUse cookies, it is good.", 1 / 4),
        ("rule_c4_lines", "Enable JavaScript to see this.\nIt says so [12].\nIt does so.[edit]", 2 / 3),
        ("rule_c4_lines", "Wait for it...\nRead the privacy policy here.\nOne two " + "x" * 1001 + ".", 0),
        ("rule_c4_lines", "Here we use [3]cookies, of course.\nAnd this is fine.", 1 / 2),
        ("rule_bullet_lines", "\u2003- a\n\xa0\n\xa0• b\nc", 2 / 3),
        ("rule_duplicated_characters", "ab\n  \nab\n  \n", 2 / 8),
        ("rule_c4_sentences", "It is (said he). Is it?\nIt is 3.5 now [4]", 2),
        ("rule_c4_sentences", "One is here. Two is there! Is three?\nno\nA last one.", 4),
        ("rule_long_lines", "x" * 200 + "\n" + "y" * 199, 1),
        ("rule_terminal_lines", 'a.\nb"\nc\n\nd!', 3 / 4),
        ("rule_short_lines", "x" * 30 + "\n" + "y" * 31, 1 / 2),
        ("rule_duplicated_characters", "abcd\nabcd\nef", 4 / 10),
        ("rule_newlines_per_word", "a b\nc\n", 2 / 3),
        ("rule_mean_line", "ab\n\nabcd", 3),
        ("rule_max_line", "ab\n\nabcd", 4),
    ],
)
def test_line_rules_by_hand(column, text, value):
    assert score([text])[0][column] == pytest.approx(value)


def test_bad_words_are_counted_as_whole_words():
    import re

    rng = random.Random(3)
    bad = ["Foo", "bar baz", "café noir", "bar baz qux"]
    texts = [
        " ".join(rng.choices(["foo", "bar", "baz", "qux", "food", "CAFE\u0301", "noir,"], k=40)) for _ in range(20)
    ]
    data = Dataset.from_rows({"id": f"r{i}", "text": t} for i, t in enumerate(texts))
    rows = score_dataset(HeuristicRules(bad_words=bad), data, {}).rows()
    for text, row in zip(texts, rows):
        plain = " ".join(split_words(text))
        expected = sum(len(re.findall(rf"\b{phrase.lower()}\b", plain)) for phrase in bad)
        assert row["rule_bad_words"] == expected
    assert score(["foo"])[0]["rule_bad_words"] == 0
    with pytest.raises(ConfigError, match="no word"):
        HeuristicRules(bad_words=["foo", "..."])


def test_nothing_gives_numbers_not_errors():
    for row in score(["", "\n\n", "   ", "..."]):
        assert all(np.isfinite(v) for k, v in row.items() if k.startswith("rule_"))
        assert row["rule_words"] == 0
