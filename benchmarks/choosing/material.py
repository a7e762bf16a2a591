"""Rows and small models for the beds of choosing data, from the data sets of `../shared/data`; made once.

A row is a piece of at most 700 characters of a document, in an order that depends on nothing but the text; `group`
is the document, and no document is in two parts. Prompts with responses and the six fields have folders
of their own.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
KINDS = ("medical", "fiction", "verse", "tasks", "maths")
# Rows of each kind in the pile. The field of `scores` is the first, a tenth of it; the base never read that kind.
POOL = {"medical": 300, "fiction": 1050, "verse": 150, "tasks": 800, "maths": 700}
BASE = {"fiction": 1200, "verse": 150, "tasks": 800, "maths": 900}
# The skewed pile of `mixtures`: seven eighths of its bytes are fiction.
SKEWED = {kind: 2550 if kind == "fiction" else 112 for kind in KINDS}
CHARACTERS = 700
# Prompts with responses: file, columns of prompt and response, rows in the pile, rows the base reads as plain
# text. What is wanted are worked solutions of word problems, a tenth of the pile; the base has read none.
ANSWERED: dict[str, tuple[str, tuple[str, ...], str, int, int]] = {
    "solutions": ("gsm8k/train.parquet", ("question",), "answer", 300, 0),
    "tasks": ("super_natural_instructions/train.parquet", ("instruction", "input"), "output", 1200, 900),
    "dialogue": ("oasst1_en_sft/validation.parquet", ("instruction",), "output", 500, 400),
    "short": ("llms_from_scratch_instructions/train.jsonl", ("instruction", "input"), "output", 400, 400),
    "code": ("mbpp/test.jsonl", ("question",), "answer", 200, 200),
    "commands": ("scan/simple_train.jsonl", ("instruction", "input"), "output", 400, 200),
}
# The six fields: each in turn is a tenth of the pile, the others are there in small numbers. The base reads other
# kinds alone, so many rows of each.
FIELDS = ("medical", "verse", "maths", "legal", "reviews", "code")
GENERAL = {"fiction": 1000, "tasks": 700, "passages": 900}
ALSO = {"dialogue": 600}
FILES: dict[str, tuple[str, tuple[str, ...]]] = {
    "medical": ("medical_abstracts_test/test.parquet", ("text",)),
    "fiction": ("ebooks_fiction/train.parquet", ("text",)),
    "verse": ("tinyshakespeare/train.parquet", ("text",)),
    "tasks": ("super_natural_instructions/train.parquet", ("input", "output")),
    "maths": ("gsm8k/train.parquet", ("question", "answer")),
    "legal": ("legalbench_fewshot/train.jsonl", ("text",)),
    "reviews": ("imdb_counterfactual/train.parquet", ("text",)),
    "code": ("mbpp/test.jsonl mbpp/train.jsonl mbpp/validation.jsonl", ("question", "answer")),
    "passages": ("boolq/train.parquet", ("context",)),
    "dialogue": ("oasst1_en_sft/validation.parquet", ("instruction", "output")),
}
Row = dict[str, Any]


def material(work: Path) -> None:
    """The rows of every part, the base model and the teacher of the first beds."""
    if (work / "model.json").exists():
        return
    work.mkdir(parents=True, exist_ok=True)
    parts: dict[str, list[Row]] = {}
    for kind in KINDS:
        rows = chunks(kind)
        for part, count in (
            ("target_kinds", 40),
            ("dev_kinds", 16),
            ("oracle_kinds", 60),
            *((("guide", 40), ("dev", 32), ("target", 120)) if kind == "medical" else ()),
            ("pool", POOL[kind]),
            ("general", BASE.get(kind, 0)),
        ):
            parts.setdefault(part, []).extend(taken(rows, count))
    for part, part_rows in parts.items():
        write(work / f"{part}.jsonl", part_rows)
    described = {
        "base": model(work / "base", parts["general"], layers=4, tokens=500_000),
        "teacher": model(work / "teacher", parts["general"] + parts["oracle_kinds"], layers=8, tokens=1_500_000),
        "rows": {part: len(part_rows) for part, part_rows in parts.items()},
    }
    (work / "model.json").write_text(json.dumps(described, indent=1), encoding="utf-8")


def skewed(work: Path) -> None:
    """A pile that is mostly one kind, and rows in equal shares held aside for the oracle: of documents that
    neither the base nor the first beds have seen."""
    if (work / "skewed_target.jsonl").exists():
        return
    seen = {row["group"] for file in ("general", "pool", "oracle_kinds") for row in read(work / f"{file}.jsonl")}
    parts: dict[str, list[Row]] = {}
    for kind in KINDS:
        rows = iter([row for row in chunks(kind) if row["group"] not in seen])
        for part, count in (("dev", 16), ("oracle", 130), ("pool", SKEWED[kind]), ("target", 140)):
            parts.setdefault(part, []).extend(taken(rows, count))
    # The target last: where it stands, all do.
    for part in ("pool", "oracle", "dev", "target"):
        write(work / f"skewed_{part}.jsonl", parts[part])


def general(work: Path) -> dict[str, Any]:
    """The base of the six fields: it has read none of them."""
    folder = work / "fields"
    if not (folder / "model.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        rows = [row for kind, count in (*GENERAL.items(), *ALSO.items()) for row in taken(chunks(kind), count)]
        described = {"base": model(folder / "base", rows, layers=4, tokens=500_000), "rows": len(rows)}
        (folder / "model.json").write_text(json.dumps(described, indent=1), encoding="utf-8")
    return json.loads((folder / "model.json").read_text(encoding="utf-8"))


def field(work: Path, name: str) -> Path:
    """The folder with guide, development and measured rows and the pile of one of the six fields."""
    folder = work / "fields"
    if (folder / f"{name}_pool.jsonl").exists():
        return folder
    rows = chunks(name)
    parts = {part: taken(rows, n) for part, n in (("guide", 40), ("dev", 24), ("target", 100), ("pool", 300))}
    for kind, count in GENERAL.items():
        others = chunks(kind)
        taken(others, count)
        parts["pool"] += taken(others, 700)
    for kind in FIELDS:
        if kind != name:
            parts["pool"] += taken(chunks(kind), 120)
    # The pile last: where it stands, all do.
    for part, part_rows in parts.items():
        write(folder / f"{name}_{part}.jsonl", part_rows)
    return folder


def answered(work: Path) -> dict[str, Any]:
    """Prompts with responses of six kinds, and a base that has read prompts with responses of five of them."""
    folder = work / "answered"
    if (folder / "model.json").exists():
        return json.loads((folder / "model.json").read_text(encoding="utf-8"))
    folder.mkdir(parents=True, exist_ok=True)
    parts: dict[str, list[Row]] = {}
    for kind, (file, columns, response, piled, learnt) in ANSWERED.items():
        made = {}
        for row in rows_of(file):
            prompt = "\n".join(str(row[column]) for column in columns if row[column])[-CHARACTERS:]
            key = hashlib.sha256(prompt.encode()).hexdigest()[:12]
            completion = str(row[response])[:CHARACTERS]
            if completion:
                name = f"{kind}-{key}"
                made[key] = {
                    "id": name,
                    "prompt": f"{prompt}\n",
                    "completion": completion,
                    "kind": kind,
                    "group": name,
                }
        rows = iter([made[key] for key in sorted(made)])
        for part, count in (
            *((("guide", 40), ("dev", 32), ("target", 160)) if kind == "solutions" else ()),
            ("pool", piled),
            ("general", learnt),
        ):
            parts.setdefault(part, []).extend(taken(rows, count))
    for part, part_rows in parts.items():
        write(folder / f"{part}.jsonl", part_rows)
    described = {
        "base": model(folder / "base", parts["general"], layers=4, tokens=500_000),
        "teacher": model(folder / "teacher", parts["general"] + parts["guide"], layers=8, tokens=600_000),
        "rows": {part: len(part_rows) for part, part_rows in parts.items()},
    }
    (folder / "model.json").write_text(json.dumps(described, indent=1), encoding="utf-8")
    return described


def taken(rows: Iterator[Row], count: int) -> list[Row]:
    """The next rows, and the rest of the last one's document passed over."""
    found: list[Row] = []
    last = None
    while len(found) < count or (found and last == found[-1]["group"]):
        row = next(rows, None)
        if row is None:
            break
        if len(found) < count:
            found.append(row)
        last = row["group"]
    return found


