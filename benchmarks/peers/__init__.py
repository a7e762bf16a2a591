"""The tools that we are measured beside, at exact versions; `python -m benchmarks.peers` installs them.

What `here.txt` names runs in our own process and goes into this environment. Every other file stands for a tool
that needs other versions than we do: it gets an environment of its own below this one, and a benchmark starts it
there. A file lists all that its tool needs; nothing else is installed, since kronfluence asks for torchvision,
which it does not use and which not every index has without CUDA.
"""

import os
import sys
from pathlib import Path

LISTS = Path(__file__).resolve().parent


def environment(peer: str) -> Path:
    """The folder of a tool's environment."""
    return Path(sys.prefix) / "peers" / peer


def interpreter(peer: str) -> Path:
    """Where the interpreter of that environment stands."""
    return environment(peer) / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def python(peer: str) -> Path | None:
    """The interpreter that has the tool; None where it was not installed."""
    found = interpreter(peer)
    return found if found.exists() else None
