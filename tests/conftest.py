"""Lets tests import the shared toys (`from toy.planted_pool import make_pool`), and how long the fault suite takes."""

import sys
from pathlib import Path

_HERE = str(Path(__file__).parent)
if _HERE not in sys.path:
    sys.path.insert(0, _HERE)


def pytest_addoption(parser):
    """The defaults are the short form that `make test` runs; `make faults` asks for more."""
    group = parser.getgroup("faults")
    group.addoption("--kills", type=int, default=6, help="SIGKILLs in each of the two suites of kills")
    group.addoption("--fuzz-seconds", type=float, default=None, help="seconds of fuzzing for each target")
    group.addoption("--fault-seed", type=int, default=0, help="draws the moments of faults")


def pytest_terminal_summary(terminalreporter, config):
    """What the tests of faults counted, with the seed that draws the same again."""
    reports = [report for found in terminalreporter.stats.values() for report in found]
    counted = [
        (r.nodeid, r.user_properties) for r in reports if getattr(r, "user_properties", None) and r.when == "call"
    ]
    if counted:
        terminalreporter.section(f"faults, seed {config.getoption('--fault-seed')}")
        for nodeid, properties in counted:
            facts = ", ".join(f"{name} {value}" for name, value in properties)
            terminalreporter.write_line(f"{nodeid.rpartition('::')[2]}: {facts}")
