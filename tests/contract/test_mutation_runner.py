"""The runner of mutations on a checkout of its own: what it must call caught, survived and broken."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

RUNNER = Path(__file__).resolve().parents[2] / "tools" / "mutate.py"

DRIVER = """
import sys
import mutate

mutate.PRELOAD, mutate.LIMIT = ["pytest", "json.tool"], 5.0
if __name__ == "__main__":
    sys.exit(mutate.main())
"""

# The toy package has the name of ours: the installed one must not be found first.
SOURCE = "ANSWER = 42\nUNSEEN = 1\nSLOW = False\n"

GOOD = """
import os, subprocess, sys
import tutelage

MUTATIONS = [
    ("src/tutelage/__init__.py", "ANSWER = 42", "ANSWER = 41"),
    ("src/tutelage/__init__.py", "UNSEEN = 1", "UNSEEN = 2"),
    ("src/tutelage/__init__.py", "SLOW = False", "SLOW = True"),
    ("src/tutelage/__init__.py", "absent", "present"),
    ("src/tutelage/__init__.py", "SLOW = False", "SLOW = "),
]

def test_answer():
    while tutelage.SLOW:
        pass
    code = "import tutelage; print(tutelage.ANSWER)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "42"

def test_started_with_libraries_and_without_the_package():
    assert "json.tool" in sys.modules or os.name == "nt"
"""

FAILS_ANYWAY = """
MUTATIONS = [("src/tutelage/__init__.py", "ANSWER = 42", "ANSWER = 41")]

def test_nothing():
    assert False
"""


def checkout(folder, **tests):
    for part in ("src/tutelage", "tests", "tools"):
        (folder / part).mkdir(parents=True)
    shutil.copy(RUNNER, folder / "tools")
    (folder / "tools" / "drive.py").write_text(DRIVER, encoding="utf-8")
    (folder / "pyproject.toml").write_text("[tool.pytest.ini_options]\n", encoding="utf-8")
    (folder / "src" / "tutelage" / "__init__.py").write_text(SOURCE, encoding="utf-8")
    for name, text in tests.items():
        (folder / "tests" / f"test_{name}.py").write_text(text, encoding="utf-8")


def test_every_mutation_gets_its_verdict(tmp_path):
    checkout(tmp_path, good=GOOD, broken=FAILS_ANYWAY)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "tools" / "drive.py"), "--jobs", "2"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )
    assert done.returncode == 1
    *reported, total = done.stdout.splitlines()
    said = "\n".join(reported)
    assert total == "6 mutations, 2 caught, 4 survived", done.stdout + done.stderr
    assert "'UNSEEN = 1' -> 'UNSEEN = 2': its test file still passes" in said
    assert "'SLOW = False' -> 'SLOW = True': its test file did not end within 5 seconds" in said
    assert "'absent' -> 'present': the text to change occurs 0 times, not once" in said
    assert "'SLOW = False' -> 'SLOW = ': pytest ended with 2" in said
    assert "'ANSWER = 42'" not in said
    assert f"BROKEN {Path('tests/test_broken.py')}: its test file fails without any mutation" in said
    assert "BROKEN tests/test_good" not in said
    assert (tmp_path / "src" / "tutelage" / "__init__.py").read_text(encoding="utf-8") == SOURCE


def test_check_names_what_is_not_there_and_runs_nothing(tmp_path):
    checkout(tmp_path, good=GOOD, broken=FAILS_ANYWAY)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "tools" / "mutate.py"), "--check"], capture_output=True, text=True
    )
    assert done.returncode == 1
    missing, total = done.stdout.splitlines()
    assert missing.startswith("MISPLACED tests/test_good.py: src/tutelage/__init__.py: 'absent' -> 'present'")
    assert total == "6 mutations, 5 can be made, 1 cannot"


def test_what_caught_a_mutation_runs_first_the_next_time(tmp_path):
    """The second run ends at the test that the first one noted, before the one that stands above it."""
    trace = tmp_path / "trace"
    tests = f"""
import tutelage
MUTATIONS = [("src/tutelage/__init__.py", "ANSWER = 42", "ANSWER = 41")]

def test_above():
    with open({str(trace)!r}, "a") as file:
        file.write("ran ")

def test_answer():
    assert tutelage.ANSWER == 42
"""
    checkout(tmp_path, good=tests)
    for _ in range(2):
        assert drive(tmp_path, "--after-tests", "--remember") == "1 mutations, 1 caught, 0 survived\n"
        assert trace.read_text(encoding="utf-8") == "ran "
    noted = json.loads((tmp_path / "tools" / "caught_by.json").read_text(encoding="utf-8"))
    assert list(noted.values()) == ["test_answer"]


def test_a_test_that_writes_into_the_checkout_is_no_proof(tmp_path):
    tests = """
from pathlib import Path
import tutelage
MUTATIONS = [("src/tutelage/__init__.py", "ANSWER = 42", "ANSWER = 41")]

def test_answer():
    (Path(tutelage.__file__).parent / "other.py").write_text("ANSWER = 41")
    assert tutelage.ANSWER == 42
"""
    checkout(tmp_path, good=tests)
    (tmp_path / "src" / "tutelage" / "other.py").write_text("ANSWER = 42")
    assert "a test changed src/tutelage/other.py" in drive(tmp_path, "--after-tests").replace(os.sep, "/")


def drive(folder, *options):
    """What the runner prints, on either stream."""
    done = subprocess.run(
        [sys.executable, str(folder / "tools" / "drive.py"), "--jobs", "1", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )
    return done.stdout
