"""How the command line speaks: results on standard output, everything else on standard error, quiet off a
terminal, errors as one block with place, expected, found and remedy."""

import json
import sys
import traceback
from typing import Any

from tutelage.core.errors import EXIT_CRASH, EXIT_INTERRUPTED, TutelageError


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n")


def note(text: str) -> None:
    """Something for a person, on standard error."""
    sys.stderr.write(text + "\n")


def plain(text: str) -> str:
    """Text of data and models with control characters shown, never sent to the terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def fail(error: BaseException, as_json: bool, verbose: bool) -> int:
    """Report an error; returns the exit code."""
    if verbose:
        traceback.print_exception(error)
    if isinstance(error, TutelageError):
        # A method knows rows and fields; the engine has noted which step of the recipe it was.
        step = next((text for text in getattr(error, "__notes__", []) if text.startswith("step ")), None)
        if as_json:
            print_json({**error.to_json(), "step": step and step.removeprefix("step ")})
        else:
            note(f"error: {error}" + (f"\n  {'in:':<10}{step}" if step else ""))
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        note("interrupted")
        return EXIT_INTERRUPTED
    text = plain(f"{type(error).__name__}: {error}")
    if as_json:
        print_json({"error": "Crash", "what": text, "exit_code": EXIT_CRASH})
    else:
        note(f"error: an unexpected failure, which is a defect of tutelage\n  found:    {text[:400]}")
        note("  do:       run again with --verbose and report what it prints")
    return EXIT_CRASH
