"""Option bias against models whose pull towards letters and contents is known exactly."""

import math

import numpy as np
import pytest
import scipy.stats

from toy.lookup_model import LookupModel
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.evaluation.option_bias import OptionBias, bits_from
from tutelage.models.seam import LogLikelihood

PROOF = {"evaluation.option_bias": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/evaluation/option_bias.py", "profile[0] - 1 / len(profile)", "profile[0]"),
    ("src/tutelage/evaluation/option_bias.py", "float(not at_top.all(axis=0).any())", "float(at_top.all())"),
    ("src/tutelage/evaluation/option_bias.py", '"accuracy_worst": min(each)', '"accuracy_worst": max(each)'),
    ("src/tutelage/evaluation/option_bias.py", "/ np.log2(len(p))", ""),
    ("src/tutelage/evaluation/option_bias.py", 'extra["entropy_log"] > NO', 'extra["entropy"] > NO'),
    ("src/tutelage/evaluation/option_bias.py", "np.log2(reference[held] / ", "np.log(reference[held] / "),
    ("src/tutelage/evaluation/option_bias.py", "logs = np.log(np.maximum(options, TINY))", "logs = options"),
    (
        "src/tutelage/evaluation/_letters.py",
        "np.put_along_axis(found, orders, probs",
        "np.put_along_axis(found, orders[:, ::-1], probs",
    ),
    ("src/tutelage/evaluation/_letters.py", "(np.exp(top) * total)[:, 0]", "total[:, 0]"),
    ("src/tutelage/evaluation/_letters.py", "base[cyclic_orders(count)]", "base[None]"),
]


class Biased(LookupModel):
    """Logits u[option] + b[position]; the letters together hold `mass` of the probability."""

    def __init__(self, contents=None, positions=(0.0,) * 26, mass=1.0):
        super().__init__()
        self.contents, self.positions, self.mass, self.prompts = contents or {}, positions, mass, []

    def loglikelihood(self, pairs, joint=False):
        self.prompts += [prompt for prompt, _ in pairs]
        self.letters = {letter for _, letter in pairs}
        return [LogLikelihood(self.logp(prompt, letter.strip()), 1, False) for prompt, letter in pairs]

    def logp(self, prompt, letter):
        lines = [line.split(". ", 1) for line in prompt.split("\n")[1:-1]]
        logits = [self.contents.get(option, 0.0) + self.positions[i] for i, (_, option) in enumerate(lines)]
        at = [symbol for symbol, _ in lines].index(letter)
        return logits[at] - float(np.logaddexp.reduce(logits)) + math.log(self.mass)


def rows(count=6, options=4, **more):
    return [
        {"prompt": f"Q{n}", "choices": [f"o{n}{k}" for k in range(options)], "answer": n % options, **more}
        for n in range(count)
    ]


def audit(model, data=None, **fields):
    return OptionBias(**fields).evaluate(model, Dataset.from_rows(data or rows()), {})


@pytest.mark.parametrize("orders", ["cyclic", "all"])
def test_a_model_that_always_says_a(orders):
    with pytest.warns(UserWarning, match="no signal"):
        found = audit(Biased(positions=(800.0, 0, 0, 0)), orders=orders)
    assert found.estimate == 1.0 and found.direction == -1
    assert found.extra["first_bias"] == pytest.approx(0.75)
    assert [found.extra[f"position[{j}]"] for j in (1, 2, 3, 4)] == pytest.approx([1, 0, 0, 0])
    assert found.extra["entropy"] == pytest.approx(1.0) and found.extra["no_signal"] == 1.0
    assert found.extra["accuracy_given"] == pytest.approx(2 / 6)
    assert found.extra["accuracy_adjusted"] == pytest.approx(1 / 4)
    assert found.extra["accuracy_worst"] == 0.0
    for row in found.items.table.to_pylist():
        assert np.exp(row["choice_ll"]) == pytest.approx([0.25] * 4)


