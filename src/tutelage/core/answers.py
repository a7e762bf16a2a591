r"""Reading answers out of model output: normalised text, and the last number.

exact:    NFKC, strip, casefold, white space collapsed, final punctuation stripped; then equality.
numeric:  the last number after the answer trigger (after its last occurrence; the whole text without one).
          Commas group thousands; a currency or percent sign is a unit and does not change the value (50% is 50);
          a/b, 1 1/2, ½ and \frac{a}{b} are fractions; 1e-3 and 3 x 10^4 are scientific notation.
          a is correct for b when |a - b| <= max(abs_tol, rel_tol * |b|); NaN and infinity are wrong.
graded:   1 correct, 0.1 a number but wrong, 0 no number at all (as in ReFT, arXiv:2401.08967).
"""

import math
import re
import unicodedata

ABS_TOL = 1e-6
REL_TOL = 1e-6
# What ReFT's published code allows.
REFT_ABS_TOL = 1e-2

_FINAL = ".,;:!?。！？"
_VULGAR = {chr(c) for c in range(0xBC, 0xBF)} | {chr(c) for c in range(0x2150, 0x215F)}
_CURRENCY = "$€£¥₹₽₩"
_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"
_NUMBER = re.compile(
    rf"""
    (?<![\w.])                                     # not inside a word or a longer number
    (?P<sign>(?<![\d)\]}}%])[-+])?                 # a minus after a digit is a hyphen or a difference
    (?:[{_CURRENCY}]\s?)?(?P<inner>[-+])?
    (?:
        \\[dt]?frac\s*\{{\s*(?P<top>-?[0-9.,]+)\s*\}}\s*\{{\s*(?P<bottom>-?[0-9.,]+)\s*\}}
      | (?P<whole>[0-9]+)\s+(?P<mixed>[0-9]+)\s?/\s?(?P<mixed_by>[0-9]+)
      | (?P<value>{_DIGITS})
        (?:
            \s?/\s?(?P<by>[0-9][0-9,]*(?:\.[0-9]+)?)(?!\s?/)
          | [eE](?P<exponent>[-+]?[0-9]+)(?![0-9A-Za-z])
          | \s?(?:[x×*·]|\\times|\\cdot)\s?10\s?(?:\^|\*\*)\s?\{{?(?P<power>[-+]?[0-9]+)\}}?
        )?
    )
    """,
    re.VERBOSE,
)


def normalise(text: str) -> str:
    """NFKC, casefolded, white space collapsed and stripped, final punctuation removed."""
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return folded.rstrip(_FINAL + " ")


def exact_match(output: str, answer: str) -> bool:
    """Whether two texts are equal once normalised; two empty texts are not an answer."""
    found = normalise(output)
    return bool(found) and found == normalise(answer)


def after_trigger(text: str, trigger: str | None) -> str | None:
    """What follows the last occurrence of `trigger` (any case); None when it does not occur."""
    if trigger is None:
        return text
    places = list(re.finditer(re.escape(trigger), text, re.IGNORECASE))
    return text[places[-1].end() :] if places else None


def last_number(text: str, trigger: str | None = None) -> float | None:
    """The last finite number of `text`, after the last `trigger` if one is given; None when there is none."""
    part = after_trigger(text, trigger)
    if part is None:
        return None
    matches = list(_NUMBER.finditer(_plain(part)))
    value = _value(matches[-1]) if matches else None
    return value if value is not None and math.isfinite(value) else None


def _plain(text: str) -> str:
    # NFKC alone would turn 1½ into 11/2 and 10² into 102.
    spaced = "".join(f" {unicodedata.normalize('NFKC', c)} " if c in _VULGAR else c for c in text)
    digits = "".join(
        str(unicodedata.decimal(c)) if not c.isascii() and unicodedata.decimal(c, None) is not None else c
        for c in spaced
    )
    return digits.translate({0x2212: "-", 0x2013: "-", 0x2044: "/", 0xFF0C: ",", 0xFF0E: ".", 0xA0: " "})


def _value(match: re.Match[str]) -> float | None:
    found = {key: text.replace(",", "").strip() for key, text in match.groupdict().items() if text is not None}
    sign = -1.0 if "-" in found.get("sign", "") or found.get("inner") == "-" else 1.0
    try:
        if "top" in found:
            return sign * float(found["top"]) / float(found["bottom"])
        if "whole" in found:
            return sign * (float(found["whole"]) + float(found["mixed"]) / float(found["mixed_by"]))
        if "by" in found:
            return sign * float(found["value"]) / float(found["by"])
        power = found.get("exponent", found.get("power", "0"))
        return sign * float(f"{found['value']}e{power}")
    except (ValueError, ZeroDivisionError):
        return None


def numbers_equal(found: float, wanted: float, abs_tol: float = ABS_TOL, rel_tol: float = REL_TOL) -> bool:
    """|found - wanted| <= max(abs_tol, rel_tol * |wanted|), and both finite."""
    if not (math.isfinite(found) and math.isfinite(wanted)):
        return False
    return abs(found - wanted) <= max(abs_tol, rel_tol * abs(wanted))


def numeric_match(
    output: str, answer: str, trigger: str | None = None, abs_tol: float = ABS_TOL, rel_tol: float = REL_TOL
) -> bool:
    """Whether the last number of `output` equals that of `answer`; `trigger` applies to the output alone."""
    found, wanted = last_number(output, trigger), last_number(answer)
    return found is not None and wanted is not None and numbers_equal(found, wanted, abs_tol, rel_tol)


def numeric_grade(output: str, answer: str, trigger: str | None = None, abs_tol: float = REFT_ABS_TOL) -> float:
    """1.0 for the right number, 0.1 for another number, 0.0 for none."""
    if last_number(output, trigger) is None:
        return 0.0
    return 1.0 if numeric_match(output, answer, trigger, abs_tol) else 0.1


def label_match(output: str, label: str) -> bool:
    """Whether the output is the label and nothing else, white space aside."""
    return output.strip() == label.strip()
