"""Cache keys: what a result depends on, and nothing else.

A key is the hash of the method's name and version, its full configuration, the content hashes of its inputs, and
the source of the method's module and of every module of our own (or of the method's package) that it imports,
directly or not, inside functions too. File names never enter a key.
"""

import ast
import functools
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import blake3

from tutelage.core.discovery import PACKAGE_ROOT, find
from tutelage.core.errors import ConfigError
from tutelage.core.method import Method


def digest(value: Any) -> str:
    """32 hex digits of the hash of a JSON-able value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return blake3.blake3(text.encode("utf-8", "surrogatepass")).hexdigest(length=16)


def code_hash(module: str) -> str:
    """Hash of the source of `module` and of all modules of `tutelage` and of its own package that it reaches."""
    own = {"tutelage", module.partition(".")[0]}
    waiting, seen = [module], {}
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        file = _source_file(name)
        if file is None:
            continue
        status = file.stat()
        seen[name], imported = _parsed(file, name, status.st_mtime_ns, status.st_size)
        waiting += [other for other in imported if other.partition(".")[0] in own]
    if module not in seen:
        raise ConfigError("the source of a method cannot be found", where=module, remedy="reinstall its package")
    return digest(sorted(seen.items()))


def configuration(method: Method) -> dict[str, Any]:
    """A method's whole configuration as JSON, defaults included; components appear as `{use: name, ...}`."""
    return {name: _plain(getattr(method, name)) for name in type(method).model_fields}


def components(value: Any) -> list[str]:
    """Names of the methods nested in a configuration made by `configuration`, in order."""
    if isinstance(value, Mapping):
        found = [value["use"]] if isinstance(value.get("use"), str) else []
        return found + [name for key in sorted(value) for name in components(value[key])]
    if isinstance(value, list | tuple):
        return [name for item in value for name in components(item)]
    return []


def method_key(method: Method, contents: Mapping[str, Any], extra: Mapping[str, Any] | None = None) -> str:
    """The cache key of `method` run on inputs with the content hashes `contents`.

    `extra` is whatever else the caller hands the method (a seed, a budget); it must be JSON-able.
    """
    config = configuration(method)
    names = [method.name, *components(config)]
    known = {name: find(name) for name in names}
    return digest(
        {
            "methods": {name: card.version for name, card in known.items()},
            "code": {name: code_hash(card.module) for name, card in known.items()},
            "name": method.name,
            "config": config,
            "files": [blake3.blake3(file.read_bytes()).hexdigest(length=16) for file in method.files()],
            "inputs": dict(contents),
            "extra": dict(extra or {}),
        }
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Method):
        return {"use": value.name, **configuration(value)}
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(_plain(item) for item in value)
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


@functools.lru_cache(maxsize=4096)
def _parsed(file: Path, module: str, mtime_ns: int, size: int) -> tuple[str, tuple[str, ...]]:
    # Time and size are part of the cache's key only: an edited file is read again.
    source = file.read_bytes()
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    found = []
    for node in ast.walk(ast.parse(source, filename=str(file))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = package.rsplit(".", node.level - 1)[0]
                base = f"{parent}.{base}".rstrip(".")
            found += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return blake3.blake3(source).hexdigest(length=16), tuple(dict.fromkeys(found))


def _source_file(module: str) -> Path | None:
    top, _, rest = module.partition(".")
    root = _package_root(top)
    if root is None or not rest:
        return None
    base = root.joinpath(*rest.split("."))
    for file in (base.with_suffix(".py"), base / "__init__.py"):
        if file.is_file():
            return file
    return None


@functools.cache
def _package_root(top: str) -> Path | None:
    if top == "tutelage":
        return PACKAGE_ROOT
    spec = importlib.util.find_spec(top)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))
