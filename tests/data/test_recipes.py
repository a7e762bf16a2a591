"""Document recipes: chunks join to the text, answers are quotations, pairs keep their source and group."""

import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.core.apply import apply_transform
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.data.read.python_topics import PythonTopics
from tutelage.data.recipes.code_docstring import CodeDocstring
from tutelage.data.recipes.continuation import Continuation, continuation
from tutelage.data.recipes.question_answer import QuestionAnswer, sections
from tutelage.data.recipes.text_chunks import TextChunks, chunks

PROOF = {
    "data.recipes.text_chunks": ["consistent", "verified"],
    "data.recipes.question_answer": ["consistent"],
    "data.recipes.code_docstring": ["consistent"],
    "data.recipes.continuation": ["consistent", "verified"],
}
MUTATIONS = [
    (
        "src/tutelage/data/recipes/text_chunks.py",
        "length + grown - ends <= limit",
        "length + grown - ends < limit",
    ),
    ("src/tutelage/data/recipes/question_answer.py", "number % len(self.templates)", "0"),
    ("src/tutelage/data/_python_source.py", ">= min_words", "> min_words"),
    ("src/tutelage/data/recipes/code_docstring.py", '"completion": f.docstring', '"completion": f.code'),
    ("src/tutelage/data/recipes/continuation.py", "cut = ends[prompt_words - 1]", "cut = ends[prompt_words]"),
    ("src/tutelage/data/recipes/_derive.py", 'row.get("group") or row["id"]', 'row["id"]'),
]


def rows(dataset):
    return list(dataset.rows())


# -- chunks ---------------------------------------------------------------------------------------------------


def test_chunks_prefer_paragraphs_then_lines_sentences_words():
    text = "First paragraph here.\n\nSecond one. It is\nlonger.\n\n\nThird. " + "y" * 50
    assert chunks(text, 30) == [
        "First paragraph here.\n\n",
        "Second one. It is\nlonger.\n\n\n",
        "Third. ",
        "y" * 30,
        "y" * 20,
    ]
    assert chunks("one two three. four five six seven", 15) == ["one two three. ", "four five six ", "seven"]
    # Exactly as long as allowed; the white space at the end does not count.
    assert chunks("aaaa bbbb\n\ncccc", 15) == ["aaaa bbbb\n\ncccc"]
    assert chunks("aaaa bbbb\n\ncccc", 14) == ["aaaa bbbb\n\n", "cccc"]
    assert chunks("a b c d e f", 4, by_words=True) == ["a b c d ", "e f"]


PIECES = st.lists(st.sampled_from(["word", "x" * 40, " ", "\n", "\n\n", ". ", "é!", "\t", "  \n \n"]), max_size=60)


@settings(max_examples=300, deadline=None)
@given(PIECES.map("".join), st.integers(20, 60), st.booleans())
def test_chunks_join_to_the_text_and_fit(text, limit, by_words):
    found = chunks(text, limit, by_words)
    assert "".join(found) == text
    for chunk in found:
        assert (len(chunk.split()) if by_words else len(chunk.strip())) <= limit
        assert chunk.strip() or not text.strip()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text("abc", min_size=1, max_size=15), min_size=1, max_size=60), st.integers(20, 60))
def test_chunks_of_plain_words_are_those_of_textwrap(words, limit):
    text = " ".join(words)
    assert [chunk.strip() for chunk in chunks(text, limit)] == textwrap.wrap(text, limit)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 10))
def test_chunks_of_long_blank_stretches_are_fast(times):
    text = "a" + " \n" * 20000 * times + "b" * 2000
    assert "".join(chunks(text, 100)) == text


def test_text_chunks_rows():
    dataset = Dataset.from_rows(
        [
            {
                "id": "d1",
                "text": "alpha beta.\n\ngamma delta epsilon.",
                "source": "d1.txt",
                "nll": 2.5,
                "group": "g",
            },
            {"id": "d2", "text": " \n", "source": "d2.txt", "nll": 0.5, "group": "g"},
            {"id": "d3", "text": None, "source": "d3.txt", "nll": 0.5, "group": "g"},
        ]
    )
    found = apply_transform(TextChunks(characters=20), dataset, {})
    base = {"source_id": "d1", "group": "g", "source": "d1.txt"}
    assert rows(found) == [
        {"id": "d1#1", "text": "alpha beta.\n\n", **base},
        {"id": "d1#2", "text": "gamma delta epsilon.", **base},
    ]
    assert found.dropped.to_pylist() == [{"id": "d2", "reason": "no text"}, {"id": "d3", "reason": "no text"}]
    words = apply_transform(TextChunks(words=5, carry=("nll",)), dataset, {})
    assert [(r["text"], r["nll"]) for r in rows(words)] == [("alpha beta.\n\ngamma delta epsilon.", 2.5)]
    lone = apply_transform(TextChunks(), Dataset.from_rows([{"id": "x", "text": "a"}]), {})
    assert rows(lone)[0]["group"] == "x"
    with pytest.raises(ConfigError, match="not both"):
        TextChunks(words=5, characters=20)
    with pytest.raises(InputError, match="no column 'txt'"):
        TextChunks(column="txt").apply(dataset, {})
    with pytest.raises(InputError, match="column 'nll' is not text"):
        TextChunks(column="nll").apply(dataset, {})


def test_default_chunk_is_1200_characters():
    dataset = Dataset.from_rows([{"id": "x", "text": "word " * 1000}])
    sizes = [len(r["text"].strip()) for r in rows(TextChunks().apply(dataset, {}))]
    assert max(sizes) == 1199 and len(sizes) == 5


