"""data.label.reveal: the simulated annotator."""

import numpy as np
import pytest

from toy.labelled import labelled
from tutelage.core.dataset import Dataset
from tutelage.core.discovery import build
from tutelage.core.errors import InputError
from tutelage.core.meter import Meter

PROOF = {"data.label.reveal": ["consistent"]}
MUTATIONS = [
    ("src/tutelage/data/label/reveal.py", "add(labels=given.total())", "add(labels=len(asked))"),
    ("src/tutelage/data/label/reveal.py", "if identifier not in asked or", "if"),
]


def test_only_what_is_asked_for_is_given_and_charged_once():
    data = labelled(3)
    hidden = build("data.label.hide").apply(data, {})
    meter = Meter()
    some = hidden.keep(np.array([True, False, True, False, False, False]), "rest")
    first = build("data.label.reveal").apply(hidden, {"asked": some, "meter": meter})
    assert first.column("label").to_pylist() == ["animals", None, "animals", None, None, None]
    assert first.column("label_source").to_pylist() == ["gold", None, "gold", None, None, None]
    assert first.report["by_class"] == {"animals": 2} and meter.cost.labels == 2
    everything = build("data.label.reveal").apply(first, {"meter": meter})
    assert everything.column("label").to_pylist() == data.column("label").to_pylist()
    assert meter.cost.labels == 6, "a label is paid for once"


def test_rows_from_elsewhere_and_rows_without_hidden_label_are_refused():
    hidden = build("data.label.hide").apply(labelled(2), {})
    with pytest.raises(InputError, match="is not here"):
        build("data.label.reveal").apply(hidden, {"asked": labelled(1, seed=9)})
    bare = Dataset.from_rows([{"id": "a", "gold": "x"}, {"id": "b", "gold": None}])
    with pytest.raises(InputError, match="no hidden label") as caught:
        build("data.label.reveal").apply(bare, {})
    assert "row b" in str(caught.value)
