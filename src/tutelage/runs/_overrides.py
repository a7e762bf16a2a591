"""`--set a.b=c`: a change of the plain recipe before it is checked."""

from collections.abc import Collection
from typing import Any

from tutelage.core.errors import ConfigError, unknown
from tutelage.runs import _yaml


def override(recipe: dict[str, Any], text: str, keys: Collection[str]) -> None:
    """Apply one `a.b=c` to the plain recipe, in place; the value is read as YAML, `keys` are a recipe's own.

    Raises ConfigError when it is not of that form or leads nowhere.
    """
    name, sign, raw = text.partition("=")
    parts = name.strip().split(".")
    if not sign or not all(parts):
        raise ConfigError(
            "an override is not key=value",
            where=f"--set {text}",
            expected="key.sub=value",
            found=text,
            remedy="write it as in --set trained.learning_rate=1e-4",
        )
    value, _ = _yaml.parse(raw, f"--set {text}")
    steps: dict[str, Any] = {str(s.get("name")): s for s in recipe.get("steps") or [] if isinstance(s, dict)}
    if parts[0] == "steps" and len(parts) > 1:
        parts = parts[1:]
        if parts[0] not in steps:
            raise unknown(f"there is no step {parts[0]!r}", f"--set {text}", parts[0], steps)
    target: Any = steps.get(parts[0], recipe)
    if target is not recipe:
        parts = parts[1:]
    elif parts[0] not in keys:
        known, expected = [*steps, *keys], "the name of a step, or a key of the recipe"
        raise unknown(f"nothing is called {parts[0]!r}", f"--set {text}", parts[0], known, expected)
    if not parts:
        raise ConfigError(
            "an override names a whole step",
            where=f"--set {text}",
            expected="step.field=value",
            found=name,
            remedy="name the field after the step",
        )
    for part in parts[:-1]:
        if isinstance(target, list) and part.isdigit() and int(part) < len(target):
            target = target[int(part)]
            continue
        if not isinstance(target, dict):
            raise _not_below(text, part)
        target = target.setdefault(part, {})
    if isinstance(target, list) and parts[-1].isdigit() and int(parts[-1]) < len(target):
        target[int(parts[-1])] = value
    elif isinstance(target, dict):
        target[parts[-1]] = value
    else:
        raise _not_below(text, parts[-1])


def _not_below(text: str, part: str) -> ConfigError:
    return ConfigError(
        "an override goes through a plain value",
        where=f"--set {text}",
        expected="keys, or numbers of list items, that are there",
        found=part,
        remedy="end the key one level above, or check the spelling",
    )
