"""How the command line speaks: results on standard output, everything else on standard error, quiet off a
terminal, errors as one block with place, expected, found and remedy."""

import json
import sys
import traceback
from typing import Any

import typer

from tutelage.core.errors import EXIT_CRASH, EXIT_INTERRUPTED, TutelageError


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json_text(value, indent=1) + "\n")


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON with control, format and bidirectional characters as escapes: a terminal might obey them."""
    text = json.dumps(value, indent=indent, ensure_ascii=False, default=str)
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def say(text: str) -> None:
    """A line of a command's answer, on standard output; what data put into it cannot drive the terminal."""
    typer.echo(plain(text))


def note(text: str) -> None:
    """Something for a person, on standard error; what data put into it cannot drive the terminal."""
    sys.stderr.write(plain(text) + "\n")


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
