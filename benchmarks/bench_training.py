"""Fine-tuning beside TRL's SFTTrainer: speed, memory and held-out loss on the same model, chats and settings.

Every repetition of every side is a process of its own, so that its peak memory (VmHWM) is its own; the sides take
turns. Both sides see the same tokens once, with the same labels (answers only), learning rate, AdamW, clipping and
tokens per step. Figures are of the steps after the first: real tokens (no padding) per second, and per processor
second times the threads, which other processes disturb less. Held-out loss is measured here, alike for all, from
what each side saved: so our adapters are read back as PEFT folders too.

lora: rank 16 on all linear layers; ours, TRL tuned (bf16, packs of 1,024 tokens one at a time, no checkpointing),
TRL with its defaults (padded rows of 8, activations recomputed; on a part of the chats, for speed only).
full: all weights. top: adapters in the last 8 layers, two epochs, with and without keeping what the
frozen layers make, timed in the second.

    BENCH_CHILD="taskset -c 0,1"  a command to put before every child's
    PARTS="lora full"  these parts only: the others stay as they were
"""

import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import peers
from benchmarks.skip import Skip
from benchmarks.training.chats import chats
from benchmarks.training.ours import TOP

RESULTS = Path(__file__).resolve().parent / "results" / "training.json"
REPEATS = 3
CHATS, HELD_OUT, DEFAULT_CHATS = 100, 60, 48
STEP_TOKENS, MAX_LENGTH = 2048, 1024
RATES = {"lora": 5e-4, "top": 5e-4, "full": 5e-5}
PACKED = {"packed": True, "rows_at_once": 1, "checkpointing": False, "weights": "float32"}
SIDES: dict[str, dict[str, dict[str, Any]]] = {
    "lora": {
        "ours": {},
        "trl_tuned": {**PACKED, "accumulate": 2},
        "trl_defaults": {
            "packed": False,
            "rows_at_once": 8,
            "accumulate": 2,
            "checkpointing": True,
            "weights": "float32",
            "chats": DEFAULT_CHATS,
        },
    },
    "full": {
        "ours": {},
        "trl_tuned": {**PACKED, "accumulate": 2},
    },
    "top": {"kept": {"epochs": 2}, "uncached": {"epochs": 2, "uncached": True}},
}
# Ratio of tokens per second, at least; of memory, at most; difference of held-out loss, at most.
MUST = {
    "lora": {"trl_tuned": (1.6, 0.65), "trl_defaults": (2.5, None)},
    "full": {"trl_tuned": (1.6, 0.8)},
    "top": {"uncached": (1.45, None)},
    "loss": 0.01,
}
MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def bench() -> dict[str, Any]:
    from tutelage.core.errors import ModelError
    from tutelage.models.fetch import packaged

    try:
        folder = packaged("smollm2")
    except ModelError:
        raise Skip("the model is not there: tutelage fetch smollm2") from None
    if peers.python("trl") is None:
        raise Skip("trl is not installed: python -m benchmarks.peers")
    asked = os.environ.get("PARTS", "").split()
    earlier = json.loads(RESULTS.read_text(encoding="utf-8")).get("parts", {}) if asked else {}
    judge = Judge(folder)
    found: dict[str, Any] = {
        "model": "SmolLM2-135M-Instruct",
        "chats": {**judge.facts(), "seed": 0},
        "step_tokens": STEP_TOKENS,
        "repeats": REPEATS,
        "base_held_out_loss": round(judge.loss(None, "lora"), 4),
        "parts": {**earlier, **{part: of_part(part, folder, judge) for part in asked or SIDES}},
        "must": MUST,
    }
    found["met"] = {part: facts["met"] for part, facts in found["parts"].items()}
    return found


def of_part(part: str, folder: Path, judge: "Judge") -> dict[str, Any]:
    """All sides of one part in turns, with ratios to ours."""
    sides = SIDES[part]
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(REPEATS):
            for side in sides if number % 2 == 0 else list(sides)[::-1]:
                out = Path(scratch) / f"{side}{number}"
                run = child(part, side, number, folder, out, judge)
                if "chats" not in sides[side]:
                    run["held_out_loss"] = judge.loss(out, part)
                    if part == "lora" and side == "ours":
                        require_peft_layout(out)
                runs[side].append(run)
    ours = next(iter(sides))
    per_token = runs[ours][0]["flops_per_token"]
    probe = max(run["probe_gflops"] for run in runs[ours]) * 1e9
    collected = {side: collect(of_side, per_token / probe) for side, of_side in runs.items()}
    ratios = {side: compare(collected[ours], collected[side]) for side in list(sides)[1:]}
    met = True
    for side, (speed, memory) in MUST[part].items():  # type: ignore[attr-defined]
        ratio = ratios[side]
        met &= min(ratio["speed"], ratio["speed_by_processor_seconds"]) >= speed
        met &= memory is None or ratio["memory"] <= memory
        met &= abs(ratio.get("held_out_loss_difference", 0.0)) <= MUST["loss"]  # type: ignore[operator]
    facts = {"learning_rate": RATES[part], "sides": collected, "ratios": ratios, "met": bool(met)}
    if part == "top":
        equal = all(a["losses"] == b["losses"] for a, b in zip(runs["kept"], runs["uncached"]))
        facts |= {"layers": TOP, "losses_have_the_same_bits": equal, "met": bool(met and equal)}
    return facts


