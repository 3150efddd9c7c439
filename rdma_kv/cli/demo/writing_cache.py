"""The hook into transformers: a layer's K and V the moment they exist."""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import DynamicCache

# Called with a layer's K and V, each [1, kv_heads, tokens, head_dim].
TensorsReady = Callable[[int, torch.Tensor, torch.Tensor], None]


class WritingCache(DynamicCache):  # type: ignore[misc]
    """Hands every layer's K and V out before attention over them even starts.

    transformers 4 gives `update` one more argument than 5.
    """

    def __init__(self, on_layer: TensorsReady) -> None:
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
        self._on_layer(layer_idx, key_states, value_states)
        kept: tuple[torch.Tensor, torch.Tensor] = super().update(
            key_states, value_states, layer_idx, *args, **kwargs
        )
        return kept
