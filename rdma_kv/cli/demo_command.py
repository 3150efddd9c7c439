"""`rdma-kv demo`: the main job, as one command or as two on two machines."""

from __future__ import annotations

import os
from dataclasses import replace
from enum import Enum
from typing import Annotated, Any

import typer

from rdma_kv import Config, ConfigError, RdmaKvError
from rdma_kv._arguments import check_port
from rdma_kv.cli.console import BAD_USAGE, INTERRUPTED, errors, fail, output
from rdma_kv.cli.demo import report, verdict
from rdma_kv.cli.demo.conductor import model_environment, run_locally
from rdma_kv.cli.demo.events import Fields
from rdma_kv.cli.demo.gpu import verdict as gpu_verdict
from rdma_kv.cli.demo.progress import bars
from rdma_kv.cli.demo.recording import Recording
from rdma_kv.cli.demo.roles import play_decode as decode_role
from rdma_kv.cli.demo.roles import play_prefill as prefill_role
from rdma_kv.cli.demo.roles import play_reference as reference_role
from rdma_kv.cli.demo.settings import CPU, CUDA, REHEARSAL, DemoError, Settings
from rdma_kv.cli.demo.source import check_model_can_run

DEFAULTS = Settings()
ON_GPU = Settings.of_device(CUDA)


class Device(str, Enum):
    CPU = CPU
    CUDA = CUDA
    REHEARSAL = REHEARSAL


class Role(str, Enum):
    PREFILL = "prefill"
    DECODE = "decode"


