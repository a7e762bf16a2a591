"""Cache keys: what a result depends on, and nothing else.

A key is the hash of the method's name and version, its full configuration, the content hashes of its inputs, the
source of the method's module and of every module of our own (or of the method's package) that it imports, directly
or not, inside functions too, and the major and minor versions of the libraries that compute its numbers. A file's
name never enters a key.

The source is what this process runs: of a module that is loaded, the text from before it was loaded, whatever has
been written to its file since. So an edit during a run changes the keys of later runs only.
"""

import ast
import functools
import importlib.metadata
import importlib.util
import json
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import blake3

from tutelage.core.card import Card
from tutelage.core.discovery import PACKAGE_ROOT, find
from tutelage.core.errors import ConfigError
from tutelage.core.method import Method

# Import name -> distribution of the libraries whose release decides numbers. Arrow carries every dataset and
# counts where there is no model, which is where computing again is cheap.
_COMPUTING = {"sklearn": "scikit-learn", "scipy": "scipy", "bitsandbytes": "bitsandbytes", "gguf": "gguf"}
_OF_MODELS = ("numpy", "torch", "transformers", "peft")
_OF_TABLES = ("numpy", "pyarrow")


def digest(value: Any) -> str:
    """32 hex digits of the hash of a JSON-able value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return blake3.blake3(text.encode("utf-8", "surrogatepass")).hexdigest(length=16)


def code_hash(module: str) -> str:
    """Hash of the source of `module` and of all modules of `tutelage` and of its own package that it reaches."""
    return digest(sorted(_reached(module)[0].items()))


def libraries(cards: Collection[Card]) -> dict[str, str]:
    """Distribution -> "major.minor" of the libraries that compute a method's numbers, as far as installed.

    `cards` are its own and its components'. Patch releases are left out: they mend, and a store that they emptied
    would be trained again for nothing.
    """
    found = [_COMPUTING[name] for card in cards for name in _reached(card.module)[1] if name in _COMPUTING]
    found += _OF_MODELS if any("train" in card.needs for card in cards) else _OF_TABLES
    return {name: version for name in sorted(set(found)) if (version := _minor(name))}


def _reached(module: str) -> tuple[dict[str, str], set[str]]:
    """Source hashes of our own modules that `module` reaches, and the other packages that these import."""
    own = {"tutelage", module.partition(".")[0]}
    waiting, seen, others = [module], dict[str, str](), set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        if name.partition(".")[0] not in own:
            others.add(name.partition(".")[0])
            continue
        file = _source_file(name)
        if file is None:
            continue
        seen[name], imported = _parsed(_source(file, name), name, file.name == "__init__.py")
        waiting += imported
    if module not in seen:
        raise ConfigError("the source of a method cannot be found", where=module, remedy="reinstall its package")
    return seen, others


@functools.cache
def _minor(distribution: str) -> str:
    try:
        return ".".join(importlib.metadata.version(distribution).split(".")[:2])
    except importlib.metadata.PackageNotFoundError:
        return ""


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
            "libraries": libraries(known.values()),
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
        plain = {str(key): _plain(item) for key, item in value.items()}
        # A method may go by the order (which part is filled first), and digests do not see it.
        return plain if list(plain) == sorted(plain) else {**plain, "": list(plain)}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(_plain(item) for item in value)
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


_loaded_sources: dict[Path, bytes] = {}


def _source(file: Path, module: str) -> bytes:
    """What the process runs, or will run, as `module`: see above."""
    if module not in sys.modules or file not in _loaded_sources:
        _loaded_sources[file] = file.read_bytes()
    return _loaded_sources[file]


@functools.lru_cache(maxsize=4096)
def _parsed(source: bytes, module: str, is_package: bool) -> tuple[str, tuple[str, ...]]:
    package = module if is_package else module.rpartition(".")[0]
    found = []
    for node in ast.walk(ast.parse(source, filename=module)):
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


# Modules that were loaded before this one are as their files are now; others are read when they are asked for.
for _file in PACKAGE_ROOT.rglob("*.py"):
    _loaded_sources[_file] = _file.read_bytes()
