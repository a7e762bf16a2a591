"""Every method has a true, literal card; a file in a room that is not a method is listed here or fails."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tutelage.core import discovery
from tutelage.core.card import ROOMS
from tutelage.core.errors import ConfigError
from tutelage.core.method import Method

ROOT = Path(__file__).resolve().parents[2]
# The machinery of a room: it names no method and has no card.
MACHINERY = {"training/trainer.py"}

CARDS = discovery.cards()
METHODS = sorted(CARDS)


def declared_in_tests(name):
    """Literal lists or dicts called `name` of all test files: {file: value}."""
    found = {}
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and any(
                isinstance(t, ast.Name) and t.id == name for t in node.targets
            ):
                found[file] = ast.literal_eval(node.value)
    return found


def test_every_file_in_a_room_is_a_method():
    strangers = {
        str(file.relative_to(discovery.PACKAGE_ROOT).as_posix())
        for file in discovery.method_files()
        if discovery.read_card(file, "tutelage", discovery.PACKAGE_ROOT) is None
    }
    assert strangers == MACHINERY, "give these a CARD, or an underscore if two methods share them"


@pytest.mark.parametrize("name", METHODS)
def test_card_is_complete(name):
    card = CARDS[name]
    assert card.room in ROOMS
    assert card.paper.title
    assert card.baseline is None or card.baseline in CARDS, f"unknown baseline {card.baseline}"
    assert card.summary[0].isupper() and card.summary.endswith("."), card.summary
    extras = {"train", "documents", "qlora"}
    assert set(card.needs) <= extras


@pytest.mark.parametrize("name", METHODS)
def test_module_has_four_parts_and_is_small(name):
    source = Path(CARDS[name].source_file).read_text(encoding="utf-8")
    tree = ast.parse(source)
    assert len(ast.get_docstring(tree) or "") > 60, "the module docstring states idea and formula"
    assert len(source.splitlines()) <= 300, "one method is one small module"
    classes = [
        node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == CARDS[name].config_class
    ]
    assert ast.get_docstring(classes[0]), "the configuration class says what its fields mean"


@pytest.mark.parametrize("name", METHODS)
def test_default_constructible_frozen_and_strict(name):
    method = discovery.build(name)
    assert isinstance(method, Method)
    assert method.name == name
    for field in type(method).model_fields:
        with pytest.raises(Exception, match="frozen"):
            setattr(method, field, None)
    with pytest.raises(ConfigError, match="no_such_field"):
        discovery.build(name, {"no_such_field": 1})


def test_every_method_has_a_proof_and_a_mutation():
    proofs = {name for value in declared_in_tests("PROOF").values() for name in value}
    mutated = {entry[0] for value in declared_in_tests("MUTATIONS").values() for entry in value}
    sources = {name: Path(CARDS[name].source_file).relative_to(ROOT).as_posix() for name in METHODS}
    assert sorted(set(METHODS) - proofs) == []
    assert sorted(name for name in METHODS if sources[name] not in mutated) == []


def test_listing_imports_neither_torch_nor_transformers():
    code = (
        "import sys; from tutelage.core import discovery; discovery.cards();"
        "print([m for m in ('torch', 'transformers', 'peft', 'sklearn') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_configurations_build_without_torch():
    blocked = "torch", "transformers", "peft", "sklearn", "safetensors"
    code = (
        "import sys, json\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {blocked!r}: raise ImportError('blocked: ' + name)\n"
        "sys.meta_path.insert(0, Block())\n"
        "from tutelage.core import discovery\nbad = {}\n"
        "for name in discovery.cards():\n"
        "    try: discovery.build(name)\n"
        "    except Exception as e: bad[name] = f'{type(e).__name__}: {e}'\n"
        "print(json.dumps(bad))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(found.stdout) == {}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ('CARD = {"name": make_name()}', "literal"),
        ('CARD = {"name": "signals.x"}', "lacks keys"),
    ],
)
def test_broken_cards_are_named(tmp_path, source, message):
    (tmp_path / "signals").mkdir()
    file = tmp_path / "signals" / "x.py"
    file.write_text(source)
    with pytest.raises(ConfigError, match=message) as error:
        discovery.read_card(file, "other", tmp_path)
    assert str(file) in str(error.value)


def test_unknown_method_suggests():
    with pytest.raises(ConfigError, match=r"did you mean data\.select\.top_k"):
        discovery.find("data.select.topk")
