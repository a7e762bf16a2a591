"""Code that came with a model and runs with it: what it says, so that it counts as part of the model.

Transformers imports such code as modules below `transformers_modules`, from a folder that holds the files of one
model and nothing else.
"""

import sys
from pathlib import Path
from typing import Any

from transformers.utils import TRANSFORMERS_DYNAMIC_MODULE_NAME

_PACKAGE = f"{TRANSFORMERS_DYNAMIC_MODULE_NAME}."


def own_code(module: Any) -> dict[str, str]:
    """File name -> source of the code that `module` (a transformers model) brought along; empty for most."""
    classes = {type(part) for part in module.modules()} | {type(module.config)}
    names = {cls.__module__ for cls in classes if cls.__module__.startswith(_PACKAGE)}
    folders = {Path(str(sys.modules[name].__file__)).parent for name in names}
    files = sorted(file for folder in folders for file in folder.glob("*.py") if file.name != "__init__.py")
    return {file.name: file.read_text(encoding="utf-8") for file in files}
