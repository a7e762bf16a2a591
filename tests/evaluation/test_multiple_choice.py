"""Multiple choice: a hand table, ties, answers outside the options, and log-likelihoods computed from logits."""

import math

import pytest
import scipy.stats

from toy.lookup_model import LookupModel
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.evaluation.multiple_choice import MultipleChoice

PROOF = {"evaluation.multiple_choice": ["consistent"]}
MUTATIONS = [
    (
        "src/tutelage/evaluation/_choices.py",
        "[ll / len(choice) for ll, choice in zip(lls, choices)]",
        "[ll / len(choice.encode()) for ll, choice in zip(lls, choices)]",
    ),
    ("src/tutelage/evaluation/_choices.py", "[ll - prior for", "[ll + prior for"),
    ("src/tutelage/evaluation/_choices.py", "/ len(at_top))", "/ 1)"),
    (
        "src/tutelage/evaluation/multiple_choice.py",
        "pairs += [(prompt, self.delimiter",
        "pairs += [('', self.delimiter",
    ),
]

CHOICES = ["yes", "né", "no way"]
# ll:            -3     -2.7   -9     -> acc: né
# / characters:  -1     -1.35  -1.5   -> acc_norm: yes
# / bytes:       -1     -0.9   -1.5   -> acc_bytes: né
# alone:         -2     -2     -10
# difference:    -1     -0.7   +1     -> acc_mutual_info: no way
LLS = {("Q", " yes"): -3.0, ("Q", " né"): -2.7, ("Q", " no way"): -9.0}
ALONE = {("", " yes"): -2.0, ("", " né"): -2.0, ("", " no way"): -10.0}


def one(answer, **fields):
    rows = [{"prompt": "Q", "choices": CHOICES, "answer": answer}]
    return MultipleChoice(**fields).evaluate(LookupModel(LLS | ALONE), Dataset.from_rows(rows), {})


@pytest.mark.parametrize(
    ("metric", "winner"), [("acc", "né"), ("acc_norm", "yes"), ("acc_bytes", "né"), ("acc_mutual_info", "no way")]
)
def test_each_metric_picks_by_its_own_rule(metric, winner):
    for choice in CHOICES:
        result = one(choice, metric=metric)
        assert result.estimate == float(choice == winner)
        assert result.extra[metric] == result.estimate
    row = result.items.table.to_pylist()[0]
    assert row["prediction"] == winner
    assert row["choice_ll"] == [-3.0, -2.7, -9.0]


def test_p_correct_is_the_softmax_at_the_answer():
    row = one(0).items.table.to_pylist()[0]
    assert row["p_correct"] == pytest.approx(math.exp(-3) / (math.exp(-3) + math.exp(-2.7) + math.exp(-9)))


def test_ties_are_shared_and_counted_or_won_by_the_first():
    lls = {("Q", " a"): -1.0, ("Q", " b"): -1.0, ("Q", " c"): -1.0, ("Q", " d"): -5.0}
    data = Dataset.from_rows([{"prompt": "Q", "choices": list("abcd"), "answer": answer} for answer in (0, 1, 3)])
    split = MultipleChoice().evaluate(LookupModel(lls), data, {})
    first = MultipleChoice(ties="first").evaluate(LookupModel(lls), data, {})
    assert sorted(split.items.scores().values()) == pytest.approx([0, 1 / 3, 1 / 3])
    assert sorted(first.items.scores().values()) == [0.0, 0.0, 1.0]
    assert split.extra["ties"] == 1.0


@pytest.mark.parametrize("answer", [3, -1, "maybe", None, 0.5])
def test_an_answer_outside_the_options_names_row_field_and_range(answer):
    with pytest.raises(InputError) as error:
        MultipleChoice().evaluate(
            LookupModel(),
            Dataset.from_rows([{"id": "r7", "prompt": "Q", "choices": CHOICES, "answer": answer}]),
            {},
        )
    assert "row r7, field answer" in str(error.value)
    assert "from 0 to 2" in str(error.value)


def test_too_few_options_and_missing_columns_are_errors():
    with pytest.raises(InputError, match="no options"):
        MultipleChoice().evaluate(
            LookupModel(), Dataset.from_rows([{"prompt": "Q", "choices": ["a"], "answer": 0}]), {}
        )
    with pytest.raises(InputError, match="choices"):
        MultipleChoice().evaluate(LookupModel(), Dataset.from_rows([{"prompt": "Q"}]), {})
    with pytest.raises(InputError, match="no prompt"):
        MultipleChoice().evaluate(LookupModel(), Dataset.from_rows([{"choices": CHOICES, "answer": 0}]), {})
    with pytest.raises(InputError, match="nothing to evaluate"):
        MultipleChoice().evaluate(LookupModel(), Dataset.from_table(Dataset.from_rows(
            [{"prompt": "Q", "choices": CHOICES, "answer": 0}]).take([])), {})  # fmt: skip
    with pytest.raises(ConfigError, match="metric"):
        MultipleChoice(metric="f1")


