"""Copyright traps: unique sequences in pairs, planted as often as sealed and nowhere else."""

import itertools

import numpy as np
import pytest

from tutelage.core.apply import apply_transform
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.core.fingerprint import digest
from tutelage.data.augment.traps import Traps, insert, overlap_of
from tutelage.models.ngram import NGramLM

PROOF = {"data.augment.traps": ["consistent"]}
MUTATIONS = [
    ("src/tutelage/data/augment/traps.py", "minlength=len(gaps))", "minlength=len(gaps)) // 2"),
    ("src/tutelage/data/augment/traps.py", "len(one & other) / len(one | other)", "len(one & other) / len(one)"),
    ("src/tutelage/data/augment/traps.py", "<= self.overlap for other in tokens", "<= 1 for other in tokens"),
    ("src/tutelage/data/augment/traps.py", "if not low <= perplexity < high or len", "if len"),
    ("src/tutelage/data/augment/traps.py", "for i in rng.permutation(2)", "for i in range(2)"),
    ("src/tutelage/data/augment/traps.py", "and len(ids) == self.length", ""),
    ("src/tutelage/data/augment/traps.py", "replace=False", "replace=True"),
]


@pytest.fixture(scope="module")
def writer():
    rng = np.random.default_rng(0)
    vocabulary = [f"w{n}" for n in range(60)]
    return NGramLM(2).fit(" ".join(rng.choice(vocabulary, rng.integers(3, 40))) for _ in range(60))


DATA = Dataset.from_rows(
    {"id": f"d{n}", "text": f"Document {n} says\nthis and that.", "title": f"t {n}"} for n in range(8)
)
FIELDS = {"pairs": 6, "length": 10, "repeats": (1, 3), "perplexity": (1.0, 81.0), "buckets": 2}


def planted(writer, **fields):
    return apply_transform(Traps(**{**FIELDS, **fields}), DATA, {"writer": writer})


def test_planted_as_sealed_and_nowhere_else(writer):
    found = planted(writer)
    traps = found.report["traps"]
    assert len(traps) == 12 and found.report["unfilled"] == 0
    assert sorted(one["planted"] for one in traps) == [0] * 6 + [1, 1, 1, 3, 3, 3]
    assert found.report["seal"] == digest(traps)
    texts = dict(zip(found.ids(), found.column("text").to_pylist()))
    for trap in traps:
        holding = {name: text.count(trap["text"]) for name, text in texts.items() if trap["text"] in text}
        assert holding == ({trap["document"]: trap["planted"]} if trap["planted"] else {})
    changed = {one["document"] for one in traps} - {None}
    assert len(changed) == 6
    everywhere = planted(writer, pairs=8, overlap=0.5).report["traps"]
    assert {one["document"] for one in everywhere} - {None} == set(DATA.ids())
    for before, after in zip(DATA.rows(), found.rows()):
        assert (after["text"] == before["text"]) == (before["id"] not in changed)
        assert after["title"] == before["title"]
        assert after["trap_repeats"] == sum(one["planted"] for one in traps if one["document"] == before["id"])


def test_sequences_are_unlike_and_of_their_bucket(writer):
    found = planted(writer, pairs=8, overlap=0.1, seed=2)
    traps = found.report["traps"]
    for one, other in itertools.combinations(traps, 2):
        sets = [set(writer.tokenize([each["text"]])[0]) for each in (one, other)]
        assert len(sets[0] & sets[1]) / len(sets[0] | sets[1]) <= 0.1
    for trap in traps:
        assert len(trap["text"].split()) == 10
        score = writer.score_texts([trap["text"]])[0]
        assert trap["perplexity"] == pytest.approx(np.exp(score.nll_sum / score.n_tokens), abs=1e-3)
        assert trap["bucket"] == int((trap["perplexity"] - 1) / 40)
    for member, held in zip(traps[::2], traps[1::2]):
        assert member["planted"] > 0 == held["planted"] and member["bucket"] == held["bucket"]
    assert overlap_of({1, 2, 3}, {3, 4}) == 0.25


def test_either_of_a_pair_is_planted(writer):
    """Sequences are kept in the order of their making; which of a pair is planted is drawn."""
    first = []
    for seed in range(4):
        traps = planted(writer, seed=seed).report["traps"]
        twin = Traps(**FIELDS, seed=seed)._written(writer)
        order = [one["text"] for kept in twin for one in kept]
        first += [
            order.index(member["text"]) < order.index(held["text"])
            for member, held in zip(traps[::2], traps[1::2])
        ]
    assert 0 < sum(first) < len(first)


def test_insertion_keeps_the_words_around():
    rng = np.random.default_rng(1)
    text = "one two\nthree  four"
    changed = insert(text, "TRAP here", 5, rng)
    assert changed.count("TRAP here") == 5
    assert changed.replace("TRAP here ", "").replace(" TRAP here", "") == text
    assert insert("word", "TRAP", 2, rng) == "word TRAP TRAP"


def test_seeds_column_and_what_cannot_be_filled(writer):
    one, same, other = (planted(writer, seed=seed).report["seal"] for seed in (1, 1, 2))
    assert one == same != other
    titles = planted(writer, column="title")
    assert titles.column("text").to_pylist() == DATA.column("text").to_pylist()
    assert titles.column("title").to_pylist() != DATA.column("title").to_pylist()
    partly = planted(writer, perplexity=(1.0, 301.0), buckets=6)
    assert 0 < partly.report["unfilled"] < 6
    assert len(partly.report["traps"]) == 2 * (6 - partly.report["unfilled"])


def test_refusals(writer):
    with pytest.raises(InputError, match="fewer documents than traps"):
        planted(writer, pairs=9)
    with pytest.raises(InputError, match="no sequences of the wanted perplexity"):
        planted(writer, perplexity=(1.0, 1.1))
    with pytest.raises(InputError, match="hold traps already"):
        Traps(**FIELDS).apply(planted(writer), {"writer": writer})
    with pytest.raises(ConfigError, match="at least 1"):
        Traps(repeats=(0, 1))
    with pytest.raises(ConfigError, match="rising"):
        Traps(perplexity=(5.0, 5.0))
