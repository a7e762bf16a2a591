"""Guided completion against an n-gram memoriser and against completions written down by hand."""

import numpy as np
import pytest
import scipy.stats

from toy.lookup_model import LookupModel
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.core.stats.paired import sign_flip_p
from tutelage.evaluation.guided_completion import GuidedCompletion, cut, matches
from tutelage.models.ngram import NGramLM

PROOF = {"evaluation.guided_completion": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/evaluation/guided_completion.py", "one.guided - one.general", "one.general - one.guided"),
    ("src/tutelage/evaluation/guided_completion.py", "exact >= 1 or near >= 2", "exact >= 1 and near >= 2"),
    ("src/tutelage/evaluation/guided_completion.py", "(completion, len(truth.split()))", "(completion)"),
    ("src/tutelage/evaluation/guided_completion.py", "abs(end - at * size)", "-abs(end - at * size)"),
    ("src/tutelage/evaluation/guided_completion.py", "low * size <= end <= high * size", "end > 0"),
    ("src/tutelage/evaluation/guided_completion.py", 'too" if suspicious', 'too" if False'),
    ("src/tutelage/evaluation/guided_completion.py", "near and not one.exact", "near"),
    ("src/tutelage/core/stats/paired.py", "(lambda total: total) if greater", "np.abs if greater"),
    ("src/tutelage/evaluation/_audit.py", 'return "".join(found[:kept])', "return text"),
]
WORDS = (
    "amber basin cedar delta ember fjord grove haven islet jetty knoll lagoon meadow north ocean prairie".split()
)


def passages(count, seed):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, 24)) for _ in range(count)]


SEEN, UNSEEN = passages(8, 0), passages(8, 1)


def rows(items, **more):
    return Dataset.from_rows({"id": f"r{n}", "text": text, **more} for n, text in enumerate(items))


def audit(model, texts, control=None, **fields):
    inputs = {} if control is None else {"control": rows(control)}
    return GuidedCompletion(**{"dataset_name": "Toy", **fields}).evaluate(model, rows(texts), inputs)


def test_a_memoriser_is_caught_and_what_it_never_saw_is_not():
    model = NGramLM(6).fit(SEEN)
    found = audit(model, SEEN, UNSEEN)
    assert (found.estimate, found.extra["exact"], found.system["verdict"]) == (1.0, 8.0, "contaminated")
    assert found.extra["near_exact"] == 0.0
    assert (found.extra["control_exact"], found.extra["control_near_exact"]) == (0.0, 0.0)
    assert found.extra["rouge_guided"] == 1.0 and found.direction == -1
    # It completes with any header: both prompts do equally well.
    assert found.extra["p"] == 1.0
    wilson = scipy.stats.binomtest(8, 8).proportion_ci(method="wilson")
    assert (found.interval.lo, found.interval.hi) == pytest.approx((wilson.low, 1.0))
    clean = audit(model, UNSEEN, SEEN)
    assert (clean.estimate, clean.system["verdict"]) == (0.0, "not detected")
    assert clean.extra["control_exact"] == 8.0
    assert audit(model, SEEN).system["verdict"] == "suspicion"
    assert audit(model, SEEN[:4], SEEN[4:]).system["verdict"] == "control flagged too"


def test_only_the_guided_prompt_brings_it_back():
    name = "Toy, test"
    # Under the data set's header the memoriser remembers, under the other one it has nothing to go by.
    outputs = {}
    for number, text in enumerate(SEEN):
        first, rest = cut(text, 0.5, 0.5, 0.5)
        outputs[f"{name}\n\n{first}"] = rest + " and more"
        outputs[f"Diary, test\n\n{first}"] = rest if number == 0 else "cat"
    model = LookupModel(outputs=outputs)
    found = audit(model, SEEN, other_name="Diary", cut_between=(0.5, 0.5), max_new_tokens=200)
    assert found.extra["exact"] == 8.0
    # One pair of eight is tied: a sum as large as all the other seven has one chance in 2^7.
    assert found.extra["p"] == pytest.approx(2 / 2**8)
    assert found.extra["rouge_general"] == pytest.approx(1 / 8)
    everything = GuidedCompletion(
        dataset_name="Toy", other_name="Diary", cut_between=(0.5, 0.5), max_new_tokens=200
    )
    grouped = everything.evaluate(model, rows(SEEN, group="one"), {})
    assert grouped.extra["p"] == 0.5 and grouped.no_interval


def test_one_sided_sign_flips_equal_scipy():
    values = np.array([0.5, 0.1, -0.2, 0.4, 0.0, 0.3])
    expected = scipy.stats.permutation_test(
        (values,), np.sum, permutation_type="samples", alternative="greater", n_resamples=np.inf
    )
    assert float(sign_flip_p(values, greater=True)) == pytest.approx(expected.pvalue)
    assert float(sign_flip_p(-values, greater=True)) > 0.9
    assert float(sign_flip_p(np.ones(40), greater=True)) == pytest.approx(1 / 10_001)


