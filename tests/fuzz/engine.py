"""What holds for a reader whatever the bytes: a right result or one clear error, soon, within bounds.

`Guard` watches a case from the inside of the interpreter: files opened for writing outside the case's folder,
programs started, connections opened and pickles loaded are findings, as are processor time and memory.
"""

import contextlib
import faulthandler
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuzz.mutate import Choice, mutate, pick
from tutelage.core.errors import TutelageError
from tutelage.core.scratch import scratch_path

CORPUS = Path(__file__).resolve().parent / "corpus"
SECONDS = 10.0
# Memory that a case may take beyond what was taken before, and for each byte of its file.
MEMORY, MEMORY_PER_BYTE = 400 << 20, 64
CANARY = "canary-5d1f"
# Where the case at hand is while it runs.
RUNNING = Path(tempfile.gettempdir()) / "tutelage-fuzz"


@dataclass(frozen=True)
class Layout:
    """A valid source: its files, and which of them (or "" for the folder) is given to the reader."""

    files: Mapping[str, bytes]
    entry: str = ""
    # The files that are changed; all of them where none is named.
    members: Sequence[str] = ()


@dataclass(frozen=True)
class Target:
    """Something that reads. `run(path)` returns when it read and what it read is right, raises a TutelageError for
    what cannot be read, and AssertionError where a right answer is wrong. `writes` names what it may leave."""

    name: str
    layouts: Mapping[str, Layout]
    run: Callable[[Path], None]
    writes: Sequence[str] = ()
    needs: Sequence[str] = ()
    seconds: float = SECONDS
    bare: Sequence[str] = field(default=())


@dataclass(frozen=True)
class Case:
    """One file of a layout, changed."""

    layout: str
    member: str
    data: bytes

    @property
    def file(self) -> str:
        """Its name in the corpus; the suffix keeps tools from taking it for what it pretends to be."""
        digest = hashlib.blake2b(self.data, digest_size=4).hexdigest()
        return f"{self.layout}--{digest}--{self.member.replace('/', '+')}.case"

    @classmethod
    def of(cls, file: Path) -> "Case":
        """The case that a file of the corpus holds."""
        layout, _, member = file.name.removesuffix(".case").split("--", 2)
        return cls(layout, member.replace("+", "/"), file.read_bytes())


class Finding(AssertionError):
    """A case that breaks the promise; `kind` is the same for what is broken in the same way."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}\n{detail}")
        self.kind = kind


class _TooLong(BaseException):
    """Not an Exception, so that nobody catches it."""


def make_case(choice: Choice, target: Target) -> Case:
    """A valid file of one of the target's layouts, changed."""
    name = pick(choice, sorted(target.layouts))
    layout = target.layouts[name]
    member = pick(choice, sorted(layout.members or layout.files))
    data = layout.files[member]
    others = [files.files[m] for files in target.layouts.values() for m in files.files if m.endswith(member[-4:])]
    changed = mutate(choice, member, data, others or [data])
    # Large files slow the search down and show nothing that smaller ones do not.
    return Case(name, member, changed[: 1 << 18])


