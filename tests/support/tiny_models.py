"""Tiny random models of several architectures, and a tiny tokenizer, saved as a user's model folder would be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

if TYPE_CHECKING:
    from pathlib import Path

LAYERS = 4
VOCABULARY = 256

_SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
_EXPERTS = {"num_key_value_heads": 2, "num_local_experts": 4, "num_experts_per_tok": 2}
_DEEPSEEK: dict[str, Any] = {
    "num_key_value_heads": 4,
    "moe_intermediate_size": 16,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "n_group": 2,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "head_dim": 8,
}

ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", {"num_key_value_heads": 2}),
    "qwen": ("Qwen3ForCausalLM", {"num_key_value_heads": 2, "head_dim": 8}),
    "mixtral": ("MixtralForCausalLM", _EXPERTS),
    "deepseek-v3": ("DeepseekV3ForCausalLM", _DEEPSEEK),
    "qwen-moe": (
        "Qwen3MoeForCausalLM",
        {
            "num_key_value_heads": 2,
            "head_dim": 8,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
        },
    ),
    "gemma": ("Gemma2ForCausalLM", {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 8}),
    "gpt2": ("GPT2LMHeadModel", {"n_positions": 128}),
    "bert": ("BertModel", {}),
}


def save_model(
    folder: Path, architecture: str, *, seed: int = 0, dtype: torch.dtype = torch.bfloat16, **sizes: int
) -> None:
    """Save a random model of `architecture` and the tokenizer; `sizes` are fields of its config, in place of ours."""
    name, extra = ARCHITECTURES[architecture]
    model_class = getattr(transformers, name)
    torch.manual_seed(seed)
    config = model_class.config_class(**_SMALL | extra | sizes)
    config.initializer_range = 0.3
    model_class(config).to(dtype).save_pretrained(folder)
    save_tokenizer(folder)


def save_tokenizer(folder: Path, *, every_byte: bool = False, template: str | None = None) -> None:
    """Save a byte-level BPE tokenizer with 256 tokens: `<s>` and `</s>` begin and end; or one of every byte.

    With a chat template two more tokens are special: `<|im_start|>` and `<|im_end|>`.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = [chr(c) for c in range(33, 127)] + ["Ġ", "Ċ"]
    if every_byte:
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + 2 if every_byte else VOCABULARY,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator([text(i) for i in range(50)], trainer)
    saved = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    if template is not None:
        saved.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
        saved.chat_template = template
    saved.save_pretrained(folder)


def text(number: int) -> str:
    """Return a small made-up document."""
    words = ["red", "green", "blue", "stone", "river", "cloud", "bird", "light", "seven", "eight"]
    return " ".join(words[(number * 7 + i * i) % len(words)] for i in range(60 + number % 40)) + "\n"
