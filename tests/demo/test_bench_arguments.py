"""`rdma-kv bench` with arguments that cannot be."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from rdma_kv.cli import app


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "say --local"),
        (["--local", "--gpu"], "say --local"),
        (["--local", "--breakdown"], "--same-gpu and --breakdown need --gpu"),
        (["--gpu", "--transport", "tcp"], "--transport is for --local"),
        (["--gpu", "--seconds", "0"], "--seconds more than 0"),
        (["--local", "--block-kib", "0"], "--block-kib must be at least 1"),
        (["--local", "--seconds", "-1"], "--seconds more than 0"),
        (["--local", "--transport", "teleport"], "KVCACHE_TRANSPORT=teleport: allowed: auto"),
    ],
)
def test_bench_names_what_it_cannot_take_before_it_measures(arguments, words):
    ended = CliRunner().invoke(app, ["bench", *arguments])

    assert ended.exit_code == 2
    assert words in ended.stderr
    assert ended.stdout == ""
