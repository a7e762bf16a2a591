"""signals.pattern_votes: Python's own expressions, votes by hand, patterns that would hang, refusals."""

import re
import time

import pytest

from tutelage.core.apply import score_dataset
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.signals.pattern_votes import PatternVotes, expression

PROOF = {"signals.pattern_votes": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/signals/pattern_votes.py", "(counts == best).sum(axis=0) == 1", "(counts == best).any(axis=0)"),
    ("src/tutelage/signals/pattern_votes.py", 'after = f"(?:$|{_OTHER})"', 'after = ""'),
    ("src/tutelage/signals/pattern_votes.py", "ignore_case=self.ignore_case", "ignore_case=True"),
    ("src/tutelage/signals/pattern_votes.py", "dict.fromkeys(entries)", "entries"),
]


def votes(texts, sources, inputs=None, **fields):
    data = Dataset.from_rows({"id": f"r{i}", "text": text} for i, text in enumerate(texts))
    found = score_dataset(PatternVotes(sources=sources, **fields), data, inputs or {})
    assert found.column("vote_sources").to_pylist() == [list(sources)] * len(texts)
    return found.column("votes").to_pylist()


def test_votes_by_hand():
    sources = {
        "links": {"spam": ["re:https?://", "my  channel"]},
        "mood": {"good": ["great", "fun", "great"], "bad": ["dull", "sad"]},
    }
    texts = ["See http://x.y", "MY\nchannel is fun", "Great, but dull and sad.", "great but sad", "greatest", ""]
    assert votes(texts, sources) == [
        ["spam", None],
        ["spam", "good"],
        [None, "bad"],
        [None, None],  # as much for the one as for the other: an entry given twice counts once
        [None, None],
        [None, None],
    ]
    assert votes(["Great fun, sad", "GREAT"], sources, ignore_case=False) == [[None, None], [None, None]]


@pytest.mark.parametrize(
    ("entry", "hits", "misses"),
    [
        ("été", ["l'été!", "Été"], ["étéx", "xété", "ete"]),
        ("c++", ["in C++.", "c++11"], ["c+", "cc++"]),
        ("check out", ["Check  out", "check\u00a0out", "(check out)"], ["checkout", "check, out"]),
        ("ja", ["ja", "nein,ja"], ["ja_", "jaß", "ninja", "ja3"]),
    ],
)
def test_whole_words_in_any_language(entry, hits, misses):
    texts = [*hits, *misses]
    assert [row[0] for row in votes(texts, {"s": {"y": [entry]}})] == ["y"] * len(hits) + [None] * len(misses)


def test_patterns_find_what_the_standard_library_finds():
    texts = ["ab12", "x99 yz", "AB", "a.b", "tail 7", "7", "ax\nb", "", "££"]
    for pattern in (r"\d\d", "^a", r"\d$", "a.b", "(x|y)z?", "[^a-z]{2}"):
        expected = ["y" if re.search(pattern, text, re.IGNORECASE) else None for text in texts]
        assert [row[0] for row in votes(texts, {"s": {"y": ["re:" + pattern]}})] == expected, pattern


def test_no_pattern_hangs():
    text = "a" * 50_000 + "!"
    start = time.perf_counter()
    assert votes([text], {"s": {"y": ["re:(a+)+$", "re:((a|aa)*)*b", "re:.*a.*a.*a.*a.*b"]}}) == [[None]]
    assert time.perf_counter() - start < 5


def test_refusals():
    with pytest.raises(ConfigError, match="needs sources"):
        votes(["x"], {})
    for bad in ("re:(?=a)", r"re:(a)\1", "re:(a", "  ", "re: "):
        with pytest.raises(ConfigError, match="sources") as error:
            PatternVotes(sources={"rule": {"y": [bad]}})
        assert "'rule'" in str(error.value)
    for empty in ({"rule": {}}, {"rule": {"y": []}}):
        with pytest.raises(ConfigError, match="needs entries"):
            PatternVotes(sources=empty)
    schema = Dataset.from_rows([{"label": "spam"}, {"label": "ham"}])
    with pytest.raises(InputError, match="nearest is 'spam'"):
        votes(["x"], {"links": {"spma": ["x"]}}, {"labels": schema})
    assert votes(["x"], {"links": {"spam": ["x"]}}, {"labels": schema}) == [["spam"]]
    assert expression("a b") != expression("ab")
