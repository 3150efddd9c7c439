"""A prefill's KV blocks in a file: the write path can run again where no model can.

An .npz of `blocks` [layers, K and V, blocks, kv_heads, block_tokens, head_dim] in the order of the
prompt, and `settings`, the JSON of the run that made it.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .paging import Floats, Ids, PagedCache
from .settings import HEAD_DIM, KV_HEADS, DemoError, Settings


def save(settings: Settings, cache: PagedCache, table: Ids) -> Path:
    blocks = np.stack([np.stack(cache.blocks(layer, table)) for layer in range(settings.layers)])
    path = Path(settings.record)
    try:
        with path.open("wb") as file:  # a file, not a name: NumPy would add .npz to a name
            np.savez(file, blocks=blocks, settings=np.array(settings.to_json()))
    except OSError as error:
        raise DemoError(f"--record {path}: {error.strerror}") from error
    return path


class Recording:
    """Stands in for the model: hands the recorded K and V out layer by layer."""

    def __init__(self, path: str) -> None:
        try:
            with np.load(path, allow_pickle=False) as file:
                self.blocks: npt.NDArray[np.float32] = file["blocks"]
                self.settings = Settings.from_json(str(file["settings"]))
        except OSError as error:
            raise DemoError(f"--replay {path}: {error.strerror or error}") from error
        except (KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise DemoError(f"--replay {path}: not a recording; make one with --record") from error
        made_of = self.settings
        shape = (made_of.layers, 2, made_of.blocks, KV_HEADS, made_of.block_tokens, HEAD_DIM)
        if self.blocks.shape != shape or self.blocks.dtype != np.float32:
            raise DemoError(
                f"--replay {path}: holds {self.blocks.dtype} blocks of shape {self.blocks.shape}, "
                f"its settings say float32 of {shape}; make a new one with --record"
            )

    def parameters(self, asked: Settings) -> Settings:
        """The settings of a replay: the shape is the recording's, the rest as asked."""
        return asked.reshaped(self.settings.shape())

    def describe(self) -> str:
        return f"a recording of {self.settings.layers} layers, {self.settings.blocks} blocks each"

    def prefill(self, on_layer: Callable[[int, Floats, Floats], None]) -> None:
        for layer, (key, value) in enumerate(self.blocks):
            on_layer(layer, _rows(key), _rows(value))

    def differing(self, cache: PagedCache, table: Ids) -> list[tuple[int, int]]:
        """(layer, block of the prompt) of every block that is not the recorded one, bit for bit."""
        wrong = []
        for layer, recorded in enumerate(self.blocks):
            for block in range(len(table)):
                here = [pool[table[block]] for pool in cache.pools(layer)]
                if any(
                    a.tobytes() != b[block].tobytes() for a, b in zip(here, recorded, strict=True)
                ):
                    wrong.append((layer, block))
        return wrong


def _rows(blocks: Floats) -> Floats:
    """[blocks, heads, block_tokens, width] as [heads, tokens, width]."""
    count, heads, block_tokens, width = blocks.shape
    rows: Floats = blocks.transpose(1, 0, 2, 3).reshape(heads, count * block_tokens, width)
    return rows
