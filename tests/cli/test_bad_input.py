"""Bad input as a user meets it on the command line: one error that names place, expected, found and remedy, the
promised exit code, no traceback, and nothing lost of what was there."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from toy.command_line import RECIPE, documents, tutelage, write_rows
from tutelage.core.store import Store
from tutelage.runs.ledger import Ledger

pytest.importorskip("torch")
MUTATIONS = [
    ("src/tutelage/cli/inspect.py", 'made_rows = ("Reader", "Scorer", "Transform")', 'made_rows = ("dataset",)'),
    (
        "src/tutelage/cli/inspect.py",
        "console.print(plain(text), markup=False)",
        "console.print(text, markup=False)",
    ),
    ("src/tutelage/cli/_output.py", "if step else", "if not step else"),
    (
        "src/tutelage/models/encode.py",
        "response_ids, trained, example_id, cut=max(over, 0)",
        "response_ids, trained, example_id",
    ),
    (
        "src/tutelage/core/store.py",
        "if found is None:\n            raise",
        "if found is not None:\n            raise",
    ),
    ("src/tutelage/runs/outside.py", "allow_remote=recipe.allow_remote,", "allow_remote=False,"),
    ("src/tutelage/cli/main.py", "except ClickException as error:", "except ZeroDivisionError as error:"),
    ("src/tutelage/report/render.py", "autoescape=True", "autoescape=False"),
]
GOOD = b'{"id": "1", "text": "the quick fox", "topic": "a"}\n{"id": "2", "text": "a lazy dog", "topic": "b"}\n'
LENGTHS = "{name: sized, use: signals.length, from: docs}"
SFT = (
    "{name: trained, use: training.fit, model: base, from: docs, objective: {use: training.objectives.sft}, "
    "step_tokens: 64, budget: {tokens: 64}}"
)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    from tutelage.models.toy import tiny_causal_lm

    return tiny_causal_lm(texts=[row["text"] for row in documents()]).save(tmp_path_factory.mktemp("m") / "base")


@pytest.fixture
def bed(tmp_path, base) -> Path:
    """A folder with a recipe, documents and a base model."""
    shutil.copytree(base, tmp_path / "base")
    write_rows(tmp_path / "docs.jsonl", documents())
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    return tmp_path


def one_step(bed: Path, file: str, step: str = LENGTHS) -> Path:
    """A recipe that reads `file` and takes one step."""
    recipe = bed / "one.yaml"
    recipe.write_text(
        f"name: one\nsources: {{docs: {{path: {file}}}}}\nmodels: {{base: {{load: base}}}}\nsteps:\n  - {step}\n",
        encoding="utf-8",
    )
    return recipe


def refused(answer, *facts: str, code: int = 2) -> str:
    """The error block of a refused command, which holds every one of `facts` and keeps the form of all errors."""
    assert answer.code == code, answer.err
    assert "Traceback" not in answer.err and "defect of tutelage" not in answer.err
    (start,) = re.finditer(r"^error:", answer.err, re.M)
    block = answer.err[start.start() :]
    assert len(block.splitlines()) <= 15
    for key in ("where:", "do:"):
        assert re.search(rf"^  {key} +\S", block, re.M), f"no {key} in\n{block}"
    assert re.search(r"^  (expected|found): +\S", block, re.M) or "did you mean" in block, block
    for fact in facts:
        assert fact in block, f"{fact!r} is not in\n{block}"
    assert "\x1b" not in answer.out + answer.err
    return block


def parquet(**columns) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue().to_pybytes()


FILES = {
    "empty file": ("a.jsonl", b"", ["a file is empty", "a.jsonl", "at least one row"]),
    "torn last line": ("a.jsonl", GOOD + b'{"id": "3", "te', ["last line is torn", "line 3", '"te', "quarantine"]),
    "truncated Parquet": ("a.parquet", parquet(text=["x"] * 99)[:-40], ["truncated or damaged", "a.parquet"]),
    "invalid UTF-8": ("a.jsonl", GOOD + b'{"text": "caf\xe9"}\n', ["not valid UTF-8", "line 3", "0xe9"]),
    "mixed types": ("a.jsonl", GOOD + b'{"id": "3", "text": 5}\n', ["column 'text' mixes types", "line 3", "'5'"]),
    "NaN": ("a.jsonl", b'{"text": "x", "n": 1}\n{"text": "y", "n": NaN}\n', ["column 'n'", "line 2", "nan"]),
    "NaN in Parquet": ("a.parquet", parquet(text=["x"], n=[float("nan")]), ["column 'n'", "row 1", "nan"]),
    "duplicate ids": ("a.jsonl", GOOD + b'{"id": "1", "text": "z"}\n', ["same id", "line 3", "id 1", "unique"]),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_cannot_be_read(bed, capfd, kind):
    name, data, facts = FILES[kind]
    (bed / name).write_bytes(data)
    recipe = one_step(bed, name)
    refused(tutelage(capfd, "run", recipe, "-w", bed), *facts)
    assert Ledger(bed).run()["status"] == "failed"
    assert (bed / name).read_bytes() == data, "nothing of the user's is touched"
    as_json = tutelage(capfd, "run", recipe, "-w", bed, "--json")
    found = as_json.json()
    assert (as_json.code, found["exit_code"]) == (2, 2) and found["where"] and found["expected"]
    refused(tutelage(capfd, "inspect", bed / name), *facts[:1])


def test_a_torn_line_can_be_set_aside_and_is_shown(bed, capfd):
    (bed / "a.jsonl").write_bytes(FILES["torn last line"][1])
    recipe = one_step(bed, "a.jsonl, use: data.read.jsonl, on_error: quarantine")
    assert tutelage(capfd, "run", recipe, "-w", bed).code == 0
    shown = tutelage(capfd, "inspect", "docs", "-w", bed)
    assert "2 rows" in shown.out and "set aside: a.jsonl, line 3" in shown.out and "torn" in shown.out


def test_a_byte_order_mark_changes_nothing(bed, capfd):
    (bed / "a.jsonl").write_bytes(GOOD)
    (bed / "b.jsonl").write_bytes(b"\xef\xbb\xbf" + GOOD)
    found = []
    for name in ("a.jsonl", "b.jsonl"):
        assert tutelage(capfd, "run", one_step(bed, name), "-w", bed).code == 0
        found.append(Ledger(bed).run()["steps"][-1]["content"])
    assert found[0] == found[1]
    (bed / "marked.yaml").write_bytes(b"\xef\xbb\xbf" + (bed / "one.yaml").read_bytes())
    assert tutelage(capfd, "validate", bed / "marked.yaml").code == 0


def test_a_wrong_column_names_step_and_column_and_suggests(bed, capfd):
    answer = tutelage(capfd, "run", bed / "recipe.yaml", "-w", bed, "--set", "split.group_column=topik")
    refused(answer, "'split'", "'topik'", "id, text, topic", "did you mean topic?")


def test_a_row_longer_than_the_context(bed, capfd):
    """A text is split and every token of it trained; a pair is cut, trained, and that is counted and said."""
    words = " ".join(f"w{i}" for i in range(900))
    write_rows(bed / "long.jsonl", [{"id": "L", "text": words}])
    plain = SFT.replace("sft", "causal_lm").replace("budget: {tokens: 64}", "max_length: 64")
    done = tutelage(capfd, "run", one_step(bed, "long.jsonl", plain), "-w", bed, "--json")
    assert done.code == 0
    from tutelage.models.load import load_model
    from tutelage.runs.payload import load_fit

    fit = load_fit(Path(done.json()["steps"]["trained"]["path"]))
    tokens = int(load_model(bed / "base", dtype="float32").count_tokens([words])[0])
    assert fit["tokens"] >= tokens + 1 and fit["truncated_rows"] == 0
    write_rows(bed / "pair.jsonl", [{"id": "P", "prompt": words, "completion": words}])
    pairs = SFT.replace("step_tokens", "max_length: 64, step_tokens")
    done = tutelage(capfd, "run", one_step(bed, "pair.jsonl", pairs), "-w", bed)
    assert done.code == 0
    assert "trained: 1 of 1 rows are longer than max_length and were cut" in done.err


@pytest.mark.parametrize(
    ("messages", "facts"),
    [
        ([{"role": "user", "content": "hi"}], ["no assistant turn", "z", "user", "drop the row", "step trained"]),
        (
            [{"role": "user", "content": "hi"}, {"role": "assistant", "content": ""}],
            ["assistant turn is empty", "z", "step trained"],
        ),
        (
            [{"role": "user", "content": "hi"}, {"role": "narrator", "content": "yes"}],
            ["has no known role", "narrator"],
        ),
    ],
)
def test_a_chat_with_nothing_to_learn(bed, capfd, messages, facts):
    write_rows(bed / "chat.jsonl", [{"id": "z", "messages": messages}])
    refused(tutelage(capfd, "run", one_step(bed, "chat.jsonl", SFT), "-w", bed), *facts)


RECIPES = {
    "unknown recipe key": ("sources:", "sorces:", ["'sorces'", "line 2", "did you mean sources?"]),
    "unknown key of a step": ("parts:", "prats:", ["'prats'", "line 5", "did you mean parts?"]),
    "unknown method": (
        "data.filter.where",
        "data.filter.wher",
        ["'data.filter.wher'", "line 6", "data.filter.where"],
    ),
    "wrong field type": (
        "step_tokens: 128",
        "step_tokens: many",
        ["'step_tokens'", "line 14", "integer", "'many'"],
    ),
    "field out of range": (
        "step_tokens: 128",
        "step_tokens: 0",
        ["step_tokens", "greater than or equal to 1", "explain training.fit"],
    ),
    "unknown budget": ("tokens: 600", "tokns: 600", ["tokns", "line 16", "did you mean tokens"]),
    "unknown step": ("from: sized", "from: sizd", ["'sizd'", "line 9", "did you mean sized?"]),
}


@pytest.mark.parametrize("command", ["validate", "plan", "run", "compare"])
@pytest.mark.parametrize("kind", RECIPES)
def test_a_recipe_that_is_wrong_is_refused_before_anything_runs(bed, capfd, kind, command):
    old, new, facts = RECIPES[kind]
    recipe = bed / "recipe.yaml"
    recipe.write_text(RECIPE.replace(old, new, 1), encoding="utf-8")
    refused(tutelage(capfd, command, recipe), "recipe.yaml", *facts)
    assert not (bed / ".tutelage").exists() and not Path(".tutelage").exists()


def _without_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()


def _pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _with_code(folder: Path) -> None:
    code = "open('ran', 'w').close()\n"
    (folder / "modeling_own.py").write_text(code, encoding="utf-8")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["auto_map"] = {"AutoConfig": "modeling_own.Own", "AutoModelForCausalLM": "modeling_own.OwnLM"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


MODELS = {
    "no tokenizer": (_without_tokenizer, ["no tokenizer", "tokenizer.json", "copy the tokenizer"]),
    "pickle": (_pickled, ["pickled", "pytorch_model.bin", "*.safetensors", "convert it"]),
    "own code": (
        _with_code,
        [
            "brings its own code",
            "auto_map in config.json",
            "allow_remote_code: true at the model",
            "--allow-remote-code",
        ],
    ),
}


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_folder_that_is_refused(bed, capfd, monkeypatch, kind):
    change, facts = MODELS[kind]
    change(bed / "base")
    monkeypatch.chdir(bed)
    refused(tutelage(capfd, "run", "recipe.yaml"), str(bed / "base"), *facts)
    refused(tutelage(capfd, "chat", "base"), *facts)
    refused(tutelage(capfd, "export", "base", "out"), *facts)
    assert not (bed / "ran").exists() and not (bed / "out").exists()
    # What was complete stays: with the model whole again, the rows come from the store.
    steps = {step["step"] for step in Ledger(bed).run()["steps"]}
    assert {"docs", "split", "chosen"} <= steps


def test_an_adapter_of_another_vocabulary(bed, capfd):
    from peft import LoraConfig, get_peft_model

    from tutelage.models.toy import tiny_causal_lm

    other = tiny_causal_lm(vocab_size=300)
    module = get_peft_model(other.copy().module, LoraConfig(r=2, target_modules=["q_proj", "lm_head"]))
    other.around(module).save(bed / "adapter")
    answer = tutelage(capfd, "run", bed / "recipe.yaml", "-w", bed, "--set", "models.base.adapter=adapter")
    refused(answer, "vocabularies", "expected: 331 tokens", "300 tokens", "trained on")


def test_paths_that_leave_the_workspace(bed, capfd, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    write_rows(outside / "docs.jsonl", documents())
    recipe = bed / "recipe.yaml"
    up = os.path.relpath(outside / "docs.jsonl", bed)
    for path in (up, outside / "docs.jsonl"):
        answer = tutelage(capfd, "run", recipe, "-w", bed, "--set", f"sources.docs.path={path}")
        refused(answer, "leaves the workspace", "line 2", str(outside), "--allow-outside")
    (bed / "docs.jsonl").unlink()
    try:
        (bed / "docs.jsonl").symlink_to(outside / "docs.jsonl")
    except OSError:
        pytest.skip("no right to make links here")
    refused(tutelage(capfd, "run", recipe, "-w", bed), "leaves the workspace", str(outside))
    # Nothing a writer makes may land outside either, whatever the flag says.
    step = "{name: out, use: data.write.jsonl, from: docs, to: ../escaped.jsonl}"
    write_rows(bed / "in.jsonl", documents(3))
    answer = tutelage(capfd, "run", one_step(bed, "in.jsonl", step), "-w", bed, "--allow-outside")
    refused(answer, "leaves the workspace", "to")
    assert not (bed.parent / "escaped.jsonl").exists()


def test_a_workspace_that_cannot_be_written(bed, capfd):
    (bed / "file").write_text("", encoding="utf-8")
    refused(tutelage(capfd, "run", bed / "recipe.yaml", "-w", bed / "file"), "cannot be written", "--workspace")


@pytest.mark.skipif(os.name == "nt", reason="folders are made read-only by their mode")
def test_a_read_only_workspace(bed, capfd):
    place = bed / "locked"
    place.mkdir()
    place.chmod(0o500)
    try:
        if os.access(place, os.W_OK):
            pytest.skip("this user may write everywhere")
        refused(tutelage(capfd, "run", bed / "recipe.yaml", "-w", place), "cannot be written", "--workspace")
    finally:
        place.chmod(0o700)


def test_a_full_disk_keeps_what_was_complete(bed, capfd, monkeypatch):
    """The disk is full when weights are written; safetensors reports that in a type of its own. The run says so,
    and goes on when there is space."""
    from safetensors import SafetensorError

    def full(*_arguments, **_options):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    for place in ("tutelage.training._checkpoint.save_file", "transformers.modeling_utils.safe_save_file"):
        with monkeypatch.context() as patch:
            patch.setattr(place, full)
            answer = tutelage(capfd, "run", bed / "recipe.yaml", "-w", bed)
        refused(answer, "No space left on device", "free", "step trained")
        before = {step["step"] for step in Ledger(bed).run()["steps"]}
        assert "chosen" in before and "trained" not in before
    done = tutelage(capfd, "resume", "-w", bed)
    assert done.code == 0 and "held_out: bits_per_byte" in done.out
    store = Store(bed / ".tutelage" / "store")
    assert all(store.get(step["key"]) for step in Ledger(bed).run()["steps"])


def test_a_second_process_on_the_same_run(bed, capfd):
    program = textwrap.dedent(
        f"""
        from pathlib import Path
        from tutelage.runs import load_recipe
        from tutelage.runs.execute import _only_one
        with _only_one(load_recipe({str(bed / "recipe.yaml")!r}), Path({str(bed)!r})):
            print("held", flush=True)
            input()
        """
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        answer = tutelage(capfd, "run", bed / "recipe.yaml", "-w", bed)
        refused(answer, "second process", f"process {holder.pid}", str(bed), "wait for it")
        assert not Ledger(bed).runs() if (bed / ".tutelage" / "ledger.sqlite").exists() else True
    finally:
        holder.communicate("\n", timeout=30)
    assert tutelage(capfd, "run", one_step(bed, "docs.jsonl"), "-w", bed).code == 0


def test_text_never_leaves_without_permission(bed, capfd):
    recipe = bed / "recipe.yaml"
    remote = ("--set", "models.base.load=https://api.example.com/v1")
    refused(tutelage(capfd, "run", recipe, "-w", bed, *remote), "api.example.com", "allow_remote: true")
    refused(tutelage(capfd, "chat", remote[1].partition("=")[2]), "allow_remote")


def test_permission_of_the_recipe_reaches_the_endpoint(bed, capfd, monkeypatch):
    given = {}

    class Far:
        def __init__(self, source, model, **options):
            given.update(options, source=source, model=model)
            raise ConnectionError("far enough")

    monkeypatch.setattr("tutelage.models.endpoint.EndpointLM", Far)
    remote = ("--set", "models.base.load=https://api.example.com/v1", "--set", "allow_remote=true")
    named = ("--set", "models.base.model=small", "--set", "models.base.key_env=EXAMPLE_KEY")
    tutelage(capfd, "run", bed / "recipe.yaml", "-w", bed, *remote, *named)
    assert (given["model"], given["key_env"]) == ("small", "EXAMPLE_KEY")
    assert given["allow_remote"] and given["source"] == "https://api.example.com/v1"
    assert Ledger(bed).run()["recipe"]["allow_remote"] is True


PAYLOADS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</pre><svg onload=alert(1)>",
    "\x1b[31mred\x1b[0m\x1b]0;title\x07",
    "\u202eevil\u2066",
    "{{ 7777*9 }}",
    "[bold]markup[/bold]",
)
HOSTILE_RECIPE = """\
name: hostile
sources: {docs: {path: hostile.jsonl}, held: {path: held.jsonl}}
models: {base: {load: base}}
steps:
  - {name: clean, use: data.filter.where, from: docs, column: topic, equals: keep}
  - {name: sized, use: signals.length, from: clean}
  - {name: chosen, use: data.select.random, from: sized, budget: {rows: 6}}
  - {name: trained, use: training.fit, model: base, from: chosen, step_tokens: 64, budget: {tokens: 128}}
  - {name: loss, use: evaluation.bits_per_byte, from: held, model: trained}
  - {name: answers, use: evaluation.exact_match, from: held, model: trained, max_new_tokens: 2}
