"""`rdma-kv demo --device cuda` with a small model, on whatever GPUs there are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.patience import scaled

torch = pytest.importorskip("torch", reason="needs torch, for GPU memory")
pytest.importorskip("transformers", reason="needs transformers, for a model")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

ROOT = Path(__file__).parents[2]
SMALL = ("--device", "cuda", "--model", "tiny", "--layers", "4", "--prompt-tokens", "1000")


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, "-m", "rdma_kv", "demo", *SMALL, *arguments],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=scaled(300),
    )


@pytest.mark.parametrize("transport", ["cuda_ipc", "tcp"])
def test_decode_generates_the_tokens_of_one_process(transport: str) -> None:
    ran = demo("--transport", transport, "--json")

    assert ran.returncode == 0, ran.stderr
    report = json.loads(ran.stdout)
    assert report["decode"]["tokens"] == report["reference"]["tokens"]
    assert len(set(report["reference"]["tokens"])) > 10  # else equality would prove little
    assert report["prefill"]["transport"] == transport
    assert report["decode"]["kv"] == report["prefill"]["kv"]
    assert "GPU 0" in report["prefill"]["device"]
    assert report["first_token"]["via_transfer_ms"] > 0


def test_both_sides_on_one_gpu() -> None:
    ran = demo("--prefill-gpu", "0", "--decode-gpu", "0", "--transport", "cuda_ipc")

    assert ran.returncode == 0, ran.stderr


def test_a_spoiled_block_is_noticed() -> None:
    ran = demo("--corrupt")

    assert ran.returncode == 1, ran.stderr
    assert "corruption caught" in ran.stdout


def test_a_gpu_that_is_not_there_is_named_with_how_many_are() -> None:
    ran = demo("--decode-gpu", "63")

    assert ran.returncode == 3
    assert "there is no GPU 63: torch sees" in ran.stderr
