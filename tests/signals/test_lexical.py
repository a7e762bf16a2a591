"""signals.lexical: MTLD by hand and against lexicalrichness."""

import math
import random
import zlib

import numpy as np
import pytest

from tutelage.core.apply import score_dataset
from tutelage.core.dataset import Dataset
from tutelage.signals.lexical import Lexical, mtld

PROOF = {"signals.lexical": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/signals/lexical.py", "words[::-1]", "words"),
    ("src/tutelage/signals/lexical.py", "(1 - len(seen) / count) / (1 - THRESHOLD)", "(1 - len(seen) / count)"),
    (
        "src/tutelage/signals/lexical.py",
        "len(set(w)) for w in split]) / counts",
        "len(set(w)) for w in split]) / 9",
    ),
]


def score(texts, inputs=None):
    data = Dataset.from_rows({"id": f"r{i}", "text": t} for i, t in enumerate(texts))
    return list(score_dataset(Lexical(), data, inputs or {}).rows())


def test_mtld_by_hand():
    # a a closes a factor at once (TTR 0.5); then b stands alone with TTR 1 and adds nothing.
    assert mtld([1, 1, 2]) == pytest.approx((3 / 1 + 3 / (1 + (1 - 1) / 0.28)) / 2)
    # Forward: 1 2 3 1 has TTR 0.75, a partial factor of 0.25 / 0.28; backward is the same.
    assert mtld([1, 2, 3, 1]) == pytest.approx(4 / (0.25 / 0.28))
    assert mtld([1, 2, 3]) == 3 and math.isnan(mtld([]))


def test_mtld_equals_lexicalrichness():
    lexicalrichness = pytest.importorskip("lexicalrichness")
    rng = random.Random(0)
    for size in (5, 50, 400):
        words = rng.choices([f"{a}{b}" for a in "abcdefg" for b in "xyzuvw"], weights=range(1, 43), k=size)
        text = " ".join(words)
        expected = lexicalrichness.LexicalRichness(text).mtld(threshold=0.72)
        assert score([text])[0]["mtld"] == pytest.approx(expected, rel=1e-9)


def test_ratios():
    texts = ["one two two three", "a" * 500, "", "..."]
    found = score(texts)
    assert found[0]["type_token_ratio"] == 0.75
    assert found[1]["compression"] == len(zlib.compress(b"a" * 500, 6)) / 500
    assert found[0]["tokens_per_word"] == len(texts[0]) / 4 / 4
    assert math.isnan(found[2]["compression"]) and math.isnan(found[3]["mtld"])
    assert np.isnan([found[2]["type_token_ratio"], found[3]["tokens_per_word"]]).all()


def test_a_model_counts_the_tokens():
    from tutelage.models.toy import tiny_causal_lm

    model = tiny_causal_lm()
    row = score(["the quick brown fox"], {"model": model})[0]
    assert row["tokens_per_word"] == len(model.tokenize(["the quick brown fox"])[0]) / 4
