"""data.filter.clear and data.augment.clear_correct: the median, the refusal, replacement judged in both orders."""

import math

import pytest

from toy.lookup_model import LookupModel
from tutelage.core.apply import apply_transform
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.data.augment.clear_correct import ClearCorrect, preferences
from tutelage.data.filter.clear import Clear
from tutelage.models.judge import answers_prompt

PROOF = {"data.filter.clear": ["consistent"], "data.augment.clear_correct": ["consistent"]}
MUTATIONS = [
    ("src/tutelage/data/filter/clear.py", "mask = values > at", "mask = values >= at"),
    ("src/tutelage/data/filter/clear.py", "if not power >= least_auroc", "if power < least_auroc"),
    ("src/tutelage/data/filter/clear.py", "np.median(known)) if gamma", "np.mean(known)) if gamma"),
    (
        "src/tutelage/data/augment/clear_correct.py",
        "[found[:, 0, 0], found[:, 1, 1]]",
        "[found[:, 0, 0], found[:, 1, 0]]",
    ),
    ("src/tutelage/data/augment/clear_correct.py", "if value > self.eta", "if value >= 0"),
    ("src/tutelage/data/augment/clear_correct.py", "elif mask[i]", "elif True"),
]


def scored(values, power=0.8):
    rows = [{"id": f"r{i}", "prompt": f"p{i}", "completion": f"old {i}"} for i in range(len(values))]
    return Dataset.from_rows({**row, "clear_conf": v, "clear_auroc": power} for row, v in zip(rows, values))


VALUES = [0.1, 0.9, 0.2, 0.3, 1.0]


def test_above_the_median_or_gamma():
    kept = apply_transform(Clear(), scored(VALUES), {})
    assert kept.ids() == ["r1", "r4"] and kept.report["gamma"] == 0.3 and kept.report["auroc"] == 0.8
    assert kept.dropped.column("reason").to_pylist()[0] == "clear: confidence 0.1"
    assert apply_transform(Clear(gamma=0.1), scored(VALUES), {}).ids() == ["r1", "r2", "r3", "r4"]


def test_rows_without_confidence_are_dropped_and_not_in_the_median():
    kept = apply_transform(Clear(), scored([math.nan, 0.1, 0.5, 0.2]), {})
    assert kept.ids() == ["r2"] and "clear: no confidence" in kept.dropped.column("reason").to_pylist()


def test_equal_confidence_keeps_all_and_warns():
    with pytest.warns(UserWarning, match="all are kept"):
        assert apply_transform(Clear(), scored([0.5] * 4), {}).num_rows == 4


def test_it_refuses_where_the_confidence_tells_nothing():
    for power in (0.59, math.nan):
        for method, inputs in ((Clear(), {}), (ClearCorrect(), {"model": LookupModel(), "base": LookupModel()})):
            with pytest.raises(InputError, match="does not tell wrong answers") as error:
                method.apply(scored(VALUES, power), inputs)
            assert "0.6" in str(error.value)
    assert apply_transform(Clear(least_auroc=0.5), scored(VALUES, 0.55), {}).num_rows == 2
    assert apply_transform(Clear(), scored(VALUES, 0.6), {}).num_rows == 2
    with pytest.raises(InputError, match="no row has a confidence"):
        Clear().apply(scored([math.nan]), {})
    with pytest.raises(InputError, match="no rows"):
        Clear().apply(scored(VALUES).keep(scored(VALUES).numpy("clear_conf") > 9, "all"), {})


def question(prompt, first, second):
    return answers_prompt(prompt, first, second, LookupModel())


def judge(verdicts):
    """{(prompt, old, new): (P(new) shown first, P(new) shown second)}."""
    lls = {}
    for (prompt, old, new), (first, second) in verdicts.items():
        lls[question(prompt, new, old), " A"] = math.log(first * 0.5)
        lls[question(prompt, new, old), " B"] = math.log((1 - first) * 0.5)
        lls[question(prompt, old, new), " A"] = math.log(1 - second)
        lls[question(prompt, old, new), " B"] = math.log(second)
    return LookupModel(lls=lls)


