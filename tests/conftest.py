"""Lets tests import the shared toys (`from toy.planted_pool import make_pool`); how long the fault suite takes."""

import json
import os
import sys
from pathlib import Path

# Whatever a test needs, it makes: no test may reach a model hub, and none may behave otherwise where there is one.
os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "DO_NOT_TRACK": "1"}
_HERE = str(Path(__file__).parent)
if _HERE not in sys.path:
    sys.path.insert(0, _HERE)


def pytest_addoption(parser):
    """The defaults are the short form that `make test` runs; `make faults` asks for more."""
    group = parser.getgroup("faults")
    group.addoption("--kills", type=int, default=4, help="SIGKILLs in each of the two suites of kills")
    group.addoption("--fuzz-seconds", type=float, default=None, help="seconds of fuzzing for each target")
    group.addoption("--fault-seed", type=int, default=0, help="draws the moments of faults")
    group.addoption("--fault-summary", type=Path, help="a JSON file for what was counted")


def pytest_terminal_summary(terminalreporter, config):
    """What the tests of faults counted, with the seed that draws the same again."""
    reports = [report for found in terminalreporter.stats.values() for report in found]
    counted = [r for r in reports if getattr(r, "user_properties", None) and r.when == "call"]
    if counted:
        terminalreporter.section(f"faults, seed {config.getoption('--fault-seed')}")
        for report in counted:
            facts = ", ".join(f"{name} {value}" for name, value in report.user_properties)
            terminalreporter.write_line(f"{report.nodeid.rpartition('::')[2]} ({report.duration:.0f} s): {facts}")
    file = config.getoption("--fault-summary")
    if file is not None:
        tests = {
            r.nodeid: {"outcome": r.outcome, "seconds": round(r.duration, 1), **dict(r.user_properties)}
            for r in counted
        }
        told = {"benchmark": "faults", "seed": config.getoption("--fault-seed"), "tests": tests}
        file.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
