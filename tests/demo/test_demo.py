"""`rdma-kv demo` as a user runs it: by its command line, its exit status and what it prints."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rdma_kv import Config, RDMACommunicator
from rdma_kv.cli.demo import recording
from rdma_kv.cli.demo.decode import await_last_write
from rdma_kv.cli.demo.paging import PagedCache, draw_tables, pool_blocks
from rdma_kv.cli.demo.settings import DemoError, Settings

ROOT = Path(__file__).parents[2]
SMALL = ("--layers", "3", "--prompt-tokens", "90", "--generate", "24")

has_model = all(importlib.util.find_spec(name) for name in ("torch", "transformers"))
needs_model = pytest.mark.skipif(not has_model, reason="needs torch and transformers")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "rdma_kv", "demo", *arguments]


def environment(**more: str) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, **more}


def demo(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), env=environment(**more), capture_output=True, text=True, timeout=100
    )


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A recording of numbers that no model made: a write does not care what it moves."""
    settings = Settings(layers=2, prompt_tokens=50, record=str(tmp_path / "blocks.npz"))
    cache = PagedCache(settings, pool_blocks(settings)[0])
    for layer in range(settings.layers):
        for pool in cache.pools(layer):
            pool[:] = np.random.default_rng(layer).standard_normal(pool.shape)
    return recording.save(settings, cache, draw_tables(settings).prefill)


@pytest.fixture
def no_torch(tmp_path: Path) -> dict[str, str]:
    """Environment in which importing torch fails."""
    package = tmp_path / "blocked" / "torch"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('this test has no torch')\n")
    return {"PYTHONPATH": os.pathsep.join([str(package.parent), environment()["PYTHONPATH"]])}


@pytest.fixture(scope="module", params=["tcp", "cma"])
def run_of_model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, subprocess.CompletedProcess[str], Path]:
    """(transport, what came out, recording); once for each transport, as a model takes seconds."""
    transport = str(request.param)
    file = tmp_path_factory.mktemp(transport) / "kv.npz"
    ran = demo(*SMALL, "--transport", transport, "--record", str(file), "--json")
    return transport, ran, file


@needs_model
def test_decode_generates_the_tokens_of_one_process(
    run_of_model: tuple[str, subprocess.CompletedProcess[str], Path],
) -> None:
    transport, ran, _ = run_of_model

    assert ran.returncode == 0, ran.stderr
    report = json.loads(ran.stdout)
    assert report["decode"]["tokens"] == report["reference"]["tokens"]
    assert len(set(report["reference"]["tokens"])) > 10  # else equality would prove little
    assert report["prefill"]["transport"] == transport
    # 3 layers x K and V x 6 blocks x (2 KV heads x 16 tokens x 64 numbers x 4 bytes)
    assert report["prefill"]["bytes"] == 3 * 2 * 6 * 8192


@needs_model
def test_what_a_model_recorded_is_replayed(
    run_of_model: tuple[str, subprocess.CompletedProcess[str], Path],
) -> None:
    transport, _, file = run_of_model

    replayed = demo("--replay", str(file), "--transport", transport, "--json")

    assert replayed.returncode == 0, replayed.stderr
    assert json.loads(replayed.stdout)["settings"]["layers"] == 3


@needs_model
def test_a_spoiled_block_changes_the_tokens_and_is_said_to() -> None:
    ran = demo(*SMALL, "--corrupt")

    assert ran.returncode == 1, ran.stderr
    assert "corruption caught" in ran.stdout


