"""A small Llama with seeded random weights, run by transformers on one CPU thread.

The only file of the demo that imports torch: whoever imports this has found it installed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from .paging import Floats
from .settings import HEAD_DIM, KV_HEADS, QUERY_HEADS, Settings

VOCABULARY = 1024
HIDDEN = HEAD_DIM * QUERY_HEADS

# Called with a layer's K and V, each [kv_heads, tokens, head_dim], the moment they exist.
LayerReady = Callable[[int, Floats, Floats], None]


class WritingCache(DynamicCache):  # type: ignore[misc]
    """Hands every layer's K and V out before attention over them even starts."""

    def __init__(self, on_layer: LayerReady) -> None:
        super().__init__()
        self._on_layer = on_layer

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *args: object,
        **kwargs: object,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self._on_layer(layer_idx, key_states[0].numpy(), value_states[0].numpy())
        kept: tuple[torch.Tensor, torch.Tensor] = super().update(
            key_states, value_states, layer_idx, *args, **kwargs
        )
        return kept


class Llama:
    """The model with its prompt; the same seed gives the same of both in every process."""

    def __init__(self, settings: Settings) -> None:
        torch.set_num_threads(1)
        torch.set_grad_enabled(False)  # in this process, for good
        torch.manual_seed(settings.seed)
        self._settings = settings
        self._model = LlamaForCausalLM(_config(settings)).eval()
        self._model(torch.zeros(1, settings.block_tokens, dtype=torch.long))  # warm-up
        random = torch.Generator().manual_seed(settings.seed + 1)
        self._prompt = torch.randint(VOCABULARY, (1, settings.prompt_tokens), generator=random)

    def describe(self) -> str:
        millions = sum(p.numel() for p in self._model.parameters()) / 1e6
        return (
            f"LlamaForCausalLM, {self._settings.layers} layers, hidden {HIDDEN}, "
            f"{QUERY_HEADS} heads, {KV_HEADS} KV heads, {millions:.1f} M parameters, float32"
        )

    def prefill(self, on_layer: LayerReady) -> None:
        """Computes the prompt; what becomes of its KV is up to `on_layer`."""
        self._model(self._prompt, past_key_values=WritingCache(on_layer), logits_to_keep=1)

    def continue_from(
        self, layers: list[tuple[Floats, Floats]], on_token: Callable[[int], None]
    ) -> list[int]:
        """Generates greedily from a KV cache of all prompt tokens but the last.

        The last one is run again: that gives the first logits with nothing else to send.
        """
        cache = DynamicCache()
        for index, (key, value) in enumerate(layers):
            cache.update(torch.from_numpy(key)[None], torch.from_numpy(value)[None], index)
        tokens: list[int] = []
        token = self._prompt[:, -1:]
        for _ in range(self._settings.generate):
            token = self._model(token, past_key_values=cache).logits[:, -1:].argmax(-1)
            tokens.append(int(token))
            on_token(len(tokens))
        return tokens

    def reference(self, on_token: Callable[[int], None]) -> list[int]:
        """The same generation by transformers alone, in one process: what is right."""
        out = self._model.generate(
            self._prompt,
            attention_mask=torch.ones_like(self._prompt),
            do_sample=False,
            max_new_tokens=self._settings.generate,
            min_new_tokens=self._settings.generate,
            streamer=_TokenCounter(on_token),
        )
        return [int(t) for t in out[0, self._settings.prompt_tokens :]]


class _TokenCounter:
    """What generate() calls a streamer: it is put the prompt first, then each token."""

    def __init__(self, on_token: Callable[[int], None]) -> None:
        self._on_token = on_token
        self._count = -1

    def put(self, token: torch.Tensor) -> None:
        self._count += 1
        if self._count:
            self._on_token(self._count)

    def end(self) -> None:
        """There is nothing to flush."""


def _config(settings: Settings) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=HIDDEN * 11 // 4,
        num_hidden_layers=settings.layers,
        num_attention_heads=QUERY_HEADS,
        num_key_value_heads=KV_HEADS,
        head_dim=HEAD_DIM,
        max_position_embeddings=settings.prompt_tokens + settings.generate,
        initializer_range=0.15,  # with the usual 0.02 the greedy tokens hardly vary
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        attn_implementation="sdpa",
    )