"""


class Tags(HTMLParser):
    """Every tag of a page with its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_hostile_rows_reach_report_and_terminal_harmless(bed, capfd):
    """Payloads in ids, texts, groups and columns, through selection, training and evaluation, onto the page."""
    attack = " ".join(PAYLOADS)
    rows = [
        {
            "id": f"{PAYLOADS[i % 7]}{i}",
            "text": f"{attack} {i}",
            "topic": "keep" if i % 3 else f"{attack} topic",
            "source": f"{PAYLOADS[i % 5]}.txt",
            attack[:40]: i,
        }
        for i in range(18)
    ]
    write_rows(bed / "hostile.jsonl", rows)
    held = [
        {"id": f"{PAYLOADS[i % 7]}h{i}", "text": attack, "prompt": attack, "completion": attack, "answer": attack}
        for i in range(6)
    ]
    write_rows(bed / "held.jsonl", held)
    (bed / "hostile.yaml").write_text(HOSTILE_RECIPE, encoding="utf-8")
    said = [tutelage(capfd, "run", bed / "hostile.yaml", "-w", bed)]
    assert said[0].code == 0, said[0].err
    for what in (["clean", "--model", bed / "base"], ["clean", "--rows", 4], ["clean", "--id", rows[0]["id"]]):
        said.append(tutelage(capfd, "inspect", *what, "-w", bed))
        assert said[-1].code == 0, said[-1].err
    said.append(tutelage(capfd, "inspect", bed / "hostile.jsonl"))
    said.append(tutelage(capfd, "report", "-w", bed))
    for answer in said:
        for character in ("\x1b", "\x07", "\u202e", "\u2066"):
            assert character not in answer.out + answer.err
    page = (bed / "report.html").read_text(encoding="utf-8")
    assert "What clean removed" in page and "What chosen was trained on" in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page, "the payload is shown as text"
    tags = Tags()
    tags.feed(page)
    assert not {tag for tag, _ in tags.found} & {"script", "img", "iframe", "object", "link", "a", "form", "embed"}
    for tag, attributes in tags.found:
        assert not [name for name in attributes if name.startswith("on")], tag
        assert not {"src", "href", "style", "xlink:href"} & set(attributes), tag
    assert not {"\x1b", "\x07", "\u202e", "\u2066"} & set(page)
    assert "69993" not in page
    assert "default-src 'none'" in page


