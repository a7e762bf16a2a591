"""data.filter.without: rows that another dataset does not hold."""

from tutelage.core.dataset import Dataset
from tutelage.core.discovery import build

PROOF = {"data.filter.without": ["consistent"]}
MUTATIONS = [("src/tutelage/data/filter/without.py", "if identifier in taken", "if identifier not in taken")]


def test_taken_rows_go_by_id_and_by_text():
    data = Dataset.from_rows(
        {"id": name, "text": text} for name, text in (("a", "x"), ("b", "Same  text"), ("c", "y"))
    )
    taken = Dataset.from_rows([{"id": "a", "text": "other"}, {"id": "z", "text": "same text"}])
    by_id = build("data.filter.without").apply(data, {"taken": taken})
    assert by_id.ids() == ["b", "c"]
    by_text = build("data.filter.without", {"texts": True}).apply(data, {"taken": taken})
    assert by_text.ids() == ["c"]
    assert by_text.dropped.column("reason").to_pylist() == ["without: taken", "without: text of a taken row"]
