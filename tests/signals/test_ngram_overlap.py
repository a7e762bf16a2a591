"""signals.ngram_overlap: planted leaks are found, nothing else is."""

import itertools
import random

import numpy as np
import pytest

from toy.planted_pool import make_evaluation, make_pool
from tutelage.core.apply import score_dataset
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.core.text.words import split_words
from tutelage.signals.ngram_overlap import NgramOverlap

PROOF = {"signals.ngram_overlap": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/signals/ngram_overlap.py", "last_in_item >= first_answer[item]", "last_in_item >= 0"),
    ("src/tutelage/signals/ngram_overlap.py", "starts + size, -1)", "starts + 1, -1)"),
    ("src/tutelage/signals/ngram_overlap.py", "lengths[item] == size", "lengths[item] > size"),
    ("src/tutelage/signals/ngram_overlap.py", 'decode("utf-8"))', 'decode("latin-1"))'),
]


def overlap(rows, evaluation, **fields):
    data = Dataset.from_rows(rows)
    return list(score_dataset(NgramOverlap(**fields), data, {"evaluation": Dataset.from_rows(evaluation)}).rows())


def vocabulary(rng, prefix, count):
    return " ".join(f"{prefix}{rng.randrange(50)}" for _ in range(count))


def test_thirty_planted_leaks_are_found_and_nothing_else():
    rng = random.Random(0)
    items = [{"id": f"e{i}", "text": vocabulary(rng, "eval", 40)} for i in range(30)]
    rows = [{"id": f"c{i}", "text": vocabulary(rng, "clean", 200)} for i in range(200)]
    changes = [str, str.upper, lambda t: t.replace(" ", ", ") + "!"]
    for i, item in enumerate(items):
        words = item["text"].split()
        piece = changes[i % 3](" ".join(words[5:25]))
        rows[i]["text"] += " " + piece + " " + vocabulary(rng, "clean", 20)
    found = overlap(rows, items)
    assert [row["contaminated"] for row in found] == [i < 30 for i in range(200)]
    for i in range(30):
        assert found[i]["contamination_item"] == f"e{i}"
        assert found[i]["contamination_hits"] == 9
        assert split_words(found[i]["contamination_snippet"]) == split_words(items[i]["text"])[5:17]
    assert np.isclose(found[0]["contamination_coverage"], 20 / 240)
    assert all(row["contamination_snippet"] is None for row in found[30:])


def test_equal_to_sets_of_word_windows():
    rng = random.Random(1)
    texts = [" ".join(rng.choices("abc", k=rng.randrange(0, 25))) for _ in range(60)]
    items = [" ".join(rng.choices("abc", k=rng.randrange(6, 15))) for _ in range(6)]
    found = overlap([{"id": f"r{i}", "text": t} for i, t in enumerate(texts)], [{"text": t} for t in items], n=6)
    grams = {tuple(w[i : i + 6]) for w in map(str.split, items) for i in range(len(w) - 5)}
    for text, row in zip(texts, found):
        words = text.split()
        at = [i for i in range(len(words) - 5) if tuple(words[i : i + 6]) in grams]
        covered = set(itertools.chain(*(range(i, i + 6) for i in at)))
        assert row["contamination_hits"] == len(at)
        assert np.isclose(row["contamination_coverage"], len(covered) / max(1, len(words)))


def test_windows_that_straddle_question_and_answer():
    item = [{"prompt": "q1 q2 q3 q4 q5 q6 q7 q8", "completion": "a1 a2 a3 a4 a5 a6"}]
    across = [{"id": "x", "text": "q5 q6 q7 q8 a1 a2"}, {"id": "y", "text": "q1 q2 q3 q4 q5 q6"}]
    assert [r["contaminated"] for r in overlap(across, item, n=6)] == [True, False]
    assert [r["contaminated"] for r in overlap(across, item, n=6, questions=True)] == [True, True]


def test_short_items_match_whole_or_are_counted():
    items = [{"id": "short", "text": "one two three four five six"}, {"id": "tiny", "text": "yes indeed"}]
    rows = [
        {"id": "a", "text": "x One two, three four five six y"},
        {"id": "b", "text": "one two three four five z"},
    ]
    data, evaluation = Dataset.from_rows(rows), Dataset.from_rows([*items, {"id": "long", "text": "w " * 30}])
    method = NgramOverlap()
    state = method.fit(data, {"evaluation": evaluation})
    assert state["report"]["uncheckable"] == 1 and state["report"]["uncheckable_ids"] == ["tiny"]
    found = list(score_dataset(method, data, {"evaluation": evaluation}, state).rows())
    assert [r["contaminated"] for r in found] == [True, False]
    assert found[0]["contamination_snippet"] == "One two, three four five six"


def test_the_offset_points_at_the_snippet():
    item = [{"id": "i", "text": "Élan vital één twee drie vier vijf"}, {"id": "long", "text": "w " * 30}]
    texts = [
        "élan vital één twee drie vier vijf",
        "Über — “so” \n ÉLAN, vital één twee drie vier vijf!",
        "nothing",
    ]
    found = overlap([{"id": f"r{i}", "text": text} for i, text in enumerate(texts)], item)
    assert [row["contamination_offset"] for row in found] == [0, texts[1].index("ÉLAN"), None]
    for text, row in zip(texts[:2], found):
        assert text[row["contamination_offset"] :].startswith(row["contamination_snippet"])


def test_coverage_decides_about_whole_items():
    items = [{"id": "i", "text": vocabulary(random.Random(2), "w", 40)}]
    half = " ".join(items[0]["text"].split()[:22])
    corpus = [{"id": "c", "text": half}]
    row = overlap(items, corpus, decide="coverage")[0]
    assert row["contaminated"] and np.isclose(row["contamination_coverage"], 22 / 40)
    assert not overlap(items, corpus, decide="coverage", min_coverage=0.6)[0]["contaminated"]


def test_numbers_are_kept_unless_mapped():
    item = [{"text": "add 12 to 30 and then take 7 from the sum of it all"}]
    other = [{"id": "a", "text": "add 99 to 1 and then take 4 from the sum of it all"}]
    assert not overlap(other, item)[0]["contaminated"]
    assert overlap(other, item, map_numbers=True)[0]["contaminated"]


def test_planted_pool_leaks():
    pool, evaluation = make_pool(400, seed=3), make_evaluation(seed=3)
    for row, made in zip(overlap(pool, evaluation), pool):
        assert row["contaminated"] or made["kind"] != "leak"
        assert not row["contaminated"] or made["kind"] in ("leak", "target")


def test_bad_input():
    with pytest.raises(InputError, match="no n-gram"):
        overlap([{"text": "x"}], [{"text": "too short"}])
    with pytest.raises(InputError, match="no n-gram"):
        overlap([{"text": "x"}], [])
    with pytest.raises(ConfigError, match="decide"):
        NgramOverlap(decide="some")
