"""What one run of the demo is made of; both sides must hold the same."""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

from .shapes import SHAPES, ModelShape

# Of the model in host memory, whose recordings have no other shape.
HEAD_DIM = SHAPES["small"].head_dim
KV_HEADS = SHAPES["small"].kv_heads

CPU = "cpu"
CUDA = "cuda"
REHEARSAL = "rehearsal"  # the code of cuda, on the CPU


class DemoError(Exception):
    """The demo cannot run, or a part of it failed; the text is for the user."""


@dataclass(frozen=True)
class Settings:
    """Parameters of a run. Those of `shape()` are part of what both sides must agree on."""

    transport: str = "auto"
    layers: int = 6
    prompt_tokens: int = 1000
    block_tokens: int = 16
    generate: int = 64
    seed: int = 0
    corrupt: bool = False
    record: str = ""
    replay: str = ""
    timeout_s: float = 120.0
    device: str = CPU
    model: str = "small"
    prefill_gpu: int = 0
    decode_gpu: int = -1  # -1: 1 where there is one, else 0
    weights: str = ""  # their checksum, once they are there: GPUs draw them for themselves

    @classmethod
    def of_device(cls, device: str) -> Settings:
        """What holds for the flags that were not given."""
        if device == CUDA:
            return cls(device=CUDA, model="7b", layers=32, prompt_tokens=8192, timeout_s=300)
        if device == REHEARSAL:
            return cls(device=REHEARSAL, model="tiny", layers=4, prompt_tokens=300, generate=24)
        return cls()

    @property
    def dimensions(self) -> ModelShape:
        return SHAPES[self.model]

    @property
    def blocks(self) -> int:
        """Blocks that the prompt fills; the last one in part, unless it divides."""
        return -(-self.prompt_tokens // self.block_tokens)

    @property
    def block_bytes(self) -> int:
        """Of K in one layer; V has the same."""
        shape = self.dimensions
        return shape.kv_heads * self.block_tokens * shape.head_dim * shape.element_bytes

    @property
    def total_bytes(self) -> int:
        return 2 * self.layers * self.blocks * self.block_bytes

    def shape(self) -> dict[str, int]:
        return {
            "layers": self.layers,
            "prompt_tokens": self.prompt_tokens,
            "block_tokens": self.block_tokens,
            "seed": self.seed,
        }

    @property
    def tag(self) -> int:
        """Announces the last write. Made from the shape, so that sides started with different
        flags are found out instead of generating from each other's nonsense."""
        agreed: dict[str, object] = {**self.shape()}
        if self.device != CPU:
            agreed |= {"model": self.model, "weights": self.weights}
        return zlib.crc32(json.dumps(agreed, sort_keys=True).encode()) or 1

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Settings:
        return cls(**json.loads(text))

    def reshaped(self, shape: dict[str, int]) -> Settings:
        """These settings for the shape of others."""
        return Settings(**{**asdict(self), **shape})

    def check(self) -> None:
        """Raises DemoError naming the first flag that makes no sense."""
        for name, value, least in (
            ("--layers", self.layers, 1),
            ("--prompt-tokens", self.prompt_tokens, 2),
            ("--block-tokens", self.block_tokens, 1),
            ("--generate", self.generate, 1),
            ("--seed", self.seed, 0),
            ("--prefill-gpu", self.prefill_gpu, 0),
            ("--decode-gpu", self.decode_gpu, -1),
        ):
            if value < least:
                raise DemoError(f"{name} {value}: must be at least {least}")
        if not self.timeout_s > 0:
            raise DemoError(f"--timeout {self.timeout_s:g}: must be more than 0 seconds")
        if self.record and not Path(self.record).absolute().parent.is_dir():
            raise DemoError(f"--record {self.record}: there is no such folder")
        if self.record and self.replay:
            raise DemoError(
                "--record and --replay exclude each other: a replay has no model to record"
            )
        self._check_device()

    def _check_device(self) -> None:
        if self.device == CPU:
            if self.model != "small" or (self.prefill_gpu, self.decode_gpu) != (0, -1):
                raise DemoError("--model, --prefill-gpu and --decode-gpu need --device cuda")
            return
        if self.record or self.replay:
            raise DemoError(
                f"--record and --replay are for host memory, not for --device {self.device}"
            )
        if self.model not in SHAPES or self.dimensions.element_bytes != 2:
            names = ", ".join(name for name, shape in SHAPES.items() if shape.element_bytes == 2)
            raise DemoError(f"--model {self.model}: allowed: {names}")
