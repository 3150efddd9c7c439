"""The model's shape in the words of transformers."""

from __future__ import annotations

from transformers import LlamaConfig

from .settings import Settings


def llama_config(settings: Settings) -> LlamaConfig:
    shape = settings.dimensions
    return LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=settings.layers,
        num_attention_heads=shape.query_heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=settings.prompt_tokens + settings.generate,
        initializer_range=shape.initializer_range,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        attn_implementation="sdpa",
    )
