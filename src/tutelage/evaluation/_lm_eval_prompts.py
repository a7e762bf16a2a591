"""Prompts, targets, filters and metrics of lm-eval tasks, by the conventions of lm-evaluation-harness 0.4.

A prompt is description + demonstrations + item, where a demonstration is text + target delimiter + target +
demonstration delimiter. Templates are Jinja in a sandbox in which an undefined name is an error. Departure: the
demonstrations of an item are drawn with a generator of their own, seeded by (task seed, item key), so that a
subset or another order gives the same prompts; and an item is never its own demonstration.
"""

import ast
import contextlib
import random
import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tutelage.core.errors import ConfigError, InputError
from tutelage.evaluation._choices import gold_index
from tutelage.evaluation._lm_eval_config import SECOND_ROUTE, LmEvalConfig, Template

Doc = dict[str, Any]

_ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
_ENVIRONMENT.filters["regex_replace"] = lambda text, pattern, repl, count=0: re.sub(
    pattern, repl, text, count=count
)

FILTERS = ("regex", "take_first", "take_first_k", "majority_vote")


def render(template: str, doc: Doc, where: str) -> str:
    """A field name or a Jinja template, filled from one row; raises InputError naming field and row."""
    if template in doc:
        value = doc[template]
        return value if isinstance(value, str) else str(value)
    try:
        return _ENVIRONMENT.from_string(template).render(**doc)
    except (TemplateError, TypeError, ValueError, ArithmeticError, RecursionError, re.error) as error:
        raise InputError(
            "a task template cannot be filled",
            where=where,
            expected=f"the fields {', '.join(doc)}",
            found=f"{type(error).__name__}: {error}",
        ) from None


def text_of(config: LmEvalConfig, doc: Doc, where: str, template: Any = None) -> str:
    """The question."""
    template = config.doc_to_text if template is None else template
    value = template(doc) if callable(template) else doc.get(template, template)
    if isinstance(value, str) and not (isinstance(template, str) and template in doc) and not callable(template):
        value = render(template, doc, f"{where}, doc_to_text")
        if value.isdigit() and config.doc_to_choice is not None:
            value = int(value)
    if not isinstance(value, str):
        raise ConfigError(
            "doc_to_text gives no text (tasks with one continuation and several contexts are not supported)",
            where=where,
            expected="a string",
            found=repr(value),
            remedy=SECOND_ROUTE,
        )
    return value


def target_of(config: LmEvalConfig, doc: Doc, where: str, template: Template = None) -> Any:
    """The reference: a string, an index into the choices, or a list of either."""
    template = config.doc_to_target if template is None else template
    if callable(template):
        return template(doc)
    if not isinstance(template, str):
        return template
    if template in doc:
        return doc[template]
    value = render(template, doc, f"{where}, doc_to_target")
    if value.isdigit() and config.doc_to_choice is not None:
        return int(value)
    if len(value) >= 2 and value[0] == "[" and value[-1] == "]":
        try:
            return ast.literal_eval(value)
        except (SyntaxError, ValueError):
            return value
    return value


def choices_of(config: LmEvalConfig, doc: Doc, where: str, template: Template = None) -> list[str] | None:
    """The options, or None for a task without."""
    template = config.doc_to_choice if template is None else template
    if template is None:
        return None
    value: Any = template
    if callable(template):
        value = template(doc)
    elif isinstance(template, dict):
        value = list(template.values())
    elif isinstance(template, str):
        value = doc[template] if template in doc else render(template, doc, f"{where}, doc_to_choice")
        if isinstance(value, str):
            with contextlib.suppress(SyntaxError, ValueError):
                value = ast.literal_eval(value)
    if not isinstance(value, list) or not all(isinstance(choice, str) for choice in value):
        raise InputError(
            "doc_to_choice gives no list of options",
            where=f"{where}, doc_to_choice",
            expected="a list of strings",
            found=repr(value),
        )
    return value


def _joined(before: str, after: str) -> str:
    return before + (after if before[-1].isspace() or after[0].isspace() else " " + after)


def _demonstration(config: LmEvalConfig, doc: Doc, where: str) -> str:
    own = config.fewshot_config
    text = text_of(config, doc, where, own.doc_to_text)
    choices = choices_of(config, doc, where, own.doc_to_choice)
    target = target_of(config, doc, where, own.doc_to_target)
    if choices and isinstance(target, int):
        target = choices[gold_index(target, choices, where, "doc_to_target")]
    answer = target[0] if isinstance(target, list) and target else target
    if not isinstance(answer, str):
        raise InputError(
            "a demonstration has no answer", where=f"{where}, doc_to_target", expected="text", found=repr(target)
        )
    to_target, after = config.delimiters()
    prefix_template = config.gen_prefix if own.gen_prefix is None else own.gen_prefix
    prefix = render(prefix_template, doc, f"{where}, gen_prefix") if prefix_template else ""
    return _turn(text, answer, prefix, to_target, after)


