"""Only the top layers trained: what is trained, and that keeping what the frozen layers make changes no bit."""

import copy
from contextlib import nullcontext

import pytest
import torch

from toy import training_bed as bed
from toy.training_bed import Stop, same, stop_at, train, weights
from tutelage.core.discovery import build
from tutelage.core.errors import ConfigError
from tutelage.models import frozen_prefix as module
from tutelage.models.encode import encode_text
from tutelage.models.frozen_prefix import FrozenPrefix, frozen_depth, frozen_params, frozen_prefix
from tutelage.models.load import load_model
from tutelage.models.packing import collate
from tutelage.training import trainer
from tutelage.training._copy import trainable_copy
from tutelage.training._optim import backward_flops

SIZES = {"step_tokens": 300, "micro_tokens": 200}
TOKENS = 6000


def top(kind="lora", dtype=torch.float32, arch="llama", count=1, **options):
    """A model of four layers of which the last `count` are trained."""
    lm = bed.model(arch, layers=4, **options)
    lm.module.to(dtype)
    if kind == "full":
        return trainable_copy(lm, count)
    adapted = build("adapters.lora", {"rank": 4, "top_layers": count}).convert({"base": lm}, None, {})
    return trainable_copy(adapted)


@pytest.fixture
def served(monkeypatch):
    """Tokens served in each run."""
    found = []

    class Noted(FrozenPrefix):
        def __init__(self, *args):
            super().__init__(*args)
            found.append(self)

    monkeypatch.setattr(module, "FrozenPrefix", Noted)
    return lambda: [prefix.served for prefix in found]


def uncached(monkeypatch, run):
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "frozen_prefix", lambda _model: nullcontext())
        return run()


@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_losses_and_weights_have_the_same_bits(kind, dtype, served, monkeypatch):
    def run():
        lm = top(kind, dtype)
        return train(lm, tokens=TOKENS, settings=SIZES), weights(lm)

    (plain, first), (kept, second) = uncached(monkeypatch, run), run()
    assert len(served()) == 1 and TOKENS / 3 < served()[0] < TOKENS
    assert kept.losses == plain.losses and kept.gradient_norms == plain.gradient_norms
    assert same(first, second) and kept.cost.flops == plain.cost.flops
    assert kept.losses[-1] < kept.losses[0]


def test_resume_has_the_same_bits(served, tmp_path):
    settings = {**SIZES, "checkpoint_seconds": 0.0}
    whole_model = top()
    whole = train(whole_model, tokens=TOKENS, settings=settings)
    for stop in (7, 13):
        with pytest.raises(Stop):
            train(top(), tokens=TOKENS, settings=settings, checkpoint_dir=tmp_path, on_event=stop_at(stop))
    lm = top()
    resumed = train(lm, tokens=TOKENS, settings=settings, checkpoint_dir=tmp_path)
    assert resumed.resumed_at and resumed.losses == whole.losses and same(weights(lm), weights(whole_model))
    assert len(served()) == 4 and served()[-1] > 0


def test_a_full_disk_or_little_room_changes_nothing(served, monkeypatch):
    def run():
        return train(top(), tokens=TOKENS, settings=SIZES).losses

    expected = run()
    monkeypatch.setattr(module, "MOST_BYTES", 12_000)
    assert run() == expected
    monkeypatch.setattr(module, "MOST_BYTES", 2**30)
    paths = []
    real = module.scratch_path

    def full(suffix):
        if len(paths) > 2:  # the trial at the start had room
            raise OSError(28, "No space left on device")
        paths.append(real(suffix))
        return paths[-1]

    monkeypatch.setattr(module, "scratch_path", full)
    assert run() == expected
    assert served()[0] > 0 and served()[1] < served()[0] and not any(path.exists() for path in paths)


def test_frozen_weights_that_change_are_noticed(served, monkeypatch):
    def run():
        lm = top()

        def listen(facts):
            if facts["event"] == "step" and facts["step"] == 12:
                with torch.no_grad():
                    lm.base_module.model.layers[0].mlp.up_proj.weight.mul_(1.01)

        return train(lm, tokens=TOKENS, settings=SIZES, on_event=listen).losses

    assert uncached(monkeypatch, run) == run()
    assert served()[0] > 0


def inside(lm):
    with frozen_prefix(lm) as prefix:
        return prefix


def test_left_out_where_it_cannot_be_the_same():
    assert inside(top()) is not None and frozen_depth(top()) == 3
    assert inside(top("full")) is not None
    assert inside(top(count=4)) is None
    lm = top("full", arch="gpt2")
    random = torch.get_rng_state()
    assert inside(lm) is None, "dropout"
    assert torch.equal(torch.get_rng_state(), random), "no trial that draws"
    lm = top()
    lm.use_isolation("mask")
    assert inside(lm) is None
    lm = top()
    lm.base_module.model.embed_tokens.weight.requires_grad_(True)
    assert frozen_depth(lm) == 0 and frozen_params(lm) == 0
    lm = top()
    lm.base_module.model.norm.weight.requires_grad_(True)
    assert frozen_depth(lm) == 3
    hook = lm.base_module.model.layers[1].register_forward_hook(lambda *a: None)
    assert inside(lm) is None
    hook.remove()
    assert inside(lm) is not None
    # States that depend on the pack: the trial finds it.
    layer = lm.base_module.model.layers[0]
    own = type(layer).forward
    leaky = type("Leaky", (type(layer),), {"forward": lambda self, x, **k: own(self, x, **k) + 1e-3 * x.mean()})
    layer.__class__ = leaky
    assert inside(lm) is None


