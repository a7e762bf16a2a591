"""adapters.verbaliser and training.objectives.verbaliser: words of classes, scored and trained the same way."""

import numpy as np
import pytest
import torch

from toy.training_bed import model
from tutelage.core.dataset import Dataset
from tutelage.core.discovery import build
from tutelage.core.errors import ConfigError, InputError, ModelError
from tutelage.core.labels import LabelSpace
from tutelage.models.load import load_model
from tutelage.models.packing import pack
from tutelage.models.prompt_classifier import PromptClassifier
from tutelage.models.toy import tiny_causal_lm, tiny_encoder

PROOF = {
    "adapters.verbaliser": ["consistent", "verified"],
    "training.objectives.verbaliser": ["consistent", "verified"],
}
MUTATIONS = [
    ("src/tutelage/models/prompt_classifier.py", "found[p, :, c] += share * column", "found[p, :, c] += column"),
    ("src/tutelage/models/prompt_classifier.py", 'if self.reduction == "mean" else 1', "if False else 1"),
    ("src/tutelage/models/prompt_classifier.py", "(texts).mean(axis=0)", "(texts)[0]"),
    ("src/tutelage/models/prompt_classifier.py", "room = max_length - self.longest", "room = max_length"),
    ("src/tutelage/models/prompt_classifier.py", "    body = pattern.rstrip()\n", "    body = pattern\n"),
    ("src/tutelage/adapters/verbaliser.py", "scores.argmax()", "scores.argmin()"),
    ("src/tutelage/training/objectives/verbaliser.py", "probs[c] * share", "probs[c]"),
    ("src/tutelage/training/objectives/verbaliser.py", '* values["scale"]', "* 1.0"),
    ("src/tutelage/training/objectives/verbaliser.py", '(1) * values["weight"]', '(1) * 1 ** values["weight"]'),
    ("src/tutelage/training/objectives/verbaliser.py", "= self.joint_rows = True", "= self.joint_rows = False"),
]  # fmt: skip
PATTERN = "{text}\nKind:"
WORDS = {"fruit": ("fruit", "thing to eat"), "metal": ("metal ore",), "bird": ("bird",)}
TEXTS = ["apple and pear", "iron with zinc and tin, and then lead", "a jay"]
NAMES = [*WORDS]


def by_hand(one, pattern, text, words):
    """[classes] scores from the model's own logits, one sequence at a time."""
    scores = []
    for name in NAMES:
        each = []
        for word in words[name]:
            prompt = one.prefix_ids + one.tokenize([pattern.replace("{text}", text)])[0]
            ids = one.tokenize([" " + word])[0]
            with torch.no_grad():
                logits = one.base_module(input_ids=torch.tensor([prompt + ids])).logits[0].log_softmax(-1)
            each.append(sum(float(logits[len(prompt) + t - 1, i]) for t, i in enumerate(ids)))
        scores.append(sum(each) / len(each))
    return np.array(scores)


def log_softmax(scores):
    return scores - np.log(np.exp(scores - scores.max()).sum()) - scores.max()


def rows(count=12):
    data = []
    for i in range(count):
        name = NAMES[i % 3]
        stem = {"fruit": "apple pear plum", "metal": "iron zinc tin", "bird": "jay owl wren"}[name].split()
        data.append({"id": f"r{i}", "text": f"{stem[i % 2]} or {stem[i // 3 % 3]}", "label": name})
    return data


def tuned(one, data, **fields):
    settings = {"learning_rate": 5e-3, "step_tokens": 300, "micro_tokens": 200, **fields}
    objective = {"use": "training.objectives.verbaliser", "pattern": PATTERN, "words": WORDS}
    return build("training.fit", {"objective": objective, **settings}).train(one, data)


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_logits_are_those_of_the_words_after_the_prompt(arch):
    one = tiny_causal_lm(arch, [*TEXTS, "fruit metal ore bird thing to eat"], seed=3)
    made = build("adapters.verbaliser", {"patterns": [PATTERN], "words": WORDS}).convert({"base": one}, None, {})
    assert made.labels.names == tuple(NAMES)
    for text, row in zip(TEXTS, made.logits(TEXTS)):
        assert np.abs(row - log_softmax(by_hand(one, PATTERN, text, WORDS))).max() < 1e-4
    probs = made.predict_proba(TEXTS)
    assert np.allclose(probs.sum(1), 1) and np.allclose(np.log(probs), made.logits(TEXTS), atol=1e-6)


