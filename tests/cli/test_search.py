"""`tutelage search`: the right passages of a file, a folder or a step, where they stand, and clear errors."""

import json

import numpy as np
import pytest

from toy.command_line import tutelage, write_rows
from tutelage.cli.search import SNIPPET, snippet
from tutelage.core.dataset import Dataset
from tutelage.core.text.words import hash_words
from tutelage.signals.retrieved_passages import bm25_index, bm25_scores

MUTATIONS = [
    ("src/tutelage/cli/search.py", "np.argmax(variety)", "np.argmin(variety)"),
    ("src/tutelage/cli/search.py", "if not len(asked):", "if False:"),
    ("src/tutelage/cli/search.py", "line.append(plain(text)", "line.append(text"),
    ("src/tutelage/cli/search.py", "f\"{hit['id']}:{hit['start']}\"", 'hit["id"]'),
    ("src/tutelage/signals/retrieved_passages.py", "len(piece) - len(piece.lstrip())", "0"),
]
RECIPE = """\
name: small
sources: {docs: {path: docs.jsonl}}
steps:
  - {name: sized, use: signals.length, from: docs}
"""
ROWS = [
    *({"id": f"n{i}", "text": f"Nothing of note happens in paragraph {i}. " * 12} for i in range(8)),
    {
        "id": "löwe",
        "text": "Ein Vorwort — lang.\n\n" * 60
        + "Die Löwen, sagt man, schlafen bis MITTAG im Zoo.\n"
        + "Ende. " * 90,
    },
    {"id": "zoo", "text": "Der Zoo hat bis heute geschlossen."},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from tutelage.runs import load_recipe, run

    place = tmp_path_factory.mktemp("search")
    write_rows(place / "docs.jsonl", ROWS)
    (place / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    run(load_recipe(place / "recipe.yaml"), place)
    return place


def test_the_best_passage_its_place_and_its_row(folder, capfd):
    found = tutelage(capfd, "search", "löwen mittag zoo", "--corpus", folder / "docs.jsonl", "--json").json()
    assert found["query"] == "löwen mittag zoo" and found["rows"] == 10
    first, second = found["hits"]
    assert first["id"] == "löwe" and second["id"] == "zoo" and first["score"] > second["score"] > 0
    text = ROWS[8]["text"]
    assert text[first["start"] : first["end"]] == first["passage"]
    assert "Löwen, sagt man, schlafen bis MITTAG im Zoo" in first["snippet"]
    assert second["passage"] == second["snippet"] == ROWS[9]["text"] and second["start"] == 0
    assert len(first["snippet"].encode()) < 2 * SNIPPET


def test_scores_are_those_of_the_formula(folder, capfd):
    words = hash_words([row["text"] for row in ROWS])
    index = bm25_index(words.hashes, words.bounds)
    expected = np.sort(bm25_scores(index, hash_words(["paragraph zoo note"]).hashes, 10))[::-1]
    asked = ("--corpus", folder / "docs.jsonl", "-k", 10, "--passage-words", 10000, "--json")
    hits = tutelage(capfd, "search", "paragraph zoo note", *asked).json()["hits"]
    assert np.allclose([hit["score"] for hit in hits], expected[expected > 0], atol=1e-4)
    assert len(tutelage(capfd, "search", "paragraph", *asked[:2], "-k", 3, "--json").json()["hits"]) == 3


def test_a_step_of_a_run_brings_its_signals(folder, capfd):
    (hit,) = tutelage(capfd, "search", "heute", "--corpus", "sized", "-w", folder, "--json").json()["hits"]
    assert hit["id"] == "zoo" and hit["signals"]["n_words"] == 6
    again = tutelage(capfd, "search", "heute", "--corpus", "sized", "-w", folder, "--run", "latest")
    assert again.code == 0 and again.out.startswith("1. zoo  characters 0-34  score ")


def test_hits_can_be_saved(folder, tmp_path, capfd):
    done = tutelage(capfd, "search", "zoo", "--corpus", folder / "docs.jsonl", "--save", tmp_path / "found")
    assert done.code == 0
    rows = list(Dataset.open(tmp_path / "found").rows())
    assert {row["source_id"] for row in rows} == {"löwe", "zoo"}
    assert {"id": "zoo:0", "text": ROWS[9]["text"]}.items() <= next(
        r for r in rows if r["source_id"] == "zoo"
    ).items()
    again = tutelage(capfd, "search", "zoo", "--corpus", folder / "docs.jsonl", "--save", tmp_path / "found")
    assert again.code == 2 and "never overwritten" in again.err


def test_what_is_printed(folder, tmp_path, capfd):
    write_rows(
        tmp_path / "hostile.jsonl", [{"id": "a", "text": "beware of the \x1b[31m dragon [bold]here[/bold]"}]
    )
    shown = tutelage(capfd, "search", "dragon", "--corpus", tmp_path / "hostile.jsonl")
    assert "\x1b" not in shown.out and "\\x1b[31m dragon [bold]here[/bold]" in shown.out
    nothing = tutelage(capfd, "search", "unheard", "--corpus", folder / "docs.jsonl")
    assert nothing.code == 0 and nothing.out == "" and "no passage of 10 rows" in nothing.err
    assert tutelage(capfd, "search", "unheard", "--corpus", folder / "docs.jsonl", "--json").json()["hits"] == []


def test_the_snippet_shows_the_most_different_words():
    asked = hash_words(["red fox den"]).hashes
    far = " ".join(["padding"] * 60)
    pieces = snippet(f"red red red red {far} the red fox; its DEN. {far}", asked)
    assert [text for text, hit in pieces if hit] == ["red", "fox", "DEN"]
    whole = "".join(text for text, _ in pieces)
    assert (
        whole.startswith("… padding") and whole.endswith("padding …") and "the red fox; its DEN. padding" in whole
    )
    assert snippet("(Red)\nfox!", asked) == [
        ("(", False),
        ("Red", True),
        (") ", False),
        ("fox", True),
        ("!", False),
    ]


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (["...", "--corpus", "docs.jsonl"], ["the query has no word", "letters or digits"]),
        (["zoo", "--corpus", "nowhere.jsonl"], ["nowhere.jsonl"]),
        (["zoo", "--corpus", "szied", "-w", "."], ["'szied' is neither", "did you mean sized"]),
        (["zoo", "--corpus", "empty.jsonl"], ["the corpus holds no word"]),
        (["zoo", "--corpus", "numbers.jsonl"], ["the rows have no text"]),
        (["zoo", "--corpus", "docs.jsonl", "-k", "0"], ["-k"]),
        (["zoo"], ["--corpus"]),
    ],
)
def test_bad_input(folder, monkeypatch, capfd, arguments, facts):
    monkeypatch.chdir(folder)
    write_rows(folder / "empty.jsonl", [{"id": "a", "text": "?!"}])
    write_rows(folder / "numbers.jsonl", [{"id": "a", "value": 3}])
    answer = tutelage(capfd, "search", *arguments)
    assert answer.code == 2 and "Traceback" not in answer.err
    for fact in facts:
        assert fact in answer.err


def test_errors_in_json(folder, capfd):
    answer = tutelage(capfd, "search", "", "--corpus", folder / "docs.jsonl", "--json")
    assert answer.code == 2 and json.loads(answer.out)["where"] == "QUERY"


def test_white_space_before_a_passage_is_not_part_of_it(tmp_path, capfd):
    write_rows(tmp_path / "padded.jsonl", [{"id": "p", "text": "\n\n  Der Tapir schläft.\n"}])
    (hit,) = tutelage(capfd, "search", "tapir", "--corpus", tmp_path / "padded.jsonl", "--json").json()["hits"]
    assert (hit["start"], hit["end"], hit["passage"]) == (4, 22, "Der Tapir schläft.")
