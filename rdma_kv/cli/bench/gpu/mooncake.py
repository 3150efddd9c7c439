"""Mooncake's transfer engine, over NVLink within a host or TCP: whether it is here."""

from __future__ import annotations

import importlib.util

NVLINK = {"MC_INTRANODE_NVLINK": "1"}
TCP = {"MC_FORCE_TCP": "1"}


def missing() -> str | None:
    """Why it cannot be measured here; None: it is installed."""
    if importlib.util.find_spec("mooncake"):
        return None
    return "not installed; pip install --no-deps mooncake-transfer-engine-cuda13==0.3.14"
