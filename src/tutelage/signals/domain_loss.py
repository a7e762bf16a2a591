"""The validation loss of each row's domain under some model, written onto the rows for a sampler to read.

loss_d = sum_i s_i w_i / sum_i w_i over the validation items i of domain d, s_i an item's bits per byte and w_i its
bytes. The measurements are results of one model, on validation rows whose `group` names their domain.
"""

from typing import Any

import numpy as np
import pyarrow as pa

from tutelage.core.errors import InputError, suggest
from tutelage.core.method import Inputs, Scorer, State
from tutelage.signals._by_group import group_losses, names_in

CARD = {
    "name": "signals.domain_loss",
    "paper": {"title": "Common practice", "identifier": ""},
    "summary": "Writes the measured validation loss of each row's domain, for mixtures that follow it.",
    "reads": ["{column}"],
    "writes": ["domain_loss"],
    "inputs": {"result": "the loss of the reference model on validation rows (or several such results)"},
    "cost": "none beyond the measurement",
    "baseline": "signals.length",
    "headline": "what a reference model knows of each domain, measured once",
    "version": 1,
}


class DomainLoss(Scorer):
    """`column` names the domain of the rows; validation rows name theirs in `group`."""

    column: str = "source"

    def score(self, shard: pa.Table, state: State, inputs: Inputs) -> dict[str, Any]:
        given = inputs["result"]
        losses: dict[str, float] = {}
        for result in given if isinstance(given, list) else [given]:
            found = group_losses(result, "inputs.result")
            twice = sorted(set(found) & set(losses))
            if twice:
                raise InputError("a domain is measured twice", where=f"inputs.result: {twice[0]}")
            losses |= found
        names = names_in(shard.column(self.column).to_pylist(), self.column)
        for name in names:
            if name not in losses:
                raise InputError(
                    "a domain has no validation loss",
                    where=f"{self.column} {name}",
                    expected="validation rows of every domain",
                    found=", ".join(losses),
                    remedy=suggest(name, losses),
                )
        return {"domain_loss": np.array([losses[name] for name in names], dtype=np.float64)}
