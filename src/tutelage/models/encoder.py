"""`Encoder`: a BERT-like model that turns texts into vectors.

A text's vector is the mean of the last layer's states over its tokens (padding left out, special tokens included,
as sentence encoders are trained), taken in float32 and scaled to length 1. Texts are sorted by length before they
are batched, so little is computed for padding; the order of the output is that of the input.
"""

import copy
import json
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import blake3
import numpy as np
import torch
from torch import nn

from tutelage.core import json_text
from tutelage.core.errors import ModelError, suggest
from tutelage.core.meter import Meter
from tutelage.models.device import bf16_is_faster, choose_device
from tutelage.models.encode import tokenizer_text
from tutelage.models.own_code import own_code
from tutelage.models.packing import Isolation, TokenBatch
from tutelage.models.peft_io import adapter_facts, frozen_view, put_adapter, quiet, save_module
from tutelage.models.seam import as_texts, saving
from tutelage.models.soft_prompt import soft_ids
from tutelage.models.torch_model import TorchModel

# bfloat16 is taken only if it moves no probe text by more than this (cosine with the float32 vector).
MIN_COSINE = 0.999
_PROBE = (
    "A short sentence.",
    "def area(radius):\n    return 3.14159 * radius ** 2",
    "The committee met on Tuesday to discuss the budget, the new building and the date of the next election. " * 4,
    "0 1 1 2 3 5 8 13 21",
)
PRECISIONS = ("auto", "float32", "bfloat16")


