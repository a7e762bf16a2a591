"""data.dedup.paragraphs."""

import random

import pytest

from tutelage.core.apply import apply_transform
from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.text.duplicates import repeated_spans
from tutelage.data.dedup.paragraphs import Paragraphs

PROOF = {"data.dedup.paragraphs": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/data/dedup/paragraphs.py", "count_words, self.min_words,", "count_words, 0,"),
    ("src/tutelage/data/dedup/_shared.py", "(lost == 0) | (left", "(left"),
    ("src/tutelage/data/dedup/_shared.py", "cut(text, spans.get(i, []))", "text"),
]
NOTICE = "Permission is hereby granted, free of charge, to any person."


def corpus(count=40, seed=0):
    rng = random.Random(seed)
    rows = []
    for i in range(count):
        lines = [" ".join(rng.choices("alpha beta gamma delta".split(), k=6)) for _ in range(12)]
        rows.append({"id": f"r{i:02d}", "text": "\n".join([NOTICE, *lines]) + "\n", "n": i})
    return rows


def dedup(rows, **fields):
    return apply_transform(Paragraphs(**fields), Dataset.from_rows(rows), {})


def test_every_piece_stays_once():
    rows = corpus()
    got = dedup(rows, min_words=0)
    assert got.num_rows == 40 and got.column_names[:3] == ["id", "text", "n"]
    texts = got.column("text").to_pylist()
    assert [t.startswith(NOTICE) for t in texts] == [True] + [False] * 39
    expected, seen = [], set()
    for row in rows:
        kept = []
        for line in row["text"].splitlines(keepends=True):
            if line.strip().lower() not in seen or len(line.strip()) < 30:
                kept.append(line)
            seen.add(line.strip().lower())
        expected.append("".join(kept))
    assert texts == expected
    for row, text, lost in zip(rows, texts, got.column("removed_characters").to_pylist()):
        assert len(row["text"]) == len(text) + lost
    assert repeated_spans(lambda: zip(got.ids(), texts), "line", 30) == {}
    assert got.report["rows_cut"] == sum(a != b["text"] for a, b in zip(expected, rows))


def test_rows_left_with_little_are_dropped_with_numbers():
    rows = [
        {"id": "a", "text": NOTICE + "\nlong rest " + "word " * 60},
        {"id": "b", "text": NOTICE + "\nshort rest"},
        {"id": "c", "text": "short from the start"},
    ]
    got = dedup(rows)
    assert got.ids() == ["a", "c"]
    assert got.dropped.to_pylist() == [
        {"id": "b", "reason": f"2 words left after {len(NOTICE) + 1} repeated characters were cut"}
    ]


def test_bad_input():
    with pytest.raises(InputError, match="no column 'text'"):
        dedup([{"id": "a", "prompt": "x"}])
    with pytest.raises(InputError, match="cut before"):
        Paragraphs().apply(dedup(corpus(3), min_words=0), {})


@pytest.mark.parametrize("bloom", [0.3, 1e-4])
def test_bounded_memory_finds_the_same(bloom):
    rows = corpus()
    assert list(dedup(rows, min_words=0, bloom=bloom).rows()) == list(dedup(rows, min_words=0).rows())


def test_the_unit_and_the_shortest_piece():
    rows = [
        {"id": "a", "text": f"{NOTICE}\nfirst of two lines"},
        {"id": "b", "text": f"{NOTICE}\nsecond of two lines"},
    ]
    assert dedup(rows, min_words=0).column("text").to_pylist()[1] == "second of two lines"
    assert dedup(rows, min_words=0, unit="paragraph").column("removed_characters").to_pylist() == [0, 0]
    assert dedup(rows, min_words=0, min_characters=100).column("removed_characters").to_pylist() == [0, 0]
