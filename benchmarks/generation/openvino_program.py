"""Greedy completions by openvino-genai, in an interpreter that need not know this project.

    python openvino_program.py TASK.json    # prints one JSON line

TASK.json: `gguf` (a Q8_0 file), `ids` (token ids of each prompt), `batch`, `new`, `threads`.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino_genai as genai


def main() -> None:
    task = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    settings = {"INFERENCE_NUM_THREADS": task["threads"]}
    pipeline = genai.LLMPipeline(task["gguf"], "CPU", **settings)
    config = genai.GenerationConfig()
    config.max_new_tokens, config.do_sample = task["new"], False
    config.set_eos_token_id(task["end"])
    config.apply_chat_template = False

    def complete(rows: list[list[int]]) -> list[list[int]]:
        width = max(map(len, rows))
        ids = np.full((len(rows), width), task["end"], dtype=np.int64)
        mask = np.zeros((len(rows), width), dtype=np.int64)
        for i, row in enumerate(rows):
            ids[i, width - len(row) :], mask[i, width - len(row) :] = row, 1
        given: Any = genai.TokenizedInputs(ov.Tensor(ids), ov.Tensor(mask))
        return [list(map(int, tokens)) for tokens in pipeline.generate(given, config).tokens]

    complete(task["ids"][:2])
    start, before = time.perf_counter(), time.process_time()
    made = []
    for at in range(0, len(task["ids"]), task["batch"]):
        made += complete(task["ids"][at : at + task["batch"]])
    seconds, processor = time.perf_counter() - start, time.process_time() - before
    status = Path("/proc/self/status")
    peak = int(status.read_text(encoding="utf-8").split("VmHWM:")[1].split()[0]) * 1024 / 1e6
    found = {"seconds": seconds, "processor_seconds": processor, "peak_mb": peak, "tokens": made}
    print(json.dumps(found | {"version": genai.__version__}))


if __name__ == "__main__":
    main()
