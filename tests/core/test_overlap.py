"""core.text.overlap: ROUGE-L as the reference library has it, and the nearest text found exactly."""

import random
from difflib import SequenceMatcher

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.core.text.overlap import Neighbours, lcs_length, rouge_l

MUTATIONS = [
    ("src/tutelage/core/text/overlap.py", "(row + matches) | (row - matches)", "(row + matches) | row"),
    (
        "src/tutelage/core/text/overlap.py",
        "return 2 * lcs_length(a, b) / (len(a) + len(b))",
        "return lcs_length(a, b) / len(a)",
    ),
    ("src/tutelage/core/text/overlap.py", "np.minimum(counts, count)", "1"),
    ("src/tutelage/core/text/overlap.py", "if bounds[row] <= best[1]", "if bounds[row] <= 2 * best[1]"),
    ("src/tutelage/core/text/overlap.py", "if found > best[1]:", "if found >= best[1]:"),
]
WORDS = "a b c d e the cat sat on mat and dog ran far".split()


def sentence(rng, most=30):
    return " ".join(rng.choice(WORDS) for _ in range(rng.randrange(1, most)))


def test_rouge_l_is_that_of_the_reference_library():
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"], use_stemmer=False)
    rng = random.Random(0)
    for _ in range(200):
        new, old = sentence(rng).capitalize() + ".", sentence(rng)
        assert rouge_l(new, old) == pytest.approx(scorer.score(old, new)["rougeL"].fmeasure, abs=1e-12)


def plain_lcs(a, b):
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


@given(st.lists(st.sampled_from("abcd"), max_size=80), st.lists(st.sampled_from("abcd"), max_size=80))
def test_lcs_is_that_of_the_table(a, b):
    assert lcs_length(a, b) == plain_lcs(a, b)
    assert lcs_length(a, b) >= sum(
        m.size for m in SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks()
    )


def test_known_values():
    assert rouge_l("the cat sat", "The cat, on a mat, sat!") == pytest.approx(2 * 3 / 9)
    assert rouge_l("", "x") == rouge_l("x", "!?") == 0.0
    assert rouge_l("same words here", "same words here") == 1.0


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.95])
def test_the_nearest_is_found_exactly(threshold):
    rng = random.Random(1)
    texts = [sentence(rng, 12) for _ in range(150)]
    known = Neighbours()
    for number, text in enumerate(texts[:100]):
        known.add(f"t{number}", text)
    assert len(known) == 100
    hits = 0
    for text in texts[100:]:
        values = [rouge_l(text, other) for other in texts[:100]]
        best = max(values)
        found = known.nearest(text, threshold)
        assert found == ((f"t{values.index(best)}", pytest.approx(best)) if best > threshold else None)
        hits += found is not None
    assert hits or threshold == 0.95
    assert known.nearest("", 0.1) is None and Neighbours().nearest("a", 0.1) is None