def test_a_model_that_reads_only_contents_has_no_bias():
    data = rows()
    liked = {row["choices"][(row["answer"] + n % 2) % 4]: 3.0 for n, row in enumerate(data)}
    found = audit(Biased(liked, mass=0.4), data)
    assert found.estimate == 0.0
    assert found.extra["first_bias"] == pytest.approx(0.0, abs=1e-12)
    assert (found.extra["first_bias_lo"], found.extra["first_bias_hi"]) == pytest.approx((0, 0), abs=1e-12)
    for name in ("given", "adjusted", "adjusted_log", "worst"):
        assert found.extra[f"accuracy_{name}"] == 0.5
    assert found.extra["mass"] == pytest.approx(0.4)
    p = math.exp(3) / (math.exp(3) + 3), 1 / (math.exp(3) + 3)
    assert found.extra["entropy"] == pytest.approx(-(p[0] * math.log2(p[0]) + 3 * p[1] * math.log2(p[1])) / 2)
    wilson = scipy.stats.binomtest(0, 6).proportion_ci(method="wilson")
    assert (found.interval.lo, found.interval.hi) == pytest.approx((0, wilson.high))


def test_additive_logits_are_undone_by_all_orders_and_by_logs_in_cyclic_ones():
    rng = np.random.default_rng(0)
    data = [{**row, "answer": 0} for row in rows(60)]
    contents = {option: float(rng.normal()) for row in data for option in row["choices"]}
    data = [{**row, "answer": int(np.argmax([contents[o] for o in row["choices"]]))} for row in data]
    model = Biased(contents, (2.5, 0.3, -1.0, 0.0))
    everything, cyclic = (audit(model, data, orders=orders).extra for orders in ("all", "cyclic"))
    assert everything["accuracy_adjusted"] == everything["accuracy_adjusted_log"] == 1.0
    assert cyclic["accuracy_adjusted_log"] == 1.0
    assert cyclic["accuracy_given"] < 0.8 and cyclic["accuracy_worst"] < cyclic["accuracy_given"]
    # What the mean of probabilities over four orders cannot promise.
    assert 0.8 < cyclic["accuracy_adjusted"] < 1.0


def test_a_strong_pull_hides_a_signal_from_the_mean_but_not_from_the_logs():
    data = [{**row, "answer": 0} for row in rows(8)]
    model = Biased({row["choices"][0]: 1.5 for row in data}, (9.0, 0, 0, 0))
    found = audit(model, data)
    assert found.extra["entropy"] > 0.98 > found.extra["entropy_log"] and "no_signal" not in found.extra
    p = math.exp(1.5) / (math.exp(1.5) + 3), 1 / (math.exp(1.5) + 3)
    assert found.extra["entropy_log"] == pytest.approx(-(p[0] * math.log2(p[0]) + 3 * p[1] * math.log2(p[1])) / 2)


def test_the_bias_has_the_interval_of_its_clusters():
    rng = np.random.default_rng(1)
    data = [row | {"group": f"g{n % 5}"} for n, row in enumerate(rows(20))]
    contents = {option: float(rng.normal()) for row in data for option in row["choices"]}
    found = audit(Biased(contents, (1.0, 0, 0, 0)), data)
    assert 0 < found.extra["first_bias_lo"] < found.extra["first_bias"] < found.extra["first_bias_hi"]
    assert found.n_clusters == 5
    alone = audit(Biased(contents, (1.0, 0, 0, 0)), [row | {"group": "one"} for row in data])
    assert "first_bias_lo" not in alone.extra and alone.no_interval


def test_many_options_are_drawn_with_their_shifts():
    model = Biased({"o00": 4.0}, (1.0, *[0.0] * 25))
    found = audit(model, rows(1, options=9), orders="all", max_orders=45)
    assert len(model.prompts) == 45 * 9
    firsts = [prompt.split("\n")[1] for prompt in model.prompts[::9]]
    assert all(firsts.count(f"A. o0{k}") == 5 for k in range(9))
    assert found.extra["accuracy_adjusted"] == 1.0
    again = Biased()
    with pytest.warns(UserWarning):
        audit(again, rows(1, options=9), orders="all", max_orders=45, seed=1)
    assert again.prompts != model.prompts