def test_two_single_token_words_are_a_sigmoid_of_two_logits():
    one = model("llama")
    made = PromptClassifier(LabelSpace(["x", "y"]), one, [PATTERN], {"x": ["0"], "y": ["1"]})
    ids = [one.tokenize([f" {d}"])[0] for d in "01"]
    assert [len(i) for i in ids] == [1, 1]
    prompt = one.prefix_ids + one.tokenize(["three\nKind:"])[0]
    with torch.no_grad():
        logits = one.base_module(input_ids=torch.tensor([prompt])).logits[0, -1]
    expected = torch.sigmoid(logits[ids[0][0]] - logits[ids[1][0]])
    assert made.predict_proba(["three"])[0, 0] == pytest.approx(float(expected), abs=1e-6)


def test_white_space_at_the_end_belongs_to_the_word():
    one = model("llama")
    lined = PromptClassifier(LabelSpace(["a", "b"]), one, ["{text} Kind:\n"])
    expected = [one.loglikelihood([("zinc Kind:", f"\n{name}")])[0].sum for name in "ab"]
    assert np.allclose(lined.logits(["zinc"])[0], log_softmax(np.array(expected)), atol=1e-5)


def test_mean_divides_by_the_tokens_of_a_word():
    one = model("llama")
    words = {"a": ["0"], "b": ["123456789"]}
    found = PromptClassifier(LabelSpace(["a", "b"]), one, [PATTERN], words, "mean").logits(["zinc"])[0]
    scored = [one.loglikelihood([("zinc\nKind:", f" {w[0]}")])[0] for w in words.values()]
    assert scored[0].n_tokens != scored[1].n_tokens
    assert np.allclose(found, log_softmax(np.array([s.sum / s.n_tokens for s in scored])), atol=1e-5)


def test_patterns_are_averaged_or_the_likeliest_is_kept():
    one = tiny_causal_lm("llama", TEXTS, seed=1)
    patterns = [PATTERN, "A kind of {text} is", "{text}"]
    data = Dataset.from_rows({**row, "label_weight": 1.0 + i} for i, row in enumerate(rows(6)))
    texts = [row["text"] for row in rows(6)]
    alone = [
        build("adapters.verbaliser", {"patterns": [p], "words": WORDS})
        .convert({"base": one}, None, {})
        .logits(texts)
        for p in patterns
    ]
    both = build("adapters.verbaliser", {"patterns": patterns, "words": WORDS}).convert({"base": one}, data, {})
    assert np.allclose(both.logits(texts), np.mean(alone, axis=0), atol=1e-6)
    best = build("adapters.verbaliser", {"patterns": patterns, "words": WORDS, "choose": "best"})
    chosen = best.convert({"base": one}, data, {})
    gold, weight = [NAMES.index(row["label"]) for row in rows(6)], np.arange(1.0, 7.0)
    scores = [(weight * logps[np.arange(6), gold]).sum() / weight.sum() for logps in alone]
    assert chosen.patterns == (patterns[int(np.argmax(scores))],)
    assert list(chosen.facts["pattern_scores"].values()) == pytest.approx(scores, abs=1e-6)
    with pytest.raises(InputError, match="choose a pattern"):
        best.convert({"base": one}, None, {})


def test_long_texts_lose_their_end_and_the_pattern_stays():
    one = model("llama", max_length=40)
    made = PromptClassifier(LabelSpace(["a", "b"]), one, ["Read: {text}\nKind:"])
    long = "The number 1 comes after 0 and before 2. " * 30
    prompt = made.verbalisers[0].filled(long, 40)
    assert prompt.startswith("Read: The number") and prompt.endswith("\nKind:") and len(prompt) < 400
    assert all(len(d) <= 40 for d in made.verbalisers[0].documents(long, 40))
    assert np.isfinite(made.logits([long])).all()
    with pytest.raises(ConfigError, match="no room"):
        made.verbalisers[0].filled(long, 8)


