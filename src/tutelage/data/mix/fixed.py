"""Rows from several domains in proportions that stay as they are: equal, by size, or as given.

p_i = 1/k (equal), T_i / sum T (proportional, T_i the domain's tokens), or w_i / sum w. The tokens drawn follow p
to within a few rows at every moment (see `data.mix._domains`). The time-average of an online mixture, written here
as `weights`, tells whether its changes matter or only where it ends.
"""

from typing import Literal

import numpy as np
from pydantic import Field, field_validator

from tutelage.core.dataset import Dataset
from tutelage.core.method import Draws, Sampler
from tutelage.data.mix._domains import DomainDraws, domains, per_domain

CARD = {
    "name": "data.mix.fixed",
    "paper": {"title": "Common practice", "identifier": ""},
    "summary": "Draws from the domains of a column in fixed proportions of tokens.",
    "reads": ["{column}"],
    "cost": "none",
    "baseline": "data.order.shuffle",
    "headline": "the mixture that every adaptive one must beat",
    "version": 1,
}


class Fixed(Sampler):
    """`column` names the domain; `weights` of every domain, else `spread` decides. `most_epochs` closes a domain
    that was drawn so often."""

    column: str = "source"
    weights: dict[str, float] = Field(default_factory=dict)
    spread: Literal["equal", "proportional"] = "equal"
    most_epochs: int = Field(default=4, ge=1)

    @field_validator("weights")
    @classmethod
    def _positive(cls, value: dict[str, float]) -> dict[str, float]:
        if value and (min(value.values()) < 0 or sum(value.values()) <= 0):
            raise ValueError("weights are not negative, and one of them is positive")
        return value

    def start(self, dataset: Dataset, seed: int) -> Draws:
        found = domains(dataset, self.column, self.name)
        if self.weights:
            weights = per_domain(self.weights, found.names, self.name, "weights")
        else:
            weights = np.ones(len(found.names)) if self.spread == "equal" else found.sizes
        return DomainDraws(found, weights, seed, most_epochs=self.most_epochs)
