# ruff: noqa: E501  (tables of data)
"""What is fuzzed: every reader that discovery finds, and everything else that opens what others wrote."""

import functools
import json
import shutil
import sqlite3
import tempfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fuzz import seeds
from fuzz.engine import CANARY, Layout, Target
from tutelage.core import discovery
from tutelage.core.dataset import Dataset
from tutelage.core.errors import TutelageError
from tutelage.core.scratch import scratch_path

# -- readers ------------------------------------------------------------------------------------------------------


def right_rows(data: Dataset) -> list[dict[str, Any]]:
    """What holds for every dataset that a reader returns; its rows."""
    report = data.report if data.path is None else {}
    if "in" in report:
        assert report["in"] == report["kept"] + report["quarantined"], f"the report does not add up: {report}"
        assert report["kept"] == data.num_rows and report["quarantined"] == data.quarantined.num_rows, report
    rows = list(data.rows())
    assert len(rows) == data.num_rows, "rows are missing"
    ids = [row["id"] for row in rows]
    assert all(isinstance(one, str) and one for one in ids), "an id is not text"
    assert len(set(ids)) == len(ids), "two rows have one id"
    text = repr(rows)
    assert CANARY not in text, "a file outside the source was read"
    json.dumps(rows, default=str, ensure_ascii=False).encode("utf-8")
    for row in [*data.quarantined.to_pylist(), *data.dropped.to_pylist()]:
        assert row["reason"], "a row is set aside without a reason"
    if data.path is None and _seldom(text):
        folder = scratch_path()
        try:
            again = list(data.save(folder).rows())
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        assert repr(again) == repr(rows), "what was saved is not what was read"
    return rows


def _seldom(text: str) -> bool:
    """True for one in four cases, the same ones every time: what takes long is not done for all of them."""
    return zlib.crc32(text.encode("utf-8", "replace")) % 4 == 0


def _modes(cls: type) -> list[dict[str, Any]]:
    fields = cls.model_fields  # type: ignore[attr-defined]
    return [{"on_error": "raise"}, {"on_error": "quarantine"}] if "on_error" in fields else [{}]


def _read_both(cls: type, path: Path) -> None:
    """A reader in both modes: where the strict one reads, the lenient one reads the same and sets nothing aside."""
    strict: list[dict[str, Any]] | None = None
    error: TutelageError | None = None
    for fields in _modes(cls):
        try:
            data = cls(**fields).read(str(path))
        except TutelageError as one:
            assert strict is None, f"the lenient mode alone fails: {one}"
            error = error or one
            continue
        rows = right_rows(data)
        if fields.get("on_error") == "quarantine" and strict is not None:
            assert repr(rows) == repr(strict) and data.quarantined.num_rows == 0, (
                "the two modes read different rows"
            )
        if fields.get("on_error") == "quarantine" and error is not None:
            assert data.quarantined.num_rows, "an error of the strict mode is nothing in the lenient one"
        if fields.get("on_error") != "quarantine":
            strict = rows
        if rows and "limit" in cls.model_fields and _seldom(repr(rows)):  # type: ignore[attr-defined]
            first = right_rows(cls(**{**fields, "limit": 1}).read(str(path)))
            # Types may be wider with more rows, and with them ids that are made from contents; text is the same.
            texts = [key for key, value in first[0].items() if isinstance(value, str) and key != "id"]
            assert len(first) == 1, "limit: 1 is not one row"
            assert all(first[0][key] == rows[0][key] for key in texts), "limit: 1 is not the first row"
    if error is not None:
        raise error


def _slow_path_agrees(path: Path) -> None:
    """JSON Lines a block at a time and line by line give the same rows, or the same error."""
    from tutelage.data.read.jsonl import Jsonl

    outcomes = []
    for fields in ({}, {"columns": {"text": "text"}}):
        try:
            data = Jsonl(on_error="quarantine", **fields).read(str(path))
            outcomes.append((right_rows(data), data.quarantined.to_pylist()))
        except TutelageError as error:
            outcomes.append(str(error))
    fast, slow = outcomes
    if isinstance(slow, tuple) and not any("there is no column" in row["reason"] for row in slow[1]):
        assert fast == slow, "read in blocks is not as read line by line"


