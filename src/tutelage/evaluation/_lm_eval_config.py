"""The native subset of the lm-eval task YAML: which keys are understood, and why the others are refused.

Nothing in a task file runs code unless that was allowed explicitly; data comes from files inside the project; the
templates are rendered elsewhere, in a sandbox.
"""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tutelage.core import json_text
from tutelage.core.errors import ConfigError, InputError, suggest

SECOND_ROUTE = "run lm-eval in its own environment and compare its sample files (`tutelage compare-results`)"

REFUSED = {
    "process_docs": "it is Python code over lm-eval's own data library",
    "custom_dataset": "it is Python code that makes the data",
    "process_results": "it is Python code that scores",
    "use_prompt": "prompt collections are a separate package",
    "unsafe_code": "the task runs code that the model wrote",
    "doc_to_image": "models here read text",
    "doc_to_audio": "models here read text",
    "should_decontaminate": "contamination is measured by methods of its own",
    "doc_to_decontamination_query": "contamination is measured by methods of its own",
    "group": "groups are not tasks; name the tasks one by one",
    "task_list": "several tasks in one file; name the tasks one by one",
    "class": "the task is a Python class",
}
CODE_KEYS = ("process_docs", "custom_dataset", "process_results", "unsafe_code", "class")

Template = str | int | list[Any] | dict[Any, Any] | Callable[..., Any] | None
Text = str | int | Callable[..., Any] | None


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class FewshotConfig(_Strict):
    """What differs between a demonstration and the item itself; null = as for the item."""

    sampler: Literal["default", "first_n"] = "default"
    split: str | None = None
    samples: list[dict[str, Any]] | None = None
    fewshot_indices: list[int] | None = None
    doc_to_text: Text = None
    doc_to_target: Template = None
    doc_to_choice: Template = None
    gen_prefix: str | None = None
    fewshot_delimiter: str | None = None
    target_delimiter: str | None = None


class LmEvalConfig(_Strict):
    """One task file, with lm-eval's names and defaults."""

    task: str
    task_alias: str | None = None
    tag: str | list[str] | None = None
    dataset_path: str | None = None
    dataset_name: str | None = None
    dataset_kwargs: dict[str, Any] = Field(default_factory=dict)
    training_split: str | None = None
    validation_split: str | None = None
    test_split: str | None = None
    fewshot_split: str | None = None
    description: str = ""
    doc_to_text: Text = None
    doc_to_target: Template = None
    doc_to_choice: Template = None
    target_delimiter: str = " "
    fewshot_delimiter: str = "\n\n"
    fewshot_config: FewshotConfig = Field(default_factory=FewshotConfig)
    num_fewshot: int = Field(default=0, ge=0)
    output_type: Literal["generate_until", "loglikelihood", "loglikelihood_rolling", "multiple_choice"] = (
        "generate_until"
    )
    generation_kwargs: dict[str, Any] | None = None
    repeats: int = Field(default=1, ge=1)
    filter_list: list[dict[str, Any]] | None = None
    metric_list: list[dict[str, Any]] | None = None
    gen_prefix: str | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)

    @property
    def eval_split(self) -> str:
        """The split that is measured: the test split, else the validation split."""
        return self.test_split or self.validation_split or "test"

    @property
    def demonstration_split(self) -> str:
        """Where demonstrations come from: as configured, else training, validation, test."""
        return (
            self.fewshot_config.split
            or self.fewshot_split
            or self.training_split
            or self.validation_split
            or self.eval_split
        )

    def delimiters(self) -> tuple[str, str]:
        """(target delimiter, demonstration delimiter) within demonstrations."""
        own = self.fewshot_config
        target = self.target_delimiter if own.target_delimiter is None else own.target_delimiter
        return target, self.fewshot_delimiter if own.fewshot_delimiter is None else own.fewshot_delimiter


def contained(path: str | Path, root: Path, base: Path, what: str) -> Path:
    """`path` resolved below `base`, else below `root`; leaving `root` (also through a link) is an error."""
    try:
        candidates = [(folder / path).resolve() for folder in (base, root)]
        found = next((file for file in candidates if file.exists()), candidates[-1])
    except (TypeError, ValueError, OSError):  # no text, or text that no file can be called
        raise InputError(
            f"{what} is not named", where=base, expected="the name of a file", found=repr(path)[:80]
        ) from None
    if not found.is_relative_to(root.resolve()):
        raise InputError(
            f"{what} leaves the project",
            where=path,
            expected=f"a file below {root.resolve()}",
            found=found,
            remedy="copy the file into the project, or set `project` to a folder that holds both",
        )
    if not found.is_file():
        raise InputError(
            f"{what} does not exist", where=path, expected=f"a file below {base} or {root}", found="none"
        )
    return found


def load_config(path: str, root: Path, allow_code: bool) -> LmEvalConfig:
    """Read a task file and what it includes; raises ConfigError naming the key and the reason."""
    file = contained(path, root, root, "a task file")
    merged = _read(file, root, allow_code, ())
    for key, reason in REFUSED.items():
        if merged.get(key) is None or merged[key] is False:
            merged.pop(key, None)
            continue
        flag = " (not even with --allow-task-code)" if key in CODE_KEYS else ""
        raise ConfigError(
            f"the task key {key!r} is not supported{flag}: {reason}",
            where=f"{file}: {key}",
            expected="a task without it",
            found=key,
            remedy=SECOND_ROUTE,
        )
    for name in ("fewshot_config", "dataset_kwargs", "metadata", "num_fewshot", "description"):
        if merged.get(name) is None:
            merged.pop(name, None)
    for key in merged:
        if key not in LmEvalConfig.model_fields:
            raise ConfigError(
                f"unknown task key {key!r}",
                where=f"{file}: {key}",
                expected="a key of lm-eval's task files",
                found=key,
                remedy=suggest(key, LmEvalConfig.model_fields),
            )
    try:
        return LmEvalConfig(**{"task": file.stem, **merged})
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            "a task file is not valid",
            where=f"{file}: {'.'.join(map(str, first['loc']))}",
            expected=first["msg"],
            found=repr(first.get("input")),
            remedy=SECOND_ROUTE,
        ) from None


