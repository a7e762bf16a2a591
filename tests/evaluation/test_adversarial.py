"""evaluation.adversarial: a classifier that one decisive word decides, planted filters, transfer."""

from typing import ClassVar

import numpy as np
import pytest

from toy.labelled import labelled
from tutelage.core import discovery
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.core.labels import Label, LabelSpace
from tutelage.core.meter import Meter
from tutelage.evaluation import _attacks as kit
from tutelage.evaluation.adversarial import Adversarial
from tutelage.models.seam import TextScore

PROOF = {"evaluation.adversarial": ["consistent"]}
MUTATIONS = [
    ("src/tutelage/evaluation/_attacks.py", "np.argsort(without, kind", "np.argsort(-without, kind"),
    ("src/tutelage/evaluation/_attacks.py", "moved / max(len(text), 1)", "moved / 1"),
    ("src/tutelage/evaluation/_attacks.py", "if near[i, j] >= least", "if near[i, j] <= least"),
    ("src/tutelage/evaluation/_attacks.py", "if probs[1 + best].argmax() != label:", "if True:"),
    ("src/tutelage/evaluation/adversarial.py", "if any(minds):", "if True:"),
    ("src/tutelage/evaluation/adversarial.py", "& spoken) for", "& set()) for"),
    ("src/tutelage/evaluation/adversarial.py", ">= self.similarity", "<= self.similarity"),
    ("src/tutelage/evaluation/adversarial.py", "<= self.perplexity", ">= self.perplexity"),
    ("src/tutelage/evaluation/adversarial.py", "in zip(found, valid) if fine]", "in zip(found, valid)]"),
    ("src/tutelage/evaluation/adversarial.py", '"cluster": key, "group"', '"cluster": None, "group"'),
]  # fmt: skip
SPACE = LabelSpace([Label(name="good"), Label(name="bad", aliases=("awful",))])


class OneWord:
    """Says good where the text has one of `words`, with a confidence that falls with the text's length."""

    kind, threshold, calibration = "classifier", None, None

    def __init__(self, *words, name="target", labels=SPACE, suffix=None):
        self.words, self.name, self.fingerprint, self.labels = words, name, name, labels
        self.suffix, self.meter = suffix, Meter()

    def predict_proba(self, texts):
        held = [
            0.9 if set(self.words) & set(text.split()) and not (self.suffix and self.suffix in text) else 0.2
            for text in texts
        ]
        return np.array([[p, 1 - p] for p in held])


def rows_of(count=10, label="good", word="splendid"):
    return Dataset.from_rows(
        {"id": f"r{i}", "text": f"the film number {i} was {word} and quite long overall", "label": label}
        for i in range(count)
    )


def attack(target, surrogates, dataset=None, inputs=None, **fields):
    task = Adversarial(**{"attacks": ("typos",), **fields})
    return task.evaluate(target, dataset or rows_of(), {"surrogates": surrogates, **(inputs or {})})


def three():
    return OneWord("splendid"), [OneWord("splendid", name="first"), OneWord("splendid", name="second")]


def test_a_decisive_word_is_the_one_that_is_changed():
    target, surrogates = three()
    found = attack(target, surrogates)
    assert found.estimate == 0 and found.extra["clean_accuracy"] == found.extra["clean_accuracy_same_rows"] == 1
    assert (
        found.extra["candidates"] == 10
        and found.extra["valid_share"] == 1
        and found.extra["validity_unverified"] == 1
    )
    for row in found.items.table.to_pylist():
        assert "splendid" not in row["raw"] and row["raw"].startswith("the film number")
        assert row["raw"].endswith(" and quite long overall") and row["group"] == "typos"
        assert (row["prediction"], row["target"]) == ("bad", "good")
    # Eight letters of some fifty may be changed, but only one word decides.
    assert found.extra["random_edits_accuracy"] > 0
    sturdy = attack(OneWord("film", name="sturdy"), surrogates)
    assert sturdy.estimate == 1 and sturdy.extra["accuracy[typos]"] == 1


