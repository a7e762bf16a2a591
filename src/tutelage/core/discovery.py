"""Find every method by parsing source files: no registry to edit, no import, no torch.

A method is a module below a room that has a literal `CARD` and one public class whose base is a kind. Its
name is its path (`data.select.top_k`). Other packages add methods through the entry-point group
`tutelage.methods`: the value names a package whose folders mirror the rooms.
"""

import ast
import functools
import importlib
import importlib.metadata
import importlib.util
import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tutelage.core.card import KINDS, REQUIRED_KEYS, ROOMS, Card, card_from_literal
from tutelage.core.errors import ConfigError, unknown
from tutelage.core.method import Method

ENTRY_POINT_GROUP = "tutelage.methods"
PACKAGE_ROOT = Path(__file__).resolve().parent.parent


def read_card(file: Path, package: str, package_root: Path) -> Card | None:
    """The card of one module, or None when the module declares none. Raises ConfigError for a broken card."""
    tree = ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
    literal = _literal(tree, file)
    if literal is None:
        return None
    parts = file.relative_to(package_root).with_suffix("").parts
    name = ".".join(parts)
    missing = [key for key in REQUIRED_KEYS if key not in literal]
    if missing:
        raise ConfigError(
            "a CARD lacks keys",
            where=file,
            expected=", ".join(REQUIRED_KEYS),
            found="no " + ", ".join(missing),
        )
    if literal["name"] != name:
        raise ConfigError("a CARD's name is not its path", where=file, expected=name, found=literal["name"])
    classes = [
        (node.name, base.id)
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
        for base in node.bases
        if isinstance(base, ast.Name) and base.id in (*KINDS, "Method")
    ]
    if len(classes) != 1:
        raise ConfigError(
            "a method module has exactly one public class whose base is a kind",
            where=file,
            expected="one of " + ", ".join(KINDS),
            found=[name for name, _ in classes] or "none",
        )
    config_class, kind = classes[0]
    try:
        return card_from_literal(
            {key: value for key, value in literal.items() if key != "name"},
            name=name,
            room=parts[0],
            kind=kind if kind != "Method" else "Trainer",
            module=f"{package}.{name}",
            config_class=config_class,
            source_file=str(file),
            status=tuple(_status().get(name, ("implemented",))),
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            "a CARD is not valid",
            where=f"{file}: {'.'.join(map(str, first['loc']))}",
            expected=first["msg"],
            found=repr(first.get("input")),
        ) from None


def _literal(tree: ast.Module, file: Path) -> dict[str, Any] | None:
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == "CARD" for target in targets):
            try:
                return ast.literal_eval(node.value)  # type: ignore[attr-defined]
            except ValueError:
                raise ConfigError(
                    "a CARD must be a literal, so that it is read without importing the module",
                    where=f"{file}:{node.lineno}",
                    remedy="write plain strings, numbers, lists and dicts",
                ) from None
    return None


@functools.cache
def _status() -> dict[str, list[str]]:
    file = PACKAGE_ROOT / "status.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


@functools.cache
def measurements() -> dict[str, list[dict[str, Any]]]:
    """Method -> its committed comparisons at equal cost: where, against what, difference, interval, verdict."""
    file = PACKAGE_ROOT / "measurements.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def shipped_recipes() -> dict[str, Path]:
    """Name -> file of the recipes that come with the package (in a checkout, those beside it)."""
    folders = (PACKAGE_ROOT / "recipes", PACKAGE_ROOT.parent.parent / "recipes")
    folder = next((folder for folder in folders if folder.is_dir()), None)
    return {} if folder is None else {file.stem: file for file in sorted(folder.glob("*.yaml"))}


def _packages() -> list[tuple[str, Path]]:
    found = [("tutelage", PACKAGE_ROOT)]
    for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        spec = importlib.util.find_spec(point.value)
        if spec is None or not spec.submodule_search_locations:
            raise ConfigError(
                "an installed method package cannot be found",
                where=f"entry point {point.name} = {point.value}",
                remedy="reinstall or uninstall the distribution that declares it",
            )
        found.append((point.value, Path(next(iter(spec.submodule_search_locations)))))
    return found


def method_files(package_root: Path = PACKAGE_ROOT) -> list[Path]:
    """Every module in the rooms of a package that could be a method (leading underscore = shared code)."""
    return sorted(
        file
        for room in ROOMS
        if (package_root / room).is_dir()
        for file in (package_root / room).rglob("*.py")
        if not file.name.startswith("_")
    )


@functools.cache
def cards() -> dict[str, Card]:
    """All cards by name, ours first, then those of installed packages; a name used twice is an error."""
    found: dict[str, Card] = {}
    for package, root in _packages():
        for file in method_files(root):
            card = read_card(file, package, root)
            if card is None:
                continue
            if card.name in found:
                raise ConfigError(
                    f"two methods are called {card.name}",
                    where=file,
                    found=found[card.name].source_file,
                    remedy="rename one of the modules",
                )
            found[card.name] = card
    return found


def find(name: str) -> Card:
    """The card of `name`; an unknown name is an error with a suggestion."""
    known = cards()
    if not isinstance(name, str) or name not in known:
        what = "a method that `tutelage methods` lists"
        raise unknown(f"unknown method {name!r}", "the name of a method", name, known, expected=what)
    return known[name]


def load(name: str) -> type[Method]:
    """Import the method's configuration class."""
    card = find(name)
    return getattr(importlib.import_module(card.module), card.config_class)


def build(name: str, fields: dict[str, Any] | None = None) -> Method:
    """Configure a method by name; raises ConfigError for unknown methods, unknown fields and bad values."""
    return load(name)(**(fields or {}))