def test_served_documents_hooks_and_copies():
    lm = top()
    lm.module.train()
    batch = collate([[encode_text(lm, text, max_length=128) for text in bed.TEXTS[:4]]])
    assert batch.n_tokens >= module.SMALLEST
    plain = lm.token_logps(batch)
    with frozen_prefix(lm) as prefix:
        lm.token_logps(batch)
        assert prefix.served == 0
        assert torch.equal(lm.token_logps(batch), plain) and prefix.served == batch.n_tokens
        other = copy.deepcopy(lm.module)
        assert other.get_base_model().model.frozen_prefix is None
        hook = lm.base_module.model.layers[0].register_forward_hook(lambda _m, _a, out: out * 0)
        assert not torch.equal(lm.token_logps(batch), plain)
        hook.remove()
        with torch.no_grad():
            lm.token_logps(batch)
        small = collate([[encode_text(lm, "short", max_length=16)]])
        lm.token_logps(small), lm.token_logps(small)
        assert prefix.served == batch.n_tokens
    assert not hasattr(lm.base_module.model, "frozen_prefix")


def test_top_layers_of_an_adapter_and_of_a_model(tmp_path):
    lora = top(count=2)
    names = {n for n, p in lora.module.named_parameters() if p.requires_grad}
    assert len(names) == 2 * 7 * 2 and all("layers.2." in n or "layers.3." in n for n in names)
    base = bed.model("llama", layers=4)
    adapted = build("adapters.lora", {"rank": 4, "top_layers": 2}).convert({"base": base}, None, {})
    step = build("training.fit", {"budget": {"tokens": 300}, "max_length": 128})
    trained, _ = step.train(adapted, bed.dataset())
    base.save(tmp_path / "base")
    again = load_model(tmp_path / "base", adapter=trained.save(tmp_path / "adapter"), dtype="float32")
    assert again.score_texts(["The number 3"])[0].nll_sum == pytest.approx(
        trained.score_texts(["The number 3"])[0].nll_sum, abs=1e-5
    )
    full = build("training.fit", {"budget": {"tokens": 300}, "max_length": 128, "top_layers": 1})
    before = weights(base)
    after = weights(full.train(base, bed.dataset())[0])
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all("layers.3." in name for name in moved)
    assert full.estimate(base, bed.dataset()).flops < step.estimate(base, bed.dataset()).flops


def test_what_cannot_be_is_said():
    base = bed.model("llama", layers=2)
    with pytest.raises(ConfigError, match="fewer layers"):
        build("adapters.lora", {"top_layers": 3}).convert({"base": base}, None, {})
    with pytest.raises(ConfigError, match="fewer layers"):
        build("training.fit", {"top_layers": 3}).train(base, bed.dataset())
    adapted = build("adapters.lora", {"top_layers": 1}).convert({"base": base}, None, {})
    with pytest.raises(ConfigError, match="when it is made"):
        build("training.fit", {"top_layers": 1}).train(adapted, bed.dataset())


def test_the_backward_pass_ends_at_the_lowest_trained_layer():
    lm, whole = top("full"), bed.model("llama", layers=4)
    layer = sum(p.numel() for p in lm.base_module.model.layers[0].parameters())
    tail = sum(p.numel() for p in lm.module.parameters() if p.requires_grad)
    assert frozen_params(lm) == 3 * layer and tail == layer
    assert backward_flops(lm, False) == 2 * (lm.active_params - 3 * layer) + 2 * layer
    assert backward_flops(whole, False) > 2 * whole.active_params


MUTATIONS = [
    ("src/tutelage/models/frozen_prefix.py", "if now != self._versions:", "if False:"),
    ("src/tutelage/models/frozen_prefix.py", "all(torch.equal(a, b) for", "all(True for"),
    ("src/tutelage/models/frozen_prefix.py", "if self._size + data.nbytes > self._most:", "if False:"),
    ("src/tutelage/models/frozen_prefix.py", "layout.tokens < SMALLEST", "layout.tokens < 0"),
    (
        "src/tutelage/models/frozen_prefix.py",
        "if any(_hooked(m) or _drops(m) for m in modules):",
        "if any(_hooked(m) for m in modules):",
    ),
    ("src/tutelage/models/frozen_prefix.py", "self._file.seek(place)", "self._file.seek(0)"),
    ("src/tutelage/adapters/lora.py", "list(range(first, len(blocks)))", "list(range(first))"),
]
