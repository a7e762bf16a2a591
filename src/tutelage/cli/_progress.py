"""What a run tells while it goes on: one line for each step, and a bar for training, on standard error.

Off a terminal only steps that took computing are told, so logs stay short.
"""

import sys
from collections.abc import Mapping
from typing import Any

from tutelage.cli._output import note


def teller(quiet: bool) -> Any:
    """A listener for run events; None when nothing shall be told."""
    return None if quiet else _tell


def _tell(event: Mapping[str, Any]) -> None:
    kind = event["event"]
    if kind == "run":
        note(f"run {event['run_id']}")
    elif kind == "done":
        place = " ".join(str(event[key]) for key in ("arm", "seed") if event.get(key) is not None)
        label = f"{event['name']} [{place}]" if place else event["name"]
        facts = event.get("facts") or {}
        if not event.get("cached"):
            speed = f", MFU {facts['mfu']:.0%}" if facts.get("mfu") else ""
            note(f"  {label}: {event.get('seconds') or 0:.1f} s{speed}")
        elif sys.stderr.isatty():
            note(f"  {label}: in the store")
        if facts.get("truncated_rows"):
            share = f"{facts['truncated_rows']} of {facts['rows']}"
            note(f"  {label}: {share} rows are longer than max_length and were cut")
    elif kind == "gate":
        note(f"  gate {event['name']}: {'passed' if event['passed'] else 'FAILED'}  {event.get('reason', '')}")
    elif kind == "source":
        note(f"  reading {event['name']}")