def test_a_candidate_must_fool_a_classifier_that_took_no_part():
    _, (first, _) = three()
    with pytest.raises(InputError, match=r"not measured: no valid candidate[\s\S]*0 candidates on 10 rows"):
        attack(OneWord("splendid"), [first, OneWord("film", name="other")])
    with pytest.warns(UserWarning, match="the target is among the surrogates"):
        found = attack(first, [first, OneWord("splendid", name="second")])
    assert found.extra["target_among_surrogates"] == 1
    with pytest.raises(InputError, match="not measured"):
        attack(*three(), dataset=rows_of(label="bad"))  # the surrogates are wrong to begin with


def test_the_edit_rate_is_kept():
    target, surrogates = three()
    with pytest.raises(InputError, match="0 candidates"):
        attack(target, surrogates, edit_rate=0.001)
    text = "abcd efgh"
    assert kit.edit_rate(text, {(0, 4): "abdc"}) == pytest.approx(2 / 9)
    assert kit.edit_rate(text, {(0, 4): "abcde", (5, 9): "efg"}) == pytest.approx(2 / 9)
    assert kit.rewritten(text, {(5, 9): "x", (0, 4): "y"}) == "y x"


def test_importance_and_greedy_order():
    weights = {"alpha": 0.3, "beta": 0.2, "gamma": 0.1}

    def predict(texts):
        p = np.array([0.25 + sum(w for word, w in weights.items() if word in text.split()) for text in texts])
        return np.column_stack([p, 1 - p])

    text = "gamma beta alpha delta"
    spans = kit.important(text, 0, predict)
    assert [text[a:b] for a, b in spans] == ["alpha", "beta", "gamma", "delta"]
    made = kit.greedy(text, 0, spans, lambda word, _: [word.upper()], 1.0, predict, np.random.default_rng(0))
    # Without alpha .55 remain for the label: beta must go too, gamma may stay.
    assert made == "gamma BETA ALPHA delta"
    assert kit.greedy(text, 0, spans, lambda word, _: [], 1.0, predict, np.random.default_rng(0)) is None
    assert kit.important("12 34", 0, predict) == []


def test_slips_stay_near_the_word():
    rng = np.random.default_rng(0)
    for word in ("splendid", "film", "neighbour"):
        for slip in kit.typos(word, rng):
            assert slip != word and slip[0] == word[0] and abs(len(slip) - len(word)) <= 1
            assert set(slip) <= set(word)
    assert kit.typos("was", rng) == []


class Vectors:
    """Embeds a text by the words it has; near words share a direction."""

    name = fingerprint = "vectors"
    places: ClassVar = {"splendid": (1.0, 0.0), "gorgeous": (0.9, 0.3), "film": (0.0, 1.0), "awful": (0.95, 0.1)}

    def __init__(self, jump=None):
        self.jump = jump

    def embed(self, texts):
        found = [np.sum([self.places.get(w, (0.02, 0.02)) for w in text.split()], axis=0) for text in texts]
        return np.array([(-v if self.jump and self.jump in text else v) for v, text in zip(found, texts)])


def test_near_words_and_the_filters():
    target, surrogates = three()
    texts = [f"a splendid film with words {i}" for i in range(6)] + ["such gorgeous things", "an awful mess"]
    data = Dataset.from_rows(
        {"id": f"r{i}", "text": t, "label": "good" if i < 7 else "bad"} for i, t in enumerate(texts)
    )
    near = {"attacks": ("neighbours",), "edit_rate": 0.5, "least_near": 0.9}
    # The nearest word names a class, so that every candidate is refused.
    with pytest.raises(InputError, match="not measured"):
        attack(target, surrogates, data, {"encoder": Vectors()}, **near)
    other = Dataset.from_rows(row for row in data.rows() if "awful" not in row["text"])
    found = attack(target, surrogates, other, {"encoder": Vectors()}, **near, similarity=0.5)
    assert found.extra["candidates[neighbours]"] == 6 and found.extra["filtered_by_similarity"] == 1
    assert all("gorgeous" in row["raw"] for row in found.items.table.to_pylist())
    with pytest.raises(InputError, match=r"not measured[\s\S]*6 candidates"):
        attack(target, surrogates, other, {"encoder": Vectors(jump="gorgeous film")}, **near)
    words = ["splendid", "gorgeous", "film"]
    table = kit.neighbours(words, Vectors().embed(words), 8, 0.9)
    assert table == {"splendid": ["gorgeous"], "gorgeous": ["splendid"], "film": []}
    assert kit.vocabulary(["tiny words, words longer"], 2) == ["words", "longer"]


