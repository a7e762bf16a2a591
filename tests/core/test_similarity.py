"""Text similarity: ROUGE-L and BLEU against their reference libraries, distances against the plain recurrence."""

import random

import pytest

from tutelage.core.text.overlap import lcs_length
from tutelage.core.text.similarity import (
    edit_distance,
    edit_similarity,
    rouge_l,
    sentence_bleu,
    words,
)

MUTATIONS = [
    ("src/tutelage/core/text/overlap.py", "matches) | (row", "matches) & (row"),
    (
        "src/tutelage/core/text/similarity.py",
        "up, down = (up << 1) | 1, down << 1",
        "up, down = up << 1, down << 1",
    ),
    ("src/tutelage/core/text/similarity.py", "2 * common / (len(one) + len(other))", "common / len(other)"),
    ("src/tutelage/core/text/similarity.py", "(hits + smooth) / (count + smooth)", "(hits + smooth) / count"),
    ("src/tutelage/core/text/similarity.py", "longest = max(", "longest = min("),
]
PAIRS = [
    ("the cat sat on the mat", "a cat was on the mat"),
    ("one two three four five six", "one three two four six five"),
    ("Nothing, in common!", "altogether different words"),
    ("same text here", "same text here"),
    ("short", "a much longer reference than that"),
    ("a much longer candidate than that which repeats that that that", "that candidate"),
    ("", "empty against something"),
]


def plain(first, second):
    """(longest common subsequence, edit distance) by the quadratic tables."""
    common = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    edits = [[i + j if not i or not j else 0 for j in range(len(second) + 1)] for i in range(len(first) + 1)]
    for i, a in enumerate(first, 1):
        for j, b in enumerate(second, 1):
            common[i][j] = common[i - 1][j - 1] + 1 if a == b else max(common[i - 1][j], common[i][j - 1])
            edits[i][j] = min(edits[i - 1][j] + 1, edits[i][j - 1] + 1, edits[i - 1][j - 1] + (a != b))
    return common[-1][-1], edits[-1][-1]


def test_distances_equal_the_recurrence():
    draw = random.Random(0)
    for _ in range(300):
        first, second = ("".join(draw.choices("abcd", k=draw.randrange(90))) for _ in range(2))
        common, edits = plain(first, second)
        assert lcs_length(first, second) == common
        assert edit_distance(first, second) == edits
    assert edit_similarity("kitten", "sitting") == pytest.approx(1 - 3 / 7)
    assert (edit_similarity("", ""), edit_similarity("a", "")) == (0.0, 0.0)


def test_rouge_l_equals_the_reference_package():
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"])
    for candidate, reference in PAIRS:
        assert rouge_l(candidate, reference) == pytest.approx(
            scorer.score(reference, candidate)["rougeL"].fmeasure
        )


def test_bleu_equals_the_reference_package_where_both_have_four_words():
    sacrebleu = pytest.importorskip("sacrebleu")
    for candidate, reference in PAIRS:
        one, other = " ".join(words(candidate)), " ".join(words(reference))
        if min(len(one.split()), len(other.split())) < 4:
            continue
        bleu = sacrebleu.sentence_bleu(one, [other], smooth_method="add-k", smooth_value=1, tokenize="none")
        assert sentence_bleu(candidate, reference) == pytest.approx(bleu.score / 100, abs=1e-6)


def test_other_scripts_have_words_and_identical_texts_are_alike():
    assert words("Ärger über_Öl, 12 déjà") == ["ärger", "über", "öl", "12", "déjà"]
    assert rouge_l("größe zählt", "größe zählt nicht") == pytest.approx(0.8)
    assert sentence_bleu("yes", "yes") == rouge_l("yes", "Yes.") == 1.0
    assert sentence_bleu("", "x") == sentence_bleu("no", "yes") == rouge_l("", "") == 0.0
