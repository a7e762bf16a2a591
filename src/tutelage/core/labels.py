"""Classes and labels of rows: the label space, who gave a label, labels as numbers.

A label in a row is the NAME of its class; indices into the label space live only inside arrays. `label_source`
says who gave it: `gold` (a person), `teacher:<model>`, `rule:<id>`, `pseudo:<id>` or `synthetic`; rows without it
are gold. A soft label is `label_probs`, in the order of the row's `classes`; `label_weight` is how much a row
counts.
"""

import difflib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.core.errors import InputError
from tutelage.core.records import Record

if TYPE_CHECKING:
    from tutelage.core.dataset import Dataset

GOLD = "gold"
# What `parse` takes away around an answer; inside it, punctuation may tell two classes apart.
_AROUND = "\"'`*_.,;:!?()[]{}<> \t\r\n“”‘’«»"


class Label(Record):
    """One class. `description` is what a person or a teacher is told; `aliases` are other names for it."""

    name: str
    description: str = ""
    aliases: tuple[str, ...] = ()


class LabelSpace:
    """The classes in the order that every array of probabilities follows.

    Raises InputError for no class, an empty name, or a name or alias that two classes share when case, accents of
    composition and surrounding punctuation are put aside.
    """

    def __init__(self, labels: Iterable[Label | str]) -> None:
        self.labels = tuple(label if isinstance(label, Label) else Label(name=label) for label in labels)
        self.names = tuple(label.name for label in self.labels)
        self._index = {name: number for number, name in enumerate(self.names)}
        self._spoken: dict[str, str] = {}
        if not self.names:
            raise InputError("there is no class", where="labels", expected="at least one class")
        for label in self.labels:
            for spoken in (label.name, *label.aliases):
                key = _plain(spoken)
                other = self._spoken.setdefault(key, label.name)
                if not key or other != label.name or self.names.count(label.name) > 1:
                    raise InputError(
                        "two classes cannot be told apart by their names" if key else "a class has no name",
                        where=f"class {label.name!r}",
                        expected="names and aliases that differ in more than case and punctuation",
                        found=f"{spoken!r}" + (f", also of class {other!r}" if key else ""),
                        remedy="rename one of them",
                    )

    def __len__(self) -> int:
        return len(self.names)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LabelSpace) and self.labels == other.labels

    def __hash__(self) -> int:
        return hash(self.names)

    def __repr__(self) -> str:
        return f"LabelSpace({', '.join(self.names)})"

    @classmethod
    def from_schema(cls, dataset: "Dataset") -> "LabelSpace":
        """The classes of rows with `label` and optional `description` and `aliases`, in their order."""
        dataset.require("label")
        found = []
        for row in dataset.rows():
            if not isinstance(row["label"], str):
                raise InputError(
                    "a class of the schema has no name",
                    where=f"row {row['id']}, field label",
                    expected="a string",
                    found=repr(row["label"]),
                )
            aliases = row.get("aliases") or ()
            # A CSV file has no lists: several aliases stand between bars.
            aliases = aliases.split("|") if isinstance(aliases, str) else aliases
            found.append(
                Label(
                    name=row["label"],
                    description=row.get("description") or "",
                    aliases=tuple(alias.strip() for alias in aliases if alias.strip()),
                )
            )
        return cls(found)

    @classmethod
    def of(cls, dataset: "Dataset", schema: "Dataset | None" = None, column: str = "label") -> "LabelSpace":
        """The schema's classes, of which every label must be one; without a schema the sorted labels of the rows
        and the classes of their soft labels.

        Raises InputError naming the first row with a label outside the schema and the nearest class, or when the
        rows have no label at all.
        """
        dataset.require(column)
        if schema is not None:
            space = cls.from_schema(schema)
            for row in dataset.rows(["id", column]):
                if row[column] is not None:
                    space.index(row[column], f"row {row['id']}, field {column}")
            return space
        names = {name for table in dataset.shards([column]) for name in table.column(column).to_pylist()}
        if column == "label" and {"label_probs", "classes"} <= set(dataset.column_names):
            # A soft label speaks of classes too that are the likeliest in no row.
            for row in dataset.rows(["label_probs", "classes"]):
                names.update(row["classes"] or () if row["label_probs"] is not None else ())
        wrong = next((name for name in names if name is not None and not isinstance(name, str)), None)
        if wrong is not None:
            raise InputError(
                "labels are not text",
                where=f"column {column}",
                expected="the name of a class in every row",
                found=f"{wrong!r}",
                remedy="write names instead of numbers",
            )
        known = sorted(name for name in names if name is not None)
        if not known:
            raise InputError(
                "no row has a label",
                where=f"column {column}",
                expected="the name of a class in some rows",
                found=f"{dataset.num_rows} rows without one",
            )
        return cls(known)

    @classmethod
    def of_sets(cls, dataset: "Dataset") -> "LabelSpace":
        """The sorted names in the column `labels`; raises InputError when no row has one."""
        dataset.require("labels")
        names = {
            n for row in dataset.rows(["id", "labels"]) for n in _named(row, f"row {row['id']}, field labels")
        }
        if not names:
            raise InputError("no row has a label", where="column labels", expected="names in some rows")
        return cls(sorted(names))

    def index(self, name: Any, where: str = "label") -> int:
        """The place of a class; raises InputError that names the row and the nearest class."""
        found = self._index.get(name)
        if found is None:
            near = difflib.get_close_matches(str(name), self.names, n=1, cutoff=0.0)
            raise InputError(
                "a label is not a class of the schema",
                where=where,
                expected="one of " + ", ".join(self.names[:12]) + (", ..." if len(self) > 12 else ""),
                found=repr(name),
                remedy=f"the nearest is {near[0]!r}; correct the row, or add the class to the schema",
            )
        return found

    def parse(self, text: str) -> str | None:
        """The class that an answer names, or None: its whole text must be a name, else an alias, when case and
        surrounding quotes and punctuation are put aside. Nothing is searched for inside the answer."""
        return self._spoken.get(_plain(text))