class Encoder(TorchModel):
    """An encoder and its tokenizer. `module` is the transformers module, for where gradients are needed.

    max_length: tokens per text, special tokens included; longer texts are cut, with a warning. Default: what the
    folder's sentence-transformers settings or the position table allow.
    precision: arithmetic of `embed` and `hidden_states`; weights stay as they are. "auto" takes bfloat16 where a
    timed probe finds it faster and the probe texts keep a cosine of 0.999 with float32.
    """

    kind = "encoder"
    # Encoders have no mask for packs: a text per row.
    isolation: Isolation = "padding"

    def __init__(
        self,
        module: Any,
        tokenizer: Any,
        *,
        name: str = "encoder",
        max_length: int | None = None,
        precision: str = "float32",
    ) -> None:
        super().__init__(name)
        self.module = module.eval()
        self.tokenizer = tokenizer
        self.soft_ids = soft_ids(module)
        positions = int(getattr(self.config, "max_position_embeddings", None) or 512)
        limit = min(positions, int(tokenizer.model_max_length))
        self.max_length = min(max_length or limit, limit)
        self.pad_id = int(tokenizer.pad_token_id or 0)
        self.half = False
        if precision not in PRECISIONS:
            raise ModelError(f"there is no precision {precision!r}", remedy=suggest(precision, PRECISIONS))
        if precision == "auto":
            self.half = bf16_is_faster(str(self.device)) and self._bf16_is_close()
        else:
            self.half = precision == "bfloat16"

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        device: str = "auto",
        precision: str = "auto",
        max_length: int | None = None,
        name: str | None = None,
        allow_remote_code: bool = False,
    ) -> "Encoder":
        """Read a `save_pretrained` folder (safetensors only).

        Raises ModelError when it has no config, tokenizer or safetensors weights, or brings its own code without
        `allow_remote_code`.
        """
        from transformers import AutoModel

        from tutelage.models.load import folder_tokenizer

        folder = Path(path)
        for needed, pattern in (("config.json", "config.json"), ("safetensors weights", "*.safetensors"),
                                ("a tokenizer", "tokenizer*")):  # fmt: skip
            if not any(folder.glob(pattern)):
                raise ModelError(
                    "not an encoder folder", where=folder, expected=needed,
                    found=sorted(p.name for p in folder.iterdir())[:10] if folder.is_dir() else "no such folder",
                    remedy="save the model with save_pretrained (safetensors), tokenizer included",
                )  # fmt: skip
        try:
            tokenizer = folder_tokenizer(folder, allow_remote_code)
            with quiet():
                module = AutoModel.from_pretrained(
                    folder,
                    local_files_only=True,
                    use_safetensors=True,
                    dtype=torch.float32,
                    trust_remote_code=allow_remote_code,
                )
        except Exception as error:  # damaged files raise many types; all mean this folder cannot be used
            raise ModelError("the encoder cannot be loaded", where=folder, found=error) from error
        if max_length is None:
            max_length = _sentence_length(folder)
        return cls(
            module.to(choose_device(device)),
            tokenizer,
            name=name or folder.name,
            max_length=max_length,
            precision=precision,
        )

    # -- what it is ---------------------------------------------------------------------------------------

    @property
    def precision(self) -> str:
        """Arithmetic of `embed` and `hidden_states`: what `auto` came to."""
        return "bfloat16" if self.half else "float32"

    @property
    def width(self) -> int:
        """Length of a vector."""
        return int(self.config.hidden_size)

    @property
    def n_params(self) -> int:
        """All parameters."""
        return sum(p.numel() for p in self.module.parameters())

    @property
    def active_params(self) -> int:
        """Parameters that multiply every token: all but the embedding tables."""
        tables = {id(m.weight) for m in self.module.modules() if isinstance(m, nn.Embedding)}
        return sum(p.numel() for p in self.module.parameters() if id(p) not in tables)

    @property
    def own_code(self) -> dict[str, str]:
        return own_code(self.base_module)

    @property
    def fingerprint(self) -> str:
        """Hash of weights, tokenizer, cut-off length and arithmetic, and of the code that came with the model."""
        digest = blake3.blake3(f"{self.max_length}:{self.half};".encode())
        for name, value in sorted(self.module.state_dict().items()):
            digest.update(f"{name}:{value.dtype}:{tuple(value.shape)};".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        digest.update(tokenizer_text(self.tokenizer).encode())
        digest.update("".join(self.own_code.values()).encode())
        adapters = adapter_facts(self.module)
        digest.update(json.dumps(adapters, sort_keys=True, default=str).encode() if adapters else b"")
        return digest.hexdigest(length=16)

    # -- tokens and vectors -------------------------------------------------------------------------------

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, no special token added, nothing cut."""
        if not texts:
            return []
        return [
            list(ids) for ids in self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        ]

    def count_tokens(self, texts: Sequence[str]) -> np.ndarray:
        """[texts] int64, special tokens not counted."""
        return np.array([len(ids) for ids in self.tokenize(as_texts(texts, "count_tokens"))], dtype=np.int64)

    def embed(self, texts: Sequence[str], batch_size: int = 32, normalise: bool = True) -> np.ndarray:
        """[texts, width] float32: mean over the tokens of each text, scaled to length 1 unless `normalise` is off.

        Raises ModelError naming the first text without any token.
        """
        out = np.zeros((len(texts), self.width), dtype=np.float32)
        for chosen, states, mask, _special in self._forward(texts, batch_size, layer=-1):
            kept = mask[:, :, None].to(states.dtype)
            mean = (states * kept).sum(1) / kept.sum(1)
            if normalise:
                mean = nn.functional.normalize(mean, dim=1)
            out[chosen] = mean.cpu().numpy()
        return out

    def hidden_states(self, texts: Sequence[str], layer: int = -1, batch_size: int = 32) -> Iterator[np.ndarray]:
        """Per text [tokens, width] float32: output of layer `layer` (0 = embeddings), special tokens left out."""
        # Batches come in order of length, so the states of all texts are held; texts are read in slices.
        for start in range(0, len(texts), 8 * batch_size):
            part = texts[start : start + 8 * batch_size]
            found: dict[int, np.ndarray] = {}
            for chosen, states, mask, special in self._forward(part, batch_size, layer):
                for row, i in enumerate(chosen):
                    found[i] = states[row][mask[row] & ~special[row]].cpu().numpy()
            yield from (found[i] for i in range(len(part)))

    # -- for training -------------------------------------------------------------------------------------

    def final_hidden(self, batch: TokenBatch) -> torch.Tensor:
        """[B, T, d]: the last layer's states of a batch with one document per row; differentiable."""
        self.meter.add(forward_flops=2.0 * self.active_params * batch.n_tokens)
        mask = (batch.segment_ids >= 0).long()
        return self.base_module(input_ids=batch.input_ids, attention_mask=mask).last_hidden_state

    def copy(self) -> "Encoder":
        """An independent copy of the weights; the tokenizer is shared."""
        return self.around(copy.deepcopy(self.module))

    def around(self, module: nn.Module, name: str | None = None) -> "Encoder":
        """The same tokenizer, cut-off length and arithmetic around another module of the same architecture."""
        return Encoder(
            module, self.tokenizer, name=name or self.name, max_length=self.max_length, precision=self.precision
        )

    def with_adapter(self, path: str | Path) -> "Encoder":
        """This encoder with the PEFT adapter of folder `path`, sharing the base's memory; raises ModelError."""
        return self.around(put_adapter(frozen_view(self.module), Path(path)), name=Path(path).name)

    # -- saving -------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """`save_pretrained` layout with `sentence_bert_config.json` holding the cut-off length; an adapter in the
        PEFT layout.

        Raises StoreError when the place cannot be written.
        """
        folder = Path(path)
        settings = f'{{"max_seq_length": {self.max_length}, "do_lower_case": false}}\n'
        with saving(folder), quiet():
            save_module(self.module, folder)
            self.tokenizer.save_pretrained(folder)
            (folder / "sentence_bert_config.json").write_text(settings, encoding="utf-8")
        return folder

    # -- inside -------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _forward(
        self, texts: Sequence[str], batch_size: int, layer: int
    ) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Batches (indices [B], states [B, T, d] float32, mask [B, T], special [B, T]), no soft prompt."""
        encoded = self._encode(as_texts(texts, "encoder"))
        self.module.eval()
        order = sorted(range(len(encoded)), key=lambda i: -len(encoded[i][0]))
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            length = len(encoded[chosen[0]][0])
            ids = torch.full((len(chosen), length), int(self.tokenizer.pad_token_id or 0))
            mask = torch.zeros((len(chosen), length), dtype=torch.bool)
            special = torch.zeros_like(mask)
            for row, i in enumerate(chosen):
                tokens, marks = encoded[i]
                ids[row, : len(tokens)] = torch.tensor(tokens)
                mask[row, : len(tokens)] = True
                special[row, : len(tokens)] = torch.tensor(marks, dtype=torch.bool)
            ids, mask, special = (t.to(self.device) for t in (ids, mask, special))
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.half):
                result = self.base_module(
                    input_ids=ids, attention_mask=mask.long(), output_hidden_states=layer != -1
                )
            states = result.last_hidden_state if layer == -1 else result.hidden_states[layer]
            tokens_done = int(mask.sum())
            self.meter.add(
                forward_flops=2.0 * self.active_params * tokens_done, scored_tokens=tokens_done, calls=len(chosen)
            )
            own = slice(len(self.soft_ids), None)
            yield chosen, states[:, own].float(), mask[:, own], special[:, own]

    def _encode(self, texts: list[str]) -> list[tuple[list[int], list[int]]]:
        if not texts:
            return []
        room = self.max_length - len(self.soft_ids)
        full = self.tokenizer(texts, return_special_tokens_mask=True, truncation=True, max_length=room)
        longer = sum(len(ids) == room for ids in full["input_ids"])
        if longer:
            lengths = self.count_tokens([t for t, ids in zip(texts, full["input_ids"]) if len(ids) == room])
            extra = self.tokenizer.num_special_tokens_to_add()
            cut = int((lengths + extra > room).sum())
            if cut:
                warnings.warn(
                    f"{self.name}: {cut} of {len(texts)} texts are longer than {room} tokens "
                    "and were cut; split them into chunks to use all of them",
                    stacklevel=4,
                )
        for i, ids in enumerate(full["input_ids"]):
            if not ids:
                raise ModelError(
                    "a text without any token cannot be embedded", where=f"text {i}", found=repr(texts[i]),
                    remedy="drop empty rows first",
                )  # fmt: skip
        soft, marks = list(self.soft_ids), [1] * len(self.soft_ids)
        return [(soft + i, marks + m) for i, m in zip(full["input_ids"], full["special_tokens_mask"], strict=True)]

    def _bf16_is_close(self) -> bool:
        vectors = []
        for self.half in (False, True):
            vectors.append(self.embed(_PROBE))
        self.meter = Meter()  # the probe is not charged to whoever uses the model
        return bool((vectors[0] * vectors[1]).sum(1).min() >= MIN_COSINE)


def _sentence_length(folder: Path) -> int | None:
    try:
        value = json_text.loads((folder / "sentence_bert_config.json").read_bytes())["max_seq_length"]
        return int(value) if value else None
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None
