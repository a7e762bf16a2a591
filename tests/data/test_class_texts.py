"""data.synthesise.class_texts: the distance filter, targets per class, weights, classes with too few rows."""

import numpy as np
import pytest

from toy.scripted_writer import ScriptedWriter
from tutelage.core.apply import apply_transform
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.core.records import Budget
from tutelage.data.synthesise.class_texts import ClassTexts, radius, unit

PROOF = {"data.synthesise.class_texts": ["consistent", "verified"]}
MUTATIONS = [
    (
        "src/tutelage/data/synthesise/class_texts.py",
        "unit(vectors.sum(axis=0) - vectors)",
        "unit(vectors.sum(axis=0) + vectors)",
    ),
    ("src/tutelage/data/synthesise/class_texts.py", 'method="higher"', 'method="lower"'),
    ("src/tutelage/data/synthesise/class_texts.py", "if nearest != k:", "if False:"),
    ("src/tutelage/data/synthesise/class_texts.py", "distances[k] > limit + 1e-12", "distances[k] > 1e9"),
    ("src/tutelage/data/synthesise/class_texts.py", "math.ceil(self.ratio * len(places))", "len(places)"),
    ("src/tutelage/data/synthesise/class_texts.py", "self.weight_cap * len(usable) / len(made)", "1.0"),
    ("src/tutelage/data/synthesise/class_texts.py", "if math.isinf(limit):", "if False:"),
]
POSITIONS = {"sun": (1.0, 0.0), "rain": (0.0, 1.0), "fog": (0.8, 0.7), "mist": (-1.0, -0.2)}


class Encoder:
    """A text lies where its weather words lie; its length moves it a little."""

    def embed(self, texts):
        found = []
        for text in texts:
            parts = [POSITIONS[word] for word in text.split() if word in POSITIONS]
            angle = 0.02 * (len(text) % 7)
            x, y = np.sum(parts, axis=0) if parts else (0.1, 0.1)
            found.append((x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)))
        return np.array(found, dtype=np.float32)


def rows(counts=(("good", "sun"), ("bad", "rain")), each=6):
    return Dataset.from_rows(
        {"id": f"{label}{i}", "text": f"{'very ' * i}much {word} today here", "label": label}
        for label, word in counts
        for i in range(each)
    )


def weather(prompt, seed):
    return f"{'sun' if prompt.startswith('good') else 'rain'} and {seed} more of it\nsecond line"


def test_the_filter_keeps_the_real_rows_that_it_should():
    rng = np.random.default_rng(0)
    for n, q in ((5, 0.5), (20, 0.8), (41, 0.95)):
        vectors = unit(rng.normal(size=(n, 8)) + 2.0)
        limit = radius(vectors, q)
        centroid = unit(vectors.sum(axis=0))
        assert ((1 - vectors @ centroid) <= limit).sum() >= int(q * n)
        loo = [1 - vectors[i] @ unit(np.delete(vectors, i, 0).mean(0)) for i in range(n)]
        assert limit == pytest.approx(np.quantile(loo, q, method="higher"))


def test_texts_of_each_class_up_to_the_target():
    writer = ScriptedWriter(weather)
    settings = ClassTexts(ratio=1.5, quantile=1.0, rounds=12)
    found = apply_transform(settings, rows(), {"writer": writer, "encoder": Encoder()})
    made = list(found.rows())
    assert [sum(row["label"] == label for row in made) for label in ("bad", "good")] == [9, 9]
    assert all((row["label"] == "good") == ("sun" in row["text"]) and "second" not in row["text"] for row in made)
    assert {row["label_source"] for row in made} == {"synthetic"} and len(set(writer.seeds)) == len(writer.seeds)
    assert sum(row["label_weight"] for row in made) == pytest.approx(12.0)
    assert all(row["source_id"].startswith(row["label"]) for row in made)
    half = apply_transform(
        ClassTexts(quantile=1.0, weight_cap=0.25), rows(), {"writer": writer, "encoder": Encoder()}
    )
    assert set(half.column("label_weight").to_pylist()) == {0.25 * 12 / half.num_rows}
    assert writer.asked[0] == "bad:"


