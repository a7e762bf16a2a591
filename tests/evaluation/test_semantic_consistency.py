"""Semantic consistency of answers written down by hand, and of a model that picks among its own."""

import numpy as np
import pytest

from toy.lookup_model import LookupModel
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.core.text.similarity import sentence_bleu
from tutelage.evaluation._answers import agreement_matrix, cosines, distinct
from tutelage.evaluation.semantic_consistency import SemanticConsistency, consistency
from tutelage.models.seam import LogLikelihood

PROOF = {"evaluation.semantic_consistency": ["consistent"]}
MUTATIONS = [
    ("src/tutelage/evaluation/semantic_consistency.py", "(m * (m - 1))", "(m * m)"),
    ("src/tutelage/evaluation/semantic_consistency.py", "matrix.sum() - np.trace(matrix)", "matrix.sum()"),
    (
        "src/tutelage/evaluation/semantic_consistency.py",
        "score < self.least_paraphrase",
        "score > self.least_paraphrase",
    ),
    ("src/tutelage/evaluation/semantic_consistency.py", "if share >= 0.5]", "if share >= 0.0]"),
    ("src/tutelage/evaluation/semantic_consistency.py", "(matrix >= THRESHOLDS[kind])", "(matrix > 0)"),
    ("src/tutelage/evaluation/semantic_consistency.py", ".mean(axis=0).argmax())]", ".mean(axis=0).argmin())]"),
    ("src/tutelage/evaluation/semantic_consistency.py", "* np.outer(said, said)", ""),
    ("src/tutelage/evaluation/_answers.py", "if i != j and one.strip()", "if i < j and one.strip()"),
    ("src/tutelage/evaluation/_answers.py", "key=lambda one: -one[1]", "key=lambda one: one[1]"),
    ("src/tutelage/evaluation/_answers.py", "np.clip(units @ units.T, 0.0, 1.0)", "units @ units.T"),
]


def data_of(questions, **more):
    """`questions`: name -> (answer, wordings)."""
    return Dataset.from_rows(
        {"prompt": wording, "group": name, "answer": answer, **more}
        for name, (answer, wordings) in questions.items()
        for wording in wordings
    )


def audit(outputs, questions, inputs=None, **fields):
    return SemanticConsistency(**fields).evaluate(LookupModel(outputs=outputs), data_of(questions), inputs or {})


def test_identical_answers_agree_and_disjoint_ones_do_not():
    questions = {"capital": ("Paris", ["c1", "c2", "c3"]), "river": ("Nile", ["r1", "r2"])}
    outputs = {"c1": "Paris.", "c2": "paris", "c3": "Paris", "r1": "Nile", "r2": "Amazon"}
    found = audit(outputs, questions)
    assert sorted(found.items.scores().values()) == [0.0, 1.0]
    assert (found.estimate, found.direction, found.n_items) == (0.5, 1, 2)
    for kind in ("bleu", "rouge_l", "exact"):
        assert found.extra[f"agree[{kind}]"] == found.extra[f"same[{kind}]"] == 0.5
    assert found.extra["accuracy"] == pytest.approx((1.0 + 0.5) / 2)
    assert (found.extra["right_only"], found.extra["mostly_right"]) == (0.5, 1.0)
    assert found.extra["most_common"] == pytest.approx(3 / 5)


def test_a_constant_answer_is_consistent_and_its_figures_say_so():
    questions = {f"q{n}": (f"a{n}", [f"q{n}w{k}" for k in range(3)]) for n in range(4)}
    found = audit({wording: "a0" for _, wordings in questions.values() for wording in wordings}, questions)
    assert (found.estimate, found.extra["most_common"], found.extra["accuracy"]) == (1.0, 1.0, 0.25)
    assert (found.extra["mostly_right"], found.extra["right_only"]) == (0.25, 1.0)


def test_both_directions_of_an_agreement_that_is_not_symmetric():
    one, other = "a long answer with many words", "a long answer"
    forth, back = sentence_bleu(one, other), sentence_bleu(other, one)
    assert forth != back
    found = audit({"w1": one, "w2": other}, {"q": (None, ["w1", "w2"])})
    assert found.estimate == pytest.approx((forth + back) / 2)
    assert found.extra["same[bleu]"] == float(np.mean([forth >= 0.5, back >= 0.5]))
    assert "accuracy" not in found.extra
    by_words = audit({"w1": one, "w2": other}, {"q": (None, ["w1", "w2"])}, agreement="rouge_l")
    assert by_words.estimate == pytest.approx(2 / 3)


def test_the_mean_leaves_the_diagonal_out():
    assert consistency(np.array([[9.0, 0.5], [0.1, 9.0]])) == pytest.approx(0.3)
    assert consistency(np.ones((1, 1))) is None
    assert consistency(np.full((4, 4), 0.25)) == 0.25
    assert agreement_matrix(["a", "", "a"], "exact").tolist() == [[0, 0, 1], [0, 0, 0], [1, 0, 0]]


