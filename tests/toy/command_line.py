"""The command line as a user meets it, in this process: exit code, standard output, standard error."""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.cli.main import run

WORDS = "the quick brown fox jumps over a lazy dog while seven calm readers note every little word".split()
RECIPE = """\
name: tiny
sources: {docs: {path: docs.jsonl}}
models: {base: {load: base}}
steps:
  - {name: split, use: data.split.by_group, from: docs, group_column: topic, parts: {train: 0.7, held_out: 0.3}}
  - {name: train_docs, use: data.filter.where, from: split, column: split, equals: train}
  - {name: held_docs, use: data.filter.where, from: split, column: split, equals: held_out}
  - {name: sized, use: signals.length, from: train_docs}
  - {name: chosen, use: data.select.random, from: sized, budget: {rows: 20}}
  - name: trained
    use: training.fit
    model: base
    from: chosen
    step_tokens: 128
    checkpoint_seconds: 0
    budget: {tokens: 600}
  - {name: held_out, use: evaluation.bits_per_byte, from: held_docs, model: trained}
"""


@dataclass(frozen=True)
class Answer:
    """What a command left."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Standard output as one JSON document; fails when anything else was printed there."""
        return json.loads(self.out)


def tutelage(capfd: Any, *arguments: object) -> Answer:
    """Run `tutelage ARGUMENTS` and return what it left."""
    capfd.readouterr()
    code = 0
    try:
        run([str(argument) for argument in arguments])
    except SystemExit as end:
        code = int(end.code or 0)
    out, err = capfd.readouterr()
    return Answer(code, out, err)


def write_rows(file: Path, rows: list[dict[str, Any]]) -> Path:
    """The rows as JSONL."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def documents(count: int = 60) -> list[dict[str, Any]]:
    """Texts of thirty words in twelve topics."""
    draw = random.Random(0)
    return [{"text": " ".join(draw.choices(WORDS, k=30)), "topic": f"t{i % 12}"} for i in range(count)]
