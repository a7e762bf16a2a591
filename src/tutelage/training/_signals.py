"""Ctrl-C at any moment, except where weights move or files are renamed: there it waits for the section's end."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Interruptible:
    """While open, SIGINT raises KeyboardInterrupt at once, or at the end of a `deferred` section."""

    def __init__(self) -> None:
        self._deferring = False
        self._pending = False
        self._previous: Any = None

    def __enter__(self) -> "Interruptible":
        # Signals reach the main thread only; elsewhere Ctrl-C is somebody else's affair.
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._deferring and not self._pending:
            self._pending = True
            return
        raise KeyboardInterrupt

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """A section that an interrupt does not cut in two; a second Ctrl-C does."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False
        if self._pending:
            self._pending = False
            raise KeyboardInterrupt
