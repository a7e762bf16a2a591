"""data.dedup.sentence_spans against a plain scan of the windows."""

import random

import pytest

from tutelage.core.apply import apply_transform
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.data.dedup.sentence_spans import SentenceSpans

PROOF = {"data.dedup.sentence_spans": ["consistent"]}
MUTATIONS = [
    ("src/tutelage/data/dedup/sentence_spans.py", "count=self.sentences", "count=self.sentences + 1"),
    ("src/tutelage/data/dedup/sentence_spans.py", "len(sentence_spans(text)) for", "len(text) for"),
    ("src/tutelage/core/text/duplicates.py", "max(end, joined[-1][1])", "joined[-1][1]"),
]


def dedup(rows, **fields):
    return apply_transform(SentenceSpans(**fields), Dataset.from_rows(rows), {})


def corpus(count=60, seed=0):
    """Texts of 10 sentences; every third holds a planted run of 3 to 5 sentences of a shared notice."""
    rng = random.Random(seed)
    notice = [f"Notice part {i} says this." for i in range(6)]
    rows = []
    for i in range(count):
        sentences = [f"Row {i} line {k} has {rng.randrange(1000)}." for k in range(10)]
        if i % 3 == 0:
            at, start = rng.randrange(10), rng.randrange(2)
            sentences[at:at] = notice[start : start + rng.randrange(3, 5)]
        rows.append({"id": f"r{i:02d}", "text": rng.choice([" ", "\n"]).join(sentences)})
    rng.shuffle(rows)
    return rows


def plain(rows):
    """What is left of every text: windows of three sentences met before (by id) are struck out."""
    seen, left = set(), {}
    for row in sorted(rows, key=lambda r: r["id"]):
        sentences = [s.strip(". \n") for s in row["text"].replace("\n", " ").split(". ")]
        windows = [tuple(sentences[i : i + 3]) for i in range(len(sentences) - 2)]
        struck = set()
        for i, window in enumerate(windows):
            struck |= {i, i + 1, i + 2} if window in seen else set()
            seen.add(window)
        left[row["id"]] = [s for i, s in enumerate(sentences) if i not in struck]
    return left


@pytest.mark.parametrize("bloom", [None, 0.3, 1e-4])
def test_equals_a_plain_scan_and_leaves_no_repeat(bloom):
    rows = corpus()
    got = dedup(rows, bloom=bloom)
    left, cut = plain(rows), 0
    for row in got.rows():
        sentences = [s.strip(". \n") for s in row["text"].replace("\n", " ").split(". ")]
        assert sentences == left[row["id"]]
        cut += len(row["text"]) + row["removed_characters"] != len(row["text"])
    assert got.num_rows == 60 and cut == got.report["rows_cut"] >= 15
    again = dedup([{"id": r["id"], "text": r["text"]} for r in got.rows()])
    assert again.report["rows_cut"] == 0


def test_overlapping_windows_are_one_cut_and_two_sentences_stay():
    rows = [
        {"id": "a", "text": "A a. B b. C c. D d. Own end. More own."},
        {"id": "b", "text": "Start. X x. Y y. A a. B b. C c. D d. Last."},
        {"id": "c", "text": "U u. A a. B b. V v. W w."},
    ]
    got = dedup(rows)
    assert got.column("text").to_pylist() == [rows[0]["text"], "Start. X x. Y y. Last.", rows[2]["text"]]
    assert got.column("removed_characters").to_pylist() == [0, 20, 0]


def test_rows_left_with_too_few_sentences_are_dropped():
    rows = [
        {"id": "a", "text": "A a. B b. C c."},
        {"id": "b", "text": "A a. B b. C c. Left over. And this."},
        {"id": "c", "text": "Short."},
    ]
    got = dedup(rows)
    assert got.ids() == ["a", "c"]
    assert got.dropped.to_pylist() == [
        {"id": "b", "reason": "2 sentences left after 15 repeated characters were cut"}
    ]
    assert dedup(rows, min_sentences=2).ids() == ["a", "b", "c"]
    assert dedup(rows, min_characters=100).report["rows_cut"] == 0


def test_bad_input():
    with pytest.raises(InputError, match="no column 'text'"):
        dedup([{"id": "a", "prompt": "x"}])
    with pytest.raises(InputError, match="cut before"):
        SentenceSpans().apply(dedup(corpus(3)), {})
    with pytest.raises(ConfigError, match="bloom"):
        SentenceSpans(bloom=1.0)


def test_a_window_of_one_sentence_cuts_single_repeats():
    rows = [
        {"id": "a", "text": "The notice is here. One thing. Two things."},
        {"id": "b", "text": "The notice is here. Three things. Four things."},
    ]
    assert dedup(rows, min_sentences=0).column("removed_characters").to_pylist() == [0, 0]
    text = dedup(rows, min_sentences=0, sentences=1).column("text").to_pylist()[1]
    assert "notice" not in text and "Three things." in text