def _lines_agree(path: Path) -> None:
    """What the strict reader of JSON Lines accepts is what Python's json module reads from the lines."""
    from tutelage.data.read.jsonl import Jsonl

    rows = list(Jsonl().read(str(path)).rows())
    raw = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    if path.suffix not in (".jsonl", ".json") or raw.lstrip()[:1] == b"[":
        return
    plain = [json.loads(line) for line in raw.split(b"\n") if line.strip()]
    assert len(plain) == len(rows), "rows are missing"
    for given, row in zip(plain, rows):
        for key, value in given.items():
            if isinstance(value, str) and key != "id":
                assert row[key] == value, f"the text of {key} changed"


def reader_targets() -> list[Target]:
    """One for every reader that takes a path, with the sources that it accepts (all of them where it accepts none)."""
    found = []
    for card in discovery.cards().values():
        if card.kind != "Reader" or not card.module.startswith("tutelage."):
            continue
        cls = discovery.load(card.name)
        layouts = _accepted(cls)
        if layouts is not None:
            found.append(Target(card.name, layouts, functools.partial(_reader, cls), needs=card.needs))
    return found


def _reader(cls: type, path: Path) -> None:
    if cls.__name__ == "Jsonl":
        _slow_path_agrees(path)
        _lines_agree(path)
    _read_both(cls, path)


def _accepted(cls: type) -> dict[str, Layout] | None:
    accepted: dict[str, Layout] = {}
    refused: list[str] = []
    for name, layout in seeds.sources().items():
        with tempfile.TemporaryDirectory() as folder:
            for file, data in layout.files.items():
                target = Path(folder) / file
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
            try:
                if cls().read(str(Path(folder) / layout.entry)).num_rows:
                    accepted[name] = layout
            except TutelageError as error:
                refused.append(str(error))
    if not accepted and all("takes no path" in one for one in refused):
        return None
    return accepted or dict(seeds.sources())


# -- recipes ------------------------------------------------------------------------------------------------------


def _recipe(path: Path) -> None:
    from tutelage.runs import load_recipe

    recipe = load_recipe(path)
    again = type(recipe)(**recipe.flat())
    assert again.flat() == recipe.flat(), "a recipe does not go round"


def _paths(path: Path) -> None:
    from tutelage.runs import load_recipe
    from tutelage.runs.paths import check_paths, output_path

    workspace = path.parent / "workspace"
    recipe = load_recipe(path)
    check_paths(recipe, workspace)
    for step in recipe.steps:
        if step.to is not None:
            assert output_path(recipe, workspace, step.to, "here").resolve().is_relative_to(workspace.resolve())


def _yaml_text(path: Path) -> None:
    from tutelage.runs import _yaml

    value, lines = _yaml.read(path)
    json.dumps(value, default=str)
    assert all(isinstance(line, int) and line > 0 for line in lines.values())


RECIPE = b"""\
name: small
description: a description
sources:
  pool: {path: pool.jsonl}
  held: {use: data.read.jsonl, path: pool.jsonl, limit: 2}
models:
  base: {load: smollm2}
  judge: {load: "http://127.0.0.1:9/v1", model: toy, key_env: KEY, endpoint: {timeout: 5, max_spend: 1.0}}
steps:
  - {name: sized, use: signals.length, from: pool}
  - {name: chosen, use: data.select.random, from: sized, budget: {tokens: 0.1k}}
  - name: trained
    use: training.fit
    model: base
    from: chosen
    objective: {use: training.objectives.causal_lm}
    schedule: {use: training.schedules.wsd}
    budget: {tokens: 200}
    evaluators: {loss: {use: evaluation.bits_per_byte, from: held}}
  - {name: result, use: evaluation.bits_per_byte, from: held, model: trained}
  - {name: out, use: data.write.jsonl, from: chosen, to: out/rows.jsonl}
arms:
  top: {chosen: {use: data.select.top_k, column: n_bytes, budget: {rows: 1}}}
  chosen_by: {chosen: {use: data.select.random, budget: {rows: 1}}}
compare: {baseline: top, at: none, seeds: [0, 1, 2], margin: 0.01, primary: [[chosen_by, top]]}
gates:
  - {name: no harm, step: result, no_harm: 0.5, against: top, arm: chosen_by}
left_out: {cost: "not measured"}
seed: 3
require_version: ">=0.1"
"""
REPEATED = b"""\
name: rounds
sources: {corpus: {path: pool.jsonl}, held_out: {path: pool.jsonl}}
models: {base: {load: smollm2}}
repeat: {times: 4, carry: {base: trained}, until: {metric: result, below: 1.5}}
steps:
  - {name: skill, use: data.filter.where, from: corpus, column: label, equals: $value, foreach: {over: [x, y], as: value}}
  - {name: trained, use: training.fit, model: base, from: corpus, objective: {use: training.objectives.sft}, budget: {tokens: 1k}}
  - {name: result, use: evaluation.bits_per_byte, from: held_out, model: trained}
"""


