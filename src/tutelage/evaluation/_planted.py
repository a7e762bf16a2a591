"""What was planted in training text and what was held back: read from the step that planted it, or from rows."""

from typing import TYPE_CHECKING, Any, Literal

from tutelage.core.errors import InputError
from tutelage.core.fingerprint import digest

if TYPE_CHECKING:
    from tutelage.core.dataset import Dataset


def planted_rows(
    dataset: "Dataset", where: str, column: str = "text", *, first: Literal["canaries", "traps"]
) -> list[dict[str, Any]]:
    """Rows {text, planted, ...}, `planted` 0 for what was held back: the `first` kind where it was planted in the
    dataset (data.augment.canaries, data.augment.traps), else canaries, else the rows themselves.

    Raises InputError where nobody says what was planted, and for traps that are no longer what was sealed.
    """
    report = dataset.report
    kinds = [kind for kind in (first, "canaries") if kind in report]
    if kinds[:1] == ["canaries"]:
        planted = [{"text": one["text"], "planted": one["planted"]} for one in report["canaries"]]
        return planted + [{"text": text, "planted": 0} for text in report.get("controls", ())]
    if kinds:
        check_seal(report["traps"], report.get("seal"), where)
        return [dict(one) for one in report["traps"]]
    if not {column, "planted"} <= set(dataset.column_names):
        raise InputError(
            "nothing says what was planted",
            where=where,
            expected=f"the output of data.augment.canaries or data.augment.traps, or columns {column} and planted",
            found=", ".join(dataset.column_names),
            remedy="take `from:` the step that planted it",
        )
    rows = [{**row, "text": row[column]} for row in dataset.rows()]
    for row in rows:
        count = row["planted"]
        if not isinstance(count, int | float) or count < 0:
            raise InputError(
                "a row does not say how often it was planted",
                where=f"row {row['id']}, field planted",
                expected="a count, 0 for what was held back",
                found=repr(count),
            )
    return rows


def seal_of(rows: list[dict[str, Any]]) -> str:
    """The hash that fixes what was planted, before any model is tested for it."""
    return digest(rows)


def check_seal(rows: list[dict[str, Any]], seal: str | None, where: str) -> None:
    """Raise InputError when the rows are not those that were sealed."""
    if seal != seal_of(rows):
        raise InputError(
            "the list of traps is not the one that was sealed",
            where=where,
            expected=f"seal {seal}",
            found=f"seal {seal_of(rows)}",
            remedy="take the dataset as data.augment.traps made it; a changed list proves nothing",
        )