@needs_model
def test_both_roles_run_as_commands_of_their_own() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    decode = subprocess.Popen(
        command(*SMALL, "--role", "decode", "--port", port),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert decode.stderr
        while "listening" not in (line := decode.stderr.readline()):
            assert line, "decode ended before it listened"
        prefill = demo(*SMALL, "--role", "prefill", "--peer", f"127.0.0.1:{port}")
        said, _ = decode.communicate(timeout=100)
    finally:
        decode.kill()

    assert prefill.returncode == 0, prefill.stderr
    assert decode.returncode == 0, said
    assert "all 24 tokens are equal" in said


def test_a_replay_is_equal_byte_for_byte_without_torch(
    recorded: Path, no_torch: dict[str, str]
) -> None:
    ran = demo("--replay", str(recorded), **no_torch)

    assert ran.returncode == 0, ran.stderr
    assert "all 8 blocks are equal" in ran.stdout


def test_a_replay_finds_a_spoiled_block(recorded: Path) -> None:
    ran = demo("--replay", str(recorded), "--corrupt")

    assert ran.returncode == 1, ran.stderr
    assert "corruption caught: 1 of 8 blocks" in ran.stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--layers", "0"], "--layers 0"),
        (["--prompt-tokens", "1"], "--prompt-tokens 1"),
        (["--block-tokens", "-3"], "--block-tokens -3"),
        (["--generate", "many"], "--generate"),
        (["--transport", "pigeon"], "pigeon"),
        (["--role", "prefill"], "HOST:PORT"),
        (["--role", "prefill", "--peer", "nowhere"], "nowhere"),
        (["--peer", "here:1"], "--role prefill"),
        (["--port", "7"], "--role decode"),
        (["--replay", "/does/not/exist"], "/does/not/exist"),
        (["--replay", __file__], "not a recording"),
        (["--record", "/does/not/exist/kv.npz"], "/does/not/exist/kv.npz"),
    ],
)
def test_bad_arguments_are_named_and_end_with_2(arguments: list[str], complaint: str) -> None:
    ran = demo(*arguments)

    assert ran.returncode == 2
    assert complaint in ran.stderr


def test_a_prefill_with_nobody_to_connect_to_says_so(recorded: Path) -> None:
    ran = demo("--replay", str(recorded), "--role", "prefill", "--peer", "127.0.0.1:1")

    assert ran.returncode == 3
    assert "127.0.0.1:1" in ran.stderr


def test_decode_that_nobody_writes_to_ends_at_its_deadline(recorded: Path) -> None:
    ran = demo("--replay", str(recorded), "--role", "decode", "--timeout", "0.5")

    assert ran.returncode == 3
    assert "0.5 s" in ran.stderr


def test_an_interrupt_ends_a_waiting_decode(recorded: Path) -> None:
    process = subprocess.Popen(
        command("--replay", str(recorded), "--role", "decode"),
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    while "listening" not in process.stderr.readline():
        pass
    began = time.monotonic()

    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)

    assert process.returncode == 130, said
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--role", "prefill", "--peer", "127.0.0.1:x"), "--peer 127.0.0.1:x: "),
        (("--role", "prefill", "--peer", "[/x]"), "--peer [/x]: "),
        (("--role", "prefill", "--peer", "127.0.0.1:99999"), "allowed: 0 to 65535"),
        (("--role", "decode", "--port", "99999"), "--port 99999: "),
        (("--role", "decode", "--port", "http"), "--port http: "),
    ],
)
def test_an_address_that_cannot_be_is_a_wrong_argument_and_shown_as_it_was_given(arguments, words):
    ended = demo(*arguments)

    assert ended.returncode == 2
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr


def test_decode_says_at_once_that_prefill_wrote_another_run():
    started = time.monotonic()
    cache = [np.zeros((8, 64), np.uint8)]
    config = replace(Config(), transport="loopback")

    def side(role):
        return RDMACommunicator(role, -1, 0, cache, [], 8, 64, config=config)

    with side("decode") as decode, side("prefill") as prefill:
        prefill.connect("127.0.0.1", decode.port)
        prefill.write_cache("127.0.0.1", decode.port, [], [], tag=Settings().tag + 1)

        with pytest.raises(DemoError, match="wrote a run with other parameters than ours"):
            await_last_write(decode, Settings(timeout_s=60))

    assert time.monotonic() - started < 30


def test_decode_that_waited_in_vain_says_how_long_and_who_is_there():
    with (
        RDMACommunicator("decode", -1, 0, [np.zeros((8, 64), np.uint8)], [], 8, 64) as decode,
        pytest.raises(DemoError, match=r"waited 0\.1 s in vain .*; no peer is connected"),
    ):
        await_last_write(decode, Settings(timeout_s=0.1))
