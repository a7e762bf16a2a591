"""The loss of documents beside plain transformers: speed, memory and agreement on the same weights and documents.

Three sides, each repetition of each in a fresh process, so that its peak memory is its own and none finds the
caches warm that another filled: ours (`score_texts` as it comes), transformers in float32 on padded batches of 8
as the documents come, and transformers in bfloat16 on batches sorted by length. The sides take turns. A process
loads, warms up on two documents, then scores all documents once under the clock; processor seconds are of that
stretch, the peak is the process's largest resident size (VmHWM) from start to end.
`conditions`: our loss of every document against float32 transformers, in nats per token, and Spearman's
correlation over documents.

    SIDES=ours python -m benchmarks scoring     # one side only, for development: nothing is written
"""

import json
import os
import sys
import time
from pydoc_data.topics import topics
from typing import Any

import numpy as np

from benchmarks.children import child, collected, peak_mb
from benchmarks.skip import Skip

SIDES = ("ours", "hf_float32_padded", "hf_bfloat16_sorted")
REPEATS = 3
DOCUMENTS = 32
WINDOW = 1024
BATCH = 8
# What the goals say: (ratio of tokens per second, at least), (ratio of peak memory, at most).
MUST = {"hf_float32_padded": 2.5, "hf_bfloat16_sorted": 1.4, "memory": 0.2, "nats": 0.02, "spearman": 0.999}


def documents() -> list[str]:
    """Help texts of Python in a fixed mixed order, cut to 2,800 characters: some 350 tokens on average."""
    texts = [topics[name].strip()[:2800] for name in sorted(topics)]
    texts = [text for text in texts if len(text) > 100]
    order = np.random.default_rng(7).permutation(len(texts))
    return [texts[i] for i in order[:DOCUMENTS]]


def bench() -> dict[str, Any]:
    from tutelage.core.errors import ModelError
    from tutelage.models.fetch import packaged

    try:
        packaged("smollm2")
    except ModelError:
        raise Skip("the model is not there: tutelage fetch smollm2") from None
    sides = tuple(os.environ.get("SIDES", "").split()) or SIDES
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for number in range(REPEATS):
        for side in sides if number % 2 == 0 else sides[::-1]:
            runs[side].append(child([sys.executable, "-m", "benchmarks.bench_scoring", side]))
    if sides != SIDES:
        print(json.dumps({side: [summary(run) for run in found] for side, found in runs.items()}, indent=1))
        raise Skip("not all sides were asked for")
    ours = runs["ours"][0]
    found = {
        "model": "SmolLM2-135M-Instruct",
        "documents": DOCUMENTS,
        "tokens": ours["tokens"],
        "mean_tokens": round(ours["tokens"] / DOCUMENTS, 1),
        "window": WINDOW,
        "threads": ours["threads"],
        "ours_in": ours["dtype"],
        "sides": {side: collected(of_side) for side, of_side in runs.items()},
        "conditions": agreement(runs),
    }
    speed = {side: of_side["tokens_per_second"]["median"] for side, of_side in found["sides"].items()}
    work = {side: of_side["tokens_per_processor_second"]["median"] for side, of_side in found["sides"].items()}
    peak = {side: of_side["peak_mb"]["median"] for side, of_side in found["sides"].items()}
    found["ratios"] = {
        side: {
            "speed": round(speed["ours"] / speed[side], 2),
            "speed_by_processor_seconds": round(work["ours"] / work[side], 2),
            "memory": round(peak["ours"] / peak[side], 3),
        }
        for side in SIDES[1:]
    }
    found["must"] = MUST
    found["met"] = bool(
        all(found["ratios"][side]["speed"] >= MUST[side] for side in SIDES[1:])
        and found["ratios"]["hf_float32_padded"]["memory"] <= MUST["memory"]
        and found["conditions"]["ours"]["largest_nats_per_token"] <= MUST["nats"]
        and found["conditions"]["ours"]["spearman"] >= MUST["spearman"]
    )
    return found


def summary(run: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in run.items() if name != "losses"}


def agreement(runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Per side: how far the loss per token of a document lies from float32 transformers."""
    from scipy.stats import spearmanr

    reference = np.array(runs["hf_float32_padded"][0]["losses"])
    found = {}
    for side in ("ours", "hf_bfloat16_sorted"):
        losses = np.array(runs[side][0]["losses"])
        gaps = np.abs(losses - reference)
        found[side] = {
            "largest_nats_per_token": round(float(gaps.max()), 5),
            "mean_nats_per_token": round(float(gaps.mean()), 5),
            "spearman": round(float(spearmanr(losses, reference).statistic), 6),
        }
    return found


def score(side: str) -> dict[str, Any]:
    """What a child does: load, warm up, score, and say what it took."""
    import torch

    texts = documents()
    run = ours() if side == "ours" else transformers_side(side)
    run.score(texts[:2])
    start, before = time.perf_counter(), time.process_time()
    losses, tokens = run.score(texts)
    seconds, processor = time.perf_counter() - start, time.process_time() - before
    return {
        "seconds": seconds,
        "processor_seconds": processor,
        "tokens": tokens,
        "tokens_per_second": tokens / seconds,
        "tokens_per_processor_second": tokens / processor,
        "peak_mb": peak_mb(),
        "threads": torch.get_num_threads(),
        "dtype": run.dtype,
        "losses": losses,
    }


class Side:
    """How one side scores: `score(texts)` gives the loss per token of each, and the tokens predicted."""

    def __init__(self, dtype: str, score: Any) -> None:
        self.dtype, self.score = dtype, score


def ours() -> Side:
    from tutelage.models.load import load_model

    model: Any = load_model("smollm2")

    def run(texts: list[str]) -> tuple[list[float], int]:
        found = model.score_texts(texts, window=WINDOW, truncate=True)
        return [s.nll_sum / s.n_tokens for s in found], sum(s.n_tokens for s in found)

    return Side(str(model.dtype).removeprefix("torch."), run)


def transformers_side(side: str) -> Side:
    """Batches of 8 padded to their longest; the loss from the logits, in float32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tutelage.models.fetch import packaged

    folder = packaged("smollm2")
    dtype = torch.float32 if "float32" in side else torch.bfloat16
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    start = tokenizer.bos_token_id

    @torch.no_grad()
    def run(texts: list[str]) -> tuple[list[float], int]:
        rows = [[start, *ids][:WINDOW] for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
        order = list(range(len(rows)))
        if side.endswith("sorted"):
            order.sort(key=lambda i: -len(rows[i]))
        losses = [0.0] * len(rows)
        for at in range(0, len(order), BATCH):
            batch = [rows[i] for i in order[at : at + BATCH]]
            width = max(map(len, batch))
            ids = torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row in batch])
            mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in batch])
            logits = model(input_ids=ids, attention_mask=mask).logits
            nll = torch.nn.functional.cross_entropy(
                logits[:, :-1].float().transpose(1, 2), ids[:, 1:], reduction="none"
            )
            sums = (nll * mask[:, 1:]).sum(1) / mask[:, 1:].sum(1)
            for place, value in zip(order[at : at + BATCH], sums.tolist()):
                losses[place] = value
        return losses, sum(len(row) - 1 for row in rows)

    return Side(str(dtype).removeprefix("torch."), run)


if __name__ == "__main__":
    print(json.dumps(score(sys.argv[1])))
