"""Apply every declared mutation and see its test file fail; exit 1 when one survives.

A test file declares `MUTATIONS = [(source file, old text, new text), ...]`; each old text occurs exactly once.
The sources are mutated in a copy of the checkout, several at a time, so the checkout itself is never touched.
Every mutation has a process of its own, forked from a server that has imported the heavy libraries, and never our
own package; where there is no such server (Windows) a fresh process imports them itself. Every test file also runs
once unchanged in the same way, and must pass: a file that fails anyway catches nothing. `--after-tests` leaves
that out, for a run that has just seen all of them pass; `--check` only looks for every text that is to change.

`tools/caught_by.json` remembers which test caught a mutation last time: it runs first, and the rest of the file
only if it passes, which takes a third of the time and changes no verdict. `--remember` writes what a run found.

    python tools/mutate.py [--jobs N] [--after-tests | --check] [--remember] [tests/signals/test_token_loss.py ...]
"""

import argparse
import ast
import gc
import hashlib
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing import connection
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 600.0
CAUGHT_BY = ROOT / "tools" / "caught_by.json"
# What tests import from others; what is not installed is passed over. Some libraries import their parts when these
# are first used, so the parts are named.
PRELOAD = [
    "pytest",
    "hypothesis.strategies",
    "numpy.testing",
    "pyarrow.compute",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "pydantic",
    "rich.progress",
    "typer.testing",
    "yaml",
    "zstandard",
    "scipy.optimize",
    "scipy.stats",
    "sklearn.feature_extraction.text",
    "sklearn.linear_model",
    "torch",
    "transformers.models.bert.modeling_bert",
    "transformers.models.gpt2.modeling_gpt2",
    "transformers.models.llama.modeling_llama",
    "transformers.models.qwen2.modeling_qwen2",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "peft",
]


class Mutant(NamedTuple):
    """One declared mutation: the test file that must fail, the source file, the text to change and its successor.

    Without a source nothing is changed, and the test file must pass.
    """

    test: Path
    source: str = ""
    old: str = ""
    new: str = ""

    @property
    def key(self) -> str:
        """A name for the mutation that changes with it."""
        told = "\0".join((self.test.name, self.source, self.old, self.new))
        return hashlib.sha256(told.encode()).hexdigest()[:16]


class Order:
    """For pytest: the test named `first` runs first; which test failed is written to the file `caught`."""

    def __init__(self, first: str, caught: Path) -> None:
        self.first, self.caught = first, caught

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items.sort(key=lambda item: item.nodeid.partition("::")[2] != self.first)

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.caught.write_text(report.nodeid.partition("::")[2], encoding="utf-8")


class Running(NamedTuple):
    """A mutant being tested, in its own folder, until its deadline."""

    mutant: Mutant
    process: multiprocessing.process.BaseProcess
    folder: tempfile.TemporaryDirectory[str]
    deadline: float


