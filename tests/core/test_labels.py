"""Label spaces, sources of labels, labels as numbers."""

import numpy as np
import pytest

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.labels import Label, LabelSpace, label_sources, soft_labels

MUTATIONS = [
    ("src/tutelage/core/labels.py", "return self._spoken.get(_plain(text))", "return _found(self._spoken, text)"),
    (
        "src/tutelage/core/labels.py",
        'found[space.index(name, f"{where}, field classes")] = value',
        "found[0] = value",
    ),
    ("src/tutelage/core/labels.py", 'counts[row.get("label_source") or GOLD] += 1', "counts[GOLD] += 1"),
]


def rows(*given):
    return Dataset.from_rows({"id": f"r{n}", **row} for n, row in enumerate(given))


def test_an_answer_is_a_whole_name_or_alias_never_a_part_of_one():
    space = LabelSpace([Label(name="spam", aliases=("junk",)), "not spam"])
    assert [space.parse(text) for text in (" Spam.", "JUNK!", '"Not  spam."')] == ["spam", "spam", "not spam"]
    assert [space.parse(text) for text in ("It is spam-like", "spam or not spam", "", "ham")] == [None] * 4


def test_names_that_differ_in_case_alone_are_refused():
    with pytest.raises(InputError, match="cannot be told apart"):
        LabelSpace(["X", "x"])
    with pytest.raises(InputError, match="cannot be told apart"):
        LabelSpace([Label(name="a", aliases=("b",)), "B"])
    with pytest.raises(InputError, match="has no name"):
        LabelSpace(["a", " . "])
    with pytest.raises(InputError, match="no class"):
        LabelSpace([])


def test_the_schema_decides_the_order_and_names_the_nearest_class():
    schema = rows({"label": "sports", "description": "games", "aliases": "sport| football"}, {"label": "tech"})
    data = rows({"label": "tech"}, {"label": "sprots"})
    assert LabelSpace.of(data).names == ("sprots", "tech")
    with pytest.raises(InputError) as caught:
        LabelSpace.of(data, schema)
    assert "row r1, field label" in str(caught.value) and "nearest is 'sports'" in str(caught.value)
    space = LabelSpace.from_schema(schema)
    assert space.names == ("sports", "tech") and space.parse("Football") == "sports"
    assert space.labels[0].description == "games"


def test_labels_that_are_no_names_are_refused():
    with pytest.raises(InputError, match="labels are not text"):
        LabelSpace.of(rows({"label": 1}))
    with pytest.raises(InputError, match="no row has a label"):
        LabelSpace.of(rows({"label": None, "text": "x"}))
    with pytest.raises(InputError, match="no name"):
        LabelSpace.from_schema(rows({"label": "a"}, {"label": None}))


def test_sources_are_counted_and_rows_without_one_are_gold():
    data = rows({"label": "a"}, {"label": "b", "label_source": "rule:x"}, {"label": None, "label_source": "gold"})
    assert label_sources(data) == {"gold": 1, "rule:x": 1}
    assert label_sources(rows({"text": "x"})) == {}


def test_soft_labels_follow_the_space_whatever_order_the_rows_have():
    space = LabelSpace(["a", "b", "c"])
    data = rows(
        {"label": "b", "label_weight": 0.5},
        {"label": "a", "label_probs": [0.25, 0.75], "classes": ["c", "a"], "label_weight": None},
    )
    probs, weights = soft_labels(data, space)
    assert np.allclose(probs, [[0, 1, 0], [0.75, 0, 0.25]]) and weights.tolist() == [0.5, 1.0]


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"label": None}, "a row has no label"),
        ({"label": "z"}, "not a class"),
        ({"label": "a", "label_weight": -1.0}, "weight is out of range"),
        ({"label": "a", "label_probs": [0.5, 0.4], "classes": ["a", "b"]}, "is no distribution"),
        ({"label": "a", "label_probs": [1.0], "classes": ["a", "b"]}, "another length"),
        ({"label": "a", "label_probs": [1.0], "classes": ["z"]}, "not a class"),
    ],
)
def test_a_label_that_cannot_be_used_names_its_row(row, complaint):
    with pytest.raises(InputError, match=complaint) as caught:
        soft_labels(rows({"label": "b"}, row), LabelSpace(["a", "b"]))
    assert "row r1" in str(caught.value)


def test_soft_labels_may_speak_of_classes_that_no_row_has_as_its_label():
    rows = [
        {"id": "a", "label": "x", "label_probs": [0.6, 0.3, 0.1], "classes": ["x", "y", "z"]},
        {"id": "b", "label": "y", "label_probs": None, "classes": ["x", "y", "not meant"]},
    ]
    data = Dataset.from_rows(rows)
    space = LabelSpace.of(data)
    assert space.names == ("x", "y", "z")
    assert np.allclose(soft_labels(data, space)[0], [[0.6, 0.3, 0.1], [0.0, 1.0, 0.0]])
