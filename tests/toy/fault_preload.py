"""What every child of the fault suite needs, imported and looked up once in the server that children fork from."""

import pandas  # noqa: F401  (pyarrow imports it when it is there)
import peft  # noqa: F401
import scipy.stats  # noqa: F401
import torch
import transformers.models.llama.modeling_llama  # noqa: F401

import toy.fault_child
import toy.training_bed  # noqa: F401
import tutelage.cli.main
import tutelage.report.build
import tutelage.report.render
import tutelage.runs.execute
import tutelage.training._copy
import tutelage.training.trainer  # noqa: F401
from tutelage.core.discovery import build, cards
from tutelage.core.fingerprint import code_hash

torch.set_num_threads(1)
cards()
code_hash("tutelage.models.load")
for method in (
    *("data.read.auto", "data.dedup.near", "data.split.by_group", "data.filter.where", "data.select.random"),
    *("data.select.top_k", "data.write.jsonl", "signals.token_loss", "signals.length", "adapters.lora"),
    *("training.fit", "training.objectives.causal_lm", "training.schedules.cosine", "data.order.shuffle"),
    "evaluation.bits_per_byte",
):
    code_hash(type(build(method)).__module__)
