"""data.recipes.filled_pattern: the word stands once, where the classifier will ask for it."""

import pytest

from tutelage.core.apply import apply_transform
from tutelage.core.dataset import Dataset
from tutelage.core.discovery import build
from tutelage.core.errors import ConfigError, InputError
from tutelage.models.toy import tiny_causal_lm

PROOF = {"data.recipes.filled_pattern": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/data/recipes/filled_pattern.py", "+ after + space + word", "+ after + word"),
    ("src/tutelage/data/recipes/filled_pattern.py", "words[used[label] % len(words)]", "words[0]"),
    ("src/tutelage/data/recipes/filled_pattern.py", "if value.count(SLOT) != 1:", "if False:"),
]
WORDS = {"m": ("metal", "ore"), "f": ("fruit",)}
ROWS = [
    {"id": "a", "text": "zinc", "label": "m", "label_source": "pseudo:x"},
    {"id": "b", "text": "pear", "label": "f", "label_source": "gold"},
    {"id": "c", "text": "tin", "label": "m", "label_source": "gold"},
    {"id": "d", "text": "what", "label": None, "label_source": None},
]


def fill(data=ROWS, **fields):
    return apply_transform(build("data.recipes.filled_pattern", fields), Dataset.from_rows(data), {})


def test_the_word_is_filled_in_and_words_take_turns():
    made = fill(pattern="{text}\nKind:", words=WORDS)
    assert [row["text"] for row in made.rows()] == ["zinc\nKind: metal", "pear\nKind: fruit", "tin\nKind: ore"]
    assert made.ids() == ["a", "b", "c"] and made.column("label_source").to_pylist()[0] == "pseudo:x"
    assert made.dropped.to_pylist() == [{"id": "d", "reason": "no label"}]
    assert made.report["by_class"] == {"f": 1, "m": 2}
    assert next(iter(fill(pattern="{text} is:\n").rows()))["text"] == "zinc is:\nm"
    other = [{"id": "a", "text": "no", "body": "zinc", "label": "m"}]
    assert next(iter(fill(other, column="body").rows()))["text"] == "zinc\nTopic: m"


@pytest.mark.parametrize("pattern", ["{text}\nKind:", "A {text} is a\n", "{text}"])
def test_it_is_what_training_and_the_classifier_read(pattern):
    """Decoded, the document of training.objectives.verbaliser with the row's own word is the filled pattern."""
    one = tiny_causal_lm("gpt2")
    words = {name: list(found) for name, found in WORDS.items()}
    objective = build("training.objectives.verbaliser", {"pattern": pattern, "words": words})
    filled = [row["text"] for row in fill(pattern=pattern, words=WORDS).rows()]
    for row, text in zip(ROWS[:2], filled):
        documents = objective.encode(row, one, 64)
        wanted = documents[0] if row["label"] == "m" else documents[2]
        assert one.tokenizer.decode([i for i in wanted.ids if i not in one.prefix_ids]) == text


def test_bad_patterns_and_labels():
    with pytest.raises(ConfigError, match="pattern"):
        build("data.recipes.filled_pattern", {"pattern": "no slot"})
    with pytest.raises(ConfigError, match="words"):
        fill(words={"m": []})
    with pytest.raises(InputError, match="row b") as error:
        fill(words={"m": ["metal"]})
    assert "'f'" in str(error.value)
