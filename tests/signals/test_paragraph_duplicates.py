"""signals.paragraph_duplicates."""

from tutelage.core.apply import score_dataset
from tutelage.core.dataset import Dataset
from tutelage.signals.paragraph_duplicates import ParagraphDuplicates

PROOF = {"signals.paragraph_duplicates": ["consistent"]}
MUTATIONS = [
    ("src/tutelage/signals/paragraph_duplicates.py", "self.unit, self.min_characters", '"line", 30'),
    ("src/tutelage/signals/paragraph_duplicates.py", "end - start for start", "end for start"),
]
PIECE = "A paragraph that is found\nin more than one document."
ROWS = [
    {"id": "a", "text": f"Start.\n\n{PIECE}\n"},
    {"id": "b", "text": f"Before.\n\n{PIECE}\n\nin more than one document."},
]


def score(**fields):
    return list(score_dataset(ParagraphDuplicates(**fields), Dataset.from_rows(ROWS), {}).rows())


def test_spans_point_at_the_repeated_pieces():
    whole = score(unit="paragraph")
    assert whole[0]["duplicate_spans"] == []
    assert [ROWS[1]["text"][s["start"] : s["end"]] for s in whole[1]["duplicate_spans"]] == [PIECE + "\n"]
    assert whole[1]["duplicate_span_share"] == (len(PIECE) + 1) / len(ROWS[1]["text"])
    assert score()[1]["duplicate_spans"] == []
    lines = score(unit="line", min_characters=20)
    assert len(lines[1]["duplicate_spans"]) == 3


def test_bounded_memory_finds_the_same():
    for bloom in (0.3, 1e-4):
        assert score(unit="paragraph", bloom=bloom) == score(unit="paragraph")
