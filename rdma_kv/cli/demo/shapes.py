"""The models that the demo can build: Llamas of random weights, told apart by their size."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class ModelShape:
    """All but the number of layers, which is a flag of its own."""

    hidden: int
    intermediate: int
    query_heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    element_bytes: int  # of weights, K and V: 4 is float32, 2 is bfloat16

    @property
    def initializer_range(self) -> float:
        """With the usual 0.02 the greedy tokens hardly vary. Narrower where sums are longer, so
        that attention is as sharp in a large model as in a small one, and bfloat16 holds it."""
        return 0.15 * math.sqrt(512 / self.hidden)

    def parameters(self, layers: int) -> int:
        query, key = self.query_heads * self.head_dim, self.kv_heads * self.head_dim
        attention = self.hidden * (2 * query + 2 * key)
        layer = attention + 3 * self.hidden * self.intermediate + 2 * self.hidden
        return layers * layer + 2 * self.vocabulary * self.hidden + self.hidden


SHAPES = {
    "small": ModelShape(512, 1408, 8, 2, 64, 1024, 4),  # of the demo in host memory
    "tiny": ModelShape(256, 704, 8, 2, 32, 1024, 2),
    "7b": ModelShape(4096, 14336, 32, 8, 128, 32000, 2),
}
