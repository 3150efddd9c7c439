"""The options of all rings."""

from __future__ import annotations

import signal

import pytest

from support import cuda
from support.route import ROUTES

KNOWN = tuple(ROUTES)
# What needs no hardware. All others run when they are asked for, and then a missing device is a
# failure.
USUAL = ("cma", "tcp", "loopback")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--transport",
        action="append",
        default=[],
        help=f"transports for the contract, of {', '.join(KNOWN)}; repeat it or use commas; "
        f"default: {','.join(USUAL)}",
    )
    parser.addoption(
        "--same-gpu", action="store_true", help="both sides on GPU 0; default: decode on GPU 1"
    )


def pytest_report_header() -> str:
    if cuda.is_fake():
        return f"GPUs: {cuda.count()} of the FAKE CUDA driver, tests/fake_cuda: host memory"
    return f"GPUs: {cuda.count()}"


def pytest_configure(config: pytest.Config) -> None:
    # A shell starts what runs in its background with Ctrl-C ignored, and so would be every process
    # that a test starts and interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line(
        "markers", "two_processes: cannot be shown inside one process, so not on loopback"
    )
    config.addinivalue_line(
        "markers", "one_transport: does not depend on the transport; runs on the first one only"
    )
    config.addinivalue_line(
        "markers", "host_memory: about memory of the host, so on no route with a GPU"
    )


def transports(config: pytest.Config) -> list[str]:
    asked = [name for option in config.getoption("--transport") for name in option.split(",")]
    for name in asked:
        if name not in KNOWN:
            raise pytest.UsageError(f"--transport {name}: must be of {', '.join(KNOWN)}")
    return list(dict.fromkeys(asked)) or list(USUAL)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "wire" not in metafunc.fixturenames:
        return
    chosen = transports(metafunc.config)
    if metafunc.definition.get_closest_marker("two_processes"):
        chosen = [name for name in chosen if name != "loopback"]
    if metafunc.definition.get_closest_marker("host_memory"):
        chosen = [name for name in chosen if ROUTES[name].is_on_the_host]
    if metafunc.definition.get_closest_marker("one_transport"):
        chosen = chosen[:1]
    metafunc.parametrize("wire", chosen, indirect=True)