def child(part: str, side: str, number: int, folder: Path, out: Path, judge: "Judge") -> dict[str, Any]:
    """One run of one side in a process of its own."""
    fields = SIDES[part][side]
    count = fields.get("chats", CHATS)
    job = {
        "model": str(folder),
        "kind": part,
        "learning_rate": RATES[part],
        "seed": number,
        "step_tokens": STEP_TOKENS,
        "max_length": MAX_LENGTH,
        "out": str(out),
        **fields,
        "chats": judge.rows[:count],
        "rows": judge.tokens[:count],
    }
    out.mkdir()
    file = out / "job.json"
    file.write_text(json.dumps(job), encoding="utf-8")
    program = [sys.executable, "-m", "benchmarks.training.ours"]
    if side.startswith("trl"):
        program = [str(peers.python("trl")), str(Path(__file__).parent / "training" / "trl_program.py")]
    done = subprocess.run(
        [*shlex.split(os.environ.get("BENCH_CHILD", "")), *program, str(file)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=Path(__file__).resolve().parents[1],
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{part} {side}: {done.stderr[-2000:]}")
    run: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(
        f"{part} {side} {number}: {run['timed_tokens'] / run['seconds']:.0f} tokens/s", file=sys.stderr, flush=True
    )
    return run


def collect(runs: list[dict[str, Any]], share: float) -> dict[str, Any]:
    """Medians with all values; `share` is the share of the probed speed that one token a second uses."""
    values: dict[str, list[float]] = {
        "tokens_per_second": [round(r["timed_tokens"] / r["seconds"], 1) for r in runs],
        "tokens_per_processor_second": [round(r["timed_tokens"] / r["processor_seconds"], 1) for r in runs],
        "peak_mb": [round(r["peak_bytes"] / 2**20) for r in runs],
        "mfu": [round(r["timed_tokens"] / r["seconds"] * share, 3) for r in runs],
    }
    if "held_out_loss" in runs[0]:
        values["held_out_loss"] = [round(r["held_out_loss"], 4) for r in runs]
    found: dict[str, Any] = {
        name: {"median": round(statistics.median(of), 4), "values": of} for name, of in values.items()
    }
    found |= {"tokens": runs[0]["tokens"], "steps": runs[0]["steps"], "threads": runs[0]["threads"]}
    return found | ({"trl": runs[0]["trl"]} if "trl" in runs[0] else {})


def compare(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Ours over theirs, of medians; the difference of mean held-out losses."""
    names = {
        "speed": "tokens_per_second",
        "speed_by_processor_seconds": "tokens_per_processor_second",
        "memory": "peak_mb",
    }
    found = {name: round(ours[of]["median"] / theirs[of]["median"], 3) for name, of in names.items()}
    if "held_out_loss" in theirs:
        means = [statistics.mean(side["held_out_loss"]["values"]) for side in (ours, theirs)]
        found["held_out_loss_difference"] = round(means[0] - means[1], 4)
    return found


def require_peft_layout(folder: Path) -> None:
    """The adapter must be PEFT's: rank 16 for each linear layer of each block, and nothing else."""
    from safetensors import safe_open

    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    layers = {(name.split(".layers.")[1].split(".")[0], name.split(".")[-3]) for name in shapes}
    ranks = {min(shape) for shape in shapes.values()}
    if config["r"] != 16 or ranks != {16} or len(layers) != 30 * len(MODULES) or len(shapes) != 2 * len(layers):
        raise RuntimeError(f"not a standard adapter of rank 16: ranks {ranks}, {len(layers)} layers")


class Judge:
    """The chats as tokens, and the held-out loss of whatever was saved."""

    def __init__(self, folder: Path) -> None:
        from tutelage.core.discovery import build
        from tutelage.models.load import load_model

        self.folder = folder
        model: Any = load_model(folder, dtype="bfloat16")
        self.objective: Any = build("training.objectives.sft")
        self.rows = chats(CHATS + HELD_OUT)
        self.documents = [self.objective.encode(row, model, MAX_LENGTH) for row in self.rows]
        self.tokens = [
            [d.ids, [i if trained else -100 for i, trained in zip(d.ids, d.trained)]] for d in self.documents
        ]

    def facts(self) -> dict[str, Any]:
        lengths = [len(d) for d in self.documents]
        return {
            "trained": CHATS,
            "held_out": HELD_OUT,
            "mean_tokens": round(statistics.mean(lengths), 1),
            "median_tokens": statistics.median(lengths),
            "most_tokens": max(lengths),
            "mean_answer_tokens": round(statistics.mean(d.n_trained for d in self.documents), 1),
        }

    def loss(self, out: Path | None, part: str) -> float:
        """Mean loss per answer token of the held-out chats, in float32: rounding would add to what was saved in
        float32, and not to what was saved in bfloat16."""
        from tutelage.models.load import load_model
        from tutelage.models.packing import pack

        full = part == "full"
        model: Any = load_model(
            out if full and out else self.folder, dtype="float32", adapter=None if full else out
        )
        total = weight = 0.0
        with model.scoring():
            for batch in pack(self.documents[CHATS:], MAX_LENGTH, pad_id=model.pad_id):
                found = self.objective.loss(model, batch)
                total, weight = total + float(found.sum), weight + found.weight
        return total / weight
