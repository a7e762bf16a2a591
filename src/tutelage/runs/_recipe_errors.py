"""What is wrong with a recipe's values, in its reader's terms: the line, what belongs there, what to do."""

from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ValidationError

from tutelage.core.errors import ConfigError, unknown
from tutelage.core.method import owner_of

Lines = Mapping[tuple[str | int, ...], int]
# By the beginning of pydantic's name of what is wrong.
_REMEDIES = {
    "int": "write a whole number, without quotes",
    "float": "write a number, without quotes",
    "bool": "write true or false",
    "string_type": "write text; in quotes if it looks like a number, a list or true",
    "string_pattern": "use letters, digits, _ and - only, a letter first",
    "list": "write a list: [first, second]",
    "tuple": "write a list: [first, second]",
    "dict": "write a mapping: {key: value}",
    "model": "write a mapping: {key: value}",
    "literal": "write one of the values expected",
    "greater": "choose a value in that range",
    "less": "choose a value in that range",
    "too_short": "add what is missing, or leave the key out",
    "": "change it; docs/guide/recipes.md says what each key means",
}


def place(path: Sequence[str | int], file: str, lines: Lines) -> str:
    """Where `path` is in the file, with the line of its closest known ancestor."""
    known = tuple(path)
    while known and known not in lines:
        known = known[:-1]
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
    line = f", line {lines[known]}" if known and known in lines else ""
    return f"{file}{line}: {text}" if text else f"{file}{line}"


def recipe_error(root: type[BaseModel], error: ValidationError, file: str, lines: Lines) -> ConfigError:
    """Pydantic's first complaint about a recipe (`root`: its class), with its line and what to do."""
    complaints = error.errors()
    # A misspelt key is also a missing one; the misspelling says more.
    first = next((one for one in complaints if one["type"] == "extra_forbidden"), complaints[0])
    path = tuple(part for part in first["loc"])
    where = place(path, file, lines)
    if first["type"] == "extra_forbidden":
        owner, name = owner_of(root, path)
        known = {field.alias or key for key, field in owner.model_fields.items()}
        return unknown(f"unknown recipe key {name!r}", where, name, known)
    found = repr(first.get("input"))[:200]
    if first["type"] == "missing":
        return ConfigError(
            f"a recipe lacks {path[-1]!r}",
            where=where,
            expected=f"a value for {path[-1]!r}",
            found=found,
            remedy=f"add `{path[-1]}: ...` there",
        )
    kind = str(first["type"])
    return ConfigError(
        "a recipe value is not valid",
        where=where,
        expected=first["msg"].removeprefix("Value error, "),
        found=found,
        remedy=next((text for start, text in _REMEDIES.items() if kind.startswith(start)), _REMEDIES[""]),
    )