def planted(right, wrong):
    lls = {("Q", " good"): -1.0, ("Q", " bad"): -2.0}
    rows = [{"prompt": "Q", "choices": ["good", "bad"], "answer": int(i >= right)} for i in range(right + wrong)]
    return MultipleChoice().evaluate(LookupModel(lls), Dataset.from_rows(rows), {})


def test_the_interval_is_wilsons():
    result = planted(14, 6)
    expected = scipy.stats.binomtest(14, 20).proportion_ci(method="wilson")
    assert result.estimate == 0.7
    assert (result.interval.lo, result.interval.hi) == pytest.approx((expected.low, expected.high))


def test_items_of_a_group_are_one_cluster():
    lls = {("Q", " good"): -1.0, ("Q", " bad"): -2.0}
    scores = (1, 0, 1, 1, 0)
    rows = [
        {"prompt": "Q", "choices": ["good", "bad"], "answer": 1 - score, "group": f"g{number}"}
        for number, score in enumerate(scores)
        for _ in range(4)
    ]
    result = MultipleChoice().evaluate(LookupModel(lls), Dataset.from_rows(rows), {})
    mean = sum(scores) / 5
    error = math.sqrt(sum((score - mean) ** 2 for score in scores) / 4 / 5)
    assert result.n_clusters == 5
    assert result.interval.hi - mean == pytest.approx(scipy.stats.t.ppf(0.975, 4) * error)
    assert result.interval.covers == "clusters"
    assert result.extra["few_clusters"] == 1.0


def test_keys_depend_on_neither_order_nor_ids_nor_other_columns():
    rows = [{"prompt": f"Q{i}", "choices": ["x", "y"], "answer": i % 2} for i in range(6)]
    full = MultipleChoice().evaluate(LookupModel(), Dataset.from_rows(rows), {}).items
    other = [{"id": f"n{i}", "length": i, **row} for i, row in enumerate(rows[3:][::-1])]
    part = MultipleChoice().evaluate(LookupModel(), Dataset.from_rows(other), {}).items
    assert set(part.scores()) == set(full.table["item_key"].to_pylist()[3:])


def test_training_seed_and_task_are_recorded():
    rows = [{"prompt": "Q", "choices": ["x", "y"], "answer": 1}]
    result = MultipleChoice().evaluate(LookupModel(), Dataset.from_rows(rows), {"train_seed": 5})
    assert result.seeds == (5,)
    assert result.task.startswith("evaluation.multiple_choice@1#")
    assert result.system["weights"] == "lookup"


def test_equals_log_softmax_of_the_logits():
    import torch

    from tutelage.models.toy import tiny_causal_lm

    model = tiny_causal_lm("gpt2")
    rows = [{"prompt": "The quick brown", "choices": ["fox jumps", "dog", "function"], "answer": 1}]
    log = MultipleChoice().evaluate(model, Dataset.from_rows(rows), {}).items
    prompt = model.tokenizer("The quick brown")["input_ids"]
    for choice, found in zip(rows[0]["choices"], log.table.to_pylist()[0]["choice_ll"]):
        answer = model.tokenizer(" " + choice, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logits = model.module(input_ids=torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
        expected = sum(float(logits[len(prompt) - 1 + i, token]) for i, token in enumerate(answer))
        assert found == pytest.approx(expected, abs=1e-4)


class Talking(LookupModel):
    """A table model with a chat template."""

    template = "angle brackets"

    def chat_prompt(self, messages):
        return "".join(f"<{message['content']}>" for message in messages)


def test_delimiter_and_chat_change_what_is_asked():
    rows = Dataset.from_rows([{"prompt": "Q", "choices": ["a", "b"], "answer": 0}])
    model = Talking()
    MultipleChoice(delimiter="\n").evaluate(model, rows, {})
    assert model.asked == [("Q", "\na"), ("Q", "\nb")]
    MultipleChoice(chat=True).evaluate(model, rows, {})
    assert model.asked[2:] == [("<Q>", " a"), ("<Q>", " b")]