def declared(file: Path) -> list[Mutant]:
    """The MUTATIONS literal of a test file, or nothing."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id == "MUTATIONS" for t in node.targets
        ):
            return [Mutant(file, *entry) for entry in ast.literal_eval(node.value)]
    return []


def misplaced(mutant: Mutant) -> str | None:
    """Why a mutation cannot be made, or None."""
    found = (ROOT / mutant.source).read_text(encoding="utf-8").count(mutant.old) if mutant.source else 1
    return None if found == 1 else f"the text to change occurs {found} times, not once"


def copied(root: Path, folder: Path) -> Path:
    """A copy below `folder` of what tests read of the checkout; every mutant's folder is linked to its files."""
    for part in ("src", "tests", "recipes"):
        if (root / part).exists():
            shutil.copytree(root / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    shutil.copy(root / "pyproject.toml", folder)
    return folder


def linked(source: str, target: str) -> None:
    """A hard link, or a copy where the file system has none: a fifth of the time."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def written(folder: Path) -> dict[Path, tuple[int, int]]:
    """Size and time of every file: a test that wrote through a link has changed what the next one reads."""
    return {file: (file.stat().st_size, file.stat().st_mtime_ns) for file in folder.rglob("*") if file.is_file()}


def run_tests(mutant: Mutant, pristine: Path, folder: Path, test: Path, first: str) -> None:
    """In its own process: link a copy below `folder`, mutate it, run its file `test`, there the test named `first`
    before the others; exit with its code."""
    if any(name.partition(".")[0] == "tutelage" for name in sys.modules):
        sys.exit("tutelage is imported already: its unchanged source would be tested")
    copy, scratch = folder / "copy", folder / "scratch"
    scratch.mkdir()
    shutil.copytree(pristine, copy, copy_function=linked)
    if mutant.source:
        source = copy / mutant.source
        text = source.read_text(encoding="utf-8").replace(mutant.old, mutant.new)
        source.unlink()
        source.write_text(text, encoding="utf-8")
    # The mutated source comes before the installed one, here and in processes that tests start.
    os.environ["PYTHONPATH"] = str(copy / "src")
    sys.path[:] = [str(copy / "src"), *(path for path in sys.path if path != str(Path(__file__).parent))]
    # A process of this kind may end without clearing up; what it leaves goes with the folder.
    os.environ["TMPDIR"] = tempfile.tempdir = str(scratch)
    os.chdir(copy)
    with (folder / "output").open("wb") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    import pytest

    # What the server imported is no garbage: pytest collects more than once, and would look through all of it.
    gc.freeze()
    order = Order(first, folder / "caught")
    sys.exit(int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", str(copy / test)], plugins=[order])))


def reasons(
    mutants: list[Mutant], jobs: int, limit: float, caught_by: dict[str, str]
) -> Iterator[tuple[Mutant, str | None]]:
    """Every mutant with why it is no proof, or None when its test file does what it should, as they end; what
    caught them is noted in `caught_by`."""
    # Read by the processes before they import anything: one thread each, `jobs` of them side by side, and no model
    # hub, as in every test (tests/conftest.py, which is imported later than what is preloaded).
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "DO_NOT_TRACK": "1"}
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    context.set_forkserver_preload(PRELOAD)
    waiting, running = mutants[::-1], dict[int, Running]()
    home = tempfile.TemporaryDirectory(prefix="unchanged-")
    pristine = copied(ROOT, Path(home.name))
    before = written(pristine)
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                mutant = waiting.pop()
                if reason := misplaced(mutant):
                    yield mutant, reason
                    continue
                folder = tempfile.TemporaryDirectory(prefix="mutant-", ignore_cleanup_errors=True)
                test = mutant.test.relative_to(ROOT)
                asked = (mutant, pristine, Path(folder.name), test, caught_by.get(mutant.key, ""))
                process = context.Process(target=run_tests, args=asked)
                process.start()
                running[process.sentinel] = Running(mutant, process, folder, time.monotonic() + limit)
            if not running:
                continue
            next_deadline = min(entry.deadline for entry in running.values())
            ended = set(connection.wait(list(running), max(0.0, next_deadline - time.monotonic())))
            for sentinel, entry in list(running.items()):
                if sentinel in ended or time.monotonic() >= entry.deadline:
                    del running[sentinel]
                    caught = Path(entry.folder.name, "caught")
                    if entry.mutant.source and caught.is_file():
                        caught_by[entry.mutant.key] = caught.read_text(encoding="utf-8")
                    yield entry.mutant, _verdict(entry, sentinel in ended, limit)
        if changed := [file for file, facts in written(pristine).items() if before.get(file) != facts]:
            raise SystemExit(f"a test changed {changed[0].relative_to(pristine)}: later ones read that")
    finally:
        for entry in running.values():
            _verdict(entry, False, limit)
        home.cleanup()


def _verdict(entry: Running, ended: bool, limit: float) -> str | None:
    """Why an ended or overdue mutant is no proof, or None; its folder is removed."""
    if not ended:
        entry.process.kill()
    entry.process.join()
    output = Path(entry.folder.name, "output")
    said = output.read_text(encoding="utf-8", errors="replace")[-300:] if output.is_file() else ""
    entry.folder.cleanup()
    if not ended:
        return f"its test file did not end within {limit:g} seconds: {said}"
    if entry.process.exitcode not in (0, 1) or not said:
        return f"pytest ended with {entry.process.exitcode}: {said}"
    if entry.process.exitcode == 1 and not entry.mutant.source:
        return f"its test file fails without any mutation: {said}"
    if entry.process.exitcode == 0 and entry.mutant.source:
        return "its test file still passes"
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tests", nargs="*", type=Path)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--after-tests", action="store_true", help="the unchanged test files have just passed")
    how.add_argument("--check", action="store_true", help="run nothing: is every text to change there, once?")
    parser.add_argument(
        "--remember", action="store_true", help=f"write which tests caught what to {CAUGHT_BY.name}"
    )
    asked = parser.parse_args()
    files = [file.resolve() for file in asked.tests] or sorted((ROOT / "tests").rglob("test_*.py"))
    work = [(file, found) for file in files if (found := declared(file))]
    unchanged = [] if asked.after_tests or asked.check else [Mutant(file) for file, _ in work]
    mutants = [*unchanged, *(mutant for _, found in work for mutant in found)]
    broken = survived = 0
    every = {mutant.key for file in (ROOT / "tests").rglob("test_*.py") for mutant in declared(file)}
    caught_by = json.loads(CAUGHT_BY.read_text(encoding="utf-8")) if CAUGHT_BY.is_file() else {}
    results: Iterator[tuple[Mutant, str | None]] = reasons(mutants, asked.jobs, LIMIT, caught_by)
    if asked.check:
        results = ((mutant, misplaced(mutant)) for mutant in mutants)
    for mutant, reason in results:
        if reason is None:
            continue
        test = mutant.test.relative_to(ROOT)
        if mutant.source:
            survived += 1
            said = "MISPLACED" if asked.check else "SURVIVED"
            print(f"{said} {test}: {mutant.source}: {mutant.old!r} -> {mutant.new!r}: {reason}", flush=True)
        else:
            broken += 1
            print(f"BROKEN {test}: {reason}", flush=True)
    if asked.remember:
        kept = {key: caught_by[key] for key in sorted(every & caught_by.keys())}
        CAUGHT_BY.write_text(json.dumps(kept, indent=0) + "\n", encoding="utf-8")
    declarations = len(mutants) - len(unchanged)
    fine, poor = ("can be made", "cannot") if asked.check else ("caught", "survived")
    print(f"{declarations} mutations, {declarations - survived} {fine}, {survived} {poor}")
    return 1 if broken or survived else 0


if __name__ == "__main__":
    sys.exit(main())
