"""What each write under way will leave where, for decode to check when its notice comes."""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass

import numpy as np

from .content import Ids
from .settings import Settings

_FIELDS = 5  # sequence, peer, first layer, layers, blocks; then the ids
_SEQUENCE_BITS = 20


@dataclass(frozen=True)
class Entry:
    sequence: int
    peer: int
    first_layer: int
    layer_count: int
    ids: Ids


def create(settings: Settings) -> int:
    descriptor = os.memfd_create("rdma_kv_soak_manifest")
    os.ftruncate(descriptor, settings.slots * (_FIELDS + settings.blocks) * 8)
    return descriptor


def tag_of(slot: int, sequence: int) -> int:
    return (slot + 1) << _SEQUENCE_BITS | sequence % (1 << _SEQUENCE_BITS)


def slot_of(tag: int) -> int:
    return (tag >> _SEQUENCE_BITS) - 1


class Manifest:
    """One slot per write under way; its writer fills it, any decode reads it."""

    def __init__(self, path: str, settings: Settings) -> None:
        descriptor = os.open(path, os.O_RDWR)
        try:
            self._map = mmap.mmap(descriptor, 0)
        finally:
            os.close(descriptor)
        self._rows: Ids = np.frombuffer(self._map, np.int64).reshape(settings.slots, -1)

    def write(self, slot: int, entry: Entry) -> None:
        row = self._rows[slot]
        row[0] = 0  # whoever reads meanwhile finds no sequence
        row[1:_FIELDS] = entry.peer, entry.first_layer, entry.layer_count, len(entry.ids)
        row[_FIELDS : _FIELDS + len(entry.ids)] = entry.ids
        row[0] = entry.sequence

    def read(self, slot: int) -> Entry:
        row = self._rows[slot]
        sequence, peer, first, layers, count = (int(x) for x in row[:_FIELDS])
        return Entry(sequence, peer, first, layers, row[_FIELDS : _FIELDS + count].copy())

    def is_current(self, slot: int, entry: Entry) -> bool:
        return int(self._rows[slot][0]) == entry.sequence
