"""data.label.hide: known labels out of sight."""

import pytest

from toy.labelled import labelled
from tutelage.core.dataset import Dataset
from tutelage.core.discovery import build
from tutelage.core.errors import InputError

PROOF = {"data.label.hide": ["consistent"]}
MUTATIONS = [("src/tutelage/data/label/hide.py", '"label": nothing', '"label": values(shard, "label")')]


def test_labels_become_gold_once():
    data = labelled(3)
    hidden = build("data.label.hide").apply(data, {})
    assert hidden.column("gold").to_pylist() == data.column("label").to_pylist()
    assert hidden.column("label").null_count == 6 and hidden.ids() == data.ids()
    assert build("data.label.hide").apply(hidden, {}) is hidden


def test_a_machines_label_is_no_annotators():
    rows = Dataset.from_rows([{"id": "m", "text": "x", "label": "a", "label_source": "rule:r"}])
    with pytest.raises(InputError, match="cannot stand in") as caught:
        build("data.label.hide").apply(rows, {})
    assert "row m" in str(caught.value)
