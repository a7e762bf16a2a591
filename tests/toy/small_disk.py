"""A program for a namespace of its own, where anybody may mount a small disk: run, fill it up, make room, go on.

    unshare --map-root-user --mount python small_disk.py WORKSPACE RECIPE SIZES...

Each size is a try on a disk of so many bytes (the last one: as many as it takes); then the disk is made read-only.
Prints one JSON list: exit code and standard error of every try, and the report's in the end.
"""

import io
import json
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from tutelage.cli.main import run


def tutelage(*arguments: str) -> tuple[int, str]:
    """Exit code and standard error of a command."""
    told = io.StringIO()
    try:
        with redirect_stderr(told), redirect_stdout(io.StringIO()):
            run(list(arguments))
    except SystemExit as end:
        return int(end.code or 0), told.getvalue()
    return 0, told.getvalue()


def main(workspace: str, recipe: str, *sizes: str) -> None:
    """Mount, run, make room, run again; then read from what cannot be written."""
    import torch

    from tutelage.core import dataset_builder
    from tutelage.models import device

    torch.set_num_threads(1)
    device.probe_gflops = lambda *_: 1.0  # type: ignore[assignment]
    dataset_builder.BYTES_PER_SHARD = 3000
    Path(workspace).mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={sizes[0]}", "none", workspace], check=True)
    told = []
    for number, size in enumerate(sizes):
        if number:
            subprocess.run(["mount", "-o", f"remount,size={size}", workspace], check=True)
        told.append(tutelage("run", recipe, "--workspace", workspace))
    subprocess.run(["mount", "-o", "remount,ro", workspace], check=True)
    told.append(tutelage("run", recipe, "--workspace", workspace))
    told.append(tutelage("report", "--workspace", workspace))
    told.append(tutelage("report", "--workspace", workspace, "--out", workspace + ".html"))
    # What is mounted here ends with the namespace.
    subprocess.run(["cp", "-r", workspace, workspace + ".kept"], check=True)
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