def test_a_failed_gate_is_three_and_the_run_is_kept(bed, capfd):
    recipe = bed / "recipe.yaml"
    gate = "gates: [{name: strict, step: held_out, at_most: 0.01}]\n"
    recipe.write_text(RECIPE + gate, encoding="utf-8")
    answer = tutelage(capfd, "run", recipe, "-w", bed)
    assert answer.code == 3 and "gate strict: FAILED" in answer.out
    assert Ledger(bed).run()["status"] == "gate failed"
    as_json = tutelage(capfd, "run", recipe, "-w", bed, "--json")
    assert as_json.code == 3 and as_json.json()["gates"][0]["passed"] is False


def test_waiting_for_a_person_is_four(bed, capfd, monkeypatch):
    from tutelage.core.errors import WaitingForPerson
    from tutelage.signals.length import Length

    def wait(*_arguments, **_options):
        raise WaitingForPerson("answers are missing", where="answers.jsonl", expected="20", remedy="write them")

    monkeypatch.setattr(Length, "score", wait)
    answer = tutelage(capfd, "run", bed / "recipe.yaml", "-w", bed)
    run_id = Ledger(bed).run()["run_id"]
    refused(answer, "answers are missing", "write them", f"tutelage resume {run_id}", code=4)
    monkeypatch.undo()
    assert tutelage(capfd, "resume", run_id, "-w", bed).code == 0


@pytest.mark.parametrize(
    "arguments", [["bogus"], ["run"], ["run", "a.yaml", "--bogus"], ["run", "a", "--seed", "x"]]
)
def test_wrong_usage_is_two(capfd, arguments):
    answer = tutelage(capfd, *arguments)
    assert answer.code == 2 and "Usage: tutelage" in answer.err and answer.out == ""
    assert "Traceback" not in answer.err and "defect" not in answer.err
