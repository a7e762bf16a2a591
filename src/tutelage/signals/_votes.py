"""Votes of several sources on every row, as a matrix: read, checked, and written back as labels.

L [n, m] holds the class that source j gave row i, or -1 where it abstained. Rows hold `votes`: names with null, or
numbers with -1 together with a label schema; and `vote_sources`: who gave each, which may stand in another
order in every row (annotators), or be left out when every row has the same sources.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.core.labels import LabelSpace
from tutelage.core.method import Inputs

SOURCES = "vote_sources"
ABSTAIN = -1


@dataclass(frozen=True)
class Votes:
    """`matrix` int [n, m], `sources` [m], `classes` [C], `ids` [n]."""

    matrix: np.ndarray
    sources: tuple[str, ...]
    classes: tuple[str, ...]
    ids: list[str]


def read_votes(dataset: Dataset, column: str, inputs: Inputs, sources: str = SOURCES) -> Votes:
    """The votes of a whole dataset; at least one source must have voted at least once."""
    dataset.require(column)
    rows = list(dataset.rows([n for n in ("id", column, sources) if n in dataset.column_names]))
    names = _names(rows, column, sources)
    space = None if inputs.get("labels") is None else LabelSpace.from_schema(inputs["labels"])
    if space is None:
        given = {vote for row in rows for vote in row[column] if vote is not None}
        if any(not isinstance(vote, str) for vote in given):
            raise InputError(
                "votes are numbers, and nothing says which class is which",
                where=column,
                expected="names of classes, or the input `labels`: rows with the classes in their order",
                found=sorted(map(str, given))[:5],
                remedy="give the label schema as inputs: {labels: ...}",
            )
        if not given:
            raise _silent(rows, names)
        space = LabelSpace(sorted(given))
    votes = as_matrix(rows, column, sources, names, space.names)
    if (votes == ABSTAIN).all():
        raise _silent(rows, names)
    return Votes(votes, names, space.names, [row["id"] for row in rows])


def votes_of_shard(shard: pa.Table, column: str, state: Any, sources: str = SOURCES) -> np.ndarray:
    """L of one shard [rows, m], in the order of the fitted sources and classes in `state`."""
    rows = shard.select([n for n in ("id", column, sources) if n in shard.column_names]).to_pylist()
    return as_matrix(rows, column, sources, tuple(state["sources"]), tuple(state["classes"]))


def as_matrix(
    rows: Sequence[dict[str, Any]], column: str, sources: str, names: Sequence[str], classes: Sequence[str]
) -> np.ndarray:
    """L int [rows, len(names)]; raises InputError naming the row of a vote that is no class, or of no source."""
    space = LabelSpace(classes)
    place = {name: number for number, name in enumerate(names)}
    index: dict[Any, int] = {name: number for number, name in enumerate(classes)}
    index |= {None: ABSTAIN, ABSTAIN: ABSTAIN} | {number: number for number in range(len(classes))}
    found = np.full((len(rows), len(names)), ABSTAIN, dtype=np.int64)
    for number, row in enumerate(rows):
        given = row.get(sources) or names
        if len(given) != len(row[column]) or len(set(given)) != len(given):
            raise InputError(
                "a row's votes and sources do not fit",
                where=f"row {row['id']}, field {column}",
                expected=f"one vote of each source: {', '.join(given)}",
                found=f"{len(row[column])} votes",
            )
        for source, vote in zip(given, row[column]):
            if source not in place or vote not in index:
                if source in place:
                    space.index(vote, f"row {row['id']}, field {column}, source {source}")
                raise InputError(
                    "a row has a vote of a source that was not there when the votes were fitted",
                    where=f"row {row['id']}, field {sources}",
                    expected=", ".join(names),
                    found=source,
                )
            found[number, place[source]] = index[vote]
    return found


def one_hot(matrix: np.ndarray, classes: int) -> Any:
    """CSR [n, m * classes]: row i has a 1 at (j, L_ij) for every source j that voted."""
    from scipy import sparse

    row, source = np.nonzero(matrix != ABSTAIN)
    at = source * classes + matrix[row, source]
    return sparse.csr_matrix((np.ones(len(row)), (row, at)), shape=(len(matrix), matrix.shape[1] * classes))


def given_prior(prior: dict[str, float] | None, classes: Sequence[str], who: str) -> np.ndarray | None:
    """The shares of the classes [C] from a configuration, checked; None where none is given."""
    if prior is None:
        return None
    if sorted(prior) != sorted(classes) or abs(sum(prior.values()) - 1) > 1e-6 or min(prior.values()) <= 0:
        raise ConfigError(
            f"{who}: the prior is no distribution over the classes",
            where="prior",
            expected=f"positive shares of {', '.join(classes)} that sum to 1",
            found=f"{prior}, sum {sum(prior.values()):g}",
        )
    return np.array([prior[name] for name in classes])


def label_columns(probs: np.ndarray, matrix: np.ndarray, classes: Sequence[str], prior: np.ndarray) -> dict:
    """The columns that a label model writes: the class with the largest of `probs` [n, C] where any source voted,
    equal ones decided by `prior` [C] and marked."""
    top = probs >= probs.max(axis=1, keepdims=True) - 1e-9
    covered = (matrix != ABSTAIN).any(axis=1)
    chosen = np.where(top, prior, -1.0).argmax(axis=1)
    names = np.array(classes, dtype=object)[chosen]
    return {
        "vote_label": pa.array(np.where(covered, names, None), pa.string()),
        "vote_probs": pa.array(list(probs), pa.list_(pa.float64())),
        "classes": pa.array([list(classes)] * len(probs), pa.list_(pa.string())),
        "vote_tie": covered & (top.sum(axis=1) > 1),
        "vote_covered": covered,
    }


def _names(rows: Sequence[dict[str, Any]], column: str, sources: str) -> tuple[str, ...]:
    """The sources of all rows in the order of their first vote; numbered where rows do not name them."""
    names: dict[str, None] = {}
    for row in rows:
        if not isinstance(row[column], list) or not row[column]:
            raise InputError(
                "a row has no votes",
                where=f"row {row['id']}, field {column}",
                expected="a list with one vote per source, null where it abstained",
                found=repr(row[column]),
            )
        names.update(dict.fromkeys(row.get(sources) or (f"source_{j}" for j in range(len(row[column])))))
    return tuple(names)


def _silent(rows: Sequence[Any], names: Sequence[str]) -> InputError:
    return InputError(
        "no source has voted on any row",
        where=", ".join(names),
        expected="a vote in some row",
        found=f"{len(rows)} rows of abstentions only",
        remedy="look at what these sources match: signals.pattern_votes finds words and patterns",
    )
