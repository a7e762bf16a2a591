"""Draws from several domains in given proportions, which may change while they run.

A credit per domain, in tokens: the domain with the largest credit gives the next row of n tokens, its credit falls
by n and every credit i rises by p_i n. So among any draws domain i has p_i of the tokens to within a few rows, for
rows of any length, with nothing left to chance; only the order inside a domain is random, a fresh one per epoch. A
domain drawn `most_epochs` times over is closed and its share goes to the others, until all are closed; then the
cap is lifted, since training goes on.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError, StoreError
from tutelage.data._shared import EpochDraws, require_rows
from tutelage.data.select._shared import row_sizes


@dataclass(frozen=True)
class Domains:
    """The domains of a dataset in the order of their names: row indices of each, and the tokens of every row."""

    names: list[str]
    rows: list[np.ndarray]
    tokens: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """Tokens of each domain, float64 [k]."""
        return np.array([self.tokens[rows].sum() for rows in self.rows], dtype=np.float64)


def domains(dataset: Dataset, column: str, who: str) -> Domains:
    """The rows by the value of `column`; a row without one is an error."""
    require_rows(dataset, who)
    values = dataset.column(column).to_pylist()
    if any(value is None for value in values):
        bad = values.index(None)
        raise InputError(
            f"{who}: a row belongs to no domain",
            where=f"row {dataset.take([bad]).column('id')[0].as_py()}, column {column}",
            expected="a name in every row",
            remedy="drop such rows (data.filter.where), or name another column",
        )
    coded = np.array([str(value) for value in values], dtype=object)
    names = sorted(set(coded.tolist()))
    # A row of no tokens would be drawn for ever without its domain's credit falling.
    tokens = np.maximum(row_sizes(dataset).tokens, 1)
    return Domains(names, [np.flatnonzero(coded == name) for name in names], tokens)


def normalised(weights: np.ndarray, floor: float = 0.0) -> np.ndarray:
    """Weights [k] as probabilities that sum to 1, clipped below at `floor` and normalised again."""
    p = weights / weights.sum()
    p = np.maximum(p, floor)
    return p / p.sum()


def per_domain(given: Mapping[str, float], names: Sequence[str], who: str, field: str) -> np.ndarray:
    """The values of `given` in the order of `names`; each name must be there, and no other."""
    missing, strange = sorted(set(names) - set(given)), sorted(set(given) - set(names))
    if missing or strange:
        raise InputError(
            f"{who}: {field} does not name the domains of the rows",
            where=field,
            expected=", ".join(names[:20]),
            found=", ".join(given) or "nothing",
            remedy=f"add {missing[0]}" if missing else f"leave {strange[0]} out",
        )
    return np.array([given[name] for name in names], dtype=np.float64)


def reported(metrics: Mapping[str, float], names: Sequence[str], metric: str, who: str) -> np.ndarray | None:
    """The losses `eval/<domain>/<metric>` of the domains `names` [k]; None where no evaluator reported."""
    if not any(key.startswith("eval/") for key in metrics):
        return None
    keys = [f"eval/{name}/{metric}" for name in names]
    missing = [name for name, key in zip(names, keys) if key not in metrics]
    if missing:
        raise InputError(
            f"{who}: a domain has no validation loss",
            where=missing[0],
            expected=f"an evaluator named {missing[0]} that reports {metric}",
            found=", ".join(sorted(key for key in metrics if key.startswith("eval/"))),
            remedy="give the training step one evaluator per domain, named like it",
        )
    losses = np.array([metrics[key] for key in keys], dtype=np.float64)
    if not np.isfinite(losses).all():
        bad = int(np.flatnonzero(~np.isfinite(losses))[0])
        raise InputError(
            f"{who}: a validation loss is not a number",
            where=names[bad],
            expected="a finite loss",
            found=losses[bad],
            remedy="look at the domain's validation rows and at the training loss",
        )
    return losses


class DomainDraws:
    """Running draws; `set` changes the proportions. `history` holds [rows drawn so far, p] of every setting."""

    def __init__(
        self, found: Domains, weights: np.ndarray, seed: int, *, most_epochs: int, floor: float = 0.0
    ) -> None:
        self.names = found.names
        self._rows, self._tokens = found.rows, found.tokens
        self._streams = [_shuffled(len(rows), seed, name) for rows, name in zip(found.rows, found.names)]
        self._most, self._floor = most_epochs, floor
        self._credit = np.zeros(len(found.names))
        self.drawn = np.zeros(len(found.names), dtype=np.int64)
        self.tokens_drawn = np.zeros(len(found.names), dtype=np.int64)
        self.history: list[list[Any]] = []
        self.set(weights)

    @property
    def shares(self) -> np.ndarray:
        """The proportions in force, closed domains at 0, float64 [k]."""
        open_ = self.drawn < self._most * np.array([len(rows) for rows in self._rows])
        p = np.where(open_, self.p, 0.0) if open_.any() else self.p
        # Only closed domains have weight: the open ones share alike.
        return p / p.sum() if p.sum() > 0 else open_ / open_.sum()

    def set(self, weights: np.ndarray) -> None:
        """New proportions from here on."""
        self.p = normalised(weights, self._floor)
        self.history.append([int(self.drawn.sum()), self.p.tolist()])

    def next(self) -> int:
        """Index of the next row to train on."""
        p = self.shares
        # Among equal credits the likelier domain is first.
        domain = int(np.argmax(np.where(p > 0, self._credit + p, -math.inf)))
        row = int(self._rows[domain][self._streams[domain].next()])
        n = int(self._tokens[row])
        self._credit += p * n
        self._credit[domain] -= n
        self.drawn[domain] += 1
        self.tokens_drawn[domain] += n
        return row

    def update(self, metrics: Mapping[str, float]) -> None:
        """Fixed proportions do not listen to losses."""

    def state_dict(self) -> dict[str, Any]:
        return {
            "names": self.names,
            "p": self.p.tolist(),
            "credit": self._credit.tolist(),
            "drawn": self.drawn.tolist(),
            "tokens_drawn": self.tokens_drawn.tolist(),
            "history": [[at, list(p)] for at, p in self.history],
            "streams": [stream.state_dict() for stream in self._streams],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["names"] != self.names:
            raise StoreError(
                "a mixture cannot be resumed on other domains",
                expected=", ".join(self.names),
                found=", ".join(state["names"]),
                remedy="resume with the dataset of the first run, or start anew",
            )
        for stream, saved in zip(self._streams, state["streams"]):
            stream.load_state_dict(saved)
        self.p, self._credit = np.array(state["p"]), np.array(state["credit"])
        self.drawn, self.tokens_drawn = np.array(state["drawn"]), np.array(state["tokens_drawn"])
        self.history = [[at, list(p)] for at, p in state["history"]]


def _shuffled(rows: int, seed: int, name: str) -> EpochDraws:
    # The domain's name is in the seed: equally large domains must not run through their rows in step.
    own = int.from_bytes(name.encode()[:64], "little")
    return EpochDraws(rows, seed, lambda epoch: np.random.default_rng([seed, epoch, own]).permutation(rows))
