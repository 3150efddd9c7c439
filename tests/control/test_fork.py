"""A forked process has a copy of every communicator, and must not touch what both now share."""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from dataclasses import replace

import numpy as np
import pytest

from rdma_kv import Config, RDMACommunicator

HOST = "127.0.0.1"
TCP = replace(Config(), transport="tcp", socket_ifname="lo", timeout_s=5.0)


@pytest.fixture
def pair():
    """Two connected sides; a link that breaks stays broken."""

    def make(role):
        cache = [np.zeros((8, 64), np.uint8)]
        return RDMACommunicator(role, -1, 0, cache, [], 8, 64, config=TCP, reconnect=False)

    with make("decode") as decode, make("prefill") as prefill:
        prefill.connect(HOST, decode.port)
        yield decode, prefill


def in_a_fork(work):
    """What a forked process computes; it ends without running anything of pytest's."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with os.fdopen(writer, "wb") as pipe:
                pickle.dump(work(), pipe)
        except BaseException:
            traceback.print_exc(file=sys.__stderr__)
            os._exit(1)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        found = pipe.read()
    assert os.waitpid(pid, 0)[1] == 0
    return pickle.loads(found)


def words_of(call):
    try:
        return repr(call())
    except ValueError as error:
        return str(error)


def test_a_fork_is_told_to_make_its_own_and_the_parent_goes_on(pair):
    decode, prefill = pair

    def use():
        calls = [
            lambda: prefill.write_cache(HOST, decode.port, [1], [1], 0),
            lambda: prefill.connect(HOST, decode.port),
            lambda: prefill.stats(),
            lambda: decode.received(1, 1),
        ]
        words = [words_of(call) for call in calls]
        prefill.close()
        decode.close()
        return words

    for words in in_a_fork(use):
        assert f"made by process {os.getpid()}" in words
        assert "make one in this process" in words
    for _ in range(3):
        prefill.write_cache(HOST, decode.port, [1], [1], 0)


def test_a_fork_may_make_communicators_of_its_own(pair):
    def use():
        cache = [np.zeros((8, 64), np.uint8)]
        with RDMACommunicator("decode", -1, 0, cache, [], 8, 64, config=TCP) as decode:
            return decode.port

    decode, prefill = pair
    assert in_a_fork(use) not in (0, decode.port)
    prefill.write_cache(HOST, decode.port, [1], [1], 0)
