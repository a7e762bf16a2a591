"""data.recipes.keyword_prompt, docstring_code and class_prefix: what a pair holds of its source."""

import ast

import pytest

from tutelage.core.apply import apply_transform
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError
from tutelage.data.recipes.class_prefix import ClassPrefix
from tutelage.data.recipes.docstring_code import DocstringCode
from tutelage.data.recipes.keyword_prompt import KeywordPrompt

PROOF = {
    "data.recipes.keyword_prompt": ["consistent", "verified"],
    "data.recipes.docstring_code": ["consistent"],
    "data.recipes.class_prefix": ["consistent"],
}
MUTATIONS = [
    (
        "src/tutelage/data/recipes/keyword_prompt.py",
        "count * math.log((1 + rows) / (1 + frequency[word]))",
        "count",
    ),
    ("src/tutelage/data/recipes/keyword_prompt.py", "frequency.update({word.lower()", "frequency.update({word"),
    (
        "src/tutelage/data/recipes/docstring_code.py",
        '{head}{line_end}", "completion": body',
        '{head}{line_end}", "completion": code',
    ),
    ("src/tutelage/data/_python_source.py", ">= min_words", "> min_words"),
    (
        "src/tutelage/data/recipes/class_prefix.py",
        '"completion": f" {text.strip()}"',
        '"completion": text.strip()',
    ),
]


def texts(*given, **columns):
    return Dataset.from_rows(
        {"id": f"r{i}", "text": text, **{name: values[i] for name, values in columns.items()}}
        for i, text in enumerate(given)
    )


def test_keywords_are_those_of_highest_tf_idf():
    sklearn = pytest.importorskip("sklearn.feature_extraction.text")
    given = [
        "Herons fish where herons live and rest",
        "Boats fish for cod and ling",
        "Cod live in cold and deep seas",
        "12 34",
    ]
    found = apply_transform(KeywordPrompt(keywords=3, template="On {keywords}:"), texts(*given), {})
    assert found.column("completion").to_pylist() == given[:3] and found.ids() == ["r0", "r1", "r2"]
    assert found.dropped.column("reason").to_pylist() == ["no word to ask with"]
    vectors = sklearn.TfidfVectorizer(token_pattern=r"(?u)[^\W\d_]{3,}", norm=None, smooth_idf=True)
    matrix = (
        vectors.fit_transform(given).toarray()
        - sklearn.CountVectorizer(vocabulary=vectors.vocabulary_, token_pattern=r"(?u)[^\W\d_]{3,}")
        .transform(given)
        .toarray()
    )  # its idf is ours plus one
    names = vectors.get_feature_names_out()
    for prompt, weights in zip(found.column("prompt").to_pylist(), matrix):
        words = prompt.removeprefix("On ").rstrip(":").split(", ")
        best = sorted(weights, reverse=True)[:3]
        assert [weights[list(names).index(word)] for word in words] == pytest.approx(best)
    assert found.column("prompt")[0].as_py().startswith("On herons, ")
    plain = apply_transform(
        KeywordPrompt(column="body"), Dataset.from_rows([{"id": "a", "body": "tall trees"}]), {}
    )
    assert plain.column("prompt").to_pylist() == ["Write about: tall, trees"]
    with pytest.raises(ConfigError, match="template"):
        KeywordPrompt(template="Write")


SOURCE = '''
def area(width, height):
    """The area of a rectangle."""
    size = width * height
    return size


class Box:
    def open(self):
        """Open it."""
        return True

    def shut(self):
        return False
'''


def test_docstring_and_code_hold_the_whole_function():
    data = texts(SOURCE, "not ( python", "x = 1\n", source=["a.py"] * 3)
    found = apply_transform(DocstringCode(min_words=2, column="text", carry=("source",)), data, {})
    rows = list(found.rows())
    assert [row["function"] for row in rows] == ["area", "Box.open"] and {row["source"] for row in rows} == {
        "a.py"
    }
    assert rows[0]["prompt"] == "The area of a rectangle.\n\ndef area(width, height):\n"
    body = rows[0]["prompt"].split("\n\n")[1] + rows[0]["completion"]
    names = {}
    exec(compile(ast.parse(body), "pair", "exec"), names)
    assert names["area"](3, 4) == 12 and '"""' not in body
    reasons = found.dropped.column("reason").to_pylist()
    assert reasons[0].startswith("not Python") and reasons[1] == "no documented function"
    assert apply_transform(DocstringCode(min_words=4), data, {}).num_rows == 1


def test_the_class_comes_first():
    data = texts(" a fine day ", "", "grey", label=["good", "bad", None])
    found = apply_transform(ClassPrefix(), data, {})
    assert [(row["prompt"], row["completion"], row["label"]) for row in found.rows()] == [
        ("good:", " a fine day", "good")
    ]
    assert found.dropped.column("reason").to_pylist() == ["no text", "no label"]
    other = apply_transform(ClassPrefix(prefix="[{label}]"), data, {})
    assert other.column("prompt").to_pylist() == ["[good]"]
    with pytest.raises(ConfigError, match="prefix"):
        ClassPrefix(prefix="x")
