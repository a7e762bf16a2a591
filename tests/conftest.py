"""Lets tests import the shared toys: `from toy.planted_pool import make_pool`. Options of the long suites."""

import sys
from pathlib import Path

_HERE = str(Path(__file__).parent)
if _HERE not in sys.path:
    sys.path.insert(0, _HERE)


def pytest_addoption(parser):
    parser.addoption(
        "--fuzz-seconds", type=float, default=None, help="seconds of fuzzing for each target (short without it)"
    )