# -- watching -----------------------------------------------------------------------------------------------------

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.chmod", "os.truncate"}
_FORBIDDEN = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "pickle.find_class"}
_FORBIDDEN |= {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname"}


class Guard:
    """Watches what the interpreter does between `with` and its end; there is one for the whole process."""

    def __init__(self) -> None:
        self.allowed: tuple[str, ...] = ()
        self.secret = ""
        self.found: list[str] = []
        self.thread = 0
        self._installed = False

    @contextlib.contextmanager
    def watching(self, allowed: Sequence[Path], secret: Path) -> Iterator[list[str]]:
        if not self._installed:
            sys.addaudithook(self._hook)
            self._installed = True
        self.allowed, self.secret = tuple(str(one.resolve()) for one in allowed), str(secret)
        self.found = []
        self.thread = threading.get_ident()
        try:
            yield self.found
        finally:
            self.thread = 0

    def _hook(self, event: str, given: tuple[Any, ...]) -> None:
        if self.thread != threading.get_ident():
            return
        if event == "open":
            path, _, flags = given
            if not isinstance(path, str | bytes | os.PathLike):
                return
            if isinstance(flags, int) and flags & _WRITES:
                self._check_write(event, path)
            elif os.fsdecode(path) == self.secret or os.fsdecode(path).startswith("/etc/passwd"):
                self._report(f"reads {os.fsdecode(path)}, which the source does not hold")
        elif event in _CHANGES:
            # Names relative to an open folder (`shutil.rmtree`) were checked when the folder was opened.
            relative = any(
                type(one) is int and one > 0 for one in given[1:] if event not in ("os.mkdir", "os.chmod")
            )
            for path in given[:2] if event in ("os.rename", "os.link", "os.symlink") else given[:1]:
                if isinstance(path, str | bytes | os.PathLike) and not relative:
                    self._check_write(event, path)
        elif event in _FORBIDDEN:
            self._report(f"{event} {given[0]!r:.200}")

    def _check_write(self, event: str, path: Any) -> None:
        text = os.fsdecode(path)
        if "__pycache__" in text or text == os.devnull:
            return
        # Not `resolve`, which asks the system and raises events of its own.
        plain = os.path.normpath(os.path.join(os.getcwd(), text))  # noqa: PTH109, PTH118
        if not any(plain == one or plain.startswith(one + os.sep) for one in self.allowed):
            self._report(f"{event} outside its folder: {plain}")

    def _report(self, what: str) -> None:
        self.found.append(what)
        raise PermissionError(f"the fuzzing guard forbids: {what}")


GUARD = Guard()


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise _TooLong after so much processor time, or thirty times as much by the clock: others may be at work."""
    timers = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    if not timers:
        began = time.process_time()
        yield
        if time.process_time() - began > seconds:
            raise _TooLong
        return

    def stop(*_: object) -> None:
        raise _TooLong

    before = [(number, signal.signal(number, stop)) for number in (signal.SIGPROF, signal.SIGALRM)]
    try:
        signal.setitimer(signal.ITIMER_PROF, seconds)
        signal.setitimer(signal.ITIMER_REAL, seconds * 30)
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before:
            signal.signal(number, handler)


def _peak_bytes() -> int:
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _listing(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def check(target: Target, case: Case, base: Path) -> str:
    """Run one case below `base`; "read", or the name of the error. Raises Finding."""
    folder, layout = base / "case", target.layouts[case.layout]
    shutil.rmtree(folder, ignore_errors=True)
    files = {**layout.files, case.member: case.data}
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    secret = base / "outside.txt"
    if not secret.exists():
        secret.write_text(json.dumps({"id": CANARY, "text": CANARY}) + "\n", encoding="utf-8")
    around, before = _listing(folder), _peak_bytes()
    began = time.process_time()
    outcome = "read"
    with GUARD.watching([folder, base / "scratch", scratch_path().parent], secret) as broken:
        try:
            with _time_limit(target.seconds):
                target.run(folder / layout.entry if layout.entry else folder)
        except TutelageError as error:
            outcome = type(error).__name__
            _clear(error)
        except _TooLong:
            raise Finding("takes too long", f"more than {target.seconds:g} s of processor time") from None
        except AssertionError as error:
            if not _place(error).startswith("targets.py"):
                raise Finding(f"AssertionError at {_place(error)}", _trace(error)) from None
            raise Finding(f"a wrong result: {_first(str(error))}", _trace(error)) from None
        except MemoryError as error:
            raise Finding("runs out of memory", _trace(error)) from None
        except Exception as error:
            raise Finding(f"{type(error).__name__} at {_place(error)}", _trace(error)) from None
    if broken:
        raise Finding(_first(broken[0]).split(":")[0], "\n".join(broken))
    grown = _peak_bytes() - before
    if grown > MEMORY + MEMORY_PER_BYTE * len(case.data):
        raise Finding("takes too much memory", f"{grown >> 20} MB for {len(case.data)} bytes")
    took = time.process_time() - began
    if took > target.seconds:
        raise Finding("takes too long", f"{took:.1f} s of processor time")
    left = [name for name in _listing(folder) if name not in around and not name.startswith(tuple(target.writes))]
    if left:
        raise Finding("leaves files in the source", ", ".join(left))
    return outcome


def _clear(error: TutelageError) -> None:
    text = str(error)
    problems = []
    if not error.what or error.where is None:
        problems.append("no place")
    if error.expected is None and error.found is None:
        problems.append("neither what was expected nor what was found")
    if not all(c.isprintable() or c == "\n" for c in text):
        problems.append("control characters")
    if len(text) > 4000 or len(text.splitlines()) > 6:
        problems.append(f"{len(text)} characters in {len(text.splitlines())} lines")
    try:
        text.encode("utf-8")
        json.dumps(error.to_json(), ensure_ascii=False).encode("utf-8")
    except (UnicodeEncodeError, TypeError, ValueError) as problem:
        problems.append(f"cannot be printed: {problem}")
    if problems:
        kind = f"an unclear error ({problems[0]}): {type(error).__name__} at {_place(error)}"
        raise Finding(kind, f"{problems}\n{text!r:.2000}")


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if f"{os.sep}tutelage{os.sep}" in frame.filename] or frames
    last = ours[-1]
    return f"{Path(last.filename).name}:{last.name}"


def _first(text: str) -> str:
    return text.splitlines()[0][:120] if text else ""


def _trace(error: BaseException) -> str:
    return "".join(traceback.format_exception(error, limit=-6, chain=False))[-3000:]


# -- searching ----------------------------------------------------------------------------------------------------


@dataclass
class Report:
    """What a search of one target came to."""

    target: str
    cases: int = 0
    seconds: float = 0.0
    outcomes: dict[str, int] = field(default_factory=dict)
    found: dict[str, tuple[Case, str]] = field(default_factory=dict)

    def line(self) -> str:
        counts = ", ".join(f"{name} {count}" for name, count in sorted(self.outcomes.items()))
        return f"{self.target}: {self.cases} cases in {self.seconds:.1f} s ({counts}); {len(self.found)} findings"


def kept(target: str) -> list[Path]:
    """The corpus of a target."""
    folder = CORPUS / target
    return sorted(folder.iterdir()) if folder.is_dir() else []


def unchanged(target: Target, base: Path) -> None:
    """Every valid layout is read, or the search would only see one error. Also loads what is loaded late."""
    for name, layout in target.layouts.items():
        folder = base / "warm" / name
        for file, data in layout.files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(data)
        target.run(folder / layout.entry if layout.entry else folder)
        shutil.rmtree(base / "warm")


def search(target: Target, seconds: float, seed: int, base: Path) -> Report:
    """Look for findings for so many seconds; one of each kind is kept, made small."""
    from hypothesis import HealthCheck, Phase, given, settings, strategies
    from hypothesis import seed as seeded

    report = Report(target.name)
    _take_over(target, base)
    began, round_ = time.monotonic(), 0
    while time.monotonic() - began < seconds:

        @seeded(seed + 1_000_003 * round_)
        @settings(
            max_examples=200, database=None, deadline=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(strategies.integers(0, 2**64 - 1))
        def one(number: int) -> None:
            if time.monotonic() - began < seconds:
                look(target, make_case(Drawn(number), target), base, report)

        one()
        round_ += 1
    report.seconds = time.monotonic() - began
    return report


def _running(name: str) -> Path:
    return RUNNING / name


def _take_over(target: Target, base: Path) -> None:
    """Keep the case at which an earlier process died (a crash in compiled code), and say so; not where a process
    survives it: somebody ended the earlier one."""
    folder = _running(target.name)
    for file in sorted(folder.iterdir()) if folder.is_dir() else []:
        process, _, name = file.name.partition("--")
        if not _alive(int(process)):
            kept_as = CORPUS / target.name / name
            kept_as.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(file, kept_as)
            if _dies(target, Case.of(kept_as), base):
                raise AssertionError(f"a process died of this case: {kept_as}")
            kept_as.unlink()


def _dies(target: Target, case: Case, base: Path, seconds: float = 120.0) -> bool:
    """Whether a process of its own dies of the case, or does not end."""
    child = os.fork()
    if child == 0:
        faulthandler.disable()  # how it dies is asked here; a trace would read as if the whole run had
        with contextlib.suppress(BaseException):
            check(target, case, base)
        os._exit(0)
    last = time.monotonic() + seconds
    while time.monotonic() < last:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.WIFSIGNALED(status)
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def _alive(process: int) -> bool:
    if os.name == "nt":
        return True  # nobody can ask there without ending it
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def look(target: Target, case: Case, base: Path, report: Report) -> None:
    """Run one case and write down what came of it. The case is on disk meanwhile: if the process dies of it, the
    next search finds it there."""
    running = _running(target.name) / f"{os.getpid()}--{case.file}"
    running.parent.mkdir(parents=True, exist_ok=True)
    running.write_bytes(case.data)
    try:
        outcome = check(target, case, base)
    except Finding as finding:
        outcome = "finding"
        if finding.kind not in report.found:
            small = minimised(target, case, finding.kind, base)
            report.found[finding.kind] = (small, str(finding))
    running.unlink(missing_ok=True)
    report.cases += 1
    report.outcomes[outcome] = report.outcomes.get(outcome, 0) + 1


class Drawn:
    """Choices that follow from one number, which is what hypothesis draws: a draw for each choice would take
    longer than reading the file."""

    def __init__(self, number: int) -> None:
        self._random = random.Random(number)

    def below(self, count: int) -> int:
        return self._random.randrange(count)


def minimised(target: Target, case: Case, kind: str, base: Path, seconds: float = 5.0) -> Case:
    """The case with as many bytes cut out as the finding allows, in so many seconds."""
    end, size, small = time.monotonic() + seconds, max(len(case.data) // 2, 1), case
    while size >= 1 and time.monotonic() < end:
        place, shorter = 0, False
        while place < len(small.data) and time.monotonic() < end:
            candidate = Case(case.layout, case.member, small.data[:place] + small.data[place + size :])
            try:
                check(target, candidate, base)
                place += size
            except Finding as finding:
                if finding.kind == kind:
                    small, shorter = candidate, True
                else:
                    place += size
        size = size if shorter and size > 1 else size // 2
    return small


def keep(target: Target, case: Case) -> Path:
    """Write a case into the corpus."""
    folder = CORPUS / target.name
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / case.file
    file.write_bytes(case.data)
    return file
