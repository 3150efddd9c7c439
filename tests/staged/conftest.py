"""Staged links between caches in host memory: all of them but the copies of a GPU."""

from __future__ import annotations

from tests.stream.conftest import decode, prefill, shape

__all__ = ["decode", "prefill", "shape"]
