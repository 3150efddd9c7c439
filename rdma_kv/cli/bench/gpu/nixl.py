"""NIXL, over UCX: how it is set up, and whether it is here."""

from __future__ import annotations

import importlib.util

PACKAGES = ("nixl_cu13", "nixl_cu12", "nixl")
# Without "^ib" UCX looks for NICs and dies at exit where there are none.
ENVIRONMENT = {"UCX_MODULES": "^ib", "UCX_TLS": "cuda,sm,tcp,self", "UCX_NET_DEVICES": "lo"}


def missing() -> str | None:
    """Why it cannot be measured here; None: it is installed."""
    if any(importlib.util.find_spec(name) for name in PACKAGES):
        return None
    return "not installed; pip install --no-deps nixl-cu13==1.5.1"
