"""Python sources: code without its docstring is the same code; the running environment as a corpus."""

import ast
import json
import sysconfig
from pathlib import Path

import pytest

from tutelage.core.errors import ConfigError, InputError
from tutelage.data._python_source import decode_source, docstrings, functions
from tutelage.data.read.python_environment import PythonEnvironment, kind_of, package_of
from tutelage.data.read.python_source import PythonSource

PROOF = {
    "data.read.python_source": ["consistent", "verified"],
    "data.read.python_environment": ["consistent"],
}
MUTATIONS = [
    ("src/tutelage/data/read/python_source.py", 'row, "group": name}', 'row, "group": source}'),
    ("src/tutelage/data/read/python_environment.py", "file.stat().st_size > self.max_bytes", "False"),
    ("src/tutelage/data/_python_source.py", "line if number in inside else", "line if False else"),
    ("src/tutelage/data/_python_source.py", 'before + b"..." + after', "before + after"),
]

SOURCE = '''"""Module."""
import os

class Point:
    """A point."""

    @property
    def x(self):
        """The first
        coordinate."""
        # how far
        return """a
      b"""

    @x.setter
    def x(self, value):
        """Set it."""

    def silent(self):
        return 1

def f(a, *, b: int = 2) -> "é": "In é line"; return a + b

async def g():
    """Wait."""
    def inner():
        """Not listed."""
    return inner

if os.name == "nt":
    def h():
        """Odd."""
        pass
'''


def test_functions_by_hand():
    found = {(f.name, f.docstring): f.code for f in functions(SOURCE)}
    assert list(found) == [
        ("Point.x", "The first\ncoordinate."),
        ("Point.x", "Set it."),
        ("f", "In é line"),
        ("g", "Wait."),
        ("h", "Odd."),
    ]
    assert found["Point.x", "The first\ncoordinate."] == 'def x(self):\n    # how far\n    return """a\n      b"""'
    assert found["Point.x", "Set it."] == "def x(self, value):\n    ..."
    assert found["f", "In é line"] == 'def f(a, *, b: int = 2) -> "é": ...; return a + b'
    assert found["h", "Odd."] == "def h():\n    pass"
    assert docstrings(SOURCE) == [
        "Module.",
        "A point.",
        "The first\ncoordinate.",
        "Set it.",
        "In é line",
        "Wait.",
        "Not listed.",
        "Odd.",
    ]


def test_code_parses_to_the_function_without_its_docstring():
    folder = Path(sysconfig.get_paths()["stdlib"])
    seen = 0
    for name in ("json", "email", "asyncio", "xml/dom"):
        for file in sorted((folder / name).glob("*.py")):
            text = decode_source(file.read_bytes())
            nodes = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
            wanted = {n.lineno: n for n in nodes}
            for function in functions(text):
                node = wanted[function.line]
                assert function.docstring == ast.get_docstring(node)
                node.decorator_list = []
                node.body = node.body[1:] or [ast.Expr(ast.Constant(...))]
                assert ast.dump(ast.parse(function.code).body[0]) == ast.dump(node)
                seen += 1
    assert seen > 400


def tree(root):
    (root / "pkg" / "__pycache__").mkdir(parents=True)
    (root / "pkg" / "mod.py").write_text(SOURCE, encoding="utf-8")
    (root / "pkg" / "__init__.py").write_text("", encoding="utf-8")
    (root / "pkg" / "broken.py").write_text("def f(:\n", encoding="utf-8")
    (root / "pkg" / "latin.py").write_bytes(b'# coding: latin-1\ndef e():\n    """caf\xe9"""\n    return 1\n')
    (root / "pkg" / "wrong.py").write_bytes(b'x = "caf\xe9"\n')
    (root / "pkg" / "__pycache__" / "mod.py").write_text("x = 1", encoding="utf-8")
    (root / "pkg" / "data.txt").write_text("x", encoding="utf-8")
    return str(root)


def test_python_source_modules_and_functions(tmp_path):
    modules = PythonSource().read(tree(tmp_path / "src"))
    assert {r["id"]: (r["source"], r["group"]) for r in modules.rows()} == {
        "pkg/latin.py": ("pkg/latin.py", "pkg/latin.py"),
        "pkg/mod.py": ("pkg/mod.py", "pkg/mod.py"),
    }
    assert "café" in next(modules.rows())["text"]
    reasons = {r["where"]: r["reason"] for r in modules.quarantined.to_pylist()}
    assert "not valid Python" in reasons["pkg/broken.py"] and "line 1" in reasons["pkg/broken.py"]
    assert "cannot be decoded" in reasons["pkg/wrong.py"] and "empty" in reasons["pkg/__init__.py"]
    assert modules.report["in"] == 5 and modules.report["kept"] == 2

    pairs = PythonSource(unit="function").read(str(tmp_path / "src"))
    assert pairs.ids() == [
        "pkg/latin.py::e",
        "pkg/mod.py::Point.x",
        "pkg/mod.py::Point.x#2",
        "pkg/mod.py::f",
        "pkg/mod.py::g",
        "pkg/mod.py::h",
    ]
    first = next(pairs.rows())
    assert (first["prompt"], first["completion"]) == ("def e():\n    return 1", "café")
    assert set(pairs.column("group").to_pylist()) == {"pkg/latin.py", "pkg/mod.py"}
    assert PythonSource(unit="function", limit=3).read(str(tmp_path / "src")).num_rows == 3
    with pytest.raises(InputError, match=r"broken\.py"):
        PythonSource(on_error="raise").read(str(tmp_path / "src" / "pkg" / "broken.py"))