def _read(file: Path, root: Path, allow_code: bool, above: tuple[Path, ...]) -> dict[str, Any]:
    if file in above:
        raise ConfigError("task files include each other in a circle", where=" -> ".join(map(str, [*above, file])))

    class Loader(yaml.SafeLoader):
        """Safe loading, plus the one tag that task files use."""

    def function(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
        name = str(getattr(node, "value", ""))
        if not allow_code:
            raise ConfigError(
                "the task file asks to run Python code",
                where=f"{file}:{node.start_mark.line + 1}",
                expected="values only",
                found=f"!function {name}",
                remedy="read that code, then allow it with --allow-task-code (field allow_task_code: true), "
                f"which is recorded in the result; or {SECOND_ROUTE}",
            )
        return _function(name, file, root)

    Loader.add_constructor("!function", function)
    try:
        # A SafeLoader, extended by a tag that is refused unless allowed.
        content = yaml.load(file.read_text(encoding="utf-8-sig"), Loader)
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError, RecursionError, OSError) as error:
        # A tag such as !!timestamp before something else makes the loader stumble in ways of its own.
        problem = (str(error) or type(error).__name__).splitlines()[0]
        found = "values nested too deeply" if isinstance(error, RecursionError) else problem
        raise ConfigError("a task file is not YAML", where=file, expected="keys and values", found=found) from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(
            "a task file is not a mapping", where=file, expected="key: value lines", found=type(content).__name__
        )
    json_text.require_complete(json.dumps(content, ensure_ascii=False, default=str), "a task file", file)
    includes = content.pop("include", None) or []
    merged: dict[str, Any] = {}
    for name in includes if isinstance(includes, list) else [includes]:
        other = contained(name, root, file.parent, "an included task file")
        merged |= _read(other, root, allow_code, (*above, file))
    return merged | content


def _function(name: str, file: Path, root: Path) -> Callable[..., Any]:
    module, _, function = name.rpartition(".")
    source = contained(f"{module.replace('.', '/')}.py", root, file.parent, "a task's Python file")
    spec = importlib.util.spec_from_file_location(f"tutelage_task_code_{source.stem}", source)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    if not callable(getattr(loaded, function, None)):
        raise ConfigError("a task's Python file has no such function", where=source, expected=function)
    return getattr(loaded, function)


def load_split(config: LmEvalConfig, split: str, path: str, root: Path) -> list[dict[str, Any]]:
    """The rows of one split from local JSON files; keys that a row lacks are null, as in a table."""
    if config.dataset_path != "json" or config.dataset_name is not None:
        raise ConfigError(
            "the task's data is not a local file",
            where=f"{path}: dataset_path",
            expected="dataset_path: json, with dataset_kwargs: {data_files: {split: file}} (and no dataset_name)",
            found=f"{config.dataset_path!r}, {config.dataset_name!r}",
            remedy=f"save the split as JSONL inside the project and name it, pass a dataset, or {SECOND_ROUTE}",
        )
    unknown = set(config.dataset_kwargs) - {"data_files"}
    files = config.dataset_kwargs.get("data_files")
    files = files if isinstance(files, dict) else {"train": files} if files else {}
    if unknown or split not in files:
        raise ConfigError(
            "a task names no file for a split" if not unknown else f"unsupported dataset_kwargs {sorted(unknown)}",
            where=f"{path}: dataset_kwargs",
            expected=f"data_files: {{{split}: file.jsonl}}",
            found=config.dataset_kwargs,
        )
    names = files[split] if isinstance(files[split], list) else [files[split]]
    folder = contained(path, root, root, "a task file").parent
    rows = [row for name in names for row in _rows(contained(name, root, folder, "a data file"))]
    if not rows:
        raise InputError(
            "a split has no rows", where=f"{names}", expected="at least one JSON object", found="none"
        )
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return [{name: row.get(name) for name in columns} for row in rows]


def _rows(file: Path) -> list[dict[str, Any]]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            "a data file cannot be read", where=file, expected="UTF-8 text", found=str(error)
        ) from None
    if text.lstrip().startswith("["):
        numbered = [(0, text)]
    else:
        numbered = [(n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    rows: list[Any] = []
    for number, line in numbered:
        try:
            found = json_text.loads(line)
        except ValueError as error:
            raise InputError("a line is not JSON", where=f"{file}:{number or 1}", found=str(error)) from None
        rows += found if number == 0 else [found]
    for number, row in enumerate(rows, 1):
        if json_text.deeper(row, json_text.MOST_LEVELS):
            raise InputError(
                "a row is nested too deeply",
                where=f"{file}, row {number}",
                expected=f"at most {json_text.MOST_LEVELS} levels",
                found="more",
            )
        if not isinstance(row, dict):
            raise InputError(
                "a row is not an object", where=f"{file}, row {number}", expected="{...}", found=repr(row)
            )
        json_text.require_complete(json.dumps(row, ensure_ascii=False), "a row", f"{file}, row {number}")
    return rows
