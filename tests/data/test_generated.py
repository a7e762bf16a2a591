"""data.filter.generated: the order of the gates, every rejection counted, contamination always looked for."""

from types import SimpleNamespace

import numpy as np
import pytest

from tutelage.core.apply import apply_transform
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError
from tutelage.data.filter.generated import Generated
from tutelage.data.synthesise._gates import UNPROTECTED, Funnel, GateSettings, Protected, over_cap

PROOF = {"data.filter.generated": ["consistent"]}
MUTATIONS = [
    (
        "src/tutelage/data/synthesise/_gates.py",
        "if words < self.settings.min_words",
        "if words <= self.settings.min_words",
    ),
    (
        "src/tutelage/data/synthesise/_gates.py",
        "if words > self.settings.max_words",
        "if words >= self.settings.max_words",
    ),
    ("src/tutelage/data/synthesise/_gates.py", "size = min(NGRAM, len(words.hashes))", "size = NGRAM"),
    ("src/tutelage/data/synthesise/_gates.py", '_AROUND.sub("", text)', "text"),
    ("src/tutelage/data/synthesise/_gates.py", "if seen != label", "if seen == label"),
    ("src/tutelage/data/synthesise/_gates.py", "if seen[label] > cap", "if seen[label] > cap + 1"),
    (
        "src/tutelage/data/synthesise/_gates.py",
        "self._judge(text, problem, label) or own",
        "own or self._judge(text, problem, label)",
    ),
    ("src/tutelage/data/filter/generated.py", 'funnel.know(text_rows(inputs["known"]))', "pass"),
]
LONG = "the old lighthouse keeper counted seventeen grey ships before the storm came over the northern bay"


def rows(*texts, **columns):
    return Dataset.from_rows(
        {"id": f"g{i}", "text": text, **{name: values[i] for name, values in columns.items()}}
        for i, text in enumerate(texts)
    )


def reasons(found):
    return dict(zip(found.dropped.column("id").to_pylist(), found.dropped.column("reason").to_pylist()))


def test_the_funnel_in_order():
    protected = Dataset.from_rows([{"id": "test-1", "text": LONG}])
    data = rows(
        "  ",
        "only four words here",
        "word " * 30,
        f"As told before, {LONG.upper()}!",
        "a fresh sentence with seven words inside",
        "A fresh sentence, with seven words inside.",
        "something else entirely about boats and harbours",
    )
    found = apply_transform(Generated(max_words=25), data, {"protected": protected})
    assert found.ids() == ["g4", "g6"]
    assert reasons(found) == {
        "g0": "unparsed",
        "g1": "too_short",
        "g2": "too_long",
        "g3": "contaminated:test-1",
        "g5": "near_duplicate:g4",
    }
    report = found.report
    assert report["candidates"] == report["accepted"] + sum(report["rejected"].values()) == 7
    assert report["rejected"]["contaminated"] == 1 and report["protected_rows"] == 1 and "warning" not in report


def test_bounds_of_the_length_are_inclusive():
    found = apply_transform(Generated(min_words=3, max_words=4), rows("a b", "c d e", "f g h i", "j k l m n"), {})
    assert found.ids() == ["g1", "g2"]


def test_without_protected_rows_the_report_says_so():
    found = apply_transform(Generated(), rows("five plain words stand here"), {})
    assert found.report["warning"] == UNPROTECTED and found.num_rows == 1


def test_a_question_is_found_without_what_stands_around_it():
    asked = {"id": "q1", "prompt": "Question: Which animal guards the gate of Torwick?\nAnswer:", "answer": 1}
    pair = {
        "id": "q2",
        "prompt": "Q: Who built the bridge of Kelholt?",
        "completion": "A man named Osric Vane did",
    }
    protected = Protected(Dataset.from_rows([asked]))
    assert protected.find("They ask: which animal guards the gate of Torwick? An owl.") == "q1"
    assert protected.find("Which animal guards the gate?") is None
    both = Protected(Dataset.from_rows([pair]))
    assert both.find("who built the bridge of kelholt") == "q2" and both.rows == 2
    assert (
        Protected(Dataset.from_rows([{"id": "s", "text": "too short"}])).find("it is too short here now") is None
    )


def test_known_rows_are_not_repeated_and_the_threshold_decides():
    known = Dataset.from_rows([{"id": "source", "text": "one two three four five six seven eight nine ten"}])
    data = rows("one two three four five six seven eight nine eleven")
    assert reasons(apply_transform(Generated(), data, {"known": known})) == {"g0": "near_duplicate:source"}
    assert apply_transform(Generated(rouge_l=0.9), data, {"known": known}).num_rows == 1


class Classifier:
    labels = SimpleNamespace(names=("bad", "good"))

    def predict_proba(self, texts):
        return np.array([[0.2, 0.8] if "fine" in text else [0.9, 0.1] for text in texts])


def test_a_classifier_must_agree_and_classes_are_capped():
    texts = [f"number {i} is a fine and sunny day {'x' * i}" for i in range(5)] + [
        "a cold and rainy day indeed"
    ] * 1
    data = rows(*texts, label=["good"] * 4 + ["bad"] + ["bad"])
    found = apply_transform(Generated(rouge_l=1.0, balance=2.0), data, {"classifier": Classifier()})
    assert reasons(found) == {"g4": "label_disagrees:good", "g2": "over_cap:good", "g3": "over_cap:good"}
    assert found.report["rejected"] == {"label_disagrees": 1, "over_cap": 2} and found.report["accepted"] == 3
    assert over_cap(["a", "b", "a", "a", "b"], 1.4) == [3] and over_cap([], 3.0) == []


def test_a_classifier_of_several_labels_is_refused():
    several = SimpleNamespace(name="topics", multi_label=True)
    with pytest.raises(ConfigError, match="several labels does not agree with one"):
        apply_transform(Generated(), rows("one two three four five"), {"classifier": several})


def test_a_gate_of_the_method_comes_last():
    funnel = Funnel(GateSettings(min_words=2), None)
    assert funnel.offer("a", "one", own="too_far") == "too_short"
    assert funnel.offer("b", "one two", own="too_far") == "too_far"
    assert funnel.offer("c", None, "truncated") == "truncated" and funnel.offer("d", None) == "unparsed"
    assert funnel.report()["rejected"] == {"too_far": 1, "too_short": 1, "truncated": 1, "unparsed": 1}


def test_nothing_in_nothing_out():
    empty = rows("one two three four five").keep(np.array([False]), "gone")
    found = apply_transform(Generated(balance=3.0), empty, {})
    assert found.num_rows == 0 and found.report["candidates"] == 0 and found.report["rejected"] == {}
    with pytest.raises(ConfigError, match="rouge_l"):
        Generated(rouge_l=0.0)
