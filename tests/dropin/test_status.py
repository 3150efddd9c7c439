"""The number that ``connect`` returns, as its callers read it."""

from __future__ import annotations

import pytest

from rdma_comm import ConnectStatus


def test_success_equals_zero_and_is_true() -> None:
    status = ConnectStatus.CONNECTED

    assert status == 0
    assert bool(status) is True


@pytest.mark.parametrize(
    ("status", "number"), [("ERROR", 2), ("TIMEOUT", 3), ("BAD_PARAMETERS", 4)]
)
def test_failure_is_its_number_and_false(status: str, number: int) -> None:
    assert ConnectStatus[status] == number
    assert bool(ConnectStatus[status]) is False


@pytest.mark.parametrize("status", list(ConnectStatus))
def test_a_status_is_printed_as_its_number(status: ConnectStatus) -> None:
    assert f"{status}" == str(status) == "%d" % status  # noqa: UP031 - as old callers do


@pytest.mark.parametrize("status", list(ConnectStatus))
def test_a_status_is_an_int_for_those_that_ask(status: ConnectStatus) -> None:
    assert isinstance(status, int)
    assert {0: "connected"}.get(status) == ("connected" if status else None)