def _turn(text: str, answer: str, prefix: str, to_target: str, after: str) -> str:
    """One question with its answer, or with the beginning that the answer is given."""
    if not prefix:
        return text + (to_target + answer + after if answer else "")
    joint = "" if not text or text[-1].isspace() or prefix[0].isspace() else to_target
    return text + joint + (_joined(prefix, answer) + after if answer else prefix)


def demonstrations(config: LmEvalConfig, pool: Sequence[Doc], item: Doc, seed: int, key: str) -> list[Doc]:
    """`num_fewshot` rows of `pool`, never one equal to `item`; the draw depends on (seed, key) alone."""
    allowed = config.fewshot_config.fewshot_indices
    rows = list(pool) if allowed is None else [pool[index] for index in allowed]
    rows = [row for row in rows if row != item]
    if len(rows) < config.num_fewshot:
        raise InputError(
            "too few rows to draw demonstrations from",
            where=f"split {config.demonstration_split}",
            expected=f"{config.num_fewshot} rows other than the item",
            found=len(rows),
            remedy="lower num_fewshot",
        )
    if config.fewshot_config.sampler == "first_n":
        return rows[: config.num_fewshot]
    return random.Random(f"{seed}:{key}").sample(rows, config.num_fewshot)


def prompt_of_doc(config: LmEvalConfig, doc: Doc, shots: Sequence[Doc], where: str) -> str:
    """The whole prompt of one item."""
    description = render(config.description, doc, f"{where}, description") if config.description else ""
    before = [_demonstration(config, shot, f"demonstration of {where}") for shot in shots]
    text = text_of(config, doc, where)
    prefix = render(config.gen_prefix, doc, f"{where}, gen_prefix") if config.gen_prefix else ""
    return description + "".join(before) + _turn(text, "", prefix, config.target_delimiter, "")


def apply_filters(steps: Sequence[dict[str, Any]], outputs: Sequence[str], where: str) -> tuple[str, bool]:
    """One answer out of the repeated outputs of an item, and whether every regex found something."""
    found: list[str] = list(outputs)
    parsed = True
    if not isinstance(steps, Sequence) or isinstance(steps, str):
        raise ConfigError(
            "a filter is not a list of steps", where=where, expected="a list", found=repr(steps)[:80]
        )
    for step in steps:
        if not isinstance(step, dict):
            raise ConfigError(
                "a filter is not a mapping", where=where, expected="{function: name, ...}", found=repr(step)[:80]
            )
        name = step.get("function")
        if name == "regex":
            found, parsed = _regex(step, found)
        elif name == "take_first":
            found = found[:1]
        elif name == "take_first_k":
            if type(step.get("k")) is not int or len(found) < step["k"]:
                raise ConfigError(
                    "a filter takes more outputs than there are",
                    where=where,
                    expected=f"repeats >= {step.get('k')!r}",
                    found=len(found),
                )
            found = found[: step["k"]]
        elif name == "majority_vote":
            found = [Counter(found).most_common(1)[0][0]]
        else:
            raise ConfigError(
                f"unsupported filter {name!r}",
                where=where,
                expected=", ".join(FILTERS),
                found=name,
                remedy=SECOND_ROUTE,
            )
    if len(found) != 1:
        raise ConfigError(
            "a filter leaves several answers",
            where=where,
            expected="one",
            found=len(found),
            remedy="end it with function: take_first",
        )
    return found[0], parsed


def _regex(step: dict[str, Any], outputs: Sequence[str]) -> tuple[list[str], bool]:
    written, group = step.get("regex_pattern", r"#### (\-?[0-9\.\,]+)"), step.get("group_select", 0)
    fallback = step.get("fallback", "[invalid]")
    try:
        pattern = re.compile(written)
        group = int(group)
    except (re.error, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ConfigError(
            "a regex filter is not valid",
            where="filter_list",
            expected="regex_pattern: a regular expression, group_select: a whole number",
            found=f"{error!s}: {written!r}, {group!r}",
        ) from None
    answers, parsed = [], True
    for output in outputs:
        matches = pattern.findall(output)
        try:
            match = matches[group]
        except IndexError:
            match = None
        if isinstance(match, tuple):
            match = next((part for part in match if part), None)
        parsed &= match is not None
        answers.append(fallback if match is None else match.strip())
    return answers, parsed


def is_match(answer: str, reference: str, options: dict[str, Any]) -> bool:
    """lm-eval's exact_match of two strings under its options."""
    sides = [answer, reference]
    for pattern in options.get("regexes_to_ignore") or []:
        sides = [re.sub(pattern, "", side) for side in sides]
    if options.get("ignore_case"):
        sides = [side.lower() for side in sides]
    for option, characters in (("ignore_punctuation", string.punctuation), ("ignore_numbers", string.digits)):
        if options.get(option):
            sides = [side.translate(str.maketrans("", "", characters)) for side in sides]
    return sides[0] == sides[1]
