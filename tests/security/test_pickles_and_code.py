"""Files that would run code when they are loaded: none of them does, and each is refused with its reason."""

import ast
import io
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

import tutelage
from tutelage.core.errors import ConfigError, InputError, ModelError, TutelageError

MUTATIONS = [
    ("src/tutelage/runs/payload.py", "allow_pickle=False", "allow_pickle=True"),
    ("src/tutelage/models/ngram.py", "allow_pickle=False", "allow_pickle=True"),
    ("src/tutelage/runs/_yaml.py", 'if getattr(event, "tag", None) is not None:', "if False:"),
]
SOURCE = Path(tutelage.__file__).parent


class Payload:
    """Leaves the file `ran` when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture
def mark(tmp_path) -> Path:
    return tmp_path / "ran"


@pytest.fixture
def evil(mark) -> bytes:
    data = pickle.dumps(Payload(mark))
    pickle.loads(data)
    assert mark.exists(), "the payload works"
    mark.unlink()
    return data


def object_array(mark: Path) -> bytes:
    sink = io.BytesIO()
    np.save(sink, np.array([Payload(mark)], dtype=object), allow_pickle=True)
    return sink.getvalue()


def npz(**arrays: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, data in arrays.items():
            archive.writestr(f"{name}.npy", data)
    return sink.getvalue()


@pytest.mark.parametrize(
    "name",
    ["pytorch_model.bin", "model.pt", "model.pth", "model.ckpt", "model.pkl", "model.joblib", "model.h5",
     "pytorch_model-00001-of-00002.bin", "training_args.bin", "model.safetensors"],
)  # fmt: skip
def test_a_model_folder(tmp_path, mark, evil, name):
    """Pickled weights are refused, also where they are called safetensors; beside real ones nobody reads them."""
    pytest.importorskip("torch")
    from tutelage.models.load import load_model
    from tutelage.models.toy import tiny_causal_lm

    folder = tiny_causal_lm().save(tmp_path / "model")
    (folder / name).write_bytes(evil)
    if name != "model.safetensors":
        load_model(folder)
        assert not mark.exists()
        (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"pickled|no weights|cannot be loaded"):
        load_model(folder)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.safetensors", "adapter_model.pt"])
def test_an_adapter(tmp_path, mark, evil, name):
    pytest.importorskip("torch")
    from tutelage.models.load import load_model
    from tutelage.models.toy import tiny_causal_lm

    base = tiny_causal_lm().save(tmp_path / "base")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    config = {"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"], "base_model_name_or_path": str(base)}
    (adapter / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    (adapter / name).write_bytes(evil)
    with pytest.raises(ModelError, match=r"no safetensors weights|cannot be read"):
        load_model(base, adapter=adapter)
    assert not mark.exists()


def test_stored_states_and_ngram_models(tmp_path, mark):
    from tutelage.models.ngram import NGramLM
    from tutelage.runs import payload

    payload.save_state({"a": np.arange(3)}, tmp_path)
    (tmp_path / payload.ARRAYS).write_bytes(npz(a0=object_array(mark)))
    with pytest.raises(TutelageError, match="damaged"):
        payload.load_state(tmp_path)
    folder = NGramLM().fit(["some text"]).save(tmp_path / "ngram")
    (folder / "counts.npz").write_bytes(npz(ngrams_0=object_array(mark), ngrams_1=object_array(mark)))
    with pytest.raises(ModelError, match="not a saved n-gram model"):
        NGramLM.load(folder)
    assert not mark.exists()


def test_a_pickle_as_data(tmp_path, mark, evil):
    """A pickle under the name of any format is no data, and nothing runs."""
    from tutelage.core.discovery import build

    for name in ("a.pkl", "a.pickle", "a.joblib", "a.npy", "a.jsonl", "a.parquet", "a.csv", "a.txt", "a"):
        file = tmp_path / name
        file.write_bytes(evil)
        with pytest.raises(InputError):
            build("data.read.auto", {"on_error": "raise"}).read(str(file))
        assert not mark.exists()


TAGS = [
    "!!python/object/apply:pathlib.Path.touch [{0}]",
    "!!python/object/new:pathlib.Path [{0}]",
    "!!python/name:os.system",
    "!!python/module:os",
    "!function os.system",
    "!!binary aGVsbG8=",
    "!!set {{a}}",
    "!!map [a]",
    "!!int '3'",
    "!x y",
]


@pytest.mark.parametrize("tag", TAGS)
def test_yaml_tags(tmp_path, mark, tag):
    """In a recipe, in an override and in a task file: a tag is an error, and nothing runs."""
    from tutelage.evaluation._lm_eval_config import load_config
    from tutelage.runs import load_recipe

    value = tag.format(mark)
    recipe = tmp_path / "recipe.yaml"
    steps = "steps: [{name: a, use: signals.length, from: pool}]\nsources: {pool: {path: a.jsonl}}\n"
    recipe.write_text(f"name: x\ndescription: {value}\n{steps}", encoding="utf-8")
    with pytest.raises(ConfigError, match="YAML"):
        load_recipe(recipe)
    recipe.write_text(f"name: x\n{steps}", encoding="utf-8")
    with pytest.raises(ConfigError, match="YAML"):
        load_recipe(recipe, overrides=[f"description={value}"])
    if tag.startswith(("!!python", "!function", "!x")):
        (tmp_path / "task.yaml").write_text(f"task: t\ndescription: {value}\n", encoding="utf-8")
        with pytest.raises(ConfigError, match=r"YAML|Python code"):
            load_config("task.yaml", tmp_path, allow_code=False)
    assert not mark.exists()


# Calls that can run what a file says, and where they may stand.
DANGEROUS = {
    "pickle.load", "pickle.loads", "pickle.Unpickler", "cPickle.load", "dill.load", "dill.loads", "joblib.load",
    "torch.load", "marshal.load", "marshal.loads", "shelve.open", "eval", "exec", "compile", "os.system",
    "os.popen", "yaml.load",
    "yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "pd.read_pickle", "pandas.read_pickle",
    "np.load", "numpy.load", "subprocess.run", "subprocess.Popen", "subprocess.call", "subprocess.check_output",
    "__import__", "importlib.import_module", "runpy.run_path", "tarfile.open", "shutil.unpack_archive",
}  # fmt: skip
PERMITTED = {
    # Our own modules, and extras, by names that stand in the source.
    ("core/discovery.py", "importlib.import_module"),
    ("data/read/python_topics.py", "importlib.import_module"),
    ("runs/trackers.py", "importlib.import_module"),
    ("data/read/documents.py", "__import__"),
    # A safe loader with one more tag, which is refused unless allowed.
    ("evaluation/_lm_eval_config.py", "yaml.load"),
    # Without objects: see the tests above.
    ("runs/payload.py", "np.load"),
    ("models/ngram.py", "np.load"),
    # pip, and the command that a recipe names with its own permission.
    ("models/fetch.py", "subprocess.run"),
    ("adapters/external_command.py", "subprocess.Popen"),
}


def _called(node: ast.Call) -> str:
    parts: list[str] = []
    at: ast.expr = node.func
    while isinstance(at, ast.Attribute):
        parts.append(at.attr)
        at = at.value
    return ".".join(reversed([*parts, at.id])) if isinstance(at, ast.Name) else ""


def test_the_source_calls_nothing_that_runs_what_a_file_says():
    found = set()
    for file in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and _called(node) in DANGEROUS:
                found.add((file.relative_to(SOURCE).as_posix(), _called(node)))
                loads = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert _called(node) != "np.load" or loads.get("allow_pickle") == "False", file
                assert "shell" not in loads or loads["shell"] == "False", f"{file}: a shell"
    assert found <= PERMITTED, f"new: {sorted(found - PERMITTED)}"
    assert not {call for _, call in found} & {"eval", "exec", "pickle.loads", "pickle.load", "torch.load"}
