"""Is the model forgetting? Probe texts scored as training goes on, each document paired with itself at the start.

For probe j with documents i of b_i bytes and n_i nats: Delta_j = sum_i (n_i - n_i at the start) / (ln 2 sum b_i),
in bits per byte, positive = worse, with a percentile bootstrap interval over documents. Where the lower bound of a
held probe passes the tolerance, and enough of the budget is spent (losses often rise before they fall), the
monitor asks for its action.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.text.duplicates import shared_ids
from tutelage.core.text.rows import text_rows

Action = Literal["warn", "raise_replay", "lower_rate", "stop"]
# What the trainer and the samplers understand: metric and value.
ASKS: dict[Action, tuple[str, float]] = {
    "warn": ("warn", 1.0),
    "raise_replay": ("raise_replay", 2.0),
    "lower_rate": ("rate_factor", 0.5),
    "stop": ("stop", 1.0),
}
RESAMPLES = 1000


def paired_delta(
    now: np.ndarray, start: np.ndarray, size: np.ndarray, seed: int = 0
) -> tuple[float, float, float]:
    """(Delta, lower, upper) in bits per byte at 95 %; `now`, `start` in nats and `size` in bytes, [documents]."""
    bits = (now - start) / np.log(2)
    drawn = np.random.default_rng(seed).integers(0, len(bits), (RESAMPLES, len(bits)))
    found = bits[drawn].sum(axis=1) / size[drawn].sum(axis=1)
    low, high = np.quantile(found, [0.025, 0.975])
    return float(bits.sum() / size.sum()), float(low), float(high)


class Monitor:
    """An evaluator of the trainer. `base` is the model before the first step; `held` names the probes that must
    not get worse by more than `tolerance` bits per byte once `after` (a share of the budget) is spent."""

    def __init__(
        self,
        base: Any,
        probes: Mapping[str, Dataset],
        *,
        held: Iterable[str],
        tolerance: float,
        after: float,
        action: Action,
    ) -> None:
        self._base, self._held = base, set(held)
        self._tolerance, self._after, self._action = tolerance, after, action
        self._texts = {name: [text for _, text in text_rows(rows) if text] for name, rows in probes.items()}
        empty = [name for name, texts in self._texts.items() if not texts]
        if empty:
            raise InputError("a probe has no text", where=f"inputs.{empty[0]}", expected="at least one document")
        self._start: dict[str, np.ndarray] = {}

    def watch(self, model: Any, share: float) -> dict[str, float]:
        """`<probe>_bpb`, `_delta`, `_delta_low`, `_delta_high` of every probe, and what is asked for."""
        if not self._start:
            # A resumed run meets the model in the middle: the start is then measured on the base.
            self._start = {name: self._nats(model if share == 0 else self._base, name) for name in self._texts}
            measured = self._start if share == 0 else {}
        else:
            measured = {}
        found: dict[str, float] = {}
        worse = False
        for name, texts in self._texts.items():
            now = measured[name] if name in measured else self._nats(model, name)
            size = np.array([len(text.encode()) for text in texts], dtype=np.float64)
            delta, low, high = paired_delta(now, self._start[name], size)
            found[f"{name}_bpb"] = float(now.sum() / np.log(2) / size.sum())
            found |= {f"{name}_delta": delta, f"{name}_delta_low": low, f"{name}_delta_high": high}
            worse |= name in self._held and low > self._tolerance
        if worse and share >= self._after:
            asked, value = ASKS[self._action]
            found[asked] = value
        return found

    def _nats(self, model: Any, name: str) -> np.ndarray:
        window = min(1024, model.max_length)
        scores = model.score_texts(self._texts[name], window=window)
        return np.array([score.nll_sum for score in scores])


def refuse_leaks(probes: Mapping[str, Dataset], stream: Dataset) -> None:
    """Raise InputError where a probe holds a document (in canonical form) that is trained on."""
    for name, rows in probes.items():
        shared = shared_ids(text_rows(rows), text_rows(stream))
        if shared:
            raise InputError(
                "a probe shares documents with the training rows",
                where=f"inputs.{name}",
                expected="documents that are not trained on",
                found=f"{len(shared)} shared, the first is {shared[0]}",
                remedy="split before training (data.split.by_group), or drop them (signals.exact_duplicates)",
            )


def undominated(history: Iterable[Mapping[str, Any]], gain: str, loss: str) -> list[int]:
    """Which entries no other one beats on both: `gain` and `loss` are metrics, lower is better for both."""
    points = [(entry[gain], entry[loss]) for entry in history]
    return [
        i for i, (a, b) in enumerate(points) if not any(c <= a and d <= b and (c < a or d < b) for c, d in points)
    ]
