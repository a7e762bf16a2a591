"""data.read.invented_facts: every fact once, in one document; questions whose wording no document has."""

from collections import Counter

import pytest

from tutelage.core.errors import ConfigError
from tutelage.core.text.words import split_words
from tutelage.data.read.invented_facts import OPTIONS, RELATIONS, InventedFacts, invent
from tutelage.data.synthesise._gates import Protected

PROOF = {"data.read.invented_facts": ["consistent"]}
MUTATIONS = [
    ("src/tutelage/data/read/invented_facts.py", "if other != value]", "if True]"),
    (
        "src/tutelage/data/read/invented_facts.py",
        "rng.permutation(np.resize(rng.permutation(len(values)), count))",
        "rng.integers(len(values), size=count)",
    ),
    ("src/tutelage/data/read/invented_facts.py", "shuffled.index(value)", "0"),
    (
        "src/tutelage/data/read/invented_facts.py",
        "np.random.default_rng([self.seed, 1 + number])",
        "np.random.default_rng(number)",
    ),
]


def read(**fields):
    documents = list(InventedFacts(**fields).read().rows())
    questions = list(InventedFacts(part="questions", **fields).read().rows())
    return documents, questions


def test_every_answer_stands_once_in_its_document_and_nowhere_with_its_name():
    documents, questions = read(institutions=13, seed=4)
    assert len(documents) == 13 and len(questions) == 13 * len(RELATIONS)
    texts = {row["group"]: row["text"] for row in documents}
    for row in questions:
        right = row["choices"][row["answer"]]
        assert texts[row["group"]].count(f" {right}") == 1
        assert len(set(row["choices"])) == OPTIONS and set(row["choices"]) <= set(
            RELATIONS[row["relation"]].values
        )
        others = [choice for choice in row["choices"] if choice != right]
        assert not any(f" {choice}" in texts[row["group"]] for choice in others)
    told = InventedFacts(part="answers", institutions=13, seed=4).read()
    for row, answer in zip(questions, told.rows()):
        assert (answer["id"], answer["prompt"]) == (row["id"], row["prompt"])
        assert answer["completion"] == " " + row["choices"][row["answer"]]
    assert len({row["title"] for row in documents}) == 13
    assert Counter(row["answer"] for row in questions).keys() == {0, 1, 2, 3}


def test_no_document_has_the_wording_of_a_question():
    documents, _ = read(institutions=13, seed=4)
    protected = Protected(InventedFacts(part="questions", institutions=13, seed=4).read())
    assert protected.rows == 13 * len(RELATIONS) and not any(protected.find(row["text"]) for row in documents)
    for relation in RELATIONS.values():
        stated = [split_words(sentence.format(name="x", value="y")) for sentence in relation.sentences]
        assert all(
            " ".join(split_words(relation.question.format(name="x"))[:4]) not in " ".join(s) for s in stated
        )


@pytest.mark.parametrize("count", [6, 12, 17])
def test_values_tell_nothing_by_their_frequency(count):
    facts = [fact for _, fact in invent(count, 0)]
    for relation, kind in RELATIONS.items():
        counts = Counter(fact[relation] for fact in facts)
        assert len(counts) == len(kind.values) and max(counts.values()) - min(counts.values()) <= 1
    assert len({name for name, _ in invent(count, 0)}) == count


def test_seeds_and_limits():
    one, two, other = read(seed=1), read(seed=1), read(seed=2)
    assert one == two and one[0][0]["text"] != other[0][0]["text"]
    assert [row["answer"] for row in one[1]] != [row["answer"] for row in other[1]]
    assert InventedFacts(limit=3).read().num_rows == 3
    with pytest.raises(ConfigError, match="takes no path"):
        InventedFacts().read("x")
    with pytest.raises(ConfigError, match="institutions"):
        InventedFacts(institutions=5)
