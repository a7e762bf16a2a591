"""data.synthesise.error_variants: what was wrong is varied, never a synthetic row, never a copy; and it ends."""

import re

import pytest

from toy.scripted_writer import ScriptedWriter
from tutelage.core.apply import apply_transform
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.core.records import Budget
from tutelage.data.synthesise.error_variants import ErrorVariants, is_wrong

PROOF = {"data.synthesise.error_variants": ["consistent"]}
MUTATIONS = [
    ("src/tutelage/data/synthesise/error_variants.py", 'row.get("label_source") == "synthetic"', "False"),
    ("src/tutelage/data/synthesise/error_variants.py", "elif not found:", "elif found:"),
    ("src/tutelage/data/synthesise/error_variants.py", "funnel.know((one.row", "list((one.row"),
    ("src/tutelage/data/synthesise/error_variants.py", 'funnel.know(_questions(inputs["existing"]))', "pass"),
    ("src/tutelage/data/synthesise/error_variants.py", "len(one.kept) < self.variants", "True"),
    ("src/tutelage/data/synthesise/error_variants.py", "range(self.attempts)", "range(10)"),
    ("src/tutelage/data/synthesise/error_variants.py", "if attempt % 2 and self.kept", "if self.kept"),
]


def pairs(*correct, **columns):
    return Dataset.from_rows(
        {
            "id": f"s{i}",
            "prompt": f"What is {i} plus twenty and some more words?",
            "completion": f" {i + 20}",
            "correct": value,
            **{name: values[i] for name, values in columns.items()},
        }
        for i, value in enumerate(correct)
    )


def inventive(prompt, seed):
    return f"Question: How many {seed} pears are in basket {seed % 97} tonight?\nAnswer: {seed % 7}"


def test_children_come_from_wrong_seeds_alone():
    writer = ScriptedWriter(inventive)
    data = pairs(True, False, None, False, False, label_source=["gold", "gold", "gold", "synthetic", "gold"])
    found = apply_transform(ErrorVariants(variants=3), data, {"writer": writer})
    rows = list(found.rows())
    assert sorted(row["source_id"] for row in rows) == ["s1"] * 3 + ["s4"] * 3
    assert all(row["label_source"] == "synthetic" and re.fullmatch(r" \d", row["completion"]) for row in rows)
    assert dict(zip(found.dropped.column("id").to_pylist(), found.dropped.column("reason").to_pylist())) == {
        "s0": "answered rightly",
        "s2": "correct says nothing",
        "s3": "synthetic rows are not expanded",
    }
    assert found.report["wrong_rows"] == 2 and found.report["status"] == "" and found.report["calls"] == 6
    assert len(set(writer.seeds)) == 6 and len(set(found.ids())) == 6


def test_nothing_wrong_no_calls():
    writer = ScriptedWriter(inventive)
    found = apply_transform(ErrorVariants(), pairs(True, True), {"writer": writer})
    assert not writer.asked and found.num_rows == 0 and found.report["status"] == "nothing_wrong"
    assert [is_wrong(v) for v in (0.49, 0.5, 1, 0, False, None, float("nan"))] == [
        True,
        False,
        False,
        True,
        True,
        None,
        None,
    ]


def test_a_writer_that_copies_ends_with_no_new_rows():
    def copies(prompt, seed):
        item = re.search(r"Question: (.+)\nAnswer: (.+)\n", prompt)
        return f"Question: {item[1]}\nAnswer: {item[2]}"

    writer = ScriptedWriter(copies)
    found = apply_transform(ErrorVariants(attempts=4), pairs(False, True), {"writer": writer})
    assert found.num_rows == 0 and found.report["status"] == "no_new_rows" and found.report["calls"] == 4
    assert found.report["rejected"] == {"near_duplicate": 4}
    assert "no_new_rows" in found.dropped.column("reason").to_pylist()


def test_odd_attempts_see_what_was_kept():
    writer = ScriptedWriter(inventive)
    apply_transform(ErrorVariants(variants=3, max_new_tokens=40), pairs(False), {"writer": writer})
    first, second, third = writer.asked
    said = inventive("", writer.seeds[0]).split("\n")[0].removeprefix("Question: ")
    assert said not in first and said in second and "different" in second and said not in third
    assert (
        "Answer: 20" in first.replace("  ", " ")
        and "A shelf holds 12 books" in first
        and set(writer.rooms) == {40}
    )


def test_existing_and_protected_rows_are_not_repeated():
    fixed = "How many green pears are in the old basket tonight and tomorrow?"
    writer = ScriptedWriter(lambda prompt, seed: f"Question: {fixed}\nAnswer: 3")
    settings = ErrorVariants(attempts=1, rouge_l=0.9)
    before = Dataset.from_rows([{"id": "old", "prompt": fixed.upper(), "completion": "3"}])
    for name, reason in (("existing", "near_duplicate"), ("protected", "contaminated")):
        found = apply_transform(settings, pairs(False), {"writer": writer, name: before})
        assert found.report["rejected"] == {reason: 1}
    assert apply_transform(settings, pairs(False), {"writer": writer}).num_rows == 1


def test_labelled_texts_keep_their_label():
    rows = [{"id": "a", "text": "an awful film", "label": "bad", "right": 0.0}]
    writer = ScriptedWriter(lambda prompt, seed: f"Text: a dull book number {seed}\nand more")
    found = apply_transform(ErrorVariants(column="right", variants=2), Dataset.from_rows(rows), {"writer": writer})
    assert [row["label"] for row in found.rows()] == ["bad", "bad"]
    assert all(re.fullmatch(r"a dull book number \d+", row["text"]) for row in found.rows())
    assert "It is an example of: bad." in writer.asked[0]
    rows = [{**rows[0], "id": str(i), "predicted": said} for i, said in enumerate(("bad", "good", None))]
    settings = ErrorVariants(column="predicted", variants=1)
    found = apply_transform(settings, Dataset.from_rows(rows), {"writer": writer})
    assert found.column("source_id").to_pylist() == ["1"]


def test_budgets_stop_cleanly():
    data = pairs(*[False] * 12)
    for fields, stopped in (
        ({"max_calls": 7}, "calls"),
        ({"budget": Budget(rows=7)}, "rows"),
        ({"budget": Budget(tokens=20)}, "tokens"),
    ):
        found = apply_transform(ErrorVariants(seed=1, **fields), data, {"writer": ScriptedWriter(inventive)})
        assert found.report["stopped"] == stopped and 7 <= found.num_rows <= 12
        left = set(found.dropped.column("reason").to_pylist())
        assert left == ({f"the budget of {stopped} was spent"} if stopped != "tokens" else set())
    short = ScriptedWriter(inventive, max_length=60)
    found = apply_transform(ErrorVariants(attempts=2), pairs(False), {"writer": short})
    assert not short.asked and found.report["status"] == "no_new_rows"


def test_bad_input():
    with pytest.raises(InputError, match="correct"):
        apply_transform(
            ErrorVariants(), pairs(False).drop_columns("correct"), {"writer": ScriptedWriter(inventive)}
        )
    bare = Dataset.from_rows([{"id": "x", "prompt": "only a prompt", "correct": False}])
    with pytest.raises(InputError, match="no question and answer") as error:
        apply_transform(ErrorVariants(), bare, {"writer": ScriptedWriter(inventive)})
    assert "row x" in str(error.value)
    with pytest.raises(ConfigError, match="temperature"):
        ErrorVariants(temperature=-0.1)