def recipe_layouts() -> dict[str, Layout]:
    rows = {"pool.jsonl": seeds.jsonl(seeds.TEXTS)}
    texts = {"small": RECIPE, "rounds": REPEATED}
    shipped = {name: file.read_bytes() for name, file in discovery.shipped_recipes().items()}
    texts |= {f"shipped-{name}": text for name, text in shipped.items() if len(text) < 2500}
    return {
        name: Layout({"recipe.yaml": text, **rows}, "recipe.yaml", ("recipe.yaml",))
        for name, text in texts.items()
    }


# -- evaluation ---------------------------------------------------------------------------------------------------

TASK = b"""\
task: toy
dataset_path: json
dataset_kwargs: {data_files: {test: data.jsonl, train: data.jsonl}}
test_split: test
training_split: train
output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_target: answer
doc_to_choice: "{{choices}}"
num_fewshot: 1
fewshot_config: {sampler: first_n}
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
metadata: {version: 1}
"""
GENERATE = b"""\
include: base.yaml
task: written
output_type: generate_until
doc_to_target: "{{choices[answer]}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 8, do_sample: false}
filter_list: [{name: first, filter: [{function: regex, regex_pattern: "(\\\\d+)"}, {function: take_first}]}]
metric_list: [{metric: exact_match, ignore_case: true}]
"""
ITEMS = [{"question": f"{n}?", "choices": ["a", "b"], "answer": n % 2} for n in range(3)]


def _lm_eval(path: Path) -> None:
    from tutelage.evaluation._lm_eval_config import load_config, load_split
    from tutelage.evaluation.lm_eval_task import LmEvalTask

    config = load_config("task.yaml", path, allow_code=False)
    assert isinstance(load_split(config, config.eval_split, "task.yaml", path), list)
    result = LmEvalTask(path="task.yaml", project=str(path), limit=2).evaluate(_toy(), None, {"seed": 0})
    assert result.n_items <= 2


def _results(path: Path) -> None:
    from tutelage.core.results_import import import_results

    for (task, metric), log in import_results(path).items():
        assert isinstance(task, str) and isinstance(metric, str) and len(log) > 0 and log.hash
        assert len(list(log.table.to_pylist())) == len(log)


def results_layouts() -> dict[str, Layout]:
    sample = [
        {"doc_id": n, "doc": {"q": str(n)}, "target": "a", "filtered_resps": ["a"], "filter": "none", "metrics": ["acc"],
         "doc_hash": f"h{n}", "prompt_hash": "p", "target_hash": "t", "acc": n % 2, "bits_per_byte": [-3.0, 4]}
        for n in range(3)
    ]  # fmt: skip
    summary = {"results": {"toy": {"acc,none": 0.5}}, "higher_is_better": {"toy": {"acc": True}}}
    harness = {
        "results_2024-01-01T00.json": json.dumps(summary).encode(),
        "samples_toy_2024-01-01T00.jsonl": seeds.jsonl(sample),
    }
    plain = [{"id": f"i{n}", "score": n / 2, "cluster": "c", "weight": 1.0, "seed": 0} for n in range(3)]
    from tutelage.core.items import ItemLog

    with tempfile.TemporaryDirectory() as folder:
        log = ItemLog.from_rows(
            [{"item_key": str(n), "score": 0.5} for n in range(3)], {"task": "t", "metric": "m"}
        )
        stored = log.save(Path(folder) / "log.parquet").read_bytes()
    return {
        "harness": Layout(harness),
        "seeds": Layout({f"seed{n}/{name}": data for n in (0, 1) for name, data in harness.items()}),
        "plain": Layout({"items.jsonl": seeds.jsonl(plain)}),
        "log": Layout({"log.parquet": stored}, "log.parquet"),
    }


