"""data.label.adopt: machine labels under their source's name."""

import pytest

from tutelage.core.dataset import Dataset
from tutelage.core.discovery import build
from tutelage.core.errors import ConfigError

PROOF = {"data.label.adopt": ["consistent"]}
MUTATIONS = [
    (
        "src/tutelage/data/label/adopt.py",
        "sources[number] = sources[number] or GOLD",
        "sources[number] = self.source",
    ),
    ("src/tutelage/data/label/adopt.py", "a is not None or b is not None", "True"),
]
ROWS = [
    {"id": "gold", "label": "a", "said": "b", "p": [0.1, 0.9], "classes": ["a", "b"]},
    {"id": "said", "label": None, "said": "b", "p": [0.2, 0.8], "classes": ["a", "b"]},
    {"id": "none", "label": None, "said": None, "p": None, "classes": ["a", "b"]},
]


def test_gold_stays_gold_and_nothing_is_guessed():
    made = build("data.label.adopt", {"column": "said", "probs": "p", "source": "teacher:t"}).apply(
        Dataset.from_rows(ROWS), {}
    )
    assert made.ids() == ["gold", "said"]
    assert made.column("label").to_pylist() == ["a", "b"]
    assert made.column("label_source").to_pylist() == ["gold", "teacher:t"]
    assert made.column("label_probs").to_pylist() == [None, [0.2, 0.8]]
    assert made.dropped.to_pylist() == [{"id": "none", "reason": "adopt: said is empty"}]
    assert made.report["by_class"] == {"b": 1}
    hard = build("data.label.adopt", {"column": "said", "source": "synthetic"}).apply(Dataset.from_rows(ROWS), {})
    assert "label_probs" not in hard.column_names


def test_nobody_but_a_person_gives_gold():
    for source in ("gold", "teacher:", "me"):
        with pytest.raises(ConfigError, match="source"):
            build("data.label.adopt", {"source": source})
    with pytest.raises(ConfigError, match="names of classes"):
        numbers = Dataset.from_rows([{"id": "x", "said": 1}])
        build("data.label.adopt", {"column": "said", "source": "rule:r"}).apply(numbers, {})
