"""A classifier whose encoder or language model is trained with it: a linear head on a state of the model.

logits = W f(x) + b, f(x) = sqrt(d) h / |h|, h the pooled state [d] of the text: the mean that `embed` takes, or
the last token's final state. The scaled length makes logits of one size whatever the model, and a head fitted on
unit vectors (adapters.linear_head) is this head with W / sqrt(d). The module that trains has two parts, `body` and
`classifier_head`.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tutelage.core.labels import LabelSpace
from tutelage.models.classifier import ARRAYS, Classifier, arrays_of
from tutelage.models.packing import TokenBatch, collate
from tutelage.models.peft_io import HEAD
from tutelage.models.pooling import Pooling, encode_whole, pooled

BATCH_TOKENS = 4096


class Headed(nn.Module):
    """A model's module and a head, as one tree of parameters."""

    def __init__(self, body: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.body = body
        self.add_module(HEAD, head)


class TunedClassifier(Classifier):
    """`base`: an `Encoder` or a `CausalLM`; `head`: linear, [classes, d], in float32; `pooling`: mean or last."""

    form = "tuned"

    def __init__(
        self, labels: LabelSpace, base: Any, head: nn.Linear, pooling: Pooling, *, name: str = "classifier"
    ) -> None:
        super().__init__(labels, name=name)
        self.base, self.pooling = base, pooling
        self.module: Any = Headed(base.module, head.to(base.device)).eval()
        self.meter = base.meter
        self.pad_id, self.isolation = base.pad_id, base.isolation

    # -- for training -------------------------------------------------------------------------------------

    @property
    def head(self) -> nn.Linear:
        return getattr(self.module, HEAD)

    @property
    def base_module(self) -> Any:
        return self.base.base_module

    @property
    def device(self) -> torch.device:
        return self.base.device

    @property
    def dtype(self) -> torch.dtype:
        return self.base.dtype

    @property
    def max_length(self) -> int:
        return int(self.base.max_length)

    @property
    def active_params(self) -> int:
        """Parameters that multiply every token; the head multiplies one state of a text and is left out."""
        return int(self.base.active_params)

    @property
    def n_params(self) -> int:
        """All parameters."""
        return sum(p.numel() for p in self.module.parameters())

    def around(self, module: Any, name: str | None = None) -> "TunedClassifier":
        """The same classes around another `Headed` module; calibration belongs to the weights and is not kept."""
        base = self.base.around(module.body)
        other = TunedClassifier(self.labels, base, getattr(module, HEAD), self.pooling, name=name or self.name)
        other.facts, other.fitted_on, other.multi_label = dict(self.facts), self.fitted_on, self.multi_label
        return other

    def features(self, batch: TokenBatch) -> Tensor:
        """[documents, d] float32 f(x), with gradients where these are enabled."""
        vectors = pooled(self.base, batch, self.pooling)
        return nn.functional.normalize(vectors, dim=1) * vectors.shape[1] ** 0.5

    def batch_logits(self, batch: TokenBatch) -> Tensor:
        """[documents, classes] float32."""
        return self.head(self.features(batch))

    # -- for use ------------------------------------------------------------------------------------------

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        return self._over(texts, self.batch_logits, len(self.labels))

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """[texts, d] float32, length sqrt(d)."""
        return self._over(texts, self.features, self.head.in_features).astype(np.float32)

    @torch.no_grad()
    def _over(self, texts: Sequence[str], compute: Any, width: int) -> np.ndarray:
        modes = [(part, part.training) for part in self.module.modules()]
        self.module.eval()
        found = np.zeros((len(texts), width))
        documents = [encode_whole(self.base, t, self.max_length, example_id=str(i)) for i, t in enumerate(texts)]
        order = sorted(range(len(texts)), key=lambda i: -len(documents[i]))
        while order:
            chosen = order[: max(1, BATCH_TOKENS // len(documents[order[0]]))]
            order = order[len(chosen) :]
            batch = collate([[documents[i]] for i in chosen], pad_id=self.pad_id).to(self.device)
            found[chosen] = compute(batch).double().cpu().numpy()
        for part, mode in modes:
            part.training = mode
        return found

    # -- saving -------------------------------------------------------------------------------------------

    def _arrays(self) -> dict[str, np.ndarray]:
        return {name: value.detach().float().cpu().numpy() for name, value in self.head.state_dict().items()}

    def _parts(self) -> Any:
        digest = hashlib.blake2b(digest_size=16)
        for value in self._arrays().values():
            digest.update(value.tobytes())
        return [self.base.fingerprint, self.pooling, digest.hexdigest()]

    def _write(self, folder: Path) -> dict[str, Any]:
        from safetensors.numpy import save_file

        if not self.base.packaged:
            self.base.save(folder / "model")
        save_file(self._arrays(), folder / ARRAYS)
        return {"load": self.base.packaged, "pooling": self.pooling}

    @classmethod
    def read(
        cls, folder: Path, labels: LabelSpace, settings: Mapping[str, Any], place: tuple[str, str]
    ) -> "TunedClassifier":
        """The classifier of `folder`; `settings` are those of its `classifier.json`, `place` device and dtype."""
        from tutelage.models.load import load_model

        arrays = arrays_of(folder / ARRAYS)
        head = linear(arrays["weight"], arrays["bias"])
        # Not one that others share: this model is trained.
        base = load_model(settings["load"] or folder / "model", device=place[0], dtype=place[1])
        return cls(labels, base, head, settings["pooling"], name=folder.name)


def linear(weight: np.ndarray, bias: np.ndarray) -> nn.Linear:
    """A float32 linear layer with these values."""
    made = nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float32)
    with torch.no_grad():
        made.weight.copy_(torch.from_numpy(np.asarray(weight, dtype=np.float32)))
        made.bias.copy_(torch.from_numpy(np.asarray(bias, dtype=np.float32)))
    return made
