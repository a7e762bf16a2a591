"""Functions of a Python source text as (code without docstring, docstring) pairs, cut from the source itself.

Comments, layout and multi-line strings stay as written; only the indentation of methods is taken away and the
docstring is cut out (`...` stands in where nothing else was in the body).
"""

import ast
import importlib.util
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from tutelage.core.errors import InputError

_Def = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Function:
    """One documented function: its qualified name, its code from `def` on, and its cleaned docstring."""

    name: str
    code: str
    docstring: str
    line: int


def parse(text: str) -> ast.Module:
    """The syntax tree; raises InputError for text that is not Python (of the running version)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        raise InputError(
            "a file is not valid Python",
            expected="source of the running Python version",
            found=f"{getattr(error, 'msg', None) or type(error).__name__}" + (f" in line {line}" if line else ""),
            remedy="leave the file out, or read it as text",
        ) from None


def decode_source(data: bytes) -> str:
    """The text of a source file, by its coding line or UTF-8; line ends become `\\n`."""
    try:
        return importlib.util.decode_source(data)
    except (SyntaxError, UnicodeDecodeError, LookupError) as error:
        raise InputError(
            "a Python file cannot be decoded",
            expected="UTF-8, or the encoding that its coding line names",
            found=str(error),
            remedy="convert it to UTF-8, or correct its coding line",
        ) from None


def functions(text: str) -> list[Function]:
    """The documented functions at module and class level, in order. `text` has `\\n` line ends."""
    lines = text.split("\n")
    found = []
    for name, node in _definitions(parse(text), ""):
        docstring = ast.get_docstring(node)
        if docstring:
            found.append(Function(name, _code(node, lines), docstring, node.lineno))
    return found


def documented(text: str, min_words: int) -> list[Function] | str:
    """The functions of a text whose docstring has so many words, or why there is none."""
    try:
        found = functions(text.replace("\r\n", "\n").replace("\r", "\n"))
    except InputError as error:
        return f"not Python: {error.found}"
    return [f for f in found if len(f.docstring.split()) >= min_words] or "no documented function"


def docstrings(text: str) -> list[str]:
    """All docstrings of a module: its own, then those of classes and functions in source order."""
    tree = parse(text)
    owners = [n for n in ast.walk(tree) if isinstance(n, ast.Module | ast.ClassDef | _Def)]
    owners.sort(key=lambda node: getattr(node, "lineno", 0))
    return [doc for doc in map(ast.get_docstring, owners) if doc]


def _definitions(tree: ast.AST, prefix: str) -> Iterator[tuple[str, _Def]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, _Def):
            yield prefix + node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from _definitions(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.If | ast.Try | ast.With):
            yield from _definitions(node, prefix)


def _code(node: _Def, lines: list[str]) -> str:
    first, last = node.lineno - 1, node.end_lineno or node.lineno
    # Column offsets of the tree are in UTF-8 bytes.
    body = [line.encode() for line in lines[first:last]]
    body[-1] = body[-1][: node.end_col_offset]
    indent = body[0][: len(body[0]) - len(body[0].lstrip())]
    doc = node.body[0]
    assert isinstance(doc, ast.Expr) and doc.end_lineno is not None
    inside = _inside_strings(node, doc.value, first)
    code = [line if number in inside else line.removeprefix(indent) for number, line in enumerate(body)]
    start, end = doc.lineno - 1 - first, doc.end_lineno - 1 - first
    before, after = body[start][: doc.col_offset].removeprefix(indent), body[end][doc.end_col_offset :]
    if len(node.body) == 1 or before.strip() or after.strip().startswith(b";"):
        code[start : end + 1] = [before + b"..." + after]
    else:
        # A comment behind the docstring goes with it.
        code[start : end + 1] = []
    return b"\n".join(code).decode()


def _inside_strings(node: _Def, docstring: ast.expr, first: int) -> set[int]:
    """Indices of lines that begin inside a string of several lines: their leading blanks belong to it."""
    return {
        line - first
        for part in ast.walk(node)
        if isinstance(part, ast.Constant | ast.JoinedStr) and part is not docstring
        for line in range(part.lineno, part.end_lineno or part.lineno)
    }
