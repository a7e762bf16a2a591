"""Recipes as YAML: the safe loader without surprises, and the line of every value for error messages.

Only plain data: duplicate keys, anchors, aliases and tags are errors; `on`, `off`, `yes` and `no` are words,
`1e-4` is a number, and a date stays text.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from tutelage.core.errors import ConfigError

MAX_BYTES = 1_000_000
MAX_DIGITS = 300
# A recipe nests some six levels deep.
MAX_LEVELS = 50
Lines = dict[tuple[str | int, ...], int]


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012  (the resolvers are set below)

    _level = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if getattr(event, "tag", None) is not None:
            raise _Refused(
                "YAML tags are not part of recipes",
                event.start_mark.line + 1,
                event.tag,
                "write the plain value; quotes make text of it",
            )
        self._level += 1
        if self._level > MAX_LEVELS:
            raise _Refused(
                "values are nested too deeply",
                event.start_mark.line + 1,
                f"more than {MAX_LEVELS} levels",
                "close the brackets that were left open, or write the value as text",
            )
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _Refused(
                "anchors and aliases are not part of recipes",
                event.start_mark.line + 1,
                f"{'*' if isinstance(event, yaml.AliasEvent) else '&'}{event.anchor}",
                "write the value out where it is needed",
            )
        try:
            return super().compose_node(parent, index)
        finally:
            self._level -= 1

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, list | dict):
                raise _Refused(
                    "a key must be a word", key_node.start_mark.line + 1, str(key), "write a name before the colon"
                )
            if key in seen:
                raise _Refused(
                    f"the key {key!r} is given twice (first in line {seen[key]})",
                    key_node.start_mark.line + 1,
                    f"{key} again",
                    "keep one of them",
                )
            seen[key] = key_node.start_mark.line + 1
        return super().construct_mapping(node, deep)


class _Refused(Exception):
    def __init__(self, what: str, line: int, found: str, remedy: str) -> None:
        super().__init__(what)
        self.what = what
        self.line = line
        self.found = found
        self.remedy = remedy


def _resolver(tag: str, pattern: str, first: str) -> None:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern), list(first))


_resolver("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF")
_resolver("null", r"^(?:~|null|Null|NULL|)$", "~nN\0")
_resolver("int", r"^[-+]?[0-9]+$", "-+0123456789")
_resolver("float", r"^[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)(?:[eE][-+]?[0-9]+)?$", "-+.0123456789")
# An empty value has no first character.
_Loader.yaml_implicit_resolvers[""] = _Loader.yaml_implicit_resolvers.get("\0", [])


def _int(loader: Any, node: Any) -> int:
    if len(node.value) > MAX_DIGITS:
        raise _Refused(
            "a number is too long",
            node.start_mark.line + 1,
            f"{node.value[:40]} ...",
            f"write at most {MAX_DIGITS} digits, or quotes around what is no number",
        )
    return int(node.value)


_Loader.add_constructor("tag:yaml.org,2002:int", _int)


def parse(text: str, where: object) -> tuple[Any, Lines]:
    """(value, line of every place in it); raises ConfigError naming the line."""
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None, {}
            return loader.construct_document(node), _lines(node, ())
        finally:
            loader.dispose()
    except _Refused as error:
        raise ConfigError(
            error.what,
            where=f"{where}, line {error.line}",
            expected="plain keys and values",
            found=error.found,
            remedy=error.remedy,
        ) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}, line {mark.line + 1}" if mark else where
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(
            "not valid YAML",
            where=place,
            expected="YAML of plain values",
            found=problem,
            remedy="check indentation and quotes",
        ) from None


def read(file: Path) -> tuple[Any, Lines]:
    """`parse` of a file; a missing, huge or undecodable file is a ConfigError."""
    try:
        if file.stat().st_size > MAX_BYTES:
            raise ConfigError(
                "a recipe is too large",
                where=file,
                expected=f"at most {MAX_BYTES} bytes",
                found=f"{file.stat().st_size} bytes",
                remedy="check the path; data belongs in files that a source names",
            )
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            "a recipe is not UTF-8 text",
            where=f"{file}, byte {error.start}",
            expected="UTF-8",
            found=f"byte 0x{error.object[error.start]:02x}",
            remedy="save it as UTF-8",
        ) from None
    except OSError as error:
        raise ConfigError(
            "a recipe cannot be read",
            where=file,
            expected="a YAML file",
            found=error.strerror,
            remedy="check the path; `tutelage init` writes one",
        ) from None
    return parse(text, file)


def _lines(node: Any, path: tuple[str | int, ...]) -> Lines:
    found: Lines = {path: node.start_mark.line + 1}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*path, key.value)
            found.update(_lines(value, inner))
            found[inner] = key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            found.update(_lines(value, (*path, number)))
    return found
