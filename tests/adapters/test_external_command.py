"""An outside trainer as an arm: a real program trains, leaves a model or an adapter, and is timed and charged."""

import sys
import time

import pytest
import torch

from toy.training_bed import dataset, model, same, weights
from tutelage.core.discovery import build
from tutelage.core.errors import ConfigError, ModelError
from tutelage.core.meter import Meter

PROOF = {"adapters.external_command": ["consistent"]}
MUTATIONS = [
    ("src/tutelage/adapters/external_command.py", "backward_flops=2 * forward", "backward_flops=forward"),
    ("src/tutelage/adapters/external_command.py", "if code != 0:", "if False:"),
    ("src/tutelage/adapters/external_command.py", "os.killpg(process.pid, signal.SIGKILL)", "process.kill()"),
]
TRAINER = """
import json, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
data, base, output, seed = sys.argv[1:5]
rows = [json.loads(line) for line in open(data, encoding="utf-8")]
model = AutoModelForCausalLM.from_pretrained(base, dtype="float32")
tokenizer = AutoTokenizer.from_pretrained(base)
if sys.argv[5:] == ["adapter"]:
    from peft import LoraConfig, get_peft_model
    model = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
torch.manual_seed(int(seed))
ids = torch.tensor([tokenizer(rows[0]["text"], add_special_tokens=False)["input_ids"]])
step = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1 + 0.1 * int(seed))
model(input_ids=ids, labels=ids).loss.backward()
step.step()
model.save_pretrained(output)
tokenizer.save_pretrained(output)
print("rows", len(rows))
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("tool") / "trainer.py"
    path.write_text(TRAINER, encoding="utf-8")
    return str(path)


def run(command, inputs=None, **fields):
    base = model("llama")
    made = build("adapters.external_command", {"command": command, **fields})
    return base, made.convert({"base": base}, dataset(), {"seed": 0} if inputs is None else inputs)


def test_a_program_that_trains_in_full(script, tmp_path):
    meter = Meter()
    command = [sys.executable, script, "{data}", "{base}", "{output}", "{seed}"]
    inputs = {"seed": 1, "meter": meter, "workdir": tmp_path / "work"}
    base, trained = run(command, inputs, tokens=50)
    before = weights(base)
    assert not same(before, weights(trained)) and before.keys() == weights(trained).keys()
    # The same step by hand: the program really had our base, our rows and our seed.
    hand = model("llama")
    ids = torch.tensor(hand.tokenize([next(dataset().rows())["text"]]))
    hand.module(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids).loss.backward()
    torch.optim.SGD(hand.module.parameters(), lr=0.2).step()
    assert all(torch.allclose(v, weights(trained)[n], atol=1e-5) for n, v in weights(hand).items())
    assert meter.cost.flops == 6 * base.active_params * 50
    assert "rows 24" in (tmp_path / "work" / "log.txt").read_text(encoding="utf-8")


def test_a_program_that_leaves_an_adapter(script):
    base, trained = run([sys.executable, script, "{data}", "{base}", "{output}", "{seed}", "adapter"])
    assert any("lora_" in name for name in weights(trained))
    assert trained.generate(["The number"], 4)[0].token_ids
    assert same(weights(base), weights(model("llama")))


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import sys; print('no such option'); sys.exit(3)", "exit code 3: no such option"),
        ("pass", "left nothing"),
        ("import os, sys; os.makedirs(sys.argv[1]); open(sys.argv[1] + '/notes', 'w').write('x')", "model folder"),
    ],
)
def test_what_goes_wrong_is_said(code, words):
    with pytest.raises(ModelError, match=words):
        run([sys.executable, "-c", code, "{output}"])


@pytest.mark.skipif(sys.platform == "win32", reason="process groups")
def test_a_program_that_hangs_is_stopped_with_its_children(tmp_path):
    started = time.monotonic()
    mark = tmp_path / "alive"
    child = f"import time\nfor _ in range(200):\n  open({str(mark)!r}, 'a').write('x'); time.sleep(0.05)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with pytest.raises(ModelError, match="longer than 1 s"):
        run([sys.executable, "-c", code, "{output}"], timeout=1.0)
    assert time.monotonic() - started < 8
    time.sleep(0.3)
    size = mark.stat().st_size if mark.exists() else 0
    time.sleep(0.3)
    assert (mark.stat().st_size if mark.exists() else 0) == size, "a child lives on"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ([], "no command"),
        (["no-such-program-anywhere", "{output}"], "not there"),
    ],
)
def test_commands_that_cannot_run(command, words):
    with pytest.raises(ConfigError, match=words):
        run(command)


def test_bad_commands_fail_when_built():
    with pytest.raises(ConfigError, match="did you mean output"):
        build("adapters.external_command", {"command": ["x", "{outptu}"]})
    with pytest.raises(ConfigError, match="never mentions"):
        build("adapters.external_command", {"command": ["x", "{data}"]})


def test_no_shell_reads_the_arguments(tmp_path):
    mark = tmp_path / "mark"
    with pytest.raises(ModelError):
        run([sys.executable, "-c", "import sys; print(sys.argv[1:])", "{output}", f"; touch {mark}", '{"a": 1}'])
    assert not mark.exists()