def test_the_manual_is_whole_after_chunking():
    topics = PythonTopics().read()
    joined: dict[str, str] = {}
    for row in TextChunks().apply(topics, {}).rows():
        joined[row["source_id"]] = joined.get(row["source_id"], "") + row["text"]
        assert row["group"] == row["source_id"]
    assert joined == {row["id"]: row["text"] for row in topics.rows()}


# -- questions ------------------------------------------------------------------------------------------------

MANUAL = """# Getting started

- not prose because it is a list of things
- and more

Install the package with pip and
then run the first command.

## Empty

## Code only

```
this is code and never an answer to any question
```

Reference
=========

Too short.

The reference lists every option that the command knows about.
"""


def test_question_answer_by_hand():
    dataset = Dataset.from_rows(
        [
            {"id": "m", "text": MANUAL},
            {"id": "n", "text": "no heading at all"},
            {"id": "o", "text": "# Alone\n\nshort"},
        ]
    )
    found = apply_transform(QuestionAnswer(templates=("Tell me about {topic}.", "What is {topic}?")), dataset, {})
    assert [(r["id"], r["topic"], r["prompt"], r["completion"]) for r in rows(found)] == [
        (
            "m#1",
            "Getting started",
            "Tell me about Getting started.",
            "Install the package with pip and then run the first command.",
        ),
        (
            "m#2",
            "Reference",
            "What is Reference?",
            "The reference lists every option that the command knows about.",
        ),
    ]
    assert {r["id"]: r["reason"] for r in found.dropped.to_pylist()} == {
        "n": "no heading",
        "o": "no heading with a paragraph of prose below it",
    }
    more = QuestionAnswer(min_words=1).apply(dataset, {})
    assert {r["topic"]: r["completion"] for r in rows(more)}["Reference"] == "Too short."
    with pytest.raises(ConfigError, match="topic"):
        QuestionAnswer(templates=("What?",))


def test_sections_need_a_long_enough_underline():
    assert list(sections("Name\n==\ntext\n\nA longer title\n--------------\n\nbody")) == [
        ("A longer title", ["body"])
    ]


def test_every_topic_of_the_manual_has_answers_from_its_text():
    topics = PythonTopics().read()
    texts = {r["id"]: " ".join(r["text"].split()) for r in topics.rows()}
    found = apply_transform(QuestionAnswer(), topics, {})
    assert found.num_rows > 150
    assert all(r["completion"] in texts[r["source_id"]] and r["topic"] in texts[r["group"]] for r in rows(found))


# -- code -----------------------------------------------------------------------------------------------------


def test_code_docstring():
    dataset = Dataset.from_rows(
        [
            {"id": "m.py", "text": 'def f(x):\r\n    """Add one."""\r\n    return x + 1\r\n', "group": "pkg"},
            {"id": "bad.py", "text": "def f(:\n", "group": "pkg"},
            {"id": "plain.py", "text": "x = 1\n", "group": "pkg"},
            {"id": "short.py", "text": 'def g():\n    """Go."""\n', "group": "pkg"},
        ]
    )
    found = apply_transform(CodeDocstring(min_words=2), dataset, {})
    assert rows(found) == [
        {
            "id": "m.py#1",
            "prompt": "def f(x):\n    return x + 1",
            "completion": "Add one.",
            "function": "f",
            "source_id": "m.py",
            "group": "pkg",
        }
    ]
    reasons = {r["id"]: r["reason"] for r in found.dropped.to_pylist()}
    assert reasons["plain.py"] == reasons["short.py"] == "no documented function"
    assert reasons["bad.py"].startswith("not Python")
    assert CodeDocstring().apply(dataset, {}).num_rows == 2


# -- continuation ---------------------------------------------------------------------------------------------


@given(st.text(st.sampled_from("ab \n\té."), max_size=80), st.integers(1, 5), st.integers(1, 5))
def test_continuation_is_a_prefix_of_the_text(text, prompt_words, completion_words):
    prompt, completion, count = continuation(text, prompt_words, completion_words)
    assert text.startswith(prompt + completion)
    assert count == len(completion.split()) == max(0, min(len(text.split()) - prompt_words, completion_words))
    if count:
        assert prompt.split() == text.split()[:prompt_words] and completion[0].isspace()


def test_continuation_rows():
    dataset = Dataset.from_rows(
        [
            {"id": "a", "text": " one two\nthree  four five six", "n": 1},
            {"id": "b", "text": "one two three", "n": 2},
            {"id": "c", "text": None, "n": 3},
        ]
    )
    recipe = Continuation(prompt_words=2, completion_words=3, min_completion_words=2)
    found = apply_transform(recipe, dataset, {})
    assert rows(found) == [{"id": "a", "n": 1, "prompt": " one two", "completion": "\nthree  four five"}]
    assert [r["id"] for r in found.dropped.to_pylist()] == ["b", "c"]
    assert found.dropped.to_pylist()[0]["reason"] == "fewer than 4 words"
    assert Continuation(prompt_words=2, completion_words=1).apply(dataset, {}).num_rows == 2


def test_recipes_can_follow_each_other():
    topics = PythonTopics(limit=5).read()
    parts = apply_transform(TextChunks(characters=3000), topics, {})
    pairs = apply_transform(QuestionAnswer(), parts, {})
    assert pairs.num_rows > 0 and set(pairs.column("group").to_pylist()) <= set(topics.ids())
