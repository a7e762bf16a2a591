"""data.write.card: its numbers are those of the datasets, stages add up, and nothing in it acts on its reader."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pytest

from tutelage.core.dataset import Dataset
from tutelage.core.dataset_builder import DatasetBuilder
from tutelage.core.errors import InputError
from tutelage.core.lineage import Stage
from tutelage.core.records import Cost
from tutelage.data.dedup.exact import Exact
from tutelage.data.write._card_facts import labels
from tutelage.data.write.card import Card

PROOF = {"data.write.card": ["consistent"]}
MUTATIONS = [
    (
        "src/tutelage/data/write/_card_facts.py",
        "characters += int(counts.sum())",
        "characters += int(sizes.sum())",
    ),
    ("src/tutelage/data/write/_card_facts.py", "kept + gone == stage.rows_in", "kept == stage.rows_in"),
    ("src/tutelage/data/write/_card_facts.py", "heap = rows.setdefault(label, [])", "heap = []"),
    ("src/tutelage/data/write/_card_facts.py", '_ORIGINAL.sub(r"\\1 another row", head)', "head"),
    ("src/tutelage/data/write/_card_page.py", 'return _MARKS.sub(r"\\\\\\1", text)', "return text"),
    ("src/tutelage/data/write/_card_facts.py", "if _COPY.search(label)", 'if "duplicate" in label'),
    ("src/tutelage/data/write/_card_page.py", "return html.escape(visible(value))", "return visible(value)"),
    ("src/tutelage/data/write/card.py", "to_html(self.title, page)", "to_html(self.title, [])"),
]
PAYLOADS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "[click](javascript:alert(1)) `code` | cell | *b* # head",
    "\x1b[31mred\x1b[0m",
    "\u202eevil\u2066",
    "</pre></details><h1>",
)


def stage(name, method, data, rows_in, parents=(), quarantined=0, seconds=1.0):
    cost = Cost(seconds=seconds, peak_bytes=2**20)
    return Stage(name, name, method, rows_in, quarantined, cost, parents, lambda: data)


@pytest.fixture
def made():
    """A corpus of three stages: read, deduplicated, filtered."""
    texts = ["ünï one", "two", "ÜNÏ one", "three " * 40, "TWO", "four"]
    source = Dataset.from_rows(
        {"id": f"r{i}", "text": t, "kind": "ab"[i % 2], "n_tokens": len(t)} for i, t in enumerate(texts)
    )
    unique = Exact().apply(source, {})
    final = unique.keep(
        np.array([True, True, False, True]), {2: "rule_duplicate_lines is 240, wanted at most 100"}
    )
    stages = [
        stage("pool", "data.read.jsonl", source, 6),
        stage("unique", "data.dedup.exact", unique, 6, ("pool",)),
        stage("fit", "data.filter.rules", final, 4, ("unique",), seconds=2.5),
    ]
    return final, stages


def written(tmp_path, data, stages=(), **fields):
    files = Card(**fields).write_stages(data, str(tmp_path / "card"), stages)
    text = {file.rsplit(".", 1)[1]: open(file, encoding="utf-8").read() for file in files}  # noqa: PTH123, SIM115
    return json.loads(text["json"]), text


def test_the_numbers_are_those_of_the_datasets(tmp_path, made):
    final, stages = made
    card, text = written(tmp_path, final, stages, title="Mine")
    kept = final.column("text").to_pylist()
    assert card["rows"] == 3 and card["hash"] == final.hash and card["title"] == "Mine"
    assert card["characters"] == sum(map(len, kept)) and card["bytes"] == sum(len(t.encode()) for t in kept)
    assert card["tokens"] == sum(final.column("n_tokens").to_pylist()) and not card["tokens_estimated"]
    assert card["lengths"] == [{"from": 2, "below": 4, "rows": 1}, {"from": 4, "below": 8, "rows": 2}]
    assert {e["value"]: e["rows"] for e in card["by"]["kind"]} == {"a": 1, "b": 2}
    for told, one in zip(card["stages"], stages, strict=True):
        assert told["rows_in"] == told["rows_kept"] + told["rows_dropped"] + told["rows_quarantined"]
        assert told["rows_dropped"] == one.load().dropped.num_rows == sum(told["reasons"].values())
        assert told["rows_out"] == one.load().num_rows
    assert card["stages"][1]["reasons"] == {"duplicate of another row": 2}
    assert card["stages"][2]["reasons"] == {"rule_duplicate_lines is N, wanted at most 100": 1}
    assert card["duplicates"]["rows"] == 2 and card["cost"]["seconds"] == 4.5
    assert card["cost"]["peak_bytes"] == 2**20
    for part in ("Mine", "duplicate of another row", "unique"):
        assert part in text["html"] and part in text["md"]


def test_examples_show_both_texts_of_a_duplicate(tmp_path, made):
    final, stages = made
    card, text = written(tmp_path, final, stages)
    shown = {e["id"]: e for e in card["stages"][1]["examples"]}
    assert shown["r2"]["of"] == "r0" and shown["r2"]["text"] == "ÜNÏ one" and shown["r2"]["of_text"] == "ünï one"
    assert shown["r4"]["of"] == "r1" and "which repeats r1" in text["md"]
    assert card["stages"][2]["examples"][0]["text"] == ("three " * 40)[:300]
    few, _ = written(tmp_path / "few", final, stages, examples=1)
    assert [len(s["examples"]) for s in few["stages"]] == [0, 1, 1]
    none, _ = written(tmp_path / "none", final, stages, examples=0)
    assert [len(s["examples"]) for s in none["stages"]] == [0, 0, 0]


def test_examples_do_not_depend_on_the_order_of_rows(tmp_path):
    rows = [{"id": f"r{i}", "text": f"text {i}"} for i in range(50)]
    found = []
    for number, given in enumerate((rows, rows[::-1])):
        data = Dataset.from_rows(given)
        gone = data.keep(np.array([r["id"] == "r7" for r in given]), "out")
        stages = [stage("a", "x", data, 50), stage("b", "y", gone, 50, ("a",))]
        card, _ = written(tmp_path / str(number), gone, stages, examples=5)
        found.append([e["id"] for e in card["stages"][1]["examples"]])
    assert found[0] == found[1] and len(set(found[0])) == 5


def test_a_stage_that_loses_rows_stops_the_card(tmp_path, made):
    final, stages = made
    wrong = [*stages[:2], stage("fit", "data.filter.rules", final, 5, ("unique",))]
    with pytest.raises(InputError, match="does not account for every row") as error:
        written(tmp_path, final, wrong)
    assert "3 kept, 1 dropped" in error.value.found
    assert not (tmp_path / "card").exists()


def test_derived_rows_and_quarantined_ones_are_accounted_for(tmp_path):
    builder = DatasetBuilder()
    builder.add({"id": "a", "text": "x y"})
    builder.quarantine("b.txt", "not UTF-8; found byte 0xff")
    source = builder.finish()
    parts = DatasetBuilder()
    for n, piece in enumerate("xy"):
        parts.add({"id": f"a#{n}", "text": piece, "source_id": "a"})
    chunks = parts.finish()
    stages = [stage("pool", "r", source, 2, quarantined=1), stage("chunks", "c", chunks, 1, ("pool",))]
    card, _ = written(tmp_path, chunks, stages)
    assert [(s["rows_in"], s["rows_kept"], s["rows_quarantined"], s["rows_out"]) for s in card["stages"]] == [
        (2, 1, 1, 1),
        (1, 1, 0, 2),
    ]
    assert card["stages"][0]["reasons"] == {"not UTF-8; found byte 0xff": 1}


def test_contamination_is_told_with_items(tmp_path):
    rows = [
        {"id": f"r{i}", "text": "t", "contaminated": i < 2, "contamination_item": "q1" if i < 2 else None}
        | {"contamination_snippet": "a leaked piece" if i < 2 else None}
        for i in range(4)
    ]
    data = Dataset.from_rows(rows)
    card, text = written(tmp_path, data, [stage("leaks", "signals.ngram_overlap", data, 4)])
    assert card["contamination"][0]["rows"] == 2 and card["contamination"][0]["most"] == {"q1": 2}
    assert "a leaked piece" in text["html"]


def test_reasons_become_labels():
    assert (
        labels(["n is 3, wanted at least 50", "n is 4.5, wanted at least 50"])
        == ["n is N, wanted at least 50"] * 2
    )
    assert labels(["duplicate of x/y.py", "near-duplicate of z (Jaccard 0.9)"]) == [
        "duplicate of another row",
        "near-duplicate of another row",
    ]
    assert labels(["duplicate_of is 'x'", "rule_top_2gram is 0.3, wanted at most 0.2"]) == [
        "duplicate_of is another row",
        "rule_top_2gram is N, wanted at most 0.2",
    ]
    many = labels([f"where: source is 's{'x' * i}'" for i in range(40)])
    assert set(many) == {"where: source is '...'"}
    few = [f"language is '{name}', wanted one of 'en', 'und'" for name in ("de", "fr")]
    assert labels(few) == few
    spoken = labels([f"language is 'l{'x' * i}', wanted one of 'en', 'und'" for i in range(11)])
    assert set(spoken) == {"language is '...', wanted one of 'en', 'und'"}
    words = labels([f"reason {'x' * i}" for i in range(40)])
    assert len(set(words)) == 25 and words.count("other reasons") == 16


class _Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags = set()
        self.attributes = set()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}


def test_payloads_are_shown_and_do_nothing(tmp_path):
    rows = [
        {"id": f"{n} {p}", "text": p, "kind": p, "contaminated": True, "contamination_item": p}
        | {"contamination_snippet": p}
        for n, p in enumerate(PAYLOADS)
    ]
    data = Dataset.from_rows([*rows, {**rows[0], "id": "kept"}])
    reasons = {i: f"bad: {p}" for i, p in enumerate(PAYLOADS)}
    final = data.keep(np.array([False] * len(PAYLOADS) + [True]), reasons, {"method": "m", "note": PAYLOADS[0]})
    stages = [
        stage("pool", "signals.ngram_overlap", data, 7),
        stage(PAYLOADS[0], "m", final, 7, ("pool",)),
    ]
    _, text = written(tmp_path, final, stages, title=PAYLOADS[1], by=("kind",))
    page = _Tags()
    page.feed(text["html"])
    assert not page.tags & {"script", "img", "a", "iframe"} and not any(
        a.startswith("on") for a in page.attributes
    )
    assert text["html"].count("<h1>") == 1 and "default-src 'none'" in text["html"]
    for content in text.values():
        assert "\x1b" not in content and "\u202e" not in content and "\u2066" not in content
    assert "<script" not in text["md"] and "<img" not in text["md"]
    assert not re.search(r"(?<!\\)\]\(", text["md"]), "no link"
    cells = [line for line in text["md"].split("\n") if line.startswith("| ")]
    columns = {len(re.findall(r"(?<!\\)\|", line)) - 1 for line in cells}
    assert columns <= {2, 3, 4, 8}, "no text ends its cell"


def test_rows_alone_make_a_card_too(tmp_path):
    data = Dataset.from_rows([{"prompt": "a?", "completion": "b"}, {"prompt": "c?", "completion": "d"}])
    files = Card().write(data, str(tmp_path / "card"))
    assert [file.rsplit("/", 1)[-1].rsplit("\\", 1)[-1] for file in files] == ["card.json", "card.md", "card.html"]
    card = json.loads((tmp_path / "card" / "card.json").read_text(encoding="utf-8"))
    assert card["rows"] == 2 and card["tokens"] is None and card["stages"] == []
    empty = Dataset.from_table(pa.table({"id": pa.array([], pa.string()), "text": pa.array([], pa.string())}))
    Card().write(empty, str(tmp_path / "empty"))