def label_sources(dataset: "Dataset") -> dict[str, int]:
    """How many labelled rows each source gave, most first."""
    columns = [name for name in ("label", "label_source") if name in dataset.column_names]
    counts: Counter[str] = Counter()
    for row in dataset.rows(columns):
        if row.get("label") is not None:
            counts[row.get("label_source") or GOLD] += 1
    return dict(counts.most_common())


def soft_labels(dataset: "Dataset", space: LabelSpace) -> tuple[np.ndarray, np.ndarray]:
    """(probabilities [rows, classes], weights [rows]): `label_probs` where a row has them, else its label alone.

    Raises InputError naming a row without any label, with a label or classes outside `space`, with probabilities
    that are no distribution, or with a weight that is negative or not finite.
    """
    rows = list(dataset.rows([n for n in ("id", *_LABEL_COLUMNS) if n == "id" or n in dataset.column_names]))
    probs = np.zeros((len(rows), len(space)))
    weights = np.ones(len(rows))
    for number, row in enumerate(rows):
        probs[number], weights[number] = soft_label(row, space)
    return probs, weights


def soft_label(row: Mapping[str, Any], space: LabelSpace) -> tuple[np.ndarray, float]:
    """(probabilities [classes], weight) of one row; raises InputError as `soft_labels` does."""
    where = f"row {row.get('id', '')}"
    if row.get("label_probs") is not None:
        probs = _distribution(row, space, where)
    elif row.get("label") is not None:
        probs = np.zeros(len(space))
        probs[space.index(row["label"], f"{where}, field label")] = 1.0
    else:
        raise InputError(
            "a row has no label",
            where=where,
            expected="label, or label_probs with classes",
            remedy="keep the labelled rows only (data.filter.where with not_null)",
        )
    return probs, _weight(row, where)


def label_set(row: Mapping[str, Any], space: LabelSpace) -> tuple[np.ndarray, float]:
    """(1.0 for each label that the row has, else 0.0 [classes], weight) of a row with `labels`, a list of names
    or names between bars; an empty list says that none holds. Raises InputError naming the row."""
    where = f"row {row.get('id', '')}"
    held = np.zeros(len(space))
    for name in _named(row, f"{where}, field labels"):
        held[space.index(name, f"{where}, field labels")] = 1.0
    return held, _weight(row, where)


def _named(row: Mapping[str, Any], where: str) -> list[str]:
    given = row.get("labels")
    # A CSV file has no lists.
    names = [name.strip() for name in given.split("|")] if isinstance(given, str) else given
    if names is None or not all(isinstance(name, str) and name for name in names):
        raise InputError(
            "a row has no labels",
            where=where,
            expected="a list of names, which may be empty",
            found=repr(given),
            remedy="keep the labelled rows only (data.filter.where with not_null)",
        )
    return list(names)


def _weight(row: Mapping[str, Any], where: str) -> float:
    given = row.get("label_weight")
    weight = 1.0 if given is None else float(given)
    if not np.isfinite(weight) or weight < 0:
        raise InputError(
            "a label's weight is out of range",
            where=f"{where}, field label_weight",
            expected="0 or more",
            found=given,
        )
    return weight


_LABEL_COLUMNS = ("label", "label_probs", "classes", "label_weight")


def _distribution(row: Mapping[str, Any], space: LabelSpace, where: str) -> np.ndarray:
    classes: Sequence[str] = row.get("classes") or ()
    given = np.asarray(row["label_probs"], dtype=np.float64)
    if len(given) != len(classes):
        raise InputError(
            "a soft label has another length than its classes",
            where=f"{where}, field label_probs",
            expected=f"{len(classes)} probabilities, one for each of classes",
            found=len(given),
        )
    if not np.isfinite(given).all() or (given < 0).any() or abs(given.sum() - 1) > 1e-3:
        raise InputError(
            "a soft label is no distribution",
            where=f"{where}, field label_probs",
            expected="probabilities that sum to 1",
            found=given.tolist(),
        )
    found = np.zeros(len(space))
    for name, value in zip(classes, given):
        found[space.index(name, f"{where}, field classes")] = value
    return found / found.sum()


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", str(text)).casefold().strip(_AROUND).split())
