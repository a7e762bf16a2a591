"""JSON from outside, with one kind of failure: what cannot be read is a ValueError, nesting too deep included.

`json.loads` raises RecursionError for deep nesting, which is no ValueError, and its depth depends on how deep the
program itself is at that moment.
"""

import json
from typing import Any


def loads(text: str | bytes | bytearray) -> Any:
    """`json.loads`; raises ValueError for whatever is not JSON, not UTF-8, or nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
