"""A completion handed on while it grows: pieces of text that, joined, are the completion.

Text is held back while it may still change: an unfinished character at the end, and what may be the beginning of a
stop string (which is no part of the completion).
"""

from collections.abc import Callable, Sequence

# What a decoder shows for bytes that are no whole character yet.
_UNFINISHED = "\ufffd"


class TextStream:
    """Gives `listen` the new text after every token; `finish` gives what was held back."""

    def __init__(
        self, decode: Callable[[list[int]], str], listen: Callable[[str], None], stop: Sequence[str] = ()
    ) -> None:
        self._decode, self._listen, self._stop = decode, listen, tuple(stop)
        self._sent = ""

    def grow(self, tokens: list[int]) -> None:
        """`tokens` is the whole completion so far."""
        text = self._decode(tokens).rstrip(_UNFINISHED)
        self._send(text[: len(text) - _held_back(text, self._stop)])

    def finish(self, text: str) -> None:
        """`text` is the whole completion."""
        self._send(text)

    def _send(self, text: str) -> None:
        # A decoder that changes earlier text makes the stream wait until it agrees again.
        if len(text) > len(self._sent) and text.startswith(self._sent):
            self._listen(text[len(self._sent) :])
            self._sent = text


def _held_back(text: str, stop: Sequence[str]) -> int:
    """Length of the longest end of `text` with which a stop string begins."""
    longest = max(map(len, stop), default=0)
    for length in range(min(longest, len(text)), 0, -1):
        if any(one.startswith(text[-length:]) for one in stop):
            return length
    return 0
