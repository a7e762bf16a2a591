"""One type per column, checked row by row while reading, so that an error names the row and not the shard.

A type is "boolean", "whole number", "number", "text", ("list", item type) or ("object", {key: type}); None
stands for "only nulls so far". Whole numbers beyond 2^53 do not mix with fractions: the column would have to
become 64-bit floats and lose digits.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.core.errors import InputError
from tutelage.core.json_text import MOST_LEVELS, deeper, require_complete

Kind = Any
_EXACT = 2**53


class ColumnTypes:
    """The types of all columns seen so far; `check` raises InputError for a row that does not fit."""

    def __init__(self) -> None:
        self._kinds: dict[str, Kind] = {}

    def check(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The row as it can be stored (empty objects become null); the types change only if all of it fits."""
        changed: dict[str, Kind] = {}
        clean: dict[str, Any] | None = None
        for name, value in row.items():
            if not name.isascii():
                require_complete(name, "the name of a column")
            if value is None:
                continue
            if isinstance(value, list | dict) and deeper(value, MOST_LEVELS):
                raise too_deep(name)
            known = self._kinds.get(name)
            if known == "text" and type(value) is str and value.isascii():
                continue
            merged = _merge(known, value, name)
            if merged is not known:
                changed[name] = merged
            if isinstance(value, list | dict):
                # Arrow has no empty object that Parquet can store.
                clean = clean or dict(row)
                clean[name] = _without_empty(value)
        self._kinds.update(changed)
        return clean or dict(row)

    def check_texts(self, names: Sequence[str]) -> bool:
        """Whether these columns may hold text in the next rows; then they are text from now on."""
        if any(self._kinds.get(name, "text") != "text" for name in names):
            return False
        self._kinds.update(dict.fromkeys(names, "text"))
        return True


def too_deep(name: str) -> InputError:
    """The error for a value that nests too deeply to be stored."""
    return InputError(
        f"column {name!r} is nested too deeply",
        expected=f"lists and objects at most {MOST_LEVELS} levels within each other",
        found="more",
        remedy="write the value as text, or take the inner values out into columns of their own",
    )


def _without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_empty(item) for key, item in value.items()} or None
    return [_without_empty(item) for item in value] if isinstance(value, list) else value


def _merge(known: Kind, value: Any, place: str) -> Kind:
    """The type that holds both `known` and `value`; `known` itself when it already does."""
    if value is None:
        return known
    if isinstance(value, dict):
        if known is not None and not _is(known, "object"):
            raise _mixed(place, known, value)
        fields: dict[str, Kind] = known[1] if known is not None else {}
        updates = {}
        for key, item in value.items():
            if not key.isascii():
                require_complete(key, f"a key of column {place!r}")
            merged = _merge(fields.get(key), item, f"{place}.{key}")
            if merged is not fields.get(key) or key not in fields:
                updates[key] = merged
        return ("object", {**fields, **updates}) if updates or known is None else known
    if isinstance(value, list):
        if known is not None and not _is(known, "list"):
            raise _mixed(place, known, value)
        item_kind = known[1] if known is not None else None
        for item in value:
            item_kind = _merge(item_kind, item, f"{place}[]")
        return known if known is not None and item_kind is known[1] else ("list", item_kind)
    found = _scalar(value, place)
    if known is None or known == found:
        return known or found
    numbers = {known, found} if isinstance(known, str) else set()
    if numbers == {"whole number", "number"}:
        return "number"
    if numbers == {"whole number", "large whole number"}:
        return "large whole number"
    raise _mixed(place, known, value)


def _is(kind: Kind, name: str) -> bool:
    return isinstance(kind, tuple) and kind[0] == name


def _scalar(value: Any, place: str) -> str:
    if isinstance(value, str):
        if not value.isascii():
            require_complete(value, f"column {place!r}")
        return "text"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise InputError(
                f"column {place!r} holds a number that is too large",
                expected="whole numbers of at most 64 bits",
                found=str(value)[:40],
                remedy="write it as text, in quotes",
            )
        return "whole number" if abs(value) <= _EXACT else "large whole number"
    if isinstance(value, float):
        if not math.isfinite(value):
            raise not_finite(place, value)
        return "number"
    return type(value).__name__


def not_finite(place: str, value: object) -> InputError:
    """The error for NaN and infinities."""
    return InputError(
        f"column {place!r} holds a value that is not a finite number",
        expected="a finite number, or null where there is none",
        found=str(value),
        remedy="write null (in CSV: an empty cell), or remove the row",
    )


def _mixed(place: str, known: Kind, value: Any) -> InputError:
    name = known[0] if isinstance(known, tuple) else known
    found = "object" if isinstance(value, dict) else "list" if isinstance(value, list) else _scalar(value, place)
    return InputError(
        f"column {place!r} mixes types",
        expected=f"{name}, as in the rows before",
        found=f"{found}: {str(value)[:80]!r}",
        remedy="give every row of the column one type",
    )
