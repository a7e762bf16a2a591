"""A child that mounts a small disk where only it sees it, fills it up, makes room and goes on."""

import ctypes
import io
import json
import os
import subprocess
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from toy.fault_child import settle

NEW_USER, NEW_MOUNTS = 0x10000000, 0x00020000


def own_namespace() -> None:
    """Leave for a namespace in which this user may mount; raises OSError where the system does not allow it."""
    user, group = os.geteuid(), os.getegid()
    if ctypes.CDLL(None, use_errno=True).unshare(NEW_USER | NEW_MOUNTS):
        raise OSError(ctypes.get_errno(), "no namespace")
    Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1", encoding="ascii")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1", encoding="ascii")


def mount(workspace: str, *options: str) -> None:
    """Mount a disk in memory on the workspace, or change the one that is there."""
    subprocess.run(["mount", *options, "none", workspace], check=True, capture_output=True)


def fill_up(workspace: str, told: str, recipe: str, sizes: list[str]) -> None:
    """Run the recipe on a disk of each size in turn; then, when nothing can be written any more, run it again and
    write its report to the disk and elsewhere. `told` gets a JSON list of exit codes and standard errors, or null
    where nothing can be mounted."""
    settle(workspace)
    try:
        own_namespace()
        Path(workspace).mkdir(parents=True)
        mount(workspace, "-t", "tmpfs", "-o", f"size={sizes[0]}")
    except (OSError, subprocess.CalledProcessError):
        Path(told).write_text("null", encoding="utf-8")
        return
    run = ["run", recipe, "--workspace", workspace]
    found = []
    for number, size in enumerate(sizes):
        if number:
            mount(workspace, "-t", "tmpfs", "-o", f"remount,size={size}")
        found.append(_said(run))
    mount(workspace, "-t", "tmpfs", "-o", "remount,ro")
    found.append(_said(run))
    found.append(_said(["report", "--workspace", workspace]))
    found.append(_said(["report", "--workspace", workspace, "--out", workspace + ".html"]))
    # What is mounted here ends with the namespace.
    subprocess.run(["cp", "-r", workspace, workspace + ".kept"], check=True)
    Path(told).write_text(json.dumps(found), encoding="utf-8")


def _said(command: list[str]) -> tuple[int, str]:
    from tutelage.cli.main import run

    told = io.StringIO()
    try:
        with redirect_stderr(told), redirect_stdout(io.StringIO()):
            run(command)
    except SystemExit as end:
        return int(end.code or 0), told.getvalue()
    return 0, told.getvalue()
