"""An outside program as an adapter: a trainer of another project becomes an arm like any other.

The program is started without a shell, with {data} (a JSONL file of the rows), {base} (a model folder), {output}
(the folder it must fill with a model or a PEFT adapter) and {seed} put into its arguments. It is timed and may be
stopped; FLOPs are charged as 6 P t where t, the number of tokens it trains on, is declared, and are unknown
otherwise.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from tutelage.adapters._shared import base_of
from tutelage.core.errors import ConfigError, ModelError, StoreError, suggest
from tutelage.core.method import Adapter, Inputs

CARD = {
    "name": "adapters.external_command",
    "paper": {"title": "Common practice"},
    "summary": "Run an outside trainer on the rows and the base, timed and charged, and load what it leaves.",
    "inputs": {"base": "the model the program starts from", "workdir?": "folder for its files"},
    "needs": ["train"],
    "cost": "what the program takes",
    "baseline": "adapters.lora",
    "headline": "compares other trainers on the same rows, base and seeds",
    "version": 1,
}
PLACES = ("data", "base", "output", "seed")
_PLACE = re.compile(r"\{([a-z_]+)\}")


class ExternalCommand(Adapter):
    """`command`: program and arguments with the places {data}, {base}, {output}, {seed}. `timeout`: seconds.
    `tokens`: tokens that the program trains on, for the FLOPs it is charged."""

    command: tuple[str, ...] = ()
    timeout: float = Field(default=3600.0, gt=0)
    tokens: int | None = Field(default=None, gt=0)
    seed: int = 0

    def files(self) -> list[Path]:
        """Scripts that the command names."""
        return [Path(part) for part in self.command if part.endswith((".py", ".sh")) and Path(part).is_file()]

    @field_validator("command")
    @classmethod
    def _known_places(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for place in (place for part in value for place in _PLACE.findall(part)):
            if place not in PLACES:
                raise ValueError(f"unknown place {{{place}}}: {suggest(place, PLACES)}")
        if value and not any("{output}" in part for part in value):
            raise ValueError("the command never mentions {output}, where it must leave a model or an adapter")
        return value

    def convert(self, models: Mapping[str, Any], dataset: Any, inputs: Inputs) -> Any:
        """The model that the program left; raises ConfigError and ModelError with the end of what it printed."""
        base = base_of(models, self.name)
        if not self.command:
            raise ConfigError("there is no command to run", where=f"{self.name}: command", expected="a program")
        program = shutil.which(self.command[0])
        if program is None:
            raise ConfigError(
                "the program is not there",
                where=f"{self.name}: command",
                found=self.command[0],
                remedy="install it, or give its full path",
            )
        given = inputs.get("workdir")
        folder = Path(given) if given else Path(tempfile.mkdtemp(prefix="tutelage-command-"))
        try:
            return self._convert(program, base, dataset, inputs, folder)
        except OSError as error:
            raise StoreError(
                "files for the program could not be written", where=folder, found=str(error), remedy="free space"
            ) from None
        finally:
            if not given:
                shutil.rmtree(folder, ignore_errors=True)

    def _convert(self, program: str, base: Any, dataset: Any, inputs: Inputs, folder: Path) -> Any:
        folder.mkdir(parents=True, exist_ok=True)
        output = folder / "output"
        shutil.rmtree(output, ignore_errors=True)
        data = folder / "data.jsonl"
        with data.open("w", encoding="utf-8") as out:
            for row in [] if dataset is None else dataset.rows():
                out.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
        seed = int(inputs.get("seed", self.seed))
        values = {"data": data, "base": base.save(folder / "base"), "output": output, "seed": seed}
        arguments = [
            _PLACE.sub(lambda m: str(values[m[1]]) if m[1] in values else m[0], part) for part in self.command[1:]
        ]
        log = folder / "log.txt"
        code = _run([program, *arguments], log, self.timeout, folder)
        if "meter" in inputs and self.tokens is not None:
            forward = 2.0 * base.active_params * self.tokens
            inputs["meter"].add(forward_flops=forward, backward_flops=2 * forward, trained_tokens=self.tokens)
        printed = log.read_text(encoding="utf-8", errors="replace")[-1500:].strip() or "nothing printed"
        if code != 0:
            raise ModelError(
                "the program failed" if code is not None else f"the program took longer than {self.timeout:g} s",
                where=" ".join([program, *arguments])[:200],
                expected="exit code 0",
                found=f"exit code {code}: {printed}" if code is not None else printed,
            )
        if not output.is_dir() or not any(output.iterdir()):
            raise ModelError(
                "the program left nothing",
                where=output,
                expected="a model folder or a PEFT adapter",
                found=printed,
            )
        return _load(output, base)


def _load(output: Path, base: Any) -> Any:
    """The model or adapter in `output`, in the base's precision and on its device."""
    from tutelage.models.load import load_model

    if (output / "adapter_config.json").is_file():
        return base.with_adapter(output)
    precision = str(base.dtype).removeprefix("torch.")
    # Whoever allowed the base to run its code, and started this program, has allowed what it left to do so.
    allowed = bool(base.own_code)
    return load_model(output, device=str(base.device), dtype=precision, allow_remote_code=allowed)


def _run(command: list[str], log: Path, timeout: float, folder: Path) -> int | None:
    """Exit code, or None when it was stopped after `timeout` seconds with everything it started."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=os.name != "nt",
        )
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if process.poll() is None:
                if os.name == "nt":
                    process.kill()
                else:
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
