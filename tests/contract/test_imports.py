"""Imports run one way: cli -> report -> runs -> rooms -> models -> core; rooms never import each other."""

import ast
from pathlib import Path

import pytest

from tutelage.core.card import ROOMS
from tutelage.core.discovery import PACKAGE_ROOT

FLOORS = {"core": 0, "models": 1, **dict.fromkeys(ROOMS, 2), "runs": 3, "report": 4, "cli": 5}
FILES = sorted(file for file in PACKAGE_ROOT.rglob("*.py") if file.parent != PACKAGE_ROOT)
HEAVY = {"torch", "transformers", "peft", "sklearn", "safetensors", "gguf", "psutil", "accelerate"}


def imported(file: Path) -> list[tuple[str, bool]]:
    """(module, at top level) of every import in a file."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    top = set(map(id, tree.body))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.append((node.module, id(node) in top))
            found += [(f"{node.module}.{alias.name}", id(node) in top) for alias in node.names]
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE_ROOT)))
def test_imports_run_one_way(file):
    floor = file.relative_to(PACKAGE_ROOT).parts[0]
    assert floor in FLOORS, f"{floor} is not a part of the house"
    for module, _ in imported(file):
        parts = module.split(".")
        if parts[0] == "tutelage" and len(parts) > 1 and parts[1] in FLOORS:
            other = parts[1]
            assert other == floor or FLOORS[other] < FLOORS[floor], f"{floor} may not import {module}"


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE_ROOT)))
def test_the_core_install_needs_no_torch(file):
    floor = file.relative_to(PACKAGE_ROOT).parts[0]
    if floor == "models":
        pytest.skip("the models floor is where torch lives")
    if floor in ("training", "adapters") and "CARD = {" not in file.read_text(encoding="utf-8"):
        pytest.skip("machinery of the training rooms")
    top = [module for module, at_top in imported(file) if at_top and module.split(".")[0] in HEAVY]
    assert top == [], "import heavy libraries inside the function that needs them"


def test_there_is_no_drawer():
    assert [f.name for f in FILES if f.stem in ("utils", "helpers", "misc", "common")] == []
