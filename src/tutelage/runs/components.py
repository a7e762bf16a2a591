"""Build a method from plain recipe values, its nested components (`{use: name, field: value}`) first."""

import typing
from collections.abc import Callable, Mapping
from typing import Any

from tutelage.core import discovery
from tutelage.core.errors import ConfigError
from tutelage.core.fingerprint import components, configuration
from tutelage.core.method import Method

Place = Callable[[str], str]


def build_method(name: str, fields: Mapping[str, Any], where: Place) -> Method:
    """The configured method; errors name the step's place and field (`where(field)`)."""
    try:
        cls = discovery.load(name)
    except ConfigError as error:
        raise ConfigError(
            error.what, where=where("use"), expected=error.expected, found=error.found, remedy=error.remedy
        ) from None
    given = {}
    for key, value in fields.items():
        given[key] = _component(value, key, where, _takes_methods(cls, key))
    try:
        return cls(**given)
    except ConfigError as error:
        field = str(error.where) if error.where and error.where != "(whole)" else ""
        raise ConfigError(
            error.what, where=where(field), expected=error.expected, found=error.found, remedy=error.remedy
        ) from None


def component_inputs(method: Method) -> dict[str, str]:
    """Inputs that the components of `method` ask for in their cards."""
    found: dict[str, str] = {}
    for name in components(configuration(method)):
        found.update(discovery.find(name).inputs)
    return found


def _component(value: Any, key: str, where: Place, as_method: bool) -> Any:
    if isinstance(value, Mapping) and isinstance(value.get("use"), str):
        fields = {k: v for k, v in value.items() if k != "use"}
        for inner, nested in fields.items():
            if isinstance(nested, Mapping) and "use" in nested:
                raise ConfigError(
                    "components nest one level",
                    where=where(f"{key}.{inner}"),
                    expected="a plain value",
                    found=nested,
                    remedy="leave the inner one out",
                )
        built = build_method(value["use"], fields, lambda field: where(f"{key}.{field}".rstrip(".")))
        return built if as_method else dict(value)
    if isinstance(value, list):
        return [_component(item, f"{key}.{number}", where, as_method) for number, item in enumerate(value)]
    return value


def _takes_methods(cls: type[Method], key: str) -> bool:
    """Whether the field is declared as a Method (else it takes the plain `{use: ...}`)."""
    field = cls.model_fields.get(key)
    return field is not None and _mentions_method(field.annotation)


def _mentions_method(annotation: Any) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, Method):
        return True
    return any(_mentions_method(part) for part in typing.get_args(annotation))
