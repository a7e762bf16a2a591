"""Toy models for tests and examples: tiny, real transformers with a byte-level BPE tokenizer trained in place."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    BertConfig,
    BertModel,
    Gemma2Config,
    Gemma2ForCausalLM,
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from tutelage.core.errors import ModelError, suggest
from tutelage.models.causal import CausalLM
from tutelage.models.templates import ChatTemplate

Arch = Literal["llama", "gpt2", "qwen2", "gemma", "gemma2"]
TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "A function returns the value that its caller asked for.",
    "def add(first, second):\n    return first + second\n",
    "Question: what is two and two? Answer: four.",
    "Numbers such as 0 1 2 3 4 5 6 7 8 9 and words of every day.",
)
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>")


def tiny_tokenizer(texts: Sequence[str] | None = None, vocab_size: int = 384, chat: bool = True) -> Any:
    """A byte-level BPE tokenizer of at most `vocab_size` (at least 260) tokens; any text round-trips."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=max(vocab_size, 256 + len(SPECIALS)),
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(list(texts or TEXTS), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|endoftext|>",
        eos_token="<|im_end|>" if chat else "<|endoftext|>",
        pad_token="<|pad|>",
        additional_special_tokens=["<|im_start|>"],
    )


def tiny_causal_lm(
    arch: Arch = "llama",
    texts: Sequence[str] | None = None,
    *,
    vocab_size: int = 384,
    layers: int = 2,
    width: int = 32,
    seed: int = 0,
    chat: bool = True,
    max_length: int = 512,
) -> CausalLM:
    """An untrained causal language model of the real class, float32 on the CPU; equal seeds, equal weights."""
    tokenizer = tiny_tokenizer(texts, vocab_size, chat)
    common: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    shape: dict[str, Any] = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": max_length,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module: Any
        if arch == "llama":
            module = LlamaForCausalLM(LlamaConfig(**common, **shape, tie_word_embeddings=True))
        elif arch == "qwen2":
            module = Qwen2ForCausalLM(Qwen2Config(**common, **shape))
        elif arch == "gemma":
            module = GemmaForCausalLM(GemmaConfig(**common, **shape, head_dim=width // 4))
        elif arch == "gemma2":
            module = Gemma2ForCausalLM(
                Gemma2Config(**common, **shape, head_dim=width // 4, sliding_window=16, query_pre_attn_scalar=8)
            )
        elif arch == "gpt2":
            module = GPT2LMHeadModel(
                GPT2Config(**common, n_embd=width, n_layer=layers, n_head=4, n_positions=max_length)
            )
        else:
            known = ["llama", "gpt2", "qwen2", "gemma", "gemma2"]
            raise ModelError(f"there is no toy model {arch!r}", where="arch", remedy=suggest(str(arch), known))
    module.eval()
    specials = {"bos_token": tokenizer.bos_token, "eos_token": tokenizer.eos_token}
    template = ChatTemplate.shipped("chatml", specials, tokenizer.all_special_tokens) if chat else None
    return CausalLM(module, tokenizer, template, name=f"tiny-{arch}")


def tiny_bert(
    texts: Sequence[str] | None = None, *, vocab_size: int = 384, layers: int = 2, width: int = 32, seed: int = 0
) -> tuple[Any, Any]:
    """An untrained BERT encoder and its tokenizer, float32 on the CPU."""
    tokenizer = tiny_tokenizer(texts, vocab_size, chat=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = BertModel(
            BertConfig(
                vocab_size=len(tokenizer),
                hidden_size=width,
                num_hidden_layers=layers,
                num_attention_heads=4,
                intermediate_size=2 * width,
                max_position_embeddings=512,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
    module.eval()
    return module, tokenizer


def tiny_encoder(
    texts: Sequence[str] | None = None, *, vocab_size: int = 384, layers: int = 2, width: int = 32, seed: int = 0
) -> Any:
    """An untrained BERT behind the encoder seam (`models.encoder.Encoder`)."""
    from tutelage.models.encoder import Encoder

    module, tokenizer = tiny_bert(texts, vocab_size=vocab_size, layers=layers, width=width, seed=seed)
    return Encoder(module, tokenizer, name="tiny-bert")