# -- labelling ----------------------------------------------------------------------------------------------------

STUDIO = [
    {"id": 1, "data": {"id": "a", "text": "one"}, "meta": {"annotators": {"1": "ann"}},
     "annotations": [{"id": 1, "was_cancelled": False, "lead_time": 2.5, "created_at": "2024-01-01T00:00:00Z",
                      "completed_by": {"email": "ann@example.com"},
                      "result": [{"type": "choices", "from_name": "label", "value": {"choices": ["x"]}}]}],
     "predictions": [{"result": [{"type": "choices", "from_name": "label", "value": {"choices": ["y"]}}]}]},
    {"id": 2, "data": {"text": "two"}, "annotations": [{"id": 2, "was_cancelled": True, "result": []}]},
]  # fmt: skip
ARGILLA = [
    {"id": "a", "fields": {"text": "one"}, "suggestions": {"label": {"value": "x"}},
     "responses": {"label": [{"value": "x", "user_id": "u"}]},
     "tutelage": {"annotators": {"u": "ann"}, "skipped": ["v"], "seconds": {"u": 1.5}}},
    {"id": "b", "fields": {"text": "two"}, "responses": [{"user_id": "u", "status": "submitted",
                                                        "values": {"label": {"value": "y"}}}]},
]  # fmt: skip


def _import_labels(path: Path) -> None:
    from tutelage.core.labelling.journal import Answers
    from tutelage.core.labelling.queue import Item, Queue
    from tutelage.core.labels import Label, LabelSpace
    from tutelage.runs.labelling.interchange import argilla, label_studio, new_events, read_file

    _, items, answers = read_file(path)
    assert all(isinstance(item.text, str) and isinstance(item.id, str) for item in items)
    queue = Queue(
        tuple(Item(item.id, item.text) for item in items), LabelSpace([Label(name="x"), Label(name="y")])
    )
    events = new_events(answers, queue, Answers(), "file")
    json.dumps(events)
    for write in (label_studio, argilla):
        json.dumps(write(queue, {}))


def _queue(path: Path) -> None:
    from tutelage.core.labelling.journal import read_answers
    from tutelage.core.labelling.queue import Queue, answer_files, gathered, settled

    queue = Queue.open(path)
    assert queue.mark
    for file in answer_files(path):
        queue.check(read_answers(file), file)
    for given in gathered(answer_files(path)).values():
        settled(given)


def queue_layout() -> Layout:
    events = [
        {"seq": 1, "event": "answer", "id": "a", "annotator": "ann", "label": "x", "seconds": 1.0, "at": "t"},
        {"seq": 2, "event": "skip", "id": "b", "annotator": "ann"},
        {"seq": 3, "event": "undo", "id": "b", "annotator": "ann", "undoes": 2},
    ]
    return Layout(
        {
            "queue.jsonl": seeds.jsonl([{"id": "a", "text": "one"}, {"id": "b", "text": "two", "suggested": "x"}]),
            "labels.jsonl": seeds.jsonl([{"label": "x", "description": "d"}, {"label": "y", "aliases": ["z"]}]),
            "guidelines.md": b"Be fair.\n",
            "answers.jsonl": seeds.jsonl(events),
        }
    )


# -- what tutelage itself wrote -----------------------------------------------------------------------------------


def _dataset(path: Path) -> None:
    try:
        whole = Dataset.open(path, verify=True)
    except TutelageError:
        whole = None
    data = Dataset.open(path)
    rows = right_rows(data)
    data.take(range(min(2, data.num_rows)))
    assert data.hash
    if whole is not None:
        # The manifest may have lost shards, whole; what it names is what was written.
        known = {row["id"]: row for row in _stored_rows()}
        assert all(known.get(row["id"], row)["text"] == row["text"] for row in rows if "text" in row), (
            "contents changed"
        )