def test_other_letters_conversations_and_populations():
    model = Biased({"o00": 2.0})
    audit(model, rows(1, options=3), symbols="RSN")
    assert model.prompts[0] == "Q0\nR. o00\nS. o01\nN. o02\nAnswer:" and model.letters == {" R", " S", " N"}
    plain = [{**row, "prompt": None, "messages": [{"role": "user", "content": "Q0"}]} for row in rows(1)]

    class Talking(Biased):
        def chat_prompt(self, messages):
            return messages[-1]["content"]

    talking = Talking({"o00": 2.0})
    audit(talking, plain)
    assert talking.prompts[0].startswith("Q0\nA. o00")
    asked = Talking({"o00": 2.0})
    asked.chat_prompt = lambda messages: f"<{messages[0]['content']}>"
    audit(asked, rows(1), chat=True, delimiter="")
    assert asked.prompts[0] == "<Q0\nA. o00\nB. o01\nC. o02\nD. o03\nAnswer:>" and asked.letters == set("ABCD")
    share = math.exp(2) / (math.exp(2) + 1)
    found = audit(Biased({"o00": 2.0}), [{"prompt": "Q", "choices": ["o00", "x"], "reference": [1.0, 0.0]}])
    assert found.extra["kl_reference"] == pytest.approx(-math.log2(share))
    assert "accuracy_given" not in found.extra
    assert bits_from(np.array([0.5, 0.5]), np.array([0.25, 0.75])) == pytest.approx(
        scipy.stats.entropy([0.5, 0.5], [0.25, 0.75], base=2)
    )


def test_the_metric_can_be_accuracy_without_order():
    found = audit(Biased({"o00": 1.0, "o11": 1.0}, (0.4, 0, 0, 0)), rows(2), metric="adjusted_accuracy")
    assert (found.metric, found.estimate, found.direction) == ("adjusted_accuracy", 1.0, 1)
    with pytest.raises(InputError, match="answer"):
        audit(Biased(), [{"prompt": "Q", "choices": ["a", "b"]}], metric="adjusted_accuracy")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "Q", "choices": ["a", "a "]}, "two options of a row are equal"),
        ({"prompt": "Q", "choices": ["a"]}, "no options"),
        ({"prompt": "Q", "choices": ["a", "b"], "answer": 5}, "answer is not one of the options"),
        ({"prompt": "", "choices": ["a", "b"]}, "no 'prompt'"),
        ({"prompt": "Q", "choices": ["a", "b"], "reference": [0.9, 0.9]}, "no distribution"),
        ({"prompt": "Q", "choices": [f"o{n}" for n in range(30)]}, "more options than there are symbols"),
    ],
)
def test_bad_rows(row, message):
    with pytest.raises(InputError, match=message):
        audit(Biased(), [{"id": "r1", **row}])


def test_bad_symbols_and_no_rows():
    with pytest.raises(ConfigError, match="different"):
        OptionBias(symbols="AAB")

    class Words(Biased):
        def tokenize(self, texts):
            return [[1] for _ in texts]

    with pytest.raises(InputError, match="not one token each"):
        audit(Words())
    with pytest.raises(InputError, match="nothing to evaluate"):
        empty = Dataset.from_table(Dataset.from_rows(rows(1)).take([]))
        OptionBias().evaluate(Biased(), empty, {})


def test_a_real_model_gives_the_probabilities_of_its_logits():
    import torch

    from tutelage.models.toy import tiny_causal_lm

    model = tiny_causal_lm("gpt2")
    with pytest.warns(UserWarning, match="no signal"):
        found = audit(model, [{"prompt": "Which?", "choices": ["fox", "dog"], "answer": 0}])
    p = []
    for options in (("fox", "dog"), ("dog", "fox")):
        ids = model.tokenizer(f"Which?\nA. {options[0]}\nB. {options[1]}\nAnswer:")["input_ids"]
        lls = []
        for letter in (" A", " B"):
            more = model.tokenizer(letter, add_special_tokens=False)["input_ids"]
            with torch.no_grad():
                logits = model.module(input_ids=torch.tensor([ids + more])).logits[0].log_softmax(-1)
            lls.append(sum(float(logits[len(ids) - 1 + i, token]) for i, token in enumerate(more)))
        p.append(np.exp(lls) / np.exp(lls).sum())
    assert found.extra["position[1]"] == pytest.approx((p[0][0] + p[1][0]) / 2, abs=1e-5)
    assert found.extra["first_bias"] == pytest.approx(found.extra["position[1]"] - 0.5)