def test_empty_answers_agree_with_nothing_and_are_counted():
    found = audit({"w1": "yes"}, {"q": ("yes", ["w1", "w2", "w3"]), "silent": ("no", ["s1", "s2"])})
    assert found.estimate == 0.0
    assert found.extra["empty"] == pytest.approx(4 / 5)
    assert found.status_counts == {"ok": 1, "unparsed": 1}


class Encoder:
    def embed(self, texts):
        table = {"yes": [1.0, 0], "sure": [0.8, 0.6], "never": [-1.0, 0]}
        return np.array([table.get(text, [1.0, 0]) for text in texts])


def test_agreement_by_vectors():
    questions = {"q": (None, ["w1", "w2"]), "r": (None, ["w1", "w3"]), "s": (None, ["w1", "w4"])}
    outputs = {"w1": "yes", "w2": "sure", "w3": "never"}
    found = audit(outputs, questions, {"encoder": Encoder()}, agreement="embedding")
    assert sorted(found.items.scores().values()) == pytest.approx([0.0, 0.0, 0.8])
    assert found.extra["same[embedding]"] == 0.0
    assert cosines(np.array([[1.0, 0], [0, 0], [3.0, 0]])).tolist() == [[1, 0, 1], [0, 0, 0], [1, 0, 1]]
    with pytest.raises(ConfigError, match="encoder"):
        audit(outputs, questions, agreement="embedding")


class Choosing(LookupModel):
    """Prefers the option that holds `liked`, and whatever stands first a little."""

    liked = "Paris"

    def loglikelihood(self, pairs, joint=False):
        found = []
        for prompt, letter in pairs:
            lines = dict(line.split(". ", 1) for line in prompt.split("\n") if ". " in line)
            value = 2.0 * (lines[letter.strip()] == self.liked) + 1.0 * (letter == " A")
            found.append(LogLikelihood(value - 5, 1, False))
        return found


def test_choosing_among_its_own_answers_beside_their_majority():
    questions = {"q": ("Paris", ["w1", "w2", "w3"]), "r": ("Nile", ["r1", "r2"]), "s": ("Oslo", ["s1", "s2"])}
    outputs = {"w1": "Rome", "w2": "Paris", "w3": "rome", "r1": "Nile", "r2": "Nile", "s1": "Oslo", "s2": "Bergen"}
    task = SemanticConsistency(ask_to_choose=True)
    found = task.evaluate(Choosing(outputs=outputs), data_of(questions), {})
    # The majority of the first is Rome; the model prefers Paris; equals go to the one said first.
    assert found.extra["accuracy_majority"] == pytest.approx(2 / 3)
    assert found.extra["accuracy_chosen"] == 1.0
    assert distinct(["Rome", "Paris", "rome ", ""]) == [("Rome", 2), ("Paris", 1)]


def test_which_wordings_count_and_how_they_are_asked():
    rows = [
        {"prompt": "w1", "topic": "q", "paraphrase_score": None},
        {"prompt": "w2", "topic": "q", "paraphrase_score": 0.7},
        {"prompt": "w3", "topic": "q", "paraphrase_score": 0.9},
        {"prompt": "w4", "topic": "alone", "paraphrase_score": None},
    ]
    data = Dataset.from_rows(rows)
    found = SemanticConsistency(question="topic").evaluate(LookupModel(outputs={"w1": "a", "w3": "a"}), data, {})
    assert (found.estimate, found.extra["left_out"], found.extra["single"]) == (1.0, 1.0, 1.0)
    lower = SemanticConsistency(question="topic", least_paraphrase=0.5)
    assert lower.evaluate(LookupModel(outputs={"w1": "a", "w3": "a"}), data, {}).estimate == pytest.approx(1 / 3)

    class Talking(LookupModel):
        def chat_prompt(self, messages):
            return f"<{messages[0]['content']}>"

    model = Talking(outputs={"<w1>": "a; b", "<w3>": "a; c"})
    task = SemanticConsistency(question="topic", chat=True, stop=(";",), max_new_tokens=5)
    assert task.evaluate(model, data, {}).estimate == 1.0
    assert model.asked == ["<w1>", "<w3>"]


def test_refusals():
    with pytest.raises(InputError, match="no question has two wordings"):
        audit({}, {"q": (None, ["w1"]), "r": (None, ["r1"])})
    with pytest.raises(InputError, match="reference answer is empty"):
        audit({"w1": "x"}, {"q": ([" "], ["w1", "w2"])})
    with pytest.raises(InputError, match="no prompt"):
        SemanticConsistency().evaluate(LookupModel(), Dataset.from_rows([{"group": "q"}] * 2), {})
