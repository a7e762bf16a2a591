"""The one console command. Each subcommand is a file of this folder and imports what is heavy when it runs."""

import contextlib
import logging
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer

from tutelage import __version__
from tutelage.cli._output import fail, note, plain
from tutelage.cli.audit import audit_command
from tutelage.cli.chat import chat_command
from tutelage.cli.compare import compare_command
from tutelage.cli.compare_results import compare_results_command
from tutelage.cli.explain import explain_command
from tutelage.cli.export import export_command
from tutelage.cli.fetch import fetch_command
from tutelage.cli.gc import gc_command
from tutelage.cli.init import init_command
from tutelage.cli.inspect import inspect_command
from tutelage.cli.label import label_command
from tutelage.cli.methods import methods_command
from tutelage.cli.plan import plan_command
from tutelage.cli.predict import predict_command
from tutelage.cli.report import report_command
from tutelage.cli.resume import resume_command
from tutelage.cli.run import run_command
from tutelage.cli.search import search_command
from tutelage.cli.validate import validate_command
from tutelage.cli.why import why_command
from tutelage.core.errors import EXIT_INTERRUPTED, EXIT_INVALID

# Some versions of typer bring their own copy of click, others use the installed one, so the class comes from what
# typer exports: BadParameter is a UsageError, which is a ClickException.
ClickException: Any = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="tutelage",
    help="Specialise a language model on your own text, and prove that it got better.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
COMMANDS: dict[str, Callable[..., None]] = {
    "init": init_command,
    "validate": validate_command,
    "plan": plan_command,
    "run": run_command,
    "resume": resume_command,
    "compare": compare_command,
    "compare-results": compare_results_command,
    "audit": audit_command,
    "report": report_command,
    "predict": predict_command,
    "inspect": inspect_command,
    "label": label_command,
    "search": search_command,
    "why": why_command,
    "export": export_command,
    "methods": methods_command,
    "explain": explain_command,
    "fetch": fetch_command,
    "chat": chat_command,
    "gc": gc_command,
}
for _name, _command in COMMANDS.items():
    app.command(_name)(_command)


@app.callback(invoke_without_command=True)
def _main(
    verbose: Annotated[bool, typer.Option("--verbose", help="Show tracebacks.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def run(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code (see `core.errors`)."""
    given = sys.argv[1:] if arguments is None else arguments
    with warnings.catch_warnings(), _stopped_like_ctrl_c():
        # Notes of libraries to their developers, and the places in the source; `--verbose` shows them.
        if "--verbose" not in given:
            warnings.filterwarnings("ignore", category=FutureWarning)
            warnings.showwarning = _told  # type: ignore[assignment]
            logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
        sys.exit(_exit_code(given))


@contextlib.contextmanager
def _stopped_like_ctrl_c() -> Iterator[None]:
    """SIGTERM, which a system sends before it stops a process, ends a run as Ctrl-C does: resumable."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _told(message: Warning | str, *_: object) -> None:
    note(f"  warning: {plain(str(message))}")


def _exit_code(given: list[str]) -> int:
    try:
        code = app(given, standalone_mode=False, prog_name="tutelage")
    except ClickException as error:
        error.show()
        return EXIT_INVALID
    except typer.Abort:
        # Ctrl-C outside a run; within one it is an `Interrupted` that says how to go on.
        note("interrupted")
        return EXIT_INTERRUPTED
    except (Exception, KeyboardInterrupt) as error:
        return fail(error, as_json="--json" in given, verbose="--verbose" in given)
    if code == EXIT_INTERRUPTED:
        # Some versions of typer take Ctrl-C for an exit of ours.
        note("interrupted")
    return code if isinstance(code, int) else 0
