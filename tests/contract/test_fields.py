"""Every field that a user can set is set in some test: a field that no test touches may do nothing.

A static check, and no more than that: the name must stand as a keyword, as a key of a dict or as a key in text (a
recipe, `--set`) in a test file of the matching room that speaks of the method; what the field changes is for that
test to say.
"""

import ast
import functools
import re
from pathlib import Path

import pytest

from tutelage.core import discovery
from tutelage.runs import recipe

TESTS = Path(__file__).resolve().parents[1]
RECORDS = (
    recipe.Recipe,
    recipe.Source,
    recipe.ModelSpec,
    recipe.Foreach,
    recipe.Watch,
    recipe.Step,
    recipe.Until,
    recipe.Repeat,
    recipe.Tune,
    recipe.Compare,
    recipe.Gate,
)
METHODS = {card.module: card.name for card in discovery.cards().values()}
# `fields` gathers a method's own keys: it is never written.
GATHERED = {"fields"}


@functools.cache
def names_set(file: Path) -> frozenset[str]:
    """Names that stand as keywords, dict keys or keys in text in one file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            found |= {keyword.arg for keyword in node.keywords if keyword.arg}
        elif isinstance(node, ast.Dict):
            found |= {
                key.value for key in node.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)
            }
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= set(re.findall(r"(\w+)\s*[:=]", node.value))
    return frozenset(found)


@functools.cache
def files_about(*words: str, rooms: tuple[str, ...]) -> tuple[Path, ...]:
    """Test files of `rooms` that hold one of `words`."""
    files = [file for room in rooms for file in sorted((TESTS / room).glob("test_*.py"))]
    return tuple(file for file in files if any(word in file.read_text(encoding="utf-8") for word in words))


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_every_key_of_a_recipe_is_used_in_a_test(record):
    known = {name for file in files_about("", rooms=("runs", "cli")) for name in names_set(file)}
    keys = {field.alias or name for name, field in record.model_fields.items()} - GATHERED
    assert not sorted(keys - known)


def test_no_record_of_a_recipe_is_left_out():
    defined = {
        value
        for value in vars(recipe).values()
        if isinstance(value, type) and value.__module__ == recipe.__name__ and not value.__name__.startswith("_")
    }
    assert defined == set(RECORDS)


@pytest.mark.parametrize("name", sorted(discovery.cards()))
def test_every_field_of_a_method_is_used_in_a_test_of_its_room(name):
    cls = discovery.load(name)
    # A method that extends another one is tested with it; a proof may stand in another room.
    names = [METHODS[base.__module__] for base in cls.__mro__ if base.__module__ in METHODS]
    files = {file for one in names for file in files_about(one, rooms=(discovery.find(one).room,))}
    files |= set(files_about(f'"{name}": [', rooms=discovery.ROOMS))
    known = {field for file in files for field in names_set(file)}
    looked = ", ".join(sorted(file.name for file in files)) or "no file"
    assert not sorted(set(cls.model_fields) - known), f"looked in {looked}"
