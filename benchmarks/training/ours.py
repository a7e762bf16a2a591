"""Our side of the training benchmark: `python -m benchmarks.training.ours job.json`; the last line is the result.

The job names the model folder, the chats, what is trained (lora, full, top) and the settings of both sides.
"""

import json
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

TOP = 8


def main(job: dict[str, Any]) -> dict[str, Any]:
    import torch

    from tutelage.core.dataset import Dataset
    from tutelage.core.discovery import build
    from tutelage.models.device import probe_gflops
    from tutelage.models.load import load_model
    from tutelage.training import trainer
    from tutelage.training._progress import peak_bytes

    model: Any = load_model(job["model"], dtype="bfloat16")
    if job["kind"] in ("lora", "top"):
        fields = {
            "rank": 16,
            "alpha": 32,
            "seed": job["seed"],
            "top_layers": TOP if job["kind"] == "top" else None,
        }
        model = build("adapters.lora", fields).convert({"base": model}, None, {})  # type: ignore[attr-defined]
    if job.get("uncached"):
        trainer.frozen_prefix = lambda _model: nullcontext()  # type: ignore[assignment, misc]
    step: Any = build(
        "training.fit",
        {
            "objective": {"use": "training.objectives.sft"},
            "schedule": {"use": "training.schedules.constant"},
            "budget": {"rows": len(job["chats"]) * job.get("epochs", 1)},
            "learning_rate": job["learning_rate"],
            "weight_decay": 0.0,
            "step_tokens": job["step_tokens"],
            "max_length": job["max_length"],
            "seed": job["seed"],
        },
    )
    steps: list[tuple[float, float, int, float]] = []

    def listen(facts: Any) -> None:
        if facts["event"] == "step":
            steps.append((time.perf_counter(), time.process_time(), facts["tokens"], facts["mfu"]))

    dataset = Dataset.from_rows(job["chats"])
    trained, record = step.train(model, dataset, on_event=listen, progress=False)
    peak = peak_bytes(torch.device("cpu"))
    trained.save(Path(job["out"]))
    # What is timed begins after the first step, or after the first epoch.
    start = 0 if job.get("epochs", 1) == 1 else next(i for i, s in enumerate(steps) if s[2] >= record.tokens / 2)
    first, last = steps[start], steps[-1]
    return {
        "tokens": record.tokens,
        "timed_tokens": last[2] - first[2],
        "seconds": last[0] - first[0],
        "processor_seconds": last[1] - first[1],
        "steps": record.steps,
        "losses": record.losses,
        "peak_bytes": peak,
        "mfu": record.mfu,
        "flops_per_token": record.cost.flops / record.tokens,
        "probe_gflops": probe_gflops("cpu", "bfloat16"),
        "threads": torch.get_num_threads(),
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))))
