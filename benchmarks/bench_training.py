"""LoRA training and scoring against plain transformers + peft on the same documents, in turns in one process.

The peer is what one would write by hand with the libraries: bfloat16 weights, the same packs of 1,024 tokens with
restarting positions, the library's own LoRA layers and loss. Ratios are ours over theirs in tokens per second.
"""

import statistics
import time
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

from benchmarks.skip import Skip

ROUNDS = 3
PACK = 1024


def bench() -> dict[str, Any]:
    import torch

    from tutelage.core.errors import ModelError
    from tutelage.models.fetch import packaged
    from tutelage.models.load import load_model

    try:
        folder = packaged("smollm2")
    except ModelError:
        raise Skip("the model is not there: tutelage fetch smollm2") from None
    model = load_model(folder)
    texts = [topics[name][:2500] for name in sorted(topics)][:24]
    result = {"model": "SmolLM2-135M-Instruct", "dtype": str(model.dtype), "threads": torch.get_num_threads()}
    return {**result, "scoring": scoring(model, folder, texts), "lora_training": training(model, folder, texts)}


def scoring(model: Any, folder: Path, texts: list[str]) -> dict[str, Any]:
    """Loss of every document: ours packed, theirs padded in batches of 8, sorted by length."""
    import torch
    from transformers import AutoModelForCausalLM

    ids = sorted((model.tokenize([text])[0][:PACK] for text in texts), key=len)
    tokens = sum(map(len, ids))
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=model.dtype).eval()

    def ours() -> None:
        model.score_texts(texts)

    def peer() -> None:
        with torch.no_grad():
            for at in range(0, len(ids), 8):
                batch = ids[at : at + 8]
                width = max(map(len, batch))
                padded = torch.tensor([row + [0] * (width - len(row)) for row in batch])
                mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in batch])
                labels = padded.masked_fill(mask == 0, -100)
                theirs(input_ids=padded, attention_mask=mask, labels=labels)

    return {"tokens": tokens, **in_turns(ours, peer, tokens)}


def training(model: Any, folder: Path, texts: list[str]) -> dict[str, Any]:
    """Forward and backward of one pack after another, LoRA of rank 16 on every linear layer."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from tutelage.core.discovery import build
    from tutelage.models.encode import encode_text
    from tutelage.models.packing import pack

    adapted = build("adapters.lora", {"rank": 16}).convert({"base": model}, None, {})  # type: ignore[attr-defined]
    objective: Any = build("training.objectives.causal_lm")
    packs = list(pack([encode_text(model, text, max_length=PACK) for text in texts], PACK))[:4]
    tokens = sum(int((batch.segment_ids >= 0).sum()) for batch in packs)
    config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear")
    theirs = get_peft_model(AutoModelForCausalLM.from_pretrained(folder, dtype=model.dtype), config)
    adapted.module.train()

    def ours() -> None:
        for batch in packs:
            loss = objective.loss(adapted, batch)
            (loss.sum / loss.weight).backward()
        adapted.module.zero_grad()

    def peer() -> None:
        for batch in packs:
            theirs(
                input_ids=batch.input_ids, position_ids=batch.position_ids, labels=batch.labels, use_cache=False
            ).loss.backward()
        theirs.zero_grad()

    torch.manual_seed(0)
    return {"tokens": tokens, **in_turns(ours, peer, tokens)}


def in_turns(ours: Any, peer: Any, tokens: int) -> dict[str, Any]:
    """Medians over rounds after one warm-up of each."""
    ours()
    peer()
    seconds: dict[str, list[float]] = {"ours": [], "peer": []}
    for number in range(ROUNDS):
        turns = [("ours", ours), ("peer", peer)]
        for name, function in turns if number % 2 == 0 else turns[::-1]:
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    speed = {name: round(tokens / statistics.median(values)) for name, values in seconds.items()}
    return {"tokens_per_second": speed, "ratio": round(speed["ours"] / speed["peer"], 2)}
