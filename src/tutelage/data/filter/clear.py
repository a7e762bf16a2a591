"""Drop the answers of an instruction set that the base model does not trust, if its trust is worth anything.

F = {c > gamma}, c the confidence of signals.clear, gamma its median by default. The step refuses to filter where
column `clear_auroc`, the power of c to tell answers swapped on purpose, is below `least_auroc`: a filter by noise
only throws rows away. Where all c are equal nothing is above the median: everything is kept, with a warning. Fine
tune on what is left; data.augment.clear_correct then mends what a tuned model can answer better.
"""

import warnings
from typing import Any

import numpy as np
from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.method import Inputs, Transform

CARD = {
    "name": "data.filter.clear",
    "paper": {
        "title": "Automated Data Curation for Robust Language Model Fine-Tuning",
        "identifier": "arXiv:2403.12776",
    },
    "summary": "Keeps the answers that the base model trusts most; refuses where its trust finds no mistakes.",
    "reads": ["clear_conf", "clear_auroc"],
    "cost": "one comparison per row",
    "baseline": "data.select.random",
    "headline": "half of the rows, the better half; compare with a random half and with the loss",
    "version": 1,
}


def trusted(
    dataset: Dataset, gamma: float | None, least_auroc: float, who: str
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """(mask of the rows with c > gamma bool [n], c [n], facts); raises InputError below `least_auroc`."""
    if dataset.num_rows == 0:
        raise InputError(f"{who}: there are no rows to filter")
    values = dataset.numpy("clear_conf").astype(np.float64)
    power = float(dataset.numpy("clear_auroc")[0])
    if not power >= least_auroc:
        raise InputError(
            f"{who}: the model's confidence does not tell wrong answers from right ones",
            where="clear_auroc",
            expected=f"at least {least_auroc:g} on answers swapped on purpose",
            found=f"{power:.3f}",
            remedy="score with a stronger base model, with beta: 1, or with more check_rows; or do not filter",
        )
    known = values[~np.isnan(values)]
    if not len(known):
        raise InputError(f"{who}: no row has a confidence", where="clear_conf", found=f"{len(values)} times NaN")
    at = float(np.median(known)) if gamma is None else gamma
    mask = values > at
    if gamma is None and known.min() == known.max():
        warnings.warn(f"{who}: all rows have the confidence {at:g}; all are kept", stacklevel=3)
        mask = ~np.isnan(values)
    facts = {"method": who, "gamma": at, "auroc": power, "rows_in": len(values), "rows_trusted": int(mask.sum())}
    return mask, values, facts


class Clear(Transform):
    """`gamma`, the confidence above which a row stays (none: the median); `least_auroc` below which the step
    refuses."""

    gamma: float | None = None
    least_auroc: float = Field(default=0.6, ge=0, le=1)

    def apply(self, dataset: Dataset, inputs: Inputs) -> Dataset:
        mask, values, facts = trusted(dataset, self.gamma, self.least_auroc, self.name)
        reasons = {
            row: "clear: no confidence" if np.isnan(values[row]) else f"clear: confidence {values[row]:.4g}"
            for row in np.flatnonzero(~mask).tolist()
        }
        return dataset.keep(mask, reasons, facts)
