"""A small Llama with seeded random weights, run by transformers on one CPU thread.

Whoever imports this has found torch installed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import DynamicCache, LlamaForCausalLM

from .llama_config import llama_config
from .paging import Floats
from .settings import Settings
from .writing_cache import WritingCache

# Called with a layer's K and V, each [kv_heads, tokens, head_dim], the moment they exist.
LayerReady = Callable[[int, Floats, Floats], None]


class Llama:
    """The model with its prompt; the same seed gives the same of both in every process."""

    def __init__(self, settings: Settings) -> None:
        torch.set_num_threads(1)
        torch.set_grad_enabled(False)  # in this process, for good
        torch.manual_seed(settings.seed)
        self._settings = settings
        self._model = LlamaForCausalLM(llama_config(settings)).eval()
        self._model(torch.zeros(1, settings.block_tokens, dtype=torch.long))  # warm-up
        random = torch.Generator().manual_seed(settings.seed + 1)
        self._prompt = torch.randint(
            settings.dimensions.vocabulary, (1, settings.prompt_tokens), generator=random
        )

    def describe(self) -> str:
        millions = sum(p.numel() for p in self._model.parameters()) / 1e6
        shape = self._settings.dimensions
        return (
            f"LlamaForCausalLM, {self._settings.layers} layers, hidden {shape.hidden}, "
            f"{shape.query_heads} heads, {shape.kv_heads} KV heads, "
            f"{millions:.1f} M parameters, float32"
        )

    def prefill(self, on_layer: LayerReady) -> None:
        """Computes the prompt; what becomes of its KV is up to `on_layer`."""
        cache = WritingCache(lambda layer, k, v: on_layer(layer, k[0].numpy(), v[0].numpy()))
        self._model(self._prompt, past_key_values=cache, logits_to_keep=1)

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
