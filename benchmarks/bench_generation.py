"""Greedy generation beside plain transformers and openvino-genai: speed, memory and likeness to float32.

64 questions and passages about Python through the chat template, batches of 32, up to 64 new tokens, the same
weights and token ids for all sides; tokens are counted up to the end token. Each repetition of each side is a
fresh process, so that its peak memory is its own; the sides take turns. A process loads, warms up on two prompts,
and then completes all prompts under the clock. `ours` is `generate` as it comes, `ours_openvino_*` the same model
with openvino-genai behind it (`models.openvino_lm`), `openvino_q8_0` that library alone on a Q8_0 file.

`conditions`, over the first 16 tokens of each completion: the share of prompts whose tokens equal those of
transformers in float32, and the mean log-probability per token that the float32 model gives to the text (0.001 of
a nat is nothing; a model that errs loses much more). bfloat16 weights computed in float32 throughout are listed
too, because no computation on those weights can be expected to come closer.

    SIDES="ours transformers_bfloat16" python -m benchmarks generation    # development: nothing is written
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np

from benchmarks import peers
from benchmarks.children import child, collected, peak_mb
from benchmarks.skip import Skip

SIDES = ("ours", "ours_openvino_bfloat16", "ours_openvino_float32", "transformers_bfloat16", "openvino_q8_0")
REFERENCES = ("transformers_float32", "bfloat16_weights_in_float32")
REPEATS = 3
PROMPTS, BATCH, NEW, COMPARED = 64, 32, 64, 16
ASKS = (
    "What is {} in Python? Answer in a few sentences.",
    "Explain to a beginner how {} works.",
    "Write a short example that uses {} in Python.",
    "Here is a passage:\n{}\n\nSummarise it in one sentence.",
)
# Tokens per second of a side of ours against a peer; `ours` no less like float32 than transformers in bfloat16 is,
# with a log-probability per token at most this much lower than that of float32's own text.
MUST = {("ours", "transformers_bfloat16"): 1.8, ("ours_openvino_bfloat16", "openvino_q8_0"): 0.95}
NATS = 0.02


def questions() -> list[str]:
    """Questions of one line, and every fourth a passage to summarise, in a fixed mixed order."""
    names = sorted(topics)
    order = np.random.default_rng(3).permutation(len(names))[:PROMPTS]
    about = [topics[names[i]].strip()[:300] if k % 4 == 3 else names[i] for k, i in enumerate(order)]
    return [ASKS[k % 4].format(name) for k, name in enumerate(about)]


def bench() -> dict[str, Any]:
    from tutelage.core.errors import ModelError
    from tutelage.models.fetch import packaged

    try:
        packaged("smollm2")
    except ModelError:
        raise Skip("the model is not there: tutelage fetch smollm2") from None
    there = peers.python("openvino") is not None
    sides = tuple(os.environ.get("SIDES", "").split()) or tuple(s for s in SIDES if "openvino" not in s or there)
    with tempfile.TemporaryDirectory() as folder:
        task = Path(folder) / "task.json"
        of_side("prepare", task)
        runs: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
        for number in range(REPEATS):
            for side in sides if number % 2 == 0 else sides[::-1]:
                runs[side].append(of_side(side, task))
                print(side, f"{runs[side][-1]['seconds']:.1f} s", file=sys.stderr)
        if "SIDES" in os.environ:
            print(json.dumps({side: collected(found) for side, found in runs.items()}, indent=1))
            raise Skip("not all sides were asked for")
        texts = {side: found[0]["tokens"] for side, found in runs.items()}
        texts |= {side: of_side(side, task)["tokens"] for side in REFERENCES}
        scores = of_side("scores", written(Path(folder) / "texts.json", {**read(task), "texts": texts}))
    return reported(runs, texts, scores)


def reported(
    runs: dict[str, list[dict[str, Any]]],
    texts: dict[str, list[list[int]]],
    scores: dict[str, float],
) -> dict[str, Any]:
    """Speeds, memory, likeness and whether the goals are met."""
    found: dict[str, Any] = {
        "model": "SmolLM2-135M-Instruct",
        "prompts": PROMPTS,
        "batch": BATCH,
        "new_tokens": NEW,
        "threads": runs["ours"][0]["threads"],
        "sides": {side: collected(found) for side, found in runs.items()},
    }
    if "openvino_q8_0" in runs:
        found["openvino_genai"] = runs["openvino_q8_0"][0]["version"]
    truth = texts["transformers_float32"]
    found["conditions"] = {
        side: {
            "equal_to_float32": round(equal(made, truth), 4),
            "float32_log_probability_per_token": round(scores[side], 5),
        }
        for side, made in texts.items()
    }
    measures = ("tokens_per_second", "tokens_per_processor_second", "peak_mb")
    medians = {side: [one[name]["median"] for name in measures] for side, one in found["sides"].items()}
    found["ratios"] = {
        peer: {
            side: {
                "speed": round(medians[side][0] / medians[peer][0], 2),
                "speed_by_processor_seconds": round(medians[side][1] / medians[peer][1], 2),
                "memory": round(medians[side][2] / medians[peer][2], 3),
            }
            for side in runs
            if side.startswith("ours")
        }
        for peer in runs
        if not peer.startswith("ours")
    }
    ours, theirs = (found["conditions"][side] for side in ("ours", "transformers_bfloat16"))
    lost = scores["transformers_float32"] - scores["ours"]
    found["must"] = {f"{side} / {peer}": ratio for (side, peer), ratio in MUST.items()} | {"nats": NATS}
    found["met"] = {
        "speed": {
            f"{side} / {peer}": found["ratios"][peer][side]["speed"] >= ratio
            for (side, peer), ratio in MUST.items()
            if peer in runs and side in runs
        },
        "likeness": ours["equal_to_float32"] >= theirs["equal_to_float32"] and lost <= NATS,
    }
    return found


def equal(made: list[list[int]], truth: list[list[int]]) -> float:
    """The share of completions whose first tokens are the same."""
    return float(np.mean([a[:COMPARED] == b[:COMPARED] for a, b in zip(made, truth)]))


def prepare(file: Path) -> dict[str, Any]:
    """Write the task: token ids of all prompts, and a Q8_0 file beside it."""
    from tutelage.models.export import export_model
    from tutelage.models.load import load_model

    model: Any = load_model("smollm2", dtype="float32")
    prompts = [model.chat_prompt([{"role": "user", "content": question}]) for question in questions()]
    task = {"prompts": prompts, "ids": model.tokenize(prompts), "batch": BATCH, "new": NEW, "end": model.eos_id}
    task["threads"] = int(os.environ.get("OMP_NUM_THREADS", 0)) or os.cpu_count()
    place = file.with_name("model.gguf")
    task["gguf"] = str(export_model(model, place, format="gguf", weights="q8_0", check=False))
    written(file, task)
    return {}


def written(file: Path, value: Any) -> Path:
    file.write_text(json.dumps(value), encoding="utf-8")
    return file


def read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def of_side(side: str, task: Path) -> dict[str, Any]:
    """One side in a process of its own."""
    environment = {}
    if side == "openvino_q8_0":
        program = Path(__file__).parent / "generation" / "openvino_program.py"
        command = [str(peers.python("openvino")), str(program), str(task)]
    else:
        command = [sys.executable, "-m", "benchmarks.bench_generation", side, str(task)]
        if "openvino" in side:
            # Found behind everything that this interpreter has itself.
            ask = "import sysconfig; print(sysconfig.get_path('platlib'))"
            there = subprocess.check_output([str(peers.python("openvino")), "-c", ask], text=True)
            environment["BENCH_ALSO"] = there.strip()
    found: dict[str, Any] = child(command, environment)
    if "tokens" in found:
        count = sum(map(len, found["tokens"]))
        found["tokens_per_second"] = count / found["seconds"]
        found["tokens_per_processor_second"] = count / found["processor_seconds"]
    return found


def run(side: str, task: dict[str, Any]) -> dict[str, Any]:
    """What a child does: load, warm up, complete, and say what it took."""
    import torch

    if side in REFERENCES:
        task = {**task, "new": COMPARED}
    complete = ours(side, task) if side.startswith("ours") else transformers_side(side, task)
    complete(slice(0, 2))
    start, before = time.perf_counter(), time.process_time()
    tokens = complete(slice(None))
    seconds, processor = time.perf_counter() - start, time.process_time() - before
    found = {"seconds": seconds, "processor_seconds": processor, "peak_mb": peak_mb(), "tokens": tokens}
    return found | {"threads": torch.get_num_threads()}


def ours(side: str, task: dict[str, Any]) -> Any:
    from tutelage.models.load import load_model

    model: Any = load_model("smollm2", dtype="float32" if "float32" in side else "bfloat16")
    if "openvino" in side:
        sys.path.append(os.environ["BENCH_ALSO"])
        from tutelage.models.openvino_lm import OpenVinoLM

        model = OpenVinoLM(model)

    def complete(which: slice) -> list[list[int]]:
        made = model.generate(task["prompts"][which], task["new"], batch_size=task["batch"])
        return [list(one.token_ids) for one in made]

    return complete


def transformers_side(side: str, task: dict[str, Any]) -> Any:
    """`generate` on left-padded batches; tokens after the end token are cut off."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tutelage.models.fetch import packaged

    folder = packaged("smollm2")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    if "bfloat16" in side:
        model = model.bfloat16()
    if "in_float32" in side:
        model = model.float()
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")

    @torch.no_grad()
    def complete(which: slice) -> list[list[int]]:
        rows, found = task["ids"][which], []
        for at in range(0, len(rows), task["batch"]):
            batch = tokenizer.pad({"input_ids": rows[at : at + task["batch"]]}, return_tensors="pt")
            out = model.generate(
                **batch, max_new_tokens=task["new"], do_sample=False, pad_token_id=tokenizer.pad_token_id
            )
            for tokens in out[:, batch["input_ids"].shape[1] :].tolist():
                end = tokens.index(task["end"]) + 1 if task["end"] in tokens else len(tokens)
                found.append(tokens[:end])
        return found

    return complete