def _stored_rows() -> list[dict[str, Any]]:
    return [{"id": f"r{n}", "text": f"text {n}", "n": n} for n in range(5)]


def dataset_layout() -> Layout:
    with tempfile.TemporaryDirectory() as folder:
        data = Dataset.from_rows(_stored_rows(), {"in": 5, "kept": 5, "quarantined": 0})
        data = data.with_columns("scores", [{"score": [0.5] * 5}])
        saved = Path(folder) / "data"
        data.save(saved)
        return Layout({p.relative_to(saved).as_posix(): p.read_bytes() for p in saved.rglob("*") if p.is_file()})


def _ledger(path: Path) -> None:
    from tutelage.report.build import build_view
    from tutelage.report.render import render
    from tutelage.runs.ledger import Ledger

    ledger = Ledger(path)
    for run in ledger.runs():
        ledger.run(run["run_id"])
    ledger.keys()
    ledger.history("signals.length")
    page = render(build_view(path))
    assert "<script" not in page


def ledger_layout() -> Layout:
    from tutelage.core.records import Result
    from tutelage.runs.ledger import Ledger

    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(folder)
        recipe = {"name": "r", "steps": [{"name": "s", "use": "signals.length", "from": ["pool"]}]}
        ledger.start("r-1", recipe, {"folder": ".", "allow_outside": False}, {"seed": 0}, {"python": "3.11"})
        cost = {"seconds": 1.0, "forward_flops": 2.0}
        entry = {"arm": "main", "seed": 0, "round": 0, "step": "s", "method": "signals.length", "kind": "Scorer",
                 "key": "k" * 32, "content": "c", "cached": 0, "as_if": cost, "paid": cost, "seconds": 1.0,
                 "rows_in": 3, "facts": {"rows": 3, "needs": ["n"]}}  # fmt: skip
        ledger.step("r-1", entry)
        result = Result(task="t", metric="m", direction=1, estimate=0.5, no_interval="one item", n_items=1)
        shown = result.model_dump(mode="json")
        ledger.result("r-1", {"arm": "main", "seed": 0, "round": 0, "step": "s", "key": "k" * 32, "result": shown})
        ledger.declare("r-1", {"pairs": [["a", "b"]], "axis": "none"})
        ledger.gate("r-1", 0, {"name": "g", "passed": True, "reason": "fine"})
        ledger.finish("r-1", "failed", {"error": "InputError", "what": "broken", "where": "here"})
        db = sqlite3.connect(ledger.file)
        db.execute("PRAGMA journal_mode = DELETE")
        db.close()
        return Layout({".tutelage/ledger.sqlite": ledger.file.read_bytes()})


def _store(path: Path) -> None:
    from tutelage.core.store import Store
    from tutelage.models.cache import complete

    store = Store(path)
    for key in list(store.keys()):
        artifact = store.get(key)
        if artifact is not None:
            assert all(
                (path / "ab" / "abcd" / name).resolve().is_relative_to(path.resolve()) for name in artifact.files
            ), "an artifact names files outside its folder"
            assert artifact.bytes >= 0
            artifact.verify()
    complete(path / "cached")


def store_layout() -> Layout:
    import blake3

    data = b"contents"
    marker = {"format": 1, "key": "abcd", "kind": "files", "meta": {"a": 1},
              "files": {"file": {"bytes": len(data), "hash": blake3.blake3(data).hexdigest(length=16)}}}  # fmt: skip
    return Layout(
        {
            "ab/abcd/file": data,
            "ab/abcd/artifact.json": json.dumps(marker).encode(),
            "cached/tutelage.json": json.dumps({"files": {"file": len(data)}, "name": "x"}).encode(),
            "cached/file": data,
        }
    )


def _payload(path: Path) -> None:
    from tutelage.runs import payload

    payload.load_result(path)
    payload.load_state(path)
    payload.load_fit(path)