def write(file: Path, rows: Sequence[Row]) -> None:
    """JSONL."""
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    file.write_text("".join(lines), encoding="utf-8")


def read(file: Path) -> list[Row]:
    """The rows of a file that `write` made."""
    # Not splitlines(): texts may hold other characters that end lines.
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]


def model(folder: Path, rows: Sequence[Row], *, layers: int, tokens: int) -> dict[str, Any]:
    """A language model trained from scratch on the rows, saved; its figures."""
    from tutelage.core.dataset import Dataset
    from tutelage.core.records import Budget
    from tutelage.models.toy import tiny_causal_lm
    from tutelage.training.fit import Fit

    texts = [row["text"] if "text" in row else row["prompt"] + row["completion"] for row in rows]
    untrained = tiny_causal_lm(texts=texts, vocab_size=2048, layers=layers, width=128, max_length=512)
    budget = Budget(tokens=tokens)
    fit = Fit(budget=budget, learning_rate=3e-3, step_tokens=4096, micro_tokens=4096, max_length=512)
    data = Dataset.from_rows([{"id": row["id"], "text": text} for row, text in zip(rows, texts)])
    made, record = fit.train(untrained, data, progress=False)
    made.save(folder)
    return {"parameters": made.n_params, "layers": layers, "tokens": tokens, "last_loss": record.losses[-1]}


def chunks(kind: str) -> Iterator[Row]:
    """Pieces of all documents of a kind."""
    texts = sorted(set(_texts(kind)), key=lambda text: hashlib.sha256(text.encode()).hexdigest())
    for text in texts:
        group = hashlib.sha256(text.encode()).hexdigest()[:12]
        words, piece, number = text.split(), "", 0
        for word in [*words, None]:
            if word is None or len(piece) + len(word) + 1 > CHARACTERS:
                if len(piece) > CHARACTERS // 4:
                    yield {"id": f"{kind}-{group}-{number}", "text": piece, "kind": kind, "group": group}
                    number += 1
                piece = ""
            if word is not None:
                piece = f"{piece} {word}".strip()


def rows_of(file: str) -> list[Row]:
    """The rows of one of the shared files."""
    import pyarrow.parquet as pq

    path = SHARED / file
    return pq.read_table(path).to_pylist() if path.suffix == ".parquet" else read(path)


def _texts(kind: str) -> Iterator[str]:
    files, columns = FILES[kind]
    for row in (row for file in files.split() for row in rows_of(file)):
        # Edited twins of a review are no second review.
        if row.get("version", "original") == "original":
            yield "\n".join(str(row[name]) for name in columns)
