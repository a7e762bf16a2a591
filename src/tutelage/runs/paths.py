"""Paths of a recipe: relative to it, inside its folder or the workspace, and what their files contain."""

import os
from collections.abc import Iterator
from pathlib import Path

import blake3

from tutelage.core.errors import ConfigError, InputError
from tutelage.runs.recipe import Recipe

STATE = ".tutelage"


def source_path(recipe: Recipe, workspace: Path, name: str) -> Path:
    """The existing path of source `name`; raises ConfigError when it is outside, InputError when it is missing."""
    given = recipe.sources[name].path
    assert given is not None
    path = recipe.folder / given
    where = recipe.where("sources", name, "path")
    _inside(path, allowed(recipe, workspace), recipe.allow_outside, where)
    if not path.exists():
        raise InputError(
            f"the source {name!r} does not exist",
            where=where,
            found=path,
            remedy="check the path; it is relative to the recipe",
        )
    return path.resolve()


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
            raise InputError("a file cannot be read", where=file, found=error.strerror) from None
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


def _inside(path: Path, folders: list[Path], allow_outside: bool, where: str) -> None:
    real = path.resolve()
    if not allow_outside and not any(real.is_relative_to(folder.resolve()) for folder in folders):
        raise ConfigError(
            "a path leaves the workspace",
            where=where,
            expected="a path below " + " or ".join(dict.fromkeys(str(folder) for folder in folders)),
            found=real,
            remedy="copy the files there, or allow it with --allow-outside",
        )
