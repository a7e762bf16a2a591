"""Apply every declared mutation and see its test file fail; exit 1 when one survives.

A test file declares `MUTATIONS = [(source file, old text, new text), ...]`; each old text occurs exactly once.
The sources are mutated in a copy of the checkout, several at a time, so the checkout itself is never touched.

    python tools/mutate.py [--jobs N] [tests/signals/test_token_loss.py ...]
"""

import argparse
import ast
import concurrent.futures
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def declared(file: Path) -> list[tuple[str, str, str]]:
    """The MUTATIONS literal of a test file, or nothing."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id == "MUTATIONS" for t in node.targets
        ):
            return [tuple(entry) for entry in ast.literal_eval(node.value)]
    return []


def survives(test: Path, source: str, old: str, new: str) -> str | None:
    """Why this mutation is no proof, or None when its test file fails as it should."""
    text = (ROOT / source).read_text(encoding="utf-8")
    if text.count(old) != 1:
        return f"the text to change occurs {text.count(old)} times, not once"
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy = Path(folder)
        for part in ("src", "tests", "recipes"):
            if (ROOT / part).exists():
                shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        (copy / source).write_text(text.replace(old, new), encoding="utf-8")
        # PYTHONPATH puts the mutated source before the installed one.
        environment = {**os.environ, "PYTHONPATH": str(copy / "src"), "OMP_NUM_THREADS": "1"}
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-p",
            "no:cacheprovider",
            str(copy / test.relative_to(ROOT)),
        ]
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=600)
    if done.returncode == 0:
        return "its test file still passes"
    if done.returncode != 1:
        return f"pytest ended with {done.returncode}: {done.stdout[-300:]}"
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tests", nargs="*", type=Path)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    files = [file.resolve() for file in asked.tests] or sorted((ROOT / "tests").rglob("test_*.py"))
    work = [(file, *mutation) for file in files for mutation in declared(file)]
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(asked.jobs) as pool:
        for (file, source, old, new), reason in zip(work, pool.map(lambda item: survives(*item), work)):
            if reason:
                failed += 1
                print(f"SURVIVED {file.relative_to(ROOT)}: {source}: {old!r} -> {new!r}: {reason}")
    print(f"{len(work)} mutations, {len(work) - failed} caught, {failed} survived")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
