"""Checkpoints that are complete or not there: a folder is built under another name, hashed, synced and renamed.

`step-00000012/` holds `tensors.safetensors`, `state.json` and `COMPLETE`, the BLAKE3 hashes of both, written last.
Whatever interrupts the writing leaves a folder that is never loaded; older complete ones stay. State is nested
dicts and lists of JSON values and tensors: nothing is pickled.
"""

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import blake3
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tutelage.core import json_text
from tutelage.core.errors import StoreError, TrainingError
from tutelage.core.store import disk_errors

MARKER = "COMPLETE"
TENSORS = "tensors.safetensors"
STATE = "state.json"
_NAME = re.compile(r"step-(\d{8})")
_BUILDING = ".building-"


def save(folder: Path, step: int, state: Mapping[str, Any], *, keep: int = 2) -> Path:
    """Write the checkpoint of `step` below `folder`, completely or not at all; then keep the newest `keep`.

    Raises TrainingError where it cannot be written (a full disk); what was complete stays loadable.
    """
    target = folder / f"step-{step:08d}"
    building = folder / f"{_BUILDING}{target.name}"
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_split(dict(state), "", tensors))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir()
        with disk_errors():
            save_file(tensors, building / TENSORS)
        (building / STATE).write_text(text, encoding="utf-8")
        marker = {name: _digest(building / name) for name in (TENSORS, STATE)}
        for name in marker:
            _sync(building / name)
        (building / MARKER).write_text(json.dumps(marker), encoding="utf-8")
        _sync(building / MARKER)
        _sync(building)
        if target.exists():
            # The same step once more (stopped, resumed and stopped again): the old one steps aside for the new.
            aside = folder / f"{_BUILDING}old-{target.name}"
            shutil.rmtree(aside, ignore_errors=True)
            if is_complete(target):
                shutil.rmtree(building)
                return target
            target.rename(aside)
        building.rename(target)
        _sync(folder)
    except OSError as error:
        shutil.rmtree(building, ignore_errors=True)
        last = newest(folder)
        raise TrainingError(
            "a checkpoint could not be written",
            where=target,
            found=str(error),
            remedy="free space or choose another folder; "
            + (f"the run resumes from {last.name}" if last else "there is no earlier checkpoint"),
        ) from None
    prune(folder, keep)
    return target


def load(path: Path) -> dict[str, Any]:
    """The state of a complete checkpoint, tensors on the CPU."""
    tensors = load_file(path / TENSORS)
    found = _join(json.loads((path / STATE).read_text(encoding="utf-8")), tensors)
    assert isinstance(found, dict)
    return found


def newest(folder: Path) -> Path | None:
    """The newest complete checkpoint below `folder`, by step; incomplete or damaged ones are passed over."""
    return next((path for path in reversed(_all(folder)) if is_complete(path)), None)


def is_complete(path: Path) -> bool:
    """Whether the marker is there and every file has the hash it names."""
    try:
        marker = json_text.loads((path / MARKER).read_bytes())
        return set(marker) == {TENSORS, STATE} and all(
            _digest(path / name) == digest for name, digest in marker.items()
        )
    except (OSError, ValueError, AttributeError):
        return False


def prune(folder: Path, keep: int) -> None:
    """Remove leftovers of interrupted writes and all but the newest `keep` checkpoints."""
    for leftover in folder.glob(f"{_BUILDING}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    for old in _all(folder)[: -max(keep, 1)]:
        # Renamed first, so that a removal that is interrupted leaves nothing with a checkpoint's name.
        gone = old.with_name(f"{_BUILDING}gone-{old.name}")
        try:
            old.rename(gone)
        except OSError:
            continue
        shutil.rmtree(gone, ignore_errors=True)


def clear(folder: Path) -> None:
    """Remove every checkpoint below `folder`: a run that starts over must not meet those of an earlier one."""
    for path in [*_all(folder), *folder.glob(f"{_BUILDING}*")]:
        shutil.rmtree(path, ignore_errors=True)
    shutil.rmtree(folder / "kept", ignore_errors=True)


def _all(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_dir() and _NAME.fullmatch(p.name))


def _digest(path: Path) -> str:
    digest = blake3.blake3()
    with path.open("rb") as file:
        while piece := file.read(1 << 22):
            digest.update(piece)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    """Flush a file to disk, and a folder where the system allows it (Windows does not)."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _split(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """JSON with every tensor replaced by its key in `tensors`."""
    if isinstance(value, Tensor):
        # A copy of its own storage: safetensors refuses tensors that share memory.
        tensors[path] = value.detach().to("cpu").contiguous().clone()
        return {"$tensor": path}
    if isinstance(value, Mapping):
        return {str(key): _split(item, f"{path}/{key}", tensors) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_split(item, f"{path}/{i}", tensors) for i, item in enumerate(value)]
    return value


def _join(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if set(value) == {"$tensor"}:
            return tensors[value["$tensor"]]
        return {key: _join(item, tensors) for key, item in value.items()}
    return [_join(item, tensors) for item in value] if isinstance(value, list) else value


def random_state() -> dict[str, Any]:
    """States of torch's (CPU and CUDA), numpy's and Python's global generators."""
    import random

    import numpy as np

    version, internal, gauss = random.getstate()
    legacy: Any = np.random.get_state()
    _, keys, position, has_gauss, cached = legacy
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "torch": torch.get_rng_state(),
        "cuda": cuda,
        "numpy": [torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(cached)],
        "python": [version, list(internal), gauss],
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Put the generators back to where `random_state` read them."""
    import random

    import numpy as np

    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(list(state["cuda"]))
    keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, cached))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))


def seed_everything(seed: int) -> None:
    """Seed the three global generators."""
    import random

    import numpy as np

    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def check_kept(folder: Path) -> None:
    """Raise StoreError naming the first file of a kept copy that is not what was written."""
    try:
        marker = json_text.loads((folder / MARKER).read_bytes())
        broken = next((name for name, digest in marker.items() if _digest(folder / name) != digest), None)
    except FileNotFoundError as error:
        # Copies of earlier versions have no hashes.
        broken = None if error.filename == str(folder / MARKER) else Path(error.filename).name
    except (OSError, ValueError, AttributeError):
        broken = MARKER
    if broken is not None:
        raise StoreError(
            "a kept copy of a model is damaged",
            where=folder / broken,
            expected="the file as it was written",
            found="another content",
            remedy="use another kept share or the finished model; its training has to run again to keep it again",
        )


def keep_model(model: Any, folder: Path, step: int) -> Path:
    """A loadable copy of the model (its adapter alone where it has one) as `folder/step-...`, whole or absent; the
    hashes of its files stand beside them."""
    target = folder / f"step-{step:08d}"
    building = folder / f"{_BUILDING}{target.name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(building, ignore_errors=True)
        model.save(building)
        files = [file for file in sorted(building.rglob("*")) if file.is_file()]
        marker = {file.relative_to(building).as_posix(): _digest(file) for file in files}
        (building / MARKER).write_text(json.dumps(marker), encoding="utf-8")
        for file in (*files, building / MARKER):
            _sync(file)
        shutil.rmtree(target, ignore_errors=True)
        building.rename(target)
    except (OSError, StoreError) as error:
        shutil.rmtree(building, ignore_errors=True)
        raise TrainingError(
            "a copy of the model could not be kept",
            where=target,
            found=str(error),
            remedy="free space or keep fewer; the run resumes from its last complete checkpoint",
        ) from None
    return target
