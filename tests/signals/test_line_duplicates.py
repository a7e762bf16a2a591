"""signals.line_duplicates."""

import numpy as np
import pytest

from tutelage.core.apply import score_dataset
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError
from tutelage.signals.line_duplicates import LineDuplicates

PROOF = {"signals.line_duplicates": ["consistent"]}
MUTATIONS = [
    ("src/tutelage/signals/line_duplicates.py", "repeated / np.maximum(lines, 1)", "repeated / 2"),
    ("src/tutelage/signals/line_duplicates.py", '"line", self.min_characters', '"line", 1'),
]
NOTICE = "This file is distributed under the terms of a licence."
ROWS = [
    {"id": "b", "text": f"{NOTICE}\n\nbeta\n}}\nnew line of text, long enough to be counted"},
    {"id": "a", "text": f"{NOTICE.upper()}\nalpha\n}}"},
    {"id": "c", "text": f"x\n{NOTICE}\n  {NOTICE}\n"},
    {"id": "d", "text": ""},
]


def test_later_occurrences_count_whatever_the_order():
    for rows in (ROWS, ROWS[::-1]):
        found = {r["id"]: r for r in score_dataset(LineDuplicates(), Dataset.from_rows(rows), {}).rows()}
        assert {i: r["repeated_lines"] for i, r in found.items()} == {"a": 0, "b": 1, "c": 2, "d": 0}
        assert found["b"]["repeated_line_share"] == 1 / 4
        assert np.isclose(found["c"]["repeated_line_characters"], (2 * len(NOTICE) + 4) / len(ROWS[2]["text"]))
        assert found["d"]["repeated_line_characters"] == 0
    short = score_dataset(LineDuplicates(min_characters=1), Dataset.from_rows(ROWS), {})
    assert short.column("repeated_lines").to_pylist() == [2, 0, 2, 0]


def test_bad_input():
    with pytest.raises(ConfigError, match="min_characters"):
        LineDuplicates(min_characters=0)
