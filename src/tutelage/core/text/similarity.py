"""How alike two short texts are: ROUGE-L, normalised edit similarity and sentence BLEU.

Words are maximal runs of letters and digits, lower-cased. With L the longest common subsequence of words, P = L /
words of the candidate and R = L / words of the reference, ROUGE-L F = 2 P R / (P + R). Edit similarity is
1 - Levenshtein(a, b) / max(len a, len b) over characters. Sentence BLEU is the geometric mean of the modified
n-gram precisions (n = 1..4, add-one smoothed above n = 1; shorter texts: as far as both have n-grams) times the
brevity penalty min(1, exp(1 - reference / candidate)). Both distances are computed bit-parallel (Hyyrö 2004, Myers
1999): one addition of long integers per element. Two empty texts are not alike: there is nothing to compare.
"""

import math
import re
from collections import Counter
from collections.abc import Hashable, Sequence

from tutelage.core.text.overlap import lcs_length, places_of

_WORD = re.compile(r"[^\W_]+")


def words(text: str) -> list[str]:
    """The words of a text, lower-cased."""
    return _WORD.findall(text.lower())


def edit_distance(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    """Levenshtein distance: insertions, deletions and substitutions cost 1."""
    if not first:
        return len(second)
    places = places_of(first)
    full, last = (1 << len(first)) - 1, 1 << (len(first) - 1)
    more, less, distance = full, 0, len(first)
    for item in second:
        equal = places.get(item, 0)
        vertical = equal | less
        horizontal = (((equal & more) + more) ^ more) | equal
        up = less | (~(horizontal | more) & full)
        down = more & horizontal
        distance += bool(up & last) - bool(down & last)
        up, down = (up << 1) | 1, down << 1
        more = (down | ~(vertical | up)) & full
        less = up & vertical & full
    return distance


def edit_similarity(first: str, second: str) -> float:
    """1 - distance / length of the longer text, in [0, 1]; 0 for two empty texts."""
    longest = max(len(first), len(second))
    return 1 - edit_distance(first, second) / longest if longest else 0.0


def rouge_l(candidate: str, reference: str) -> float:
    """F measure of the longest common subsequence of words, in [0, 1]."""
    one, other = words(candidate), words(reference)
    common = lcs_length(one, other)
    return 2 * common / (len(one) + len(other)) if common else 0.0


def sentence_bleu(candidate: str, reference: str, most: int = 4) -> float:
    """BLEU of one sentence against one reference, in [0, 1]; not symmetric."""
    one, other = words(candidate), words(reference)
    total, orders = 0.0, min(most, len(one), len(other))
    for n in range(1, orders + 1):
        mine, theirs = _ngrams(one, n), _ngrams(other, n)
        hits, count = sum((mine & theirs).values()), len(one) - n + 1
        if not hits and n == 1:
            return 0.0
        smooth = 0 if n == 1 else 1
        total += math.log((hits + smooth) / (count + smooth))
    return math.exp(total / orders) * min(1.0, math.exp(1 - len(other) / len(one))) if orders else 0.0


def _ngrams(items: list[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(items[i:] for i in range(n))))