def environment(root):
    files = {
        "alpha/__init__.py": b"",
        "alpha/core.py": b'"""Core."""\ndef f():\n    """Do."""\n',
        "alpha/core.pyi": b"def f() -> None: ...\n",
        "alpha/README": b"read me",
        "alpha/guide.md": b"# Guide\n",
        "alpha/doc.rst": b"Title\n=====\n",
        "alpha/page.html": b"<p>Hi <b>you</b></p>",
        "alpha/table.json": b'{"a": 1}',
        "alpha/native.so": b"\x7fELF",
        "alpha/odd.dat": b"a\0b",
        "alpha/latin.txt": b"caf\xe9",
        "alpha/large.txt": b"x" * 3000,
        "alpha/tests/test_core.py": b"assert 1\n",
        "alpha/test_more.py": b"assert 1\n",
        "alpha/__pycache__/core.pyc": b"\0",
        "alpha-1.0.dist-info/METADATA": b"Name: alpha\n",
        "alpha-1.0.dist-info/licenses/LICENSE": b"Be nice.\n",
        "single.py": b"x = 1\n",
    }
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return str(root)


def test_environment_kinds_packages_and_counts(tmp_path):
    found = PythonEnvironment().read(environment(tmp_path / "site"))
    table = {r["id"]: (r["kind"], r["package"], r["text"]) for r in found.rows()}
    assert list(table) == sorted(table, key=lambda name: name.split("/"))
    assert {name: kind for name, (kind, _, _) in table.items()} == {
        "alpha-1.0.dist-info/METADATA": "text",
        "alpha-1.0.dist-info/licenses/LICENSE": "licence",
        "alpha/README": "text",
        "alpha/core.py": "python",
        "alpha/core.pyi": "stub",
        "alpha/doc.rst": "rst",
        "alpha/guide.md": "markdown",
        "alpha/large.txt": "text",
        "alpha/page.html": "html",
        "alpha/table.json": "data",
        "single.py": "python",
    }
    assert {package for _, package, _ in table.values()} == {"alpha", "single"}
    assert table["alpha/page.html"][2] == "Hi you"
    assert found.quarantined.column("where").to_pylist() == ["alpha/latin.txt"]
    assert found.report["ignored"] == {"binary": 2, "empty": 1, "test folder": 1, "test module": 1}
    assert found.report["in"] == found.report["kept"] + found.report["quarantined"] == 12


def test_environment_options(tmp_path):
    path = environment(tmp_path / "site")
    assert PythonEnvironment(kinds=("markdown", "rst")).read(path).ids() == ["alpha/doc.rst", "alpha/guide.md"]
    small = PythonEnvironment(max_bytes=2999).read(path)
    assert "alpha/large.txt" not in small.ids() and small.report["ignored"]["larger than max_bytes"] == 1
    tested = PythonEnvironment(include_tests=True).read(path).ids()
    assert "alpha/test_more.py" in tested and "alpha/tests/test_core.py" in tested
    assert PythonEnvironment(limit=4).read(path).ids() == PythonEnvironment().read(path).ids()[:4]
    docs = PythonEnvironment(kinds=("docstring",)).read(path)
    assert [(r["id"], r["text"], r["kind"]) for r in docs.rows()] == [
        ("alpha/core.py#docstrings", "Core.\n\nDo.", "docstring")
    ]
    with pytest.raises(ConfigError, match="kinds"):
        PythonEnvironment(kinds=())
    with pytest.raises(InputError, match="nothing to read"):
        PythonEnvironment(kinds=("html",), max_bytes=1).read(path)


@pytest.mark.parametrize(
    ("folder", "name", "kind"),
    [
        ("x", "COPYING.txt", "licence"),
        ("x", "license.py", "python"),
        ("x-1.dist-info/licenses", "AUTHORS.md", "licence"),
        ("x", "CHANGELOG", "text"),
        ("x", "history.c", "data"),
        ("x", "module.F90", "data"),
    ],
)
def test_kind_of_a_file(folder, name, kind):
    assert kind_of(folder, name) == kind


def test_package_of_a_file():
    assert [package_of(p) for p in ("a/b/c.py", "six.py", "Foo_Bar-1.2.dist-info/RECORD", "t.pyi")] == [
        "a",
        "six",
        "foo_bar",
        "t",
    ]


def test_running_environment_holds_no_path_of_the_machine():
    found = PythonEnvironment(limit=300).read()
    again = PythonEnvironment(limit=300).read()
    assert found.hash == again.hash and found.num_rows == 300
    home = sysconfig.get_paths()["stdlib"]
    told = [
        *found.column("source").to_pylist(),
        json.dumps(found.report),
        *map(str, found.quarantined.to_pylist()),
    ]
    assert not any(home in text for text in told)
    assert all(source.startswith("python/") for source in found.column("source").to_pylist())
