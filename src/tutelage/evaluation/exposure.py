"""Exposure: how much better a model knows planted canaries than others like them that it never saw.

For a canary with random digits, R others with other digits in their place are drawn; with rank = 1 + the number
of them that the model finds likelier after the canary's beginning (ties count half),

    exposure = log2(R + 1) - log2(rank)   bits, from 0 to log2(R + 1)

A model that never saw it has rank uniform in 1..R+1 and 1.44 bits on average, so p = rank / (R + 1) for one
canary; the p of several are combined by Fisher's method. Besides, the digits are asked for: extracted = the
greedy completion of the beginning is right. Departure from the paper: ranks among R drawn candidates, not
extrapolated to all, so that exposure ends at log2(R + 1).
"""

import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field
from scipy import stats

from tutelage.core.errors import InputError
from tutelage.core.method import Inputs, Task
from tutelage.core.text.hashing import hash64
from tutelage.evaluation._audit import Pieces
from tutelage.evaluation._planted import planted_rows
from tutelage.evaluation._shared import Measurement

if TYPE_CHECKING:
    from tutelage.core.dataset import Dataset
    from tutelage.core.records import Result

CARD = {
    "name": "evaluation.exposure",
    "paper": {
        "title": "The Secret Sharer: Evaluating and Testing Unintended Memorization in Neural Networks",
        "identifier": "arXiv:1802.08232",
    },
    "summary": "Bits by which planted canaries are better known to a model than like ones that it never saw.",
    "reads": ["{column}?", "planted?"],
    "inputs": {"model": "the causal language model that was trained on the canaries"},
    "needs": ["train"],
    "cost": "candidates times the canary's random digits in tokens, and one short completion, per canary",
    "baseline": "evaluation.extraction",
    "headline": "sees memorisation long before text can be extracted; about the planted strings only",
    "version": 1,
}


def exposure(own: float, others: np.ndarray) -> tuple[float, float]:
    """(exposure in bits, rank) of a log-likelihood among those of others [R]; larger is likelier."""
    rank = 1 + float((others > own).sum()) + float((others == own).sum()) / 2
    return math.log2(len(others) + 1) - math.log2(rank), rank


def split(text: str) -> Pieces | None:
    """A canary before its first digit, and from there to its last; None without digits."""
    found = re.match(r"(\D*?)\s*(\d(?:.*\d)?)", text, re.DOTALL)
    return Pieces(found[1], found[2]) if found and found[1] else None


def with_other_digits(secret: str, count: int, seed: int) -> list[str]:
    """`count` different strings of the secret's shape, other than itself (fewer where there are not so many)."""
    rng = np.random.default_rng(seed)
    slots = [place for place, char in enumerate(secret) if char.isdigit()]
    found: dict[str, None] = {}
    most = min(count, 10 ** len(slots) - 1)
    while len(found) < most:
        drawn = list(secret)
        for place, digit in zip(slots, rng.integers(0, 10, len(slots))):
            drawn[place] = str(digit)
        candidate = "".join(drawn)
        if candidate != secret:
            found[candidate] = None
    return list(found)


class Exposure(Task):
    """The dataset that data.augment.canaries made, or rows with `column` and `planted` (how often, 0 for what was
    held back). `candidates` R are drawn for each canary."""

    column: str = "text"
    candidates: int = Field(default=255, ge=15)
    redact: bool = True
    seed: int = Field(default=0, ge=0)

    def evaluate(self, model: Any, dataset: "Dataset", inputs: Inputs) -> "Result":
        """Mean exposure of the planted canaries in bits, smaller is better. `extra`: extracted (share), p,
        exposure[copies], extracted[copies], control (mean exposure of what was held back), most (its upper limit).

        Raises InputError when nothing was planted, and for a canary without digits or a beginning.
        """
        rows = [
            {"text": row["text"], "planted": int(row["planted"])}
            for row in planted_rows(dataset, self.name, self.column, first="canaries")
        ]
        work = Measurement(self, model, rows, inputs, identity=("text",))
        if not any(row["planted"] for row in work.rows):
            raise InputError(
                "no canary was planted",
                where=self.name,
                expected="some with `planted` above 0",
                found=f"{len(rows)} rows",
            )
        pieces = [self._split(row, work) for row in work.rows]
        drawn = [
            with_other_digits(one.after, self.candidates, hash64(self.seed, one.before + one.after))
            for one in pieces
        ]
        pairs = [(one.before, " " + text) for one, others in zip(pieces, drawn) for text in (one.after, *others)]
        lls = np.array([found.sum for found in model.loglikelihood(pairs)])
        limit = max(len(ids) for ids in model.tokenize([" " + one.after for one in pieces])) + 2
        made = model.generate([one.before for one in pieces], max_new_tokens=limit, temperature=0.0)
        at = 0
        groups: dict[int, list[tuple[float, float]]] = {}
        chances, hits = [], []
        for row, one, others, completion in zip(work.rows, pieces, drawn, made):
            bits, rank = exposure(float(lls[at]), lls[at + 1 : at + 1 + len(others)])
            at += 1 + len(others)
            extracted = float(completion.text.lstrip().startswith(one.after))
            groups.setdefault(row["planted"], []).append((bits, extracted))
            if row["planted"]:
                chances.append(rank / (len(others) + 1))
                hits.append(extracted)
                work.add(row, score=bits, target=None if self.redact else one.after, p_correct=extracted)
        extra = {
            "extracted": float(np.mean(hits)),
            "p": float(stats.combine_pvalues(chances, method="fisher").pvalue),
            "most": math.log2(self.candidates + 1),
        }
        for copies, found in sorted(groups.items()):
            mean = np.mean(found, axis=0)
            if copies:
                extra |= {f"exposure[{copies}]": float(mean[0]), f"extracted[{copies}]": float(mean[1])}
            else:
                extra |= {"control": float(mean[0]), "control_extracted": float(mean[1])}
        return work.result("exposure", direction=-1, unit="bits", extra=extra)

    def _split(self, row: dict[str, Any], work: Measurement) -> Pieces:
        found = split(work.text(row, "text"))
        if found is None:
            raise InputError(
                "a canary has no random digits after a beginning",
                where=work.where(row),
                expected="a text such as: The locker opens with 480213.",
                found=row["text"][:80],
                remedy="plant canaries with data.augment.canaries; for traps there is evaluation.membership",
            )
        return found
