"""Python source trees: modules as documents, or documented functions as (code, docstring) pairs.

With `unit: module` every file is one row (`text`). With `unit: function` every function with a docstring at
module or class level is one row: `prompt` = its source from `def` on without the docstring, `completion` = the
docstring, `group` = the module's path, so that functions of one module stay on one side of a split. Files that
the running Python cannot parse go into quarantine.
"""

from collections import Counter
from pathlib import Path
from typing import Literal

from tutelage.core.errors import InputError
from tutelage.core.method import Reader
from tutelage.data._python_source import decode_source, functions, parse
from tutelage.data.read._files import empty_file, read_bytes
from tutelage.data.read._reader import TreeReader
from tutelage.data.read._rows import Rows

CARD = {
    "name": "data.read.python_source",
    "paper": {"title": "Common practice"},
    "summary": "Reads Python source trees: modules as documents, or functions as code and docstring pairs.",
    "writes": ["text", "prompt", "completion", "source", "group"],
    "needs": [],
    "cost": "one parse of every file, a few MB per second",
    "baseline": None,
    "headline": "Code without its docstring still parses to the same function.",
    "version": 1,
}


class PythonSource(TreeReader, Reader):
    """`unit` is what becomes a row: a module or a documented function."""

    unit: Literal["module", "function"] = "module"

    def takes(self, file: Path, root: Path) -> bool:
        return file.suffix == ".py"

    def read_into(self, file: Path, name: str, rows: Rows) -> None:
        """Add one module, or its documented functions, to `rows`."""
        rows.files += 1
        try:
            text = decode_source(read_bytes(file))
            if not text.strip():
                raise empty_file()
            if self.unit == "module":
                parse(text)
                rows.add({"id": name, "text": text, "source": name, "group": name, "kind": "python"}, name)
                return
            found = functions(text)
        except InputError as error:
            if error.where is not None:
                raise
            rows.bad(error, name)
            return
        if not found:
            rows.ignore("module without documented functions")
        seen: Counter[str] = Counter()
        for function in found:
            seen[function.name] += 1
            # Property setters and redefinitions share a name.
            suffix = f"#{seen[function.name]}" if seen[function.name] > 1 else ""
            source = f"{name}::{function.name}{suffix}"
            row = {"id": source, "prompt": function.code, "completion": function.docstring, "source": source}
            rows.add({**row, "group": name}, name, f"line {function.line}")
            if rows.full:
                return