def payload_layout() -> Layout:
    import numpy as np

    from tutelage.core.items import ItemLog
    from tutelage.core.records import Result
    from tutelage.runs import payload

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log = ItemLog.from_rows([{"item_key": "a", "score": 0.5}], {"task": "t"})
        result = Result(task="t", metric="m", direction=1, estimate=0.5, no_interval="one", n_items=1)
        payload.save_result(result.with_items(log), folder)
        payload.save_state({"a": np.arange(3.0), "b": {"c": [1, "x"]}}, folder)
        payload.save_fit({"steps": 3, "losses": [1.0, 0.5]}, folder)
        return Layout({p.name: p.read_bytes() for p in folder.iterdir()})


def _checkpoint(path: Path) -> None:
    from tutelage.training import _checkpoint

    newest = _checkpoint.newest(path)
    if newest is not None:
        state = _checkpoint.load(newest)
        assert state["step"] == 2 and float(state["weights"]["w"].sum()) == 3.0, "a damaged checkpoint was loaded"


def checkpoint_layout() -> Layout:
    import torch

    from tutelage.training import _checkpoint

    with tempfile.TemporaryDirectory() as folder:
        state = {"step": 2, "weights": {"w": torch.ones(3)}, "losses": [1.0, {"a": None}]}
        saved = _checkpoint.save(Path(folder), 2, state)
        return Layout({f"{saved.name}/{p.name}": p.read_bytes() for p in saved.iterdir()})


# -- models -------------------------------------------------------------------------------------------------------


@functools.cache
def _toy() -> Any:
    from tutelage.models.toy import tiny_causal_lm

    return tiny_causal_lm(texts=["some text to learn tokens from"], width=32)


def _folder(path: Path) -> dict[str, bytes]:
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def _model(path: Path) -> None:
    from tutelage.models.load import load_model

    found = load_model(path, device="cpu", dtype="float32")
    assert found.fingerprint


def model_layouts() -> dict[str, Layout]:
    from tutelage.models.ngram import NGramLM
    from tutelage.models.toy import tiny_encoder

    with tempfile.TemporaryDirectory() as folder:
        causal = _toy().save(Path(folder) / "causal")
        encoder = tiny_encoder().save(Path(folder) / "encoder")
        ngram = NGramLM().fit(["a text"]).save(Path(folder) / "ngram")
        return {
            "causal": Layout(_folder(causal)),
            "encoder": Layout(_folder(encoder)),
            "ngram": Layout(_folder(ngram)),
        }


def _adapter(path: Path) -> None:
    from tutelage.models.load import load_folder

    found = load_folder(path / "base", device="cpu", dtype="float32", adapter=path / "adapter")
    assert found.fingerprint


def adapter_layout() -> Layout:
    import copy

    from peft import LoraConfig, get_peft_model

    with tempfile.TemporaryDirectory() as folder:
        base = _toy().save(Path(folder) / "base")
        adapted = get_peft_model(copy.deepcopy(_toy().module), LoraConfig(r=2, target_modules=["q_proj"]))
        adapted.save_pretrained(Path(folder) / "adapter")
        files = {**{f"base/{k}": v for k, v in _folder(base).items()},
                 **{f"adapter/{k}": v for k, v in _folder(Path(folder) / "adapter").items() if not k.endswith(".md")}}  # fmt: skip
        return Layout(files, members=[name for name in files if name.startswith("adapter/")])


def _gguf(path: Path) -> None:
    from tutelage.models.convert import convert_gguf

    shutil.rmtree(path.parent / "out", ignore_errors=True)
    folder = convert_gguf(path, out=path.parent / "out")
    assert (folder / "config.json").is_file()


def gguf_layout() -> Layout:
    from tutelage.models.export import export_model

    with tempfile.TemporaryDirectory() as folder:
        file = export_model(_toy(), Path(folder) / "toy.gguf", format="gguf", weights="q8_0", check=False)
        return Layout({"toy.gguf": file.read_bytes()}, "toy.gguf")


def _answer(path: Path) -> None:
    """An endpoint's answer, as bytes: of a chat, of echoed log-probabilities, of a list of models."""
    from tutelage.models.endpoint import EndpointLM

    model = EndpointLM("http://127.0.0.1:9/v1", "toy", retries=0)
    raw = path.read_bytes()
    model._transport._follow = lambda _path, _body: (200, None, raw)  # type: ignore[method-assign, assignment, return-value]
    if path.name == "chat.json":
        (one,) = model.generate(["x"])
        assert isinstance(one.text, str)
    else:
        (score,) = model.score_texts(["abcdef"])
        assert score.n_tokens >= 0
        model.loglikelihood([("abc", "def")])


