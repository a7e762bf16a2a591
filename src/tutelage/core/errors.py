"""Errors that a user meets: what is wrong, where, what was expected, what was found, what to do.

Every error the product raises on purpose is a `TutelageError`; anything else that reaches the command line is a
bug and exits with 1. Exit codes are part of the interface (see `docs/guide/troubleshooting.md`).
"""

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tutelage.core.records import Cost

EXIT_PASS = 0
EXIT_CRASH = 1
EXIT_INVALID = 2
EXIT_GATE_FAILED = 3
EXIT_WAITING = 4
EXIT_INTERRUPTED = 130


class TutelageError(Exception):
    """An error with its place and its remedy; `str()` gives at most a few lines, one fact per line."""

    exit_code = EXIT_INVALID

    def __init__(
        self,
        what: str,
        *,
        where: object = None,
        expected: object = None,
        found: object = None,
        remedy: str | None = None,
    ) -> None:
        self.what = what
        self.where = where
        self.expected = expected
        self.found = found
        self.remedy = remedy
        facts = (("where", where), ("expected", expected), ("found", found), ("do", remedy))
        lines = [_clip(what)] + [f"  {name + ':':<10}{_clip(value)}" for name, value in facts if value is not None]
        super().__init__("\n".join(lines))

    def to_json(self) -> dict[str, object]:
        """The same facts for `--json` output."""
        return {
            "error": type(self).__name__,
            "what": _clip(self.what),
            "where": None if self.where is None else _clip(self.where),
            "expected": None if self.expected is None else _clip(self.expected),
            "found": None if self.found is None else _clip(self.found),
            "remedy": None if self.remedy is None else _clip(self.remedy),
            "exit_code": self.exit_code,
        }


class InputError(TutelageError):
    """Data that cannot be read or used as it is: a file, row, column or value."""


class ConfigError(TutelageError):
    """A recipe, step or field that is not valid; raised before any compute is spent."""


class ModelError(TutelageError):
    """A model folder, name, adapter or tokenizer that cannot be used."""


class EndpointError(TutelageError):
    """A remote model that did not answer as an OpenAI-compatible endpoint should."""


class StoreError(TutelageError):
    """The artifact store, workspace or ledger cannot be read, written or locked."""


class MemoryShortage(TutelageError):
    """The process got no more memory; what was complete is kept and the run can be resumed."""


class TrainingError(TutelageError):
    """Training cannot go on: non-finite loss, nothing to learn from, a broken checkpoint.

    `repeats` says that the same training would end in the same way again, `cost` what was spent until then (None
    where nobody counted); an executor adds to `charges` what every step up to the failure cost, by its key.
    """

    def __init__(
        self,
        what: str,
        *,
        where: object = None,
        expected: object = None,
        found: object = None,
        remedy: str | None = None,
        repeats: bool = False,
        cost: "Cost | None" = None,
    ) -> None:
        super().__init__(what, where=where, expected=expected, found=found, remedy=remedy)
        self.repeats = repeats
        self.cost = cost
        self.charges: dict[str, Cost] = {}


class ComparisonError(TutelageError):
    """Two results that may not be compared as asked."""


class GateFailed(TutelageError):
    """A gate set in the recipe did not hold."""

    exit_code = EXIT_GATE_FAILED


class WaitingForPerson(TutelageError):
    """A step needs answers from a person; the run is suspended and can be resumed."""

    exit_code = EXIT_WAITING


class Interrupted(TutelageError):
    """Stopped by the user; what was complete is kept and the run can be resumed."""

    exit_code = EXIT_INTERRUPTED


def suggest(name: str, known: Iterable[str]) -> str:
    """`Did you mean ...?` for a misspelt name, or the list of what exists when nothing is close."""
    options = sorted(known)
    close = difflib.get_close_matches(name, options, n=3, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(close) + "?"
    return "use one of: " + ", ".join(options[:20]) + (" ..." if len(options) > 20 else "")


def unknown(
    what: str, where: object, name: object, known: Iterable[str], expected: str | None = None
) -> ConfigError:
    """The error for a name that does not exist: what there is, what was given, the nearest one."""
    options = sorted(known)
    listed = ", ".join(options[:8]) + (", ..." if len(options) > 8 else "")
    return ConfigError(
        what,
        where=where,
        expected=expected or (f"one of {listed}" if options else "a name, but there is none yet"),
        found=name,
        remedy=suggest(str(name), options) if options else "add one, or leave this out",
    )


def _clip(value: object, limit: int = 400) -> str:
    # Control characters are shown escaped: data quoted in an error must not drive the terminal.
    text = "".join(c if c.isprintable() or c == " " else repr(c)[1:-1] for c in str(value))
    return text if len(text) <= limit else text[:limit] + " ..."
