"""A field that holds another method: `{use: name, field: value}` in a recipe, or a configured method in Python."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

from tutelage.core.method import Method


def as_method(value: Any) -> Any:
    """Build `{use: name, ...}`; anything else is passed on. Raises ConfigError for unknown names or fields."""
    if isinstance(value, str):
        value = {"use": value}
    if isinstance(value, Mapping) and "use" in value:
        from tutelage.core.discovery import build

        return build(value["use"], {key: item for key, item in value.items() if key != "use"})
    return value


def as_use(method: Method | None) -> dict[str, Any] | None:
    """The inverse: name and full configuration, so that two methods with equal fields still differ in a hash."""
    return None if method is None else {"use": method.name, **method.model_dump(mode="json")}


Component = Annotated[Method, BeforeValidator(as_method), PlainSerializer(as_use)]
