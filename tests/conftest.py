"""Lets tests import the shared toys: `from toy.planted_pool import make_pool`."""

import sys
from pathlib import Path

_HERE = str(Path(__file__).parent)
if _HERE not in sys.path:
    sys.path.insert(0, _HERE)
