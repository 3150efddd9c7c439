"""A Llama of billions of random weights, drawn on the GPU itself from a seed.

Two GPUs of one kind draw the same; a checksum tells when they did not.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import DynamicCache, LlamaForCausalLM

from rdma_kv.cli.accelerator import Accelerator
from rdma_kv.cli.demo.events import Emit
from rdma_kv.cli.demo.llama_config import llama_config
from rdma_kv.cli.demo.settings import DemoError, Settings
from rdma_kv.cli.demo.writing_cache import WritingCache

from .checksums import checksum
from .paging import DTYPE, PagedTensors, Table

LayerReady = Callable[[int, torch.Tensor, torch.Tensor], None]


class BigLlama:
    """The model with its prompt; the same seed gives the same of both on every GPU of a kind."""

    def __init__(self, settings: Settings, accelerator: Accelerator, emit: Emit) -> None:
        torch.set_grad_enabled(False)  # in this process, for good
        torch.use_deterministic_algorithms(True, warn_only=True)
        began = time.monotonic()
        self._settings = settings
        self._accelerator = accelerator
        self._model = _draw(settings, accelerator.device)
        self.checksum = checksum(self._model.parameters())
        random = torch.Generator().manual_seed(settings.seed + 1)
        prompt = torch.randint(
            settings.dimensions.vocabulary, (1, settings.prompt_tokens), generator=random
        )
        self._prompt = prompt.to(accelerator.device)
        accelerator.synchronize()
        text = f"drew {self._billions():.2f} B weights in {time.monotonic() - began:.1f} s"
        emit("stage", {"text": f"{text} on {accelerator.name}, checksum {self.checksum}"})

    def describe(self) -> str:
        shape = self._settings.dimensions
        return (
            f"LlamaForCausalLM, {self._settings.layers} layers, hidden {shape.hidden}, "
            f"{shape.query_heads} heads, {shape.kv_heads} KV heads, "
            f"{self._billions():.2f} B parameters, bfloat16"
        )

    def prefill(self, on_layer: LayerReady) -> None:
        """Gives the prompt's compute to the device; layers are handed out as it will have them."""
        cache = WritingCache(lambda layer, k, v: on_layer(layer, k[0], v[0]))
        self._model(self._prompt, past_key_values=cache, logits_to_keep=1)

    def first_token(self) -> int:
        """The prompt computed here, with no paging and no transfer, up to its first token."""
        out = self._model(self._prompt, use_cache=True, logits_to_keep=1)
        return int(out.logits[0, -1].argmax())

    def continue_from(
        self, cache: PagedTensors, table: Table, on_token: Callable[[int], None], count: int
    ) -> list[int]:
        """Generates greedily from the blocks of a paged cache.

        The prompt's last token is run again, so its own K and V are left out: that gives the first
        logits with nothing else to send.
        """
        kept = self._settings.prompt_tokens - 1
        contiguous = DynamicCache()
        for layer in range(self._settings.layers):
            key, value = cache.get(layer, table, kept)
            contiguous.update(key[None], value[None], layer)
        tokens: list[int] = []
        token = self._prompt[:, -1:]
        # The fused kernels of attention may sum in another order in another process, and bfloat16
        # shows it some tokens later.
        with sdpa_kernel(SDPBackend.MATH):
            for _ in range(count):
                logits = self._model(token, past_key_values=contiguous).logits[:, -1]
                token = logits.argmax(-1, keepdim=True)
                tokens.append(int(token))
                on_token(len(tokens))
        if not bool(torch.isfinite(logits).all()):
            raise DemoError("the model's logits are not finite: equal tokens would prove nothing")
        return tokens

    def _billions(self) -> float:
        return self._settings.dimensions.parameters(self._settings.layers) / 1e9


def _draw(settings: Settings, device: torch.device) -> LlamaForCausalLM:
    """Weights come into being on the device, in bfloat16: nothing is drawn or kept elsewhere."""
    before = torch.get_default_dtype()
    torch.manual_seed(settings.seed)
    torch.set_default_dtype(DTYPE)
    try:
        with device:
            model = LlamaForCausalLM(llama_config(settings)).eval()
    finally:
        torch.set_default_dtype(before)
    kinds = {(p.dtype, p.device.type) for p in model.parameters()}
    if kinds != {(DTYPE, device.type)}:
        raise DemoError(f"transformers made weights of {kinds}, not bfloat16 on {device}")
    return model