def test_training_scores_what_the_classifier_scores():
    """The loss of a batch is the cross-entropy of the classifier's own logits, for soft labels and weights."""
    one = tiny_causal_lm("llama", TEXTS, seed=2)
    objective = build("training.objectives.verbaliser", {"pattern": PATTERN, "words": WORDS}).start(one)
    given = [
        {"id": "a", "text": TEXTS[0], "label": "fruit"},
        {"id": "b", "text": TEXTS[1], "label_probs": [0.2, 0.7, 0.1], "classes": NAMES, "label_weight": 0.5},
        {"id": "c", "text": TEXTS[2], "label": "bird", "label_weight": 2.0},
    ]
    target = np.array([[1, 0, 0], [0.2, 0.7, 0.1], [0, 0, 1]])
    for reduction in ("sum", "mean"):
        method = build(
            "training.objectives.verbaliser", {"pattern": PATTERN, "words": WORDS, "reduction": reduction}
        )
        objective = method.start(one)
        found = [objective.encode(row, one, 128) for row in given]
        assert [len(documents) for documents in found] == [4, 4, 4]
        (batch,) = pack([d for documents in found for d in documents], 2000, together=[4, 4, 4])
        loss = objective.loss(one, batch)
        order = list(dict.fromkeys(name for row in batch.example_ids for name in row))
        logits = PromptClassifier(LabelSpace(NAMES), one, [PATTERN], WORDS, reduction).logits(TEXTS)
        expected = -(target * logits).sum(1) * [1, 0.5, 2]
        assert loss.weight == 3.0
        assert loss.per_example.tolist() == pytest.approx([expected["abc".index(n)] for n in order], abs=1e-4)


@pytest.mark.parametrize("adapter", [False, True])
def test_a_tuned_model_answers_and_is_saved(adapter, tmp_path):
    base = tiny_causal_lm("llama", [row["text"] for row in rows()], seed=0)
    folder = base.save(tmp_path / "base")
    base = load_model(folder, dtype="float32")
    if adapter:
        base = build("adapters.lora", {"rank": 4}).convert({"base": base}, None, {})
    data = Dataset.from_rows(rows())
    trained, record = tuned(
        base, data, budget={"rows": 600 if adapter else 300}, learning_rate=2e-2 if adapter else 5e-3
    )
    assert record.losses[-1] < (0.9 * record.losses[0] if adapter else 0.5) < record.losses[0]
    made = build("adapters.verbaliser", {"patterns": [PATTERN], "words": WORDS}).convert(
        {"base": trained}, data, {}
    )
    texts = [row["text"] for row in rows()]
    right = [made.labels.names[i] for i in made.predict_proba(texts).argmax(1)]
    assert np.mean([a == row["label"] for a, row in zip(right, rows())]) > (0.3 if adapter else 0.9)
    again = load_model(made.save(tmp_path / "classifier"), dtype="float32")
    assert isinstance(again, PromptClassifier)
    assert np.abs(again.logits(texts) - made.logits(texts)).max() < 1e-5
    assert again.fingerprint == made.fingerprint and again.facts == made.facts


def test_words_come_from_the_rows_where_they_are_not_given():
    one = model("llama")
    plain = build("training.objectives.verbaliser")
    row = {"id": "a", "text": "zinc", "label": "metal", "classes": ["fruit", "metal"]}
    assert len(plain.encode(row, one, 64)) == 2
    with pytest.raises(InputError, match="words of the classes") as error:
        plain.encode({"id": "a", "text": "zinc", "label": "metal"}, one, 64)
    assert "row a" in str(error.value)
    schema = Dataset.from_rows([{"label": "b"}, {"label": "a"}])
    made = build("adapters.verbaliser").convert({"base": one}, None, {"labels": schema})
    assert made.labels.names == ("b", "a")


def test_bad_patterns_words_and_models():
    one, space = model("llama"), LabelSpace(["a", "b"])
    for pattern in ("no slot", "{text} and {text}"):
        with pytest.raises(ConfigError, match="one slot"):
            PromptClassifier(space, one, [pattern])
    with pytest.raises(ConfigError, match="no words") as error:
        PromptClassifier(space, one, [PATTERN], {"a": ["x"]})
    assert "'b'" in str(error.value)
    with pytest.raises(ConfigError, match="same word"):
        PromptClassifier(space, one, [PATTERN], {"a": ["x"], "b": ["x"]})
    with pytest.raises(ConfigError, match="no such class"):
        PromptClassifier(space, one, [PATTERN], {"a": ["x"], "b": ["y"], "c": ["z"]})
    with pytest.raises(ModelError, match="causal"):
        PromptClassifier(space, tiny_encoder(), [PATTERN])
    with pytest.raises(InputError, match="classes are not known"):
        build("adapters.verbaliser").convert({"base": one}, None, {})
