"""What one run of the demo is made of; both sides must hold the same."""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

HEAD_DIM = 64
QUERY_HEADS = 8
KV_HEADS = 2
FLOAT32_BYTES = 4


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

    @property
    def blocks(self) -> int:
        """Blocks that the prompt fills; the last one in part, unless it divides."""
        return -(-self.prompt_tokens // self.block_tokens)

    @property
    def block_bytes(self) -> int:
        """Of K in one layer; V has the same."""
        return KV_HEADS * self.block_tokens * HEAD_DIM * FLOAT32_BYTES

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
        return zlib.crc32(json.dumps(self.shape(), sort_keys=True).encode()) or 1

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
