"""data.label.ask: who is asked about what, what their answers come to, and that nothing is asked twice."""

import json

import pytest

from tutelage.core.apply import apply_transform
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError, WaitingForPerson
from tutelage.core.labelling.journal import Journal
from tutelage.core.labelling.queue import Queue
from tutelage.core.meter import Meter
from tutelage.data.label.ask import Ask

PROOF = {"data.label.ask": ["consistent"]}
MUTATIONS = [
    ("src/tutelage/data/label/ask.py", "found[identifier][0], GOLD", 'found[identifier][0], "pseudo:x"'),
    ("src/tutelage/data/label/ask.py", "< self.annotators]", "< 1]"),
    ("src/tutelage/data/label/ask.py", "elif asked is None or row", "elif asked is None and row"),
    ("src/tutelage/data/label/ask.py", "{who: event.label for who", "{who: None for who"),
    ("src/tutelage/core/labelling/queue.py", "others[0][1] == most", "others[0][1] > most"),
    ("src/tutelage/core/labelling/queue.py", "json.dumps([asked, self.space.names])", "json.dumps([asked])"),
    ("src/tutelage/core/labelling/queue.py", "if earlier.label != event.label", "if earlier.label == 0"),
]
ROWS = [
    {"id": "r1", "text": "win a prize now", "label": None, "suggested": "spam"},
    {"id": "r2", "text": "see you at noon", "label": "ham", "suggested": None},
    {"id": "r3", "text": "cheap pills", "label": None, "suggested": None},
    {"id": "r4", "text": "call me\u2028later", "label": None, "suggested": None},
]
CLASSES = ("ham", "spam")


def waiting(method, data, inputs):
    """The error of a step that waits."""
    with pytest.raises(WaitingForPerson) as caught:
        method.apply(data, inputs)
    return caught.value


def answer(folder, labels, annotator="ann", file="answers.jsonl"):
    """What `annotator` answers: id -> label, or None for a skip."""
    with Journal(folder / file) as journal:
        for item, label in labels.items():
            event = {"event": "skip"} if label is None else {"event": "answer", "label": label}
            journal.append({**event, "id": item, "annotator": annotator})


def test_it_waits_and_goes_on(tmp_path):
    data, inputs = Dataset.from_rows(ROWS), {"workspace": tmp_path, "meter": Meter()}
    method = Ask(labels=CLASSES, guidelines="# Mail\n\nIs it wanted?")
    error = waiting(method, data, inputs)
    folder = error.where
    assert error.what == "3 of 3 rows wait for an answer" and error.exit_code == 4
    assert error.remedy == f"tutelage label {folder}" and folder.parent == tmp_path / "labelling"
    queue = Queue.open(folder)
    assert [(item.id, item.text, item.suggested) for item in queue.items] == [
        ("r1", "win a prize now", "spam"),
        ("r3", "cheap pills", None),
        ("r4", "call me\u2028later", None),
    ]
    assert queue.space.names == CLASSES and queue.guidelines == "# Mail\n\nIs it wanted?\n"
    assert folder.name == queue.mark
    answer(folder, {"r1": "spam", "r3": "spam"})
    assert waiting(method, data, inputs).what == "1 of 3 rows wait for an answer"
    answer(folder, {"r4": None})
    labelled = apply_transform(method, data, inputs)
    assert [(r["id"], r["label"], r["label_source"], r["annotator"]) for r in labelled.rows()] == [
        ("r1", "spam", "gold", "ann"),
        ("r2", "ham", "gold", None),
        ("r3", "spam", "gold", "ann"),
    ]
    assert labelled.dropped.to_pylist() == [{"id": "r4", "reason": "ask: skipped by ann"}]
    assert labelled.report["labels_given"] == 2 and labelled.report["by_class"] == {"spam": 2}
    assert inputs["meter"].cost.labels == 2


def test_two_annotators_and_conflicting_gold(tmp_path):
    data, inputs = Dataset.from_rows(ROWS), {"workspace": tmp_path}
    method = Ask(labels=CLASSES, annotators=2)
    folder = waiting(method, data, inputs).where
    answer(folder, {"r1": "spam", "r3": "spam", "r4": "ham"})
    error = waiting(method, data, inputs)
    assert error.found == "ann 3" and error.remedy.endswith("--annotator NAME")
    answer(folder, {"r1": "spam", "r3": "ham", "r4": None}, "bob", "answers-bob.jsonl")
    labelled = apply_transform(method, data, inputs)
    assert {row["id"]: (row["label"], row["annotator"]) for row in labelled.rows()} == {
        "r1": ("spam", "ann, bob"),
        "r2": ("ham", None),
        "r4": ("ham", "ann"),
    }
    assert labelled.dropped.to_pylist() == [
        {"id": "r3", "reason": "ask: annotators disagree: ham 1, spam 1"},
    ]
    # A third annotator decides what two could not.
    answer(folder, {"r3": "ham"}, "cem", "answers-cem.jsonl")
    assert apply_transform(method, data, inputs).num_rows == 4
    answer(folder, {"r3": "spam"}, "bob", "answers-bob-2.jsonl")
    with pytest.raises(InputError, match="two labels in two files") as caught:
        method.apply(data, inputs)
    assert "item r3, annotator bob" in caught.value.where


