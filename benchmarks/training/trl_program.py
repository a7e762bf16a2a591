"""TRL's SFTTrainer on rows that are tokens already, for an interpreter that need not have anything of ours:
`python trl_program.py job.json`; the last line printed is the result."""

import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_CACHE", str(Path(sys.argv[1]).parent / "datasets"))

import torch
import trl
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoTokenizer, TrainerCallback

job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
packed = job["packed"]
steps: list[tuple[float, float]] = []
tokens: list[int] = []


class Clock(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):  # type: ignore[no-untyped-def]
        steps.append((time.perf_counter(), time.process_time()))


config = trl.SFTConfig(
    output_dir=job["out"],
    max_length=job["max_length"],
    packing=packed,
    per_device_train_batch_size=job["rows_at_once"],
    gradient_accumulation_steps=job["accumulate"],
    gradient_checkpointing=job["checkpointing"],
    bf16=True,
    use_cpu=True,
    num_train_epochs=1,
    learning_rate=job["learning_rate"],
    lr_scheduler_type="constant",
    weight_decay=0.0,
    adam_beta1=0.9,
    adam_beta2=0.95,
    max_grad_norm=1.0,
    save_strategy="no",
    report_to="none",
    logging_steps=1,
    disable_tqdm=True,
    seed=job["seed"],
    model_init_kwargs={"dtype": job["weights"]},
)
lora = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
trainer = trl.SFTTrainer(
    model=job["model"],
    args=config,
    train_dataset=Dataset.from_list([{"input_ids": ids, "labels": labels} for ids, labels in job["rows"]]),
    processing_class=AutoTokenizer.from_pretrained(job["model"]),
    peft_config=lora if job["kind"] == "lora" else None,
    callbacks=[Clock()],
)
collate = trainer.data_collator.torch_call


def counted(examples):  # type: ignore[no-untyped-def]
    batch = collate(examples)
    mask = batch.get("attention_mask")
    tokens.append(int(batch["input_ids"].numel() if mask is None else mask.sum()))
    return batch


trainer.data_collator.torch_call = counted
trainer.train()
peak = next(
    int(line.split()[1]) * 1024
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    if line.startswith("VmHWM")
)
trainer.save_model(job["out"])
first = sum(tokens[: job["accumulate"]])
print(
    json.dumps(
        {
            "tokens": sum(tokens),
            "timed_tokens": sum(tokens) - first,
            "seconds": steps[-1][0] - steps[0][0],
            "processor_seconds": steps[-1][1] - steps[0][1],
            "steps": len(steps),
            "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
            "peak_bytes": peak,
            "trl": trl.__version__,
            "threads": torch.get_num_threads(),
        }
    )
)