def answer_layouts() -> dict[str, Layout]:
    chat = {"choices": [{"message": {"role": "assistant", "content": "said"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 7, "completion_tokens": 3}}  # fmt: skip
    logprobs = {"tokens": ["abc", "def", "g"], "token_logprobs": [None, -1.0, -2.0], "text_offset": [0, 3, 6],
                "top_logprobs": [None, {"def": -1.0}, {"g": -2.0}]}  # fmt: skip
    echo = {"choices": [{"text": "abcdefg", "logprobs": logprobs}]}
    return {
        "chat": Layout({"chat.json": json.dumps(chat).encode()}, "chat.json"),
        "echo": Layout({"echo.json": json.dumps(echo).encode()}, "echo.json"),
    }


# -- all of them --------------------------------------------------------------------------------------------------


def _one(
    name: str, layout: Callable[[], Layout | Mapping[str, Layout]], run: Callable[[Path], None], **rest: Any
) -> Target:
    made = layout()
    return Target(name, {"one": made} if isinstance(made, Layout) else made, run, **rest)


def _file(name: str, data: bytes) -> Callable[[], Layout]:
    return lambda: Layout({name: data}, name)


# The order is that of a long search: what users bring first.
OTHERS: dict[str, Callable[[], Target]] = {
    "recipe": lambda: _one("recipe", recipe_layouts, _recipe),
    "recipe.paths": lambda: _one(
        "recipe.paths",
        lambda: {name: one for name, one in recipe_layouts().items() if "shipped" not in name},
        _paths,
    ),
    "recipe.yaml": lambda: _one("recipe.yaml", recipe_layouts, _yaml_text),
    "dataset": lambda: _one("dataset", dataset_layout, _dataset),
    "ledger": lambda: _one("ledger", ledger_layout, _ledger, writes=(".tutelage/ledger.sqlite-",)),
    "store": lambda: _one("store", store_layout, _store),
    "payload": lambda: _one("payload", payload_layout, _payload),
    "results": lambda: _one("results", results_layouts, _results),
    "lm-eval": lambda: _one(
        "lm-eval",
        lambda: {
            "choice": Layout({"task.yaml": TASK, "data.jsonl": seeds.jsonl(ITEMS)}),
            "written": Layout({"task.yaml": GENERATE, "base.yaml": TASK, "data.jsonl": seeds.jsonl(ITEMS)}),
        },
        _lm_eval,
    ),
    "label-studio": lambda: _one("label-studio", _file("tasks.json", json.dumps(STUDIO).encode()), _import_labels),
    "argilla": lambda: _one("argilla", _file("records.json", json.dumps(ARGILLA).encode()), _import_labels),
    "queue": lambda: _one("queue", queue_layout, _queue),
    "endpoint": lambda: _one("endpoint", answer_layouts, _answer),
    "checkpoint": lambda: _one("checkpoint", checkpoint_layout, _checkpoint, needs=("train",)),
    "model": lambda: _one("model", model_layouts, _model, needs=("train",), seconds=20),
    "adapter": lambda: _one("adapter", adapter_layout, _adapter, needs=("train",), seconds=20),
    "gguf": lambda: _one("gguf", gguf_layout, _gguf, needs=("train",), seconds=60, writes=("out", ".out")),
}
EXTRA_MODULES = {"train": "torch", "documents": "pypdf"}


@functools.cache
def readers() -> dict[str, Target]:
    return {target.name: target for target in reader_targets()}


@functools.cache
def target(name: str) -> Target:
    """The target of this name; built when it is first asked for."""
    return OTHERS[name]() if name in OTHERS else readers()[name]


def names() -> list[str]:
    """All targets, readers first."""
    cards = [
        card
        for card in discovery.cards().values()
        if card.kind == "Reader" and card.module.startswith("tutelage.")
    ]
    return [*(card.name for card in cards), *OTHERS]