def test_both_orders_count():
    found = preferences(judge({("p", "old", "new"): (0.9, 0.5)}), [("p", "old", "new")])
    assert found == pytest.approx([0.7])


def test_better_answers_replace_and_the_filter_decides_on_the_rest():
    tuned = LookupModel(outputs={f"p{i}": f"new {i}" for i in range(4)} | {"p4": "Old 4."})
    verdicts = {("p0", "old 0", "new 0"): (0.9, 0.95), ("p1", "old 1", "new 1"): (0.99, 0.4)}
    verdicts |= {("p2", "old 2", "new 2"): (0.2, 0.1), ("p3", "old 3", "new 3"): (0.9, 0.9)}
    made = apply_transform(ClearCorrect(), scored(VALUES), {"model": tuned, "base": judge(verdicts)})
    rows = {row["id"]: row for row in made.rows()}
    assert list(rows) == ["r0", "r1", "r3", "r4"], "untrusted r2 has no better answer"
    assert rows["r0"]["completion"] == "new 0" and rows["r0"]["clear_original"] == "old 0"
    assert rows["r1"]["completion"] == "old 1" and rows["r1"]["clear_original"] is None
    assert rows["r4"]["completion"] == "old 4", "the same answer in other words of case replaces nothing"
    assert made.report["rows_corrected"] == 2 and made.report["rows_compared"] == 4
    stricter = ClearCorrect(eta=0.91, gamma=0.25).apply(scored(VALUES), {"model": tuned, "base": judge(verdicts)})
    assert stricter.ids() == ["r0", "r1", "r3", "r4"] and stricter.report["rows_corrected"] == 1
    loose = ClearCorrect(least_auroc=0.2).apply(scored(VALUES, 0.3), {"model": tuned, "base": judge(verdicts)})
    assert loose.ids() == made.ids()


def test_empty_and_cut_answers_replace_nothing():
    tuned = LookupModel(outputs={"p0": " ", "p1": "goes on..."})
    made = apply_transform(ClearCorrect(gamma=0.0), scored(VALUES[:2]), {"model": tuned, "base": LookupModel()})
    assert made.column("completion").to_pylist() == ["old 0", "old 1"] and made.report["rows_compared"] == 0


def test_the_tuned_model_is_asked_as_set():
    class Records(LookupModel):
        def generate(self, prompts, **options):
            self.options = options
            return super().generate(prompts)

    tuned = Records()
    ClearCorrect(max_new_tokens=9, stop=("\n",)).apply(scored(VALUES), {"model": tuned, "base": LookupModel()})
    assert tuned.options == {"max_new_tokens": 9, "temperature": 0.0, "stop": ("\n",)}


def test_conversations_and_refusals():
    class Chats(LookupModel):
        def chat_prompt(self, messages):
            return messages[0]["content"]

    turns = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "old"}]
    data = Dataset.from_rows([{"id": "a", "messages": turns, "clear_conf": 0.5, "clear_auroc": 0.9}])
    inputs = {"model": Chats(outputs={"p": "new"}), "base": judge({("p", "old", "new"): (0.9, 0.9)})}
    made = ClearCorrect(gamma=0.0).apply(data, inputs)
    assert next(made.rows())["messages"] == [turns[0], {"role": "assistant", "content": "new"}]
    with pytest.raises(ConfigError, match="needs the base model"):
        ClearCorrect().apply(data, {"model": LookupModel()})
    with pytest.raises(InputError, match="no prompt to answer"):
        plain = Dataset.from_rows([{"id": "a", "text": "x", "clear_conf": 0.5, "clear_auroc": 0.9}])
        ClearCorrect(gamma=0.0).apply(plain, inputs)
