"""signals.paragraph_overlap: every planted piece is found, strangers only at the promised rate."""

import numpy as np
import pytest

from tutelage.core.apply import score_dataset
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.signals.paragraph_overlap import ParagraphOverlap

PROOF = {"signals.paragraph_overlap": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/signals/paragraph_overlap.py", "end - start for", "end for"),
    (
        "src/tutelage/signals/paragraph_overlap.py",
        "self.unit, self.min_characters, self.false_positives)",
        "self.unit, 1, self.false_positives)",
    ),
]


def overlap(rows, evaluation, **fields):
    given = {"evaluation": Dataset.from_rows(evaluation)}
    return list(score_dataset(ParagraphOverlap(**fields), Dataset.from_rows(rows), given).rows())


def test_planted_lines_are_found_with_their_spans():
    items = [{"id": f"e{i}", "text": f"The question number {i} is asked here.\nshort\n"} for i in range(40)]
    rows = []
    for i in range(200):
        lines = [f"Row {i} has its own line {k} of text." for k in range(4)] + ["short"]
        if i < 40:
            lines.insert(i % 5, f"  the QUESTION number {i} is  asked here.")
        rows.append({"id": f"r{i}", "text": "\n".join(lines)})
    found = overlap(rows, items)
    assert [r["leaked"] for r in found] == [i < 40 for i in range(200)]
    for i, row in enumerate(found[:40]):
        (span,) = row["leaked_spans"]
        assert row["text"][span["start"] : span["end"]].split()[3] == str(i)
        assert row["leaked_share"] == pytest.approx((span["end"] - span["start"]) / len(row["text"]))
    assert all(r["leaked_spans"] == [] and r["leaked_share"] == 0 for r in found[40:])


def test_strangers_are_marked_at_the_rate():
    items = [{"text": f"An evaluation item with the number {i}."} for i in range(2000)]
    rows = [
        {"text": "\n".join(f"Another line {i} of row {r} in the corpus" for i in range(50))} for r in range(400)
    ]
    p = 0.01
    spans = sum(len(r["leaked_spans"]) for r in overlap(rows, items, false_positives=p))
    assert abs(spans - 20_000 * p) < 4 * np.sqrt(20_000 * p * (1 - p))
    assert sum(len(r["leaked_spans"]) for r in overlap(rows, items)) == 0


def test_paragraphs_and_report():
    items = [{"text": "one line of the paragraph\nand its other line\n\nanother paragraph, quite alone"}]
    row = {"text": "one line of the paragraph\nsomething else here\n\nAnother paragraph, quite alone"}
    assert [len(overlap([row], items, unit=u)[0]["leaked_spans"]) for u in ("line", "paragraph")] == [1, 1]
    assert len(overlap([row], items, min_characters=10)[0]["leaked_spans"]) == 2
    state = ParagraphOverlap().fit(Dataset.from_rows([row]), {"evaluation": Dataset.from_rows(items)})
    assert state["report"] == {"capacity": 3, "bytes": 11, "false_positives": 1e-6}


def test_bad_input():
    with pytest.raises(InputError, match="no piece"):
        overlap([{"text": "x"}], [{"text": "too short"}])
    with pytest.raises(ConfigError, match="false_positives"):
        ParagraphOverlap(false_positives=0)
