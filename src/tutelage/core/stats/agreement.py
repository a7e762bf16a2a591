"""How far annotators agree beyond chance, for classes without an order.

- Cohen's kappa of two annotators over the items that both labelled: (p_o - p_e) / (1 - p_e), with p_o the share of
  equal labels and p_e = sum_c share_a(c) share_b(c).
- Krippendorff's alpha (nominal) of any number of annotators with gaps: 1 - D_o / D_e over the pairable values,
  those of items with at least two. With m_u values in item u and n_uc of class c: n = sum m_u,
  D_o = (1/n) sum_u sum_c n_uc (m_u - n_uc) / (m_u - 1) and D_e = sum_c n_c (n - n_c) / (n (n - 1)).

Both are undefined, and None here, when there is nothing to compare or when only one class was ever used: then
chance alone agrees always. The raw share of agreement is what remains to be told.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

from tutelage.core.errors import InputError


def raw_agreement(first: Sequence[Hashable], second: Sequence[Hashable]) -> float | None:
    """Share of equal labels of two annotators over the same items; None without items."""
    _same_length(first, second)
    return sum(a == b for a, b in zip(first, second)) / len(first) if first else None


def cohen_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> float | None:
    """Kappa of two annotators' labels over the same items, in one order; None where it is undefined."""
    observed = raw_agreement(first, second)
    if observed is None:
        return None
    n = len(first)
    a, b = Counter(first), Counter(second)
    # Counted in whole numbers, so that chance agreement of 1 is recognised exactly.
    by_chance = sum(a[label] * b[label] for label in a)
    if by_chance == n * n:
        return None
    expected = by_chance / (n * n)
    return (observed - expected) / (1 - expected)


def krippendorff_alpha(units: Iterable[Sequence[Hashable]]) -> float | None:
    """Nominal alpha of the labels of each item (a sequence per item, gaps left out); None where undefined."""
    pairable = [Counter(unit) for unit in units if len(unit) > 1]
    totals: Counter[Hashable] = Counter()
    disagreement = 0.0
    for counts in pairable:
        m = counts.total()
        totals.update(counts)
        disagreement += sum(count * (m - count) for count in counts.values()) / (m - 1)
    n = totals.total()
    by_chance = sum(count * (n - count) for count in totals.values())
    if not by_chance:
        return None
    return 1 - (disagreement / n) / (by_chance / (n * (n - 1)))


def _same_length(first: Sequence[Hashable], second: Sequence[Hashable]) -> None:
    if len(first) != len(second):
        raise InputError(
            "two annotators' labels are not over the same items",
            expected=f"{len(first)} labels",
            found=len(second),
            remedy="compare the items that both labelled",
        )
