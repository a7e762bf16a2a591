"""Draw more from the domains where a student lags a reference, such as the teacher it is distilled from.

l_S, l_T are validation perplexities of student and reference per domain, N domains, and d_i = min(l_S / l_T, c)_i.
r_0 = exp(d) / sum exp(d); at each evaluation psi_i = r_i exp(d_i), r_i <- alpha psi_i / sum psi + (1 - alpha) / N.
So no domain falls below (1 - alpha) / N. The paper has perplexities per token; ours are per byte, 2^bits, which
two tokenizers share. The ratio is clipped at c = 5 (ours): exp of a weak student's ratio is one-hot.

The first evaluation gives r_0 (before it the domains are drawn alike), each later one a round. Bits per byte of
the reference are `reference`, or a column that signals.domain_loss made.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.method import Draws, Sampler
from tutelage.data.mix._domains import DomainDraws, Domains, domains, per_domain, reported

CARD = {
    "name": "data.mix.ddk",
    "paper": {
        "title": "DDK: Distilling Domain Knowledge for Efficient Large Language Models",
        "identifier": "arXiv:2407.16154",
    },
    "summary": "Mixes domains by how far the student's perplexity is above a reference's, smoothed.",
    "reads": ["{column}"],
    "cost": "one validation pass per domain and round, and one of the reference",
    "baseline": "data.mix.fixed",
    "headline": "the paper: TinyLLaMA 24.2 to 29.3 on average, 26.2 by distillation alone",
    "version": 1,
}


def discrepancy(student: np.ndarray, reference: np.ndarray, most: float) -> np.ndarray:
    """exp of the ratio of two perplexities [N], the ratio clipped at `most`."""
    return np.exp(np.minimum(student / reference, most))


def next_shares(shares: np.ndarray, factors: np.ndarray, alpha: float) -> np.ndarray:
    """r [N] after one round, from r and `factors` = exp of the ratios."""
    psi = shares * factors
    return alpha * psi / psi.sum() + (1 - alpha) / len(psi)


class DiscrepancyDraws(DomainDraws):
    """Draws whose proportions follow the student's lag."""

    def __init__(self, method: "Ddk", found: Domains, reference: np.ndarray, seed: int) -> None:
        self._method, self._reference = method, reference
        self.rounds = self.clipped = 0
        super().__init__(found, np.ones(len(found.names)), seed, most_epochs=method.most_epochs)

    def update(self, metrics: Mapping[str, float]) -> None:
        """One round for each evaluation; training losses alone change nothing."""
        method = self._method
        bits = reported(metrics, self.names, method.metric, method.name)
        if bits is None:
            return
        student = np.exp2(bits)
        self.clipped += int((student / self._reference > method.most_ratio).sum())
        factors = discrepancy(student, self._reference, method.most_ratio)
        self.set(next_shares(self.p, factors, method.alpha) if self.rounds else factors)
        self.rounds += 1

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "rounds": self.rounds, "clipped": self.clipped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.rounds, self.clipped = int(state["rounds"]), int(state["clipped"])


class Ddk(Sampler):
    """`column` names the domain; `reference` is {domain: bits per byte}, else `reference_column` holds them.
    `alpha` smooths towards equal shares, `most_ratio` clips the ratio of perplexities, `most_epochs` closes a
    domain that was drawn so often."""

    steered: ClassVar[bool] = True

    column: str = "source"
    reference: dict[str, float] = Field(default_factory=dict)
    reference_column: str = "domain_loss"
    metric: str = "bits_per_byte"
    alpha: float = Field(default=0.5, ge=0, le=1)
    most_ratio: float = Field(default=5.0, ge=1)
    most_epochs: int = Field(default=4, ge=1)

    def start(self, dataset: Dataset, seed: int) -> Draws:
        found = domains(dataset, self.column, self.name)
        reference = self.reference or self._stored(dataset, found)
        bits = per_domain(reference, found.names, self.name, "reference")
        if not (bits > 0).all():
            bad = int(np.flatnonzero(~(bits > 0))[0])
            raise InputError(
                f"{self.name}: a reference loss cannot be",
                where=found.names[bad],
                expected="bits per byte above 0 (a perplexity above 1)",
                found=bits[bad],
                remedy="measure the reference with evaluation.bits_per_byte on validation rows",
            )
        return DiscrepancyDraws(self, found, np.exp2(bits), seed)

    def _stored(self, dataset: Dataset, found: Domains) -> dict[str, float]:
        values = dataset.numpy(self.reference_column).astype(np.float64)
        for name, rows in zip(found.names, found.rows):
            if len(np.unique(values[rows])) > 1:
                raise InputError(
                    f"{self.name}: a domain has several reference losses",
                    where=f"{name}, column {self.reference_column}",
                    expected="one value for all rows of a domain",
                    found=", ".join(f"{value:g}" for value in np.unique(values[rows])[:4]),
                    remedy="make the column with signals.domain_loss, or give `reference`",
                )
        return {name: float(values[rows[0]]) for name, rows in zip(found.names, found.rows)}