def demo(
    transport: Annotated[
        str,
        typer.Option(help="auto, rdma, cuda_ipc, cma or tcp; auto takes the first that works."),
    ] = "",
    device: Annotated[
        Device,
        typer.Option(help="Where model and cache lie; rehearsal: cuda's code, on the CPU."),
    ] = Device.CPU,
    prefill_gpu: Annotated[
        int, typer.Option(help="With --device cuda: prefill's.")
    ] = DEFAULTS.prefill_gpu,
    decode_gpu: Annotated[
        int, typer.Option(help="With --device cuda: decode's; -1: 1, where there is one, else 0.")
    ] = DEFAULTS.decode_gpu,
    model: Annotated[
        str, typer.Option(help="With --device cuda: 7b or tiny.", show_default="by --device")
    ] = "",
    layers: Annotated[
        int | None,
        typer.Option(
            help=f"Layers of the model; {DEFAULTS.layers}, with --device cuda {ON_GPU.layers}."
        ),
    ] = None,
    prompt_tokens: Annotated[
        int | None,
        typer.Option(
            help=f"Length of the prompt; {DEFAULTS.prompt_tokens}, "
            f"with --device cuda {ON_GPU.prompt_tokens}."
        ),
    ] = None,
    block_tokens: Annotated[int, typer.Option(help="Tokens in a block.")] = DEFAULTS.block_tokens,
    generate: Annotated[
        int | None, typer.Option(help=f"Tokens to generate; {DEFAULTS.generate}.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of weights, prompt and block tables.")] = DEFAULTS.seed,
    corrupt: Annotated[
        bool, typer.Option("--corrupt", help="Spoil one block on decode: it must be noticed.")
    ] = False,
    record: Annotated[
        str, typer.Option(metavar="FILE", help="Keep prefill's KV blocks in an .npz.")
    ] = "",
    replay: Annotated[
        str, typer.Option(metavar="FILE", help="Write a recording instead; needs NumPy only.")
    ] = "",
    role: Annotated[Role | None, typer.Option(help="Play one side only, for two machines.")] = None,
    port: Annotated[str, typer.Option(help="With --role decode: listen here.")] = "0",
    peer: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="With --role prefill: where decode listens.")
    ] = "",
    timeout_s: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            help=f"Seconds to wait for the other side; {DEFAULTS.timeout_s:g}, "
            f"with --device cuda {ON_GPU.timeout_s:g}.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compute a prompt in one process, move its KV cache, generate from it in another.

    The tokens are compared with those of a run in one process.

    Exit status: 0 equal; 1 different (so ends --corrupt, too, once it was noticed); 2 wrong
    arguments; 3 could not run; 4 --corrupt was not noticed.
    """
    given: dict[str, Any] = {
        "model": model or None,
        "layers": layers,
        "prompt_tokens": prompt_tokens,
        "generate": generate,
        "timeout_s": timeout_s,
    }
    asked = replace(
        Settings.of_device(device.value),
        transport=transport or os.environ.get("KVCACHE_TRANSPORT") or DEFAULTS.transport,
        block_tokens=block_tokens,
        seed=seed,
        corrupt=corrupt,
        record=record,
        replay=replay,
        prefill_gpu=prefill_gpu,
        decode_gpu=decode_gpu,
        **{name: value for name, value in given.items() if value is not None},
    )
    try:
        settings = checked(asked)
        address = checked_address(role, port, peer)
    except (DemoError, ConfigError) as error:
        fail(str(error), BAD_USAGE)
    try:
        if not settings.replay:
            check_model_can_run()
        if role is Role.PREFILL:
            raise typer.Exit(play_prefill(settings, address, as_json))
        if role is Role.DECODE:
            raise typer.Exit(play_decode(settings, port, as_json))
        raise typer.Exit(play_both(settings, as_json))
    except (DemoError, RdmaKvError, ValueError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("interrupted" + ("" if role else "; both sides have ended"), INTERRUPTED)


def checked(asked: Settings) -> Settings:
    """The settings that will hold, after everything that can be refused at once has been."""
    settings = Recording(asked.replay).parameters(asked) if asked.replay else asked
    settings.check()
    Config.from_env({**os.environ, "KVCACHE_TRANSPORT": settings.transport})
    return settings


def checked_address(role: Role | None, port: str, peer: str) -> tuple[str, str]:
    """Host and port of --peer, where the role has one; refuses flags of another role."""
    if role is not Role.PREFILL and peer:
        raise DemoError(f"--peer {peer}: only --role prefill connects to a peer")
    if role is not Role.DECODE and port != "0":
        raise DemoError(f"--port {port}: only --role decode listens on a port of your choice")
    host, _, peer_port = peer.rpartition(":")
    if role is Role.PREFILL and not (host and peer_port.isdigit()):
        raise DemoError(f"--peer {peer or 'missing'}: --role prefill needs decode's HOST:PORT")
    for flag, given, number in (("--port", port, port), ("--peer", peer, peer_port or "0")):
        try:
            check_port(number)
        except ValueError as error:
            raise DemoError(f"{flag} {given}: {error}") from None
    return host.strip("[]"), peer_port


def play_both(settings: Settings, as_json: bool) -> int:
    roles = ("prefill", "decode") if settings.replay else ("prefill", "decode", "reference")
    with bars(errors(), settings, *roles) as show:
        results = run_locally(settings, show)
    outcome = judge(results)
    if as_json:
        print(report.as_json(settings, results, outcome))
    else:
        show_results(settings, results)
        report.show_verdict(output(), outcome)
    return outcome.exit_status


def show_results(settings: Settings, results: dict[str, Fields]) -> None:
    if settings.device != CPU:
        from rdma_kv.cli.demo.gpu.report import show

        show(output(), settings, results)
    elif "prefill" in results:
        report.show_prefill(output(), settings, results["prefill"])


def play_prefill(settings: Settings, address: tuple[str, str], as_json: bool) -> int:
    os.environ.update(model_environment())
    with bars(errors(), settings, "prefill") as show:
        result = prefill_role(settings, lambda: address, lambda e, f: show(f"prefill {e}", f))
    if as_json:
        print(report.as_json(settings, {"prefill": result}, None))
    else:
        show_results(settings, {"prefill": result})
    return verdict.EQUAL


def play_decode(settings: Settings, port: str, as_json: bool) -> int:
    os.environ.update(model_environment())
    console = errors()
    roles = ("decode",) if settings.replay else ("decode", "reference")
    with bars(console, settings, *roles) as show:

        def show_decode(event: str, fields: Fields) -> None:
            if event == "listening":
                console.print(f"listening on port {fields['port']}; now start --role prefill there")
            show(f"decode {event}", fields)

        results = {"decode": decode_role(settings, port, show_decode)}
        if not settings.replay:
            results["reference"] = reference_role(settings, lambda e, f: show(f"reference {e}", f))
    outcome = judge(results)
    if as_json:
        print(report.as_json(settings, results, outcome))
    else:
        show_results(settings, results)
        report.show_verdict(output(), outcome)
    return outcome.exit_status


def judge(results: dict[str, Fields]) -> verdict.Verdict:
    decode = results["decode"]
    if "kv" in decode:
        return gpu_verdict.judge(results)
    corrupted_block = decode.get("corrupted_block")
    if "differing" in decode:
        return verdict.judge_blocks(decode["differing"], decode["blocks"], corrupted_block)
    return verdict.judge_tokens(decode["tokens"], results["reference"]["tokens"], corrupted_block)
