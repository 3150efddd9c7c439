"""What a role needs of a GPU's memory, before it takes any."""

from __future__ import annotations

from rdma_kv.cli.demo.settings import DemoError, Settings

GIB = 1 << 30
CONTEXT_BYTES = GIB  # CUDA's own, cuBLAS's workspaces, what the allocator rounds up


def needed_bytes(settings: Settings, pool_blocks: int) -> int:
    """Weights, pools, the cache in one piece that the model works on, and its activations."""
    shape = settings.dimensions
    weights = shape.parameters(settings.layers) * shape.element_bytes
    pools = 2 * settings.layers * pool_blocks * settings.block_bytes
    # Growing by one token copies a layer: the old and the new one are there at once.
    contiguous = settings.total_bytes + 2 * settings.total_bytes // settings.layers
    # Of one layer at a time: gate, up and their product, and some of the hidden size in float32.
    widest = 3 * shape.intermediate * shape.element_bytes + 6 * shape.hidden * 4
    return weights + pools + contiguous + settings.prompt_tokens * widest + CONTEXT_BYTES


def check_fits(needed: int, free: int | None, where: str) -> None:
    """Raises DemoError naming what is needed, what is there, and what makes it less."""
    if free is not None and needed > free:
        raise DemoError(
            f"{where} has {free / GIB:.1f} GiB free, and {needed / GIB:.1f} GiB are needed: "
            "take fewer --layers or --prompt-tokens, another --prefill-gpu or --decode-gpu, or end "
            "what else runs there (`nvidia-smi`)"
        )