def test_texts_far_away_or_of_another_class_are_refused():
    def wrong(prompt, seed):
        word = ("rain", "fog", "sun")[seed % 3] if prompt.startswith("good") else ("rain", "mist")[seed % 2]
        return f"well {word} it is {seed}"

    found = apply_transform(ClassTexts(rounds=3), rows(), {"writer": ScriptedWriter(wrong), "encoder": Encoder()})
    assert all(row["distance"] < 0.05 for row in found.rows())
    assert {("sun" in row["text"], row["label"]) for row in found.rows()} <= {(True, "good"), (False, "bad")}
    rejected = found.report["rejected"]
    assert rejected["too_far"] > 0 and rejected["label_disagrees"] > 0
    assert found.report["candidates"] == found.num_rows + sum(rejected.values())


def test_a_copy_of_a_real_row_is_a_duplicate_and_protected_rows_count():
    real = rows(each=1)
    with pytest.warns(UserWarning, match="one real row"):
        copy = apply_transform(
            ClassTexts(rounds=2),
            real,
            {"writer": ScriptedWriter(lambda p, s: "much sun today here"), "encoder": Encoder()},
        )
    assert copy.report["rejected"] == {"near_duplicate": 4} and copy.num_rows == 0
    protected = Dataset.from_rows([{"id": "t", "text": "sun all over the wide plain"}])
    writer = ScriptedWriter(lambda p, s: "Sun all over the wide plain!")
    found = apply_transform(
        ClassTexts(rounds=1), rows(), {"writer": writer, "encoder": Encoder(), "protected": protected}
    )
    assert found.report["rejected"] == {"contaminated": 12}


def test_one_real_row_means_no_filter_and_no_row_is_an_error():
    lone = Dataset.from_rows(
        [*rows((("good", "sun"),)).rows(), {"id": "x", "text": "rain again today", "label": "bad"}]
    )
    writer = ScriptedWriter(lambda p, s: f"fog number {s} here" if p.startswith("bad") else weather(p, s))
    with pytest.warns(UserWarning, match="'bad' has one real row"):
        found = apply_transform(ClassTexts(quantile=1.0), lone, {"writer": writer, "encoder": Encoder()})
    assert [row["label"] for row in found.rows()].count("bad") == 1
    schema = Dataset.from_rows([{"label": "good"}, {"label": "bad"}, {"label": "odd"}])
    with pytest.raises(InputError, match="no row to write after") as error:
        apply_transform(ClassTexts(), rows(), {"writer": writer, "encoder": Encoder(), "labels": schema})
    assert "odd" in str(error.value)
    with pytest.raises(ConfigError, match="quantile"):
        ClassTexts(quantile=1.5, temperature=0.5)


def test_first_words_and_examples():
    writer = ScriptedWriter(lambda p, s: f"sun {s}")
    settings = ClassTexts(seed_words=2, min_words=2, max_new_tokens=9, rouge_l=0.99, quantile=1.0, rounds=1)
    found = apply_transform(settings, rows((("good", "sun"),)), {"writer": writer, "encoder": Encoder()})
    assert "good: much sun" in writer.asked and set(writer.rooms) == {9}
    assert any(text.startswith("very very sun") for text in found.column("text").to_pylist())
    writer = ScriptedWriter(lambda p, s: f"sun and {s} more")
    settings = ClassTexts(prompt="examples", shown=2, seed=1, quantile=1.0)
    apply_transform(settings, rows((("good", "sun"),)), {"writer": writer, "encoder": Encoder()})
    assert all(prompt.count("</example ") == 2 and "class 'good'" in prompt for prompt in writer.asked)


def test_budgets_stop_cleanly():
    for fields, stopped in (
        ({"max_calls": 4}, "calls"),
        ({"budget": Budget(rows=4)}, "rows"),
        ({"budget": Budget(tokens=6)}, "tokens"),
    ):
        given = {"writer": ScriptedWriter(weather), "encoder": Encoder()}
        found = apply_transform(ClassTexts(quantile=1.0, **fields), rows(), given)
        assert found.report["stopped"] == stopped and 4 <= found.num_rows <= 6


def test_real_models():
    pytest.importorskip("torch")
    from tutelage.models.toy import tiny_causal_lm

    model = tiny_causal_lm(texts=["sun today", "rain today"])
    settings = ClassTexts(min_words=1, max_new_tokens=6, quantile=1.0, rounds=1)
    found = [apply_transform(settings, rows(), {"writer": model, "encoder": model}) for _ in range(2)]
    assert found[0].hash == found[1].hash and found[0].report["candidates"] == 12