def test_the_same_question_has_one_folder_and_another_has_another(tmp_path):
    data, inputs = Dataset.from_rows(ROWS), {"workspace": tmp_path}
    schema = Dataset.from_rows([{"label": "ham", "description": "wanted"}, {"label": "spam"}])
    marks = [
        waiting(method, rows, given).where.name
        for method, rows, given in [
            (Ask(labels=CLASSES), data, inputs),
            (Ask(guidelines="other words"), data, {**inputs, "labels": schema}),
            (Ask(labels=("ham", "spam", "other")), data, inputs),
            (Ask(labels=CLASSES), Dataset.from_rows([{**r, "text": r["text"] + "!"} for r in ROWS]), inputs),
            (Ask(labels=CLASSES), data, {**inputs, "asked": Dataset.from_rows(ROWS[:1])}),
        ]
    ]
    assert marks[0] == marks[1] and len(set(marks)) == 4


def test_only_the_rows_asked_about(tmp_path):
    data = Dataset.from_rows(ROWS)
    inputs = {"workspace": tmp_path, "asked": Dataset.from_rows(ROWS[1:3])}
    method = Ask(labels=CLASSES)
    answer(waiting(method, data, inputs).where, {"r3": "spam"})
    labelled = apply_transform(method, data, inputs)
    assert labelled.column("label").to_pylist() == [None, "ham", "spam", None]
    assert labelled.column("label_source").to_pylist() == [None, "gold", "gold", None]
    with pytest.raises(InputError, match="not here"):
        method.apply(data, {**inputs, "asked": Dataset.from_rows([{"id": "zz", "text": "?"}])})


def test_a_machine_keeps_its_name_and_an_empty_cell_is_no_label(tmp_path):
    rows = [
        {"id": "a", "text": "one", "label": "spam", "label_source": "teacher:m"},
        {"id": "b", "text": "two", "label": "", "label_source": ""},
    ]
    method, inputs = Ask(labels=CLASSES), {"workspace": tmp_path}
    answer(waiting(method, Dataset.from_rows(rows), inputs).where, {"b": "ham"})
    labelled = apply_transform(method, Dataset.from_rows(rows), inputs)
    assert labelled.column("label_source").to_pylist() == ["teacher:m", "gold"]


def test_changed_answers_change_the_key(tmp_path):
    data, inputs = Dataset.from_rows(ROWS[:1]), {"workspace": tmp_path}
    method = Ask(labels=CLASSES)
    hashes = [method.outside(data, inputs)]
    folder = waiting(method, data, inputs).where
    for label in ("spam", "ham", "spam"):
        answer(folder, {"r1": label})
        hashes.append(method.outside(data, inputs))
    assert hashes[1] == hashes[3] and len(set(hashes)) == 3


@pytest.mark.parametrize(
    ("fields", "rows", "error", "message"),
    [
        ({}, ROWS, ConfigError, "needs the classes"),
        ({"labels": CLASSES}, [{"id": "a", "text": " "}], InputError, "no text to label"),
        ({"labels": CLASSES}, [{"id": "a", "text": "t", "label": "spma"}], InputError, "nearest is 'spam'"),
        ({"labels": CLASSES}, [{"id": "a", "text": "t", "suggested": "hm"}], InputError, "nearest is 'ham'"),
        ({"labels": CLASSES}, [{"id": "a", "words": "t"}], InputError, "no column 'text'"),
        ({"labels": ("a", "A")}, ROWS, InputError, "cannot be told apart"),
    ],
)
def test_bad_input(tmp_path, fields, rows, error, message):
    with pytest.raises(error, match=message):
        Ask(**fields).apply(Dataset.from_rows(rows), {"workspace": tmp_path})


def test_classes_are_given_once(tmp_path):
    inputs = {"workspace": tmp_path, "labels": Dataset.from_rows([{"label": "ham"}, {"label": "spam"}])}
    with pytest.raises(ConfigError, match="once") as caught:
        Ask(labels=CLASSES).apply(Dataset.from_rows(ROWS), inputs)
    assert caught.value.found == "both"


def test_an_answer_outside_the_classes_is_named(tmp_path):
    data, inputs = Dataset.from_rows(ROWS[:1]), {"workspace": tmp_path}
    folder = waiting(Ask(labels=CLASSES), data, inputs).where
    answer(folder, {"r1": "spamm"})
    with pytest.raises(InputError, match="nearest is 'spam'") as caught:
        Ask(labels=CLASSES).apply(data, inputs)
    assert "item r1, annotator ann" in caught.value.where


def test_a_broken_queue_is_named(tmp_path):
    folder = waiting(Ask(labels=CLASSES), Dataset.from_rows(ROWS), {"workspace": tmp_path}).where
    lines = (folder / "queue.jsonl").read_text(encoding="utf-8").split("\n")
    (folder / "queue.jsonl").write_text("\n".join([lines[0], lines[0]]), encoding="utf-8")
    with pytest.raises(InputError, match="line of a queue is broken") as caught:
        Queue.open(folder)
    assert caught.value.where.endswith("queue.jsonl, line 2")
    assert json.loads(lines[0])["id"] == "r1"