class Fluency:
    """A language model that finds texts without the decisive word `times` as perplexing."""

    name = fingerprint = "fluency"

    def __init__(self, times, only=""):
        self.times, self.only = times, only

    def score_texts(self, texts):
        return [
            TextScore(
                10 * (1.0 + (0 if "splendid" in t or self.only not in t else np.log(self.times))), 10, 10, True
            )
            for t in texts
        ]


def test_texts_that_are_not_fluent_are_refused():
    target, surrogates = three()
    fine = attack(target, surrogates, None, {"scorer": Fluency(1.4)})
    assert fine.extra["filtered_by_perplexity"] == 1 and fine.extra["valid_share"] == 1
    with pytest.raises(InputError, match="10 candidates"):
        attack(target, surrogates, None, {"scorer": Fluency(1.6)})
    assert attack(target, surrogates, None, {"scorer": Fluency(1.6)}, perplexity=2.0).estimate == 0
    some = attack(target, surrogates, None, {"scorer": Fluency(1.6, "number 3 ")})
    assert some.n_items == 9 and some.extra["valid_share"] == 0.9 and some.extra["candidates"] == 10


def test_suffixes_and_the_interval_over_rows():
    suffix = "as of today"
    first, second = (OneWord("splendid", name=name, suffix=suffix) for name in "ab")
    found = attack(OneWord("splendid"), [first, second], attacks=("suffix", "typos"), seed=3)
    by = {
        name: [r["score"] for r in found.items.table.to_pylist() if r["group"] == name]
        for name in ("suffix", "typos")
    }
    assert by == {"suffix": [1.0] * 10, "typos": [0.0] * 10}
    assert found.extra["accuracy[suffix]"] == 1 and found.extra["accuracy[typos]"] == 0 and found.estimate == 0.5
    assert found.n_clusters == 10 and found.interval.covers == "clusters"
    few = attack(OneWord("splendid"), [first, second], attacks=("suffix",), items=4)
    assert few.extra["rows"] == few.n_items == 4


def test_real_classifiers_fall_and_random_edits_hurt_less():
    fit = discovery.build("adapters.tfidf_classifier")
    target, one, other = (fit.convert({}, labelled(60, seed=s, noise=0.85), {}) for s in range(3))
    data = labelled(30, seed=9, noise=0.85)
    found = attack(target, [one, other], data, attacks=("typos",), edit_rate=0.3)
    x = found.extra
    assert found.estimate < x["random_edits_accuracy"] <= x["clean_accuracy_same_rows"]
    assert x["candidates"] >= 3
    again = attack(target, [one, other], data, attacks=("typos",), edit_rate=0.3)
    assert again.item_log == found.item_log


def test_bad_input():
    target, surrogates = three()
    with pytest.raises(ConfigError, match=r"too few surrogates[\s\S]*found:    1"):
        attack(target, surrogates[:1])
    with pytest.raises(ConfigError, match="has other classes"):
        attack(target, [surrogates[0], OneWord("x", name="x", labels=LabelSpace(["a", "b"]))])
    with pytest.raises(ConfigError, match="neighbours need an encoder"):
        attack(target, surrogates, attacks=("neighbours",))
    with pytest.raises(InputError, match="row r0, field label"):
        attack(target, surrogates, rows_of(label="fine"))
    machine = Dataset.from_rows({**row, "label_source": "teacher:x"} for row in rows_of().rows())
    with pytest.raises(InputError, match="no row has a person's label"):
        attack(target, surrogates, machine)
    with pytest.raises(ConfigError, match="only a classifier"):
        attack(Vectors(), surrogates)
