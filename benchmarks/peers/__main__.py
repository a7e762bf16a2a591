"""Install what `benchmarks/peers/` lists, once; what cannot be installed is told, and its benchmark left out."""

import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.peers import LISTS, environment, interpreter


def install(program: Path | str, packages: Path) -> None:
    subprocess.run(
        [str(program), "-m", "pip", "install", "--quiet", "--no-deps", "--requirement", str(packages)],
        check=True,
    )


def install_apart(peer: str, packages: Path) -> None:
    """Into an environment of its own, unless it is there."""
    folder = environment(peer)
    if (folder / packages.name).exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    try:
        install(interpreter(peer), packages)
    except subprocess.CalledProcessError:
        shutil.rmtree(folder)
        raise
    shutil.copy(packages, folder)  # last: a folder without it was cut off


def main() -> int:
    missing = []
    for packages in sorted(LISTS.glob("*.txt")):
        try:
            if packages.stem == "here":
                install(sys.executable, packages)
            else:
                install_apart(packages.stem, packages)
        except subprocess.CalledProcessError:
            missing.append(packages.stem)
    if missing:
        print(f"not installed, and left out of the benchmarks: {', '.join(missing)}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
