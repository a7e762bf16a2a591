"""Paths of a recipe: relative to it, inside its folder or the workspace, and what their files contain.

A source lies inside the recipe's folder or the workspace. So does a model or an adapter given by a relative path;
models commonly live elsewhere, so an absolute path (or one from `~`), which somebody wrote for this machine, is
followed wherever it leads. `--allow-outside` lifts both. `run:RECIPE/STEP@ARM` means what an earlier run of the
workspace made (see `made`).
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import blake3

from tutelage.core.errors import ConfigError, InputError, suggest
from tutelage.runs.recipe import Recipe

STATE = ".tutelage"


def source_path(recipe: Recipe, workspace: Path, name: str) -> Path:
    """The existing path of source `name`; raises ConfigError when it is outside, InputError when it is missing."""
    given = recipe.sources[name].path
    assert given is not None
    if of_a_run(given):
        from tutelage.runs.made import made_path

        return made_path(given, workspace, "dataset")
    path = recipe.folder / given
    where = recipe.where("sources", name, "path")
    _inside(path, allowed(recipe, workspace), recipe.allow_outside, where)
    if not _exists(path):
        raise InputError(
            f"the source {name!r} does not exist",
            where=where,
            expected="an existing file or folder",
            found=path,
            remedy="check the path; it is relative to the recipe",
        )
    return path.resolve()


def model_path(recipe: Recipe, workspace: Path, name: str, field: str = "load") -> Path | None:
    """The existing path that `field` (load, adapter) of model `name` means; None for what is not a path.

    What exists beside the recipe is a path; else a packaged name, `owner/name` and a URL are names. Raises
    ConfigError when it is missing or outside.
    """
    given = getattr(recipe.models[name], field)
    if given is not None and of_a_run(given):
        from tutelage.runs.made import made_path

        return made_path(given, workspace, "model")
    if given is None or (field == "load" and "://" in given):
        return None
    written = Path(given).expanduser()
    path = recipe.folder / written
    where = recipe.where("models", name, field)
    if field == "load" and not _exists(path) and not _means_a_path(given):
        if given in _packaged_names() or re.fullmatch(r"[\w.-]+/[\w.-]+", given):
            return None
        raise ConfigError(
            f"the model {name!r} does not exist",
            where=where,
            expected="a folder or .gguf file beside the recipe, a packaged name, a hub name owner/name, or a URL",
            found=given,
            remedy=f"check the path; of the packaged names, {suggest(given, _packaged_names())}",
        )
    if not written.is_absolute():
        _inside(path, allowed(recipe, workspace), recipe.allow_outside, where)
    if not _exists(path):
        raise ConfigError(
            f"the {'adapter of ' if field == 'adapter' else ''}model {name!r} does not exist",
            where=where,
            expected="an existing model folder" + (" or .gguf file" if field == "load" else ""),
            found=path,
            remedy="check the path; it is relative to the recipe",
        )
    return path


def of_a_run(given: str) -> bool:
    """Whether a path or model means what an earlier run of the workspace made; see `made`."""
    return given.startswith("run:")


def check_paths(recipe: Recipe, workspace: Path) -> list[str]:
    """Raise ConfigError or InputError for the first source, model or adapter that is missing or outside.

    Returns notes about packaged models and corpora that are not on this machine yet.
    """
    from tutelage.models.fetch import fetched

    notes, packaged = [], fetched()
    for name, source in recipe.sources.items():
        if source.path is not None:
            source_path(recipe, workspace, name)
        corpus = source.fields.get("corpus") if source.use == "data.read.packaged" else None
        if corpus in packaged and packaged[corpus] is None:
            notes.append(f"source {name!r}: {corpus} is not on this machine yet; run: tutelage fetch {corpus}")
    for name, spec in recipe.models.items():
        model_path(recipe, workspace, name, "adapter")
        named = model_path(recipe, workspace, name) is None and spec.load in packaged
        if named and packaged[spec.load] is None:
            notes.append(
                f"model {name!r}: {spec.load} is not on this machine yet; run: tutelage fetch {spec.load}"
            )
    return notes


def _means_a_path(given: str) -> bool:
    """Whether text that names nothing on the disk can only have been meant as a path."""
    return (
        given.startswith((".", "~", "/"))
        or "\\" in given
        or given.count("/") > 1
        or given.endswith((".gguf", "/"))
    )


def _packaged_names() -> list[str]:
    from tutelage.models.fetch import PACKAGED

    return list(PACKAGED)


def output_path(recipe: Recipe, workspace: Path, given: str, where: str) -> Path:
    """Where a writer puts its files: below the workspace, nowhere else."""
    path = workspace / given
    _inside(path, [workspace], False, where)
    return path


def allowed(recipe: Recipe, workspace: Path) -> list[Path]:
    """The folders that sources may lie in."""
    return [recipe.folder, workspace]


def tree_hash(path: Path, inside: list[Path], allow_outside: bool) -> str:
    """Hash of a file, or of all files below a folder: contents and names relative to it.

    A symbolic link that leads out of the folders `inside` is refused: it would read what the recipe does not name.
    """
    digest = blake3.blake3()
    for file in _files(path):
        if file.is_symlink():
            _inside(file, inside, allow_outside, str(file))
        if not file.is_file():
            continue
        name = file.relative_to(path).as_posix() if path.is_dir() else file.name
        digest.update(f"{name}:{file.stat().st_size}:".encode("utf-8", "surrogatepass"))
        try:
            digest.update_mmap(file)
        except OSError as error:
            raise InputError(
                "a file cannot be read",
                where=file,
                expected="a readable file",
                found=error.strerror,
                remedy="check its permissions",
            ) from None
    return digest.hexdigest(length=16)


def _files(path: Path) -> Iterator[Path]:
    """Files and symbolic links below `path` (or the file itself), in order; linked folders are not walked."""
    if path.is_file():
        yield path
        return
    for folder, folders, names in os.walk(path):
        here = Path(folder)
        folders[:] = sorted(name for name in folders if name != STATE)
        for file in [*(here / name for name in folders), *(here / name for name in sorted(names))]:
            if file.is_symlink() or file.is_file():
                yield file


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name too long to ask for
        return False


def _inside(path: Path, folders: list[Path], allow_outside: bool, where: str) -> None:
    try:
        real = path.resolve()
    except (ValueError, OSError, RuntimeError) as error:  # a name that no file can have; links in a circle
        raise ConfigError(
            "a path leads nowhere",
            where=where,
            expected="the path of a file or folder",
            found=f"{str(path)!a}: {error}",
            remedy="write the path anew, or mend the links on its way",
        ) from None
    if not allow_outside and not any(real.is_relative_to(folder.resolve()) for folder in folders):
        raise ConfigError(
            "a path leaves the workspace",
            where=where,
            expected="a path below " + " or ".join(dict.fromkeys(str(folder) for folder in folders)),
            found=real,
            remedy="copy the files there, or allow it with --allow-outside",
        )