def test_near_exact_needs_two_and_the_threshold():
    truth = "the quick brown fox jumps over the lazy dog again today"
    nearly = truth.replace("lazy", "hazy")
    assert matches(truth + " beyond the end", truth, 0.9) == (1.0, True, True)
    score, exact, near = matches(nearly, truth, 0.9)
    assert (exact, near) == (False, True) and score == pytest.approx(10 / 11)
    assert matches(nearly, truth, 0.99)[2] is False
    texts = [f"item {n} begins here with words {truth}" for n in range(3)]
    outputs = {}
    for text in texts:
        first, rest = cut(text, 0.5, 0.5, 0.5)
        outputs[f"Toy, test\n\n{first}"] = rest.replace("again", "agaim")
    one, two = (
        audit(LookupModel(outputs=dict(list(outputs.items())[:count])), texts, cut_between=(0.5, 0.5))
        for count in (1, 2)
    )
    assert (one.extra["near_exact"], one.extra["set_flagged"], one.system["verdict"]) == (1, 0, "not detected")
    assert (two.extra["near_exact"], two.extra["set_flagged"], two.system["verdict"]) == (2, 1, "suspicion")
    strict = audit(LookupModel(outputs=outputs), texts, cut_between=(0.5, 0.5), near=1.0)
    assert strict.estimate == 0.0


def test_texts_are_cut_at_sentences_where_they_end_in_between():
    text = "One two three four five. Six seven eight nine ten. Eleven twelve thirteen fourteen."
    parts = cut(text, 0.7, 0.4, 0.7)
    assert parts == (text[:50], "Eleven twelve thirteen fourteen.")
    assert cut(text, 0.1, 0.2, 0.4)[0] == "One two three four five."
    assert cut(text, 0.45, 0.4, 0.5)[0] == "One two three four five. Six seven"
    first, rest = cut("alpha beta gamma delta epsilon zeta", 0.5, 0.4, 0.7)
    assert (first, rest) == ("alpha beta gamma", "delta epsilon zeta")


def test_prompts_say_name_split_and_label_only_when_guided():
    class Talking(LookupModel):
        template = "angle"

        def chat_prompt(self, messages):
            return f"<{messages[0]['content']}>"

    model = Talking()
    data = Dataset.from_rows([{"text": SEEN[0], "label": "sea", "source": "Waters"}])
    for style, start in (("auto", "<Here"), ("instruction", "Here"), ("header", "Waters, dev\n\n")):
        model.asked = []
        GuidedCompletion(split="dev", style=style).evaluate(model, data, {})
        guided, general = model.asked
        assert guided.startswith(start) and "Waters" in guided and "dev" in guided
        assert "Waters" not in general
        assert style == "header" or ("labelled sea" in guided and "labelled sea" in general)
    with pytest.raises(ConfigError, match="no name to ask for"):
        GuidedCompletion().evaluate(model, rows(SEEN), {})


def test_which_items_are_asked():
    model = NGramLM(6).fit(SEEN)
    few = [audit(model, SEEN + UNSEEN, items=5, seed=seed).items.scores() for seed in (1, 1, 2)]
    assert len(few[0]) == 5 and few[0].keys() == few[1].keys() != few[2].keys()
    found = audit(model, [*SEEN, "too short"])
    assert (found.n_items, found.extra["skipped"]) == (8, 1.0)
    assert audit(model, [*SEEN, "rather short"], least_words=2).n_items == 9
    questions = Dataset.from_rows([{"prompt": SEEN[0], "choices": ["amber basin", "cedar delta"]}])
    assert GuidedCompletion(dataset_name="Toy").evaluate(model, questions, {}).n_items == 1


def test_a_long_rest_is_compared_as_far_as_it_can_be_written():
    model = NGramLM(6).fit(SEEN)
    found = audit(model, SEEN, max_new_tokens=4)
    assert found.estimate == 1.0
    assert all(len(row["target"].split()) == 4 for row in found.items.table.to_pylist())


def test_refusals():
    model = NGramLM(6).fit(SEEN)
    with pytest.raises(InputError, match="no text is long enough"):
        audit(model, ["a b c"])
    with pytest.raises(InputError, match="among the rows"):
        audit(model, SEEN, [*UNSEEN, SEEN[3]])
    with pytest.raises(ConfigError, match="rising shares"):
        GuidedCompletion(cut_between=(0.7, 0.4))
    with pytest.raises(InputError, match="nothing to evaluate"):
        GuidedCompletion(dataset_name="T").evaluate(model, Dataset.from_table(rows(SEEN).take([])), {})
