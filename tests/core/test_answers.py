"""Answer parsing: golden strings, worked out by hand."""

import math

import pytest

from tutelage.core.answers import (
    after_trigger,
    exact_match,
    label_match,
    last_number,
    normalise,
    numbers_equal,
    numeric_grade,
    numeric_match,
)

MUTATIONS = [
    ("src/tutelage/core/answers.py", "matches[-1]) if", "matches[0]) if"),
    ("src/tutelage/core/answers.py", "max(abs_tol, rel_tol * abs(wanted))", "min(abs_tol, rel_tol * abs(wanted))"),
    ("src/tutelage/core/answers.py", ".casefold()", ""),
]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("  Paris. ", "paris"),
        ("New\n  York", "new york"),
        ("STRASSE", "strasse"),
        ("Straße", "strasse"),
        ("ﬁne", "fine"),
        ("ｆｕｌｌ　ｗｉｄｔｈ！", "full width"),
        ("Really?!", "really"),
        ("U.S.A.", "u.s.a"),
        ("(b)", "(b)"),
        ("...", ""),
        ("don't", "don't"),
    ],
)
def test_normalise(text, wanted):
    assert normalise(text) == wanted
    assert normalise(wanted) == wanted


def test_exact_match():
    assert exact_match(" PARIS.\n", "Paris") and not exact_match("Paris, France", "Paris")
    assert not exact_match("", "") and not exact_match(".", "!")
    assert (
        label_match(" spam\n", "spam")
        and not label_match("Spam", "spam")
        and not label_match("spam or ham", "spam")
    )


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("42", 42.0),
        ("The answer is 42.", 42.0),
        ("First 3, then 4, so 7 in all", 7.0),
        ("1,234.50 dollars", 1234.5),
        ("It costs $1,000,000!", 1e6),
        ("-$5", -5.0),
        ("$-5", -5.0),
        ("€ 5", 5.0),
        ("£.50", 0.5),
        ("50%", 50.0),
        ("about 12.5 %", 12.5),
        ("1/2", 0.5),
        ("-3/4 of it", -0.75),
        ("3 1/2 cups", 3.5),
        ("½", 0.5),
        ("1½", 1.5),
        (r"\frac{3}{4}", 0.75),
        (r"-\dfrac{1}{8}", -0.125),
        (r"\boxed{42}", 42.0),
        ("1e-3", 0.001),
        ("2.5E+4", 25000.0),
        ("3 x 10^4", 30000.0),
        ("6.02×10^23", 6.02e23),
        (r"$3 \times 10^{-2}$", 0.03),
        ("2 * 10**3", 2000.0),
        ("−5", -5.0),
        ("5-3", 3.0),
        ("10 - 4", 4.0),
        ("x = -7", -7.0),
        ("(12)", 12.0),
        ("gpt-4", 4.0),
        ("H2O and x2", None),
        ("1,2,3", 3.0),
        ("5kg", 5.0),
        ("the 7th", 7.0),
        ("10²", 10.0),
        ("１２", 12.0),
        ("٣", 3.0),
        ("0.5.", 0.5),
        ("1/0", None),
        ("1e400", None),
        ("nan", None),
        ("infinity", None),
        ("no number", None),
        ("", None),
    ],
)
def test_last_number(text, wanted):
    found = last_number(text)
    assert found == wanted if wanted is None else found == pytest.approx(wanted, rel=1e-12)


def test_trigger():
    text = "Step 1: 5. The answer is 6. No: the ANSWER IS 7, not 8."
    assert after_trigger(text, "the answer is") == " 7, not 8."
    assert last_number(text, "the answer is") == 8.0
    assert last_number("2 apples #### 72", "####") == 72.0
    assert last_number("2 apples", "####") is None


def test_tolerance():
    assert numbers_equal(1.0000005, 1.0) and not numbers_equal(1.00001, 1.0)
    assert numbers_equal(2_000_001.0, 2_000_000.0) and not numbers_equal(2_000_003.0, 2_000_000.0)
    assert not numbers_equal(math.nan, math.nan) and not numbers_equal(math.inf, math.inf)
    assert numeric_match("It is 0.5", "1/2") and numeric_match("$1,200.00", "1200")
    assert not numeric_match("none", "1") and not numeric_match("1", "none")
    assert numeric_match("3.14", "3.1416", abs_tol=1e-2) and not numeric_match("3.14", "3.1416")
    assert numeric_match("so #### 4, checked 2 times", "4", trigger="####") is False
    assert numeric_match("so #### 4", "4", trigger="####")


def test_grades():
    assert [numeric_grade(text, "7") for text in ("It is 7.", "7.005", "It is 8", "no idea")] == [
        1.0,
        1.0,
        0.1,
        0.0,
    ]
