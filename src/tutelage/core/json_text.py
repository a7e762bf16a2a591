"""JSON from outside, with one kind of failure: what cannot be read is a ValueError, nesting too deep included.

`json.loads` raises RecursionError for deep nesting, which is no ValueError, and its depth depends on how deep the
program itself is at that moment. JSON can also write half of a character, which no file in UTF-8 can hold.
"""

import json
from typing import Any

from tutelage.core.errors import InputError

# Of values that become columns; Arrow's own formats stop at 64.
MOST_LEVELS = 50


def loads(text: str | bytes | bytearray) -> Any:
    """`json.loads`; raises ValueError for whatever is not JSON, not UTF-8, or nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def deeper(value: Any, levels: int) -> bool:
    """Whether lists and objects lie more than so many levels within each other."""
    if not isinstance(value, list | dict):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(deeper(item, levels - 1) for item in inner)


def require_complete(text: str, what: str, where: object = None) -> None:
    """Raises InputError, which begins with `what`, where the text holds half of a character."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{what} holds half of a character",
            where=where,
            expected="complete Unicode characters",
            found=f"the lone surrogate {text[error.start]!r} at character {error.start}",
            remedy="write the character out, or remove the escape",
        ) from None
