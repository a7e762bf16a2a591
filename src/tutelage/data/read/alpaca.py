"""Alpaca records: `instruction`, `input`, `output` become `prompt` and `completion`.

prompt = instruction, or instruction + blank line + input where the input is not empty; completion = output. No
preamble is added: the model's chat template is the one place where a prompt gets its frame. Other columns are
kept. JSON Lines or one JSON array, plain or compressed.
"""

from typing import Any

from tutelage.core.errors import InputError, suggest
from tutelage.core.method import Reader
from tutelage.data.read._reader import RecordReader

CARD = {
    "name": "data.read.alpaca",
    "paper": {
        "title": "Stanford Alpaca: An Instruction-following LLaMA model",
        "identifier": "https://github.com/tatsu-lab/stanford_alpaca",
    },
    "summary": "Reads Alpaca records (instruction, input, output) as prompts and completions.",
    "writes": ["prompt", "completion"],
    "needs": [],
    "cost": "one pass over the file, memory bounded",
    "baseline": None,
    "headline": "The common instruction format without its fixed preamble.",
    "version": 1,
}


def to_pair(record: dict[str, Any]) -> dict[str, Any]:
    """The record with prompt and completion in place of its three fields."""
    for field in ("instruction", "output"):
        if not isinstance(record.get(field), str) or not record[field].strip():
            raise InputError(
                f"a record has no {field}",
                expected=f"text in {field}",
                found=repr(record[field])[:80] if field in record else "columns " + ", ".join(record),
                remedy=suggest(field, record)
                if record and field not in record
                else "fill it in or remove the row",
            )
    extra = record.get("input")
    if extra is not None and not isinstance(extra, str):
        raise InputError("a record's input is not text", expected="text or nothing", found=repr(extra)[:80])
    prompt = f"{record['instruction']}\n\n{extra}" if extra and extra.strip() else record["instruction"]
    rest = {key: value for key, value in record.items() if key not in ("instruction", "input", "output")}
    return {**rest, "prompt": prompt, "completion": record["output"]}


class Alpaca(RecordReader, Reader):
    """One pair per record; `limit` stops after so many."""

    def row(self, record: dict[str, Any]) -> dict[str, Any]:
        return to_pair(record)
