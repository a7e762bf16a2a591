"""Install what `benchmarks/peers/` lists, once; what cannot be installed is told, and its benchmark left out."""

import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.peers import LISTS, environment, python


def install(interpreter: Path, packages: Path) -> None:
    subprocess.run(
        [str(interpreter), "-m", "pip", "install", "--quiet", "--no-deps", "--requirement", str(packages)],
        check=True,
    )


def main() -> int:
    missing = []
    for packages in sorted(LISTS.glob("*.txt")):
        peer, own = packages.stem, packages.stem != "here"
        try:
            if own:
                if (environment(peer) / packages.name).exists():
                    continue
                shutil.rmtree(environment(peer), ignore_errors=True)
                subprocess.run([sys.executable, "-m", "venv", str(environment(peer))], check=True)
            install(python(peer) or Path(sys.executable), packages)
            if own:
                shutil.copy(packages, environment(peer))  # last: a folder without it was cut off
        except subprocess.CalledProcessError:
            shutil.rmtree(environment(peer), ignore_errors=True)
            missing.append(peer)
    if missing:
        print(f"not installed, and left out of the benchmarks: {', '.join(missing)}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