def scores(task: dict[str, Any]) -> dict[str, float]:
    """Mean log-probability per token, by the float32 model, of the first tokens of each side's completions."""
    import torch
    from transformers import AutoModelForCausalLM

    from tutelage.models.fetch import packaged

    model = AutoModelForCausalLM.from_pretrained(packaged("smollm2"), dtype=torch.float32).eval()
    known: dict[tuple[int, tuple[int, ...]], float] = {}
    found = {}
    for side, texts in task["texts"].items():
        total = count = 0.0
        for i, (ids, tokens) in enumerate(zip(task["ids"], texts)):
            made = tuple(tokens[:COMPARED])
            if (i, made) not in known:
                with torch.no_grad():
                    given = torch.tensor([[*ids, *made]])
                    logps = model(given, logits_to_keep=len(made) + 1).logits[0, :-1].log_softmax(-1)
                known[i, made] = float(logps.gather(1, given[0, len(ids) :, None]).sum())
            total, count = total + known[i, made], count + len(made)
        found[side] = total / count
    return found


if __name__ == "__main__":
    asked, file = sys.argv[1], Path(sys.argv[2])
    if asked == "prepare":
        print(json.dumps(prepare(file)))
    else:
        print(json.dumps(scores(read(file)) if asked == "scores" else run(asked, read(file))))
