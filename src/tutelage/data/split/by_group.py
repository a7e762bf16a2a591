"""Split rows into named parts so that nothing leaks: a group lies in one part, and so does a text.

Rows of one group stay together; groups that share a text (exact after NFC, lower-casing and collapsing white
space) are joined first by union-find, so a duplicate never straddles two parts. A joined group g goes to the part
in whose interval of the cumulated shares u = hash64(seed, name) falls: adding or reordering rows moves no other
group. `balanced` instead walks the groups in hash order and gives each to the part that is furthest behind its
share of rows, which holds the shares as exactly as the groups allow.
"""

import itertools

import numpy as np
from pydantic import Field, field_validator

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.method import Inputs, Transform
from tutelage.core.text.duplicates import canonical, digest128
from tutelage.core.text.hashing import uniform
from tutelage.core.text.rows import texts

CARD = {
    "name": "data.split.by_group",
    "paper": {"title": "Common practice", "identifier": ""},
    "summary": "Assigns whole groups of rows to named parts; identical texts never end up in two parts.",
    "reads": ["text", "{group_column}"],
    "writes": ["split"],
    "cost": "one hash per row",
    "baseline": None,
    "headline": "held-out data that is really held out",
    "version": 1,
}


def join_groups(groups: list[str], keys: list[bytes]) -> list[str]:
    """For every row the name (smallest member) of its component: rows are joined by group or by key."""
    parent: dict[str, str] = {g: g for g in groups}

    def root(g: str) -> str:
        while parent[g] != g:
            parent[g] = parent[parent[g]]
            g = parent[g]
        return g

    owner: dict[bytes, str] = {}
    for g, key in zip(groups, keys):
        first = owner.setdefault(key, g)
        a, b = sorted((root(first), root(g)))
        parent[b] = a
    return [root(g) for g in groups]


def assign_hashed(names: list[str], shares: np.ndarray, seed: int) -> np.ndarray:
    """Part index of every group by its hash, int64 [groups]."""
    return np.minimum(np.searchsorted(np.cumsum(shares), uniform(seed, names), side="right"), len(shares) - 1)


def assign_balanced(names: list[str], sizes: np.ndarray, shares: np.ndarray, seed: int) -> np.ndarray:
    """Part index of every group, walking the groups in hash order and filling what lags most."""
    parts = np.zeros(len(names), dtype=np.int64)
    filled = np.zeros(len(shares))
    goal = shares * sizes.sum()
    for g in np.argsort(uniform(seed, names), kind="stable"):
        parts[g] = int(np.argmax(goal - filled))
        filled[parts[g]] += sizes[g]
    return parts


class ByGroup(Transform):
    """`group_column` names the group (none: every row is its own); `parts` maps a part to its share (sum 1);
    `balanced` keeps the shares of rows instead of being stable when rows are added."""

    group_column: str | None = None
    parts: dict[str, float] = Field(default={"train": 0.8, "validation": 0.1, "test": 0.1}, min_length=2)
    balanced: bool = False
    seed: int = Field(default=0, ge=0)

    @field_validator("parts")
    @classmethod
    def _shares(cls, value: dict[str, float]) -> dict[str, float]:
        if any(share <= 0 for share in value.values()) or abs(sum(value.values()) - 1) > 1e-6:
            raise ValueError("the shares of the parts must be positive and sum to 1")
        return value

    def apply(self, dataset: Dataset, inputs: Inputs) -> Dataset:
        if dataset.num_rows == 0:
            raise InputError(f"{self.name}: there are no rows to split")
        ids = dataset.ids()
        groups = ids if self.group_column is None else self._groups(dataset, ids)
        keys = [digest128(canonical(text)) for shard in dataset.shards() for text in texts(shard)]
        component = join_groups(groups, keys)
        names = sorted(set(component))
        index = {name: i for i, name in enumerate(names)}
        member = np.array([index[c] for c in component])
        sizes = np.bincount(member, minlength=len(names))
        shares = np.array(list(self.parts.values()))
        if self.balanced:
            chosen = assign_balanced(names, sizes, shares, self.seed)
        else:
            chosen = assign_hashed(names, shares, self.seed)
        labels = list(self.parts)
        rows = np.bincount(chosen[member], minlength=len(labels))
        if (rows == 0).any():
            raise InputError(
                f"{self.name}: a part stays empty",
                where=", ".join(label for label, count in zip(labels, rows) if count == 0),
                expected="at least one group in every part",
                found=f"{len(names)} groups for {len(labels)} parts",
                remedy="set balanced: true, choose a finer group_column, or fewer parts",
            )
        members: dict[str, set[str]] = {}
        for group, name in zip(groups, component):
            members.setdefault(name, set()).add(group)
        joined = [sorted(found) for found in members.values() if len(found) > 1]
        report = {
            "method": self.name,
            "group_column": self.group_column,
            "groups": len(set(groups)),
            "groups_after_joining": len(names),
            "joined_by_identical_text": [found[:10] for found in joined[:20]],
            "parts": {
                label: {
                    "share_wanted": share,
                    "share_of_rows": float(rows[p] / len(ids)),
                    "rows": int(rows[p]),
                    "groups": int((chosen == p).sum()),
                }
                for p, (label, share) in enumerate(self.parts.items())
            },
        }
        column = np.array(labels, dtype=object)[chosen[member]]
        starts = np.cumsum([0] + [len(shard) for shard in dataset.shards(["id"])])
        split = dataset.with_columns(
            self.name, ({"split": column[a:b].tolist()} for a, b in itertools.pairwise(starts))
        )
        split.report = report
        return split

    def _groups(self, dataset: Dataset, ids: list[str]) -> list[str]:
        assert self.group_column is not None
        values = dataset.column(self.group_column).to_pylist()
        for identifier, value in zip(ids, values):
            if value is None:
                raise InputError(
                    f"a row has no {self.group_column}",
                    where=f"row {identifier}",
                    expected="the name of its group",
                    found="null",
                    remedy="drop such rows first (data.filter.where), or choose another column",
                )
        return [str(value) for value in values]
