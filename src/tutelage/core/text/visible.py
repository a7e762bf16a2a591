"""Text from outside made harmless to look at."""

import unicodedata
from typing import Any

CLIP = 1200


def visible(value: Any, limit: int = CLIP) -> str:
    """Text with control, format and bidirectional characters shown as escapes, cut at `limit` characters."""
    text = str(value)
    if len(text) > limit:
        text = text[:limit] + " [cut]"
    return "".join(
        c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co") else f"\\u{ord(c):04x}"
        for c in text
    )
