"""Every KVCACHE_* variable: what it may be, what it becomes, and what a bad one is told."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import pytest

from rdma_kv._config import Config
from rdma_kv._errors import ConfigError, RdmaKvError

DEFAULTS = {
    "KVCACHE_RDMA_NICS": "nearest, else all active",
    "KVCACHE_RDMA_GID_INDEX": "auto",
    "KVCACHE_IB_TIMEOUT": "18",
    "KVCACHE_RELAX_ORDERING": "false",
    "KVCACHE_SOCKET_IFNAME": "auto",
    "KVCACHE_GDRCOPY_FLUSH_ENABLE": "auto",
    "KVCACHE_DEBUG": "false",
    "KVCACHE_DEBUG_FILE": "off",
    "KVCACHE_ERROR_FILE": "off",
    "KVCACHE_TRANSPORT": "auto",
    "KVCACHE_TIMEOUT_S": "30",
    "KVCACHE_PEER_TIMEOUT_S": "5",
    "KVCACHE_QPS_PER_PEER": "auto",
    "KVCACHE_TCP_STREAMS": "auto",
    "KVCACHE_AUTH_KEY_FILE": "none",
    "KVCACHE_VERIFY": "false",
}


def test_an_empty_environment_gives_the_defaults() -> None:
    config = Config.from_env({})

    assert config == Config()
    assert {row.variable: row.value for row in config.table()} == DEFAULTS


def test_a_variable_that_is_empty_counts_as_not_set() -> None:
    blank = dict.fromkeys(DEFAULTS, " ")

    config = Config.from_env(blank)

    assert config == Config()
    assert {row.origin for row in config.table()} == {"default"}


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        ("KVCACHE_RDMA_NICS", "mlx5_3,mlx5_0", "rdma_nics", ("mlx5_3", "mlx5_0")),
        ("KVCACHE_RDMA_NICS", "a,a,b,b", "rdma_nics", ("a", "a", "b", "b")),
        ("KVCACHE_RDMA_NICS", " a , b, ", "rdma_nics", ("a", "b")),
        ("KVCACHE_RDMA_GID_INDEX", "3", "rdma_gid_index", 3),
        ("KVCACHE_RDMA_GID_INDEX", "AUTO", "rdma_gid_index", None),
        ("KVCACHE_IB_TIMEOUT", "14", "ib_timeout", 14),
        ("KVCACHE_IB_TIMEOUT", "31", "ib_timeout", 31),
        ("KVCACHE_SOCKET_IFNAME", "eth0", "socket_ifname", "eth0"),
        ("KVCACHE_GDRCOPY_FLUSH_ENABLE", "1", "gdrcopy_flush_enable", True),
        ("KVCACHE_GDRCOPY_FLUSH_ENABLE", "0", "gdrcopy_flush_enable", False),
        ("KVCACHE_GDRCOPY_FLUSH_ENABLE", "auto", "gdrcopy_flush_enable", None),
        ("KVCACHE_DEBUG_FILE", "log/%h.%p", "debug_file", "log/%h.%p"),
        ("KVCACHE_DEBUG_FILE", "0", "debug_file", None),
        ("KVCACHE_ERROR_FILE", "off", "error_file", None),
        ("KVCACHE_TRANSPORT", "TCP", "transport", "tcp"),
        ("KVCACHE_TRANSPORT", "loopback", "transport", "loopback"),
        ("KVCACHE_TIMEOUT_S", "0.5", "timeout_s", 0.5),
        ("KVCACHE_PEER_TIMEOUT_S", "0.5", "peer_timeout_s", 0.5),
        ("KVCACHE_QPS_PER_PEER", "16", "qps_per_peer", 16),
        ("KVCACHE_TCP_STREAMS", "1", "tcp_streams", 1),
        ("KVCACHE_AUTH_KEY_FILE", "a/secret", "auth_key_file", Path("a/secret")),
    ],
)
def test_a_good_value_is_taken(variable: str, text: str, field: str, value: object) -> None:
    config = Config.from_env({variable: text})

    assert getattr(config, field) == value


@pytest.mark.parametrize("text", ["1", "true", "ON", "Yes"])
def test_a_switch_is_on(text: str) -> None:
    assert Config.from_env({"KVCACHE_VERIFY": text}).verify is True


@pytest.mark.parametrize("text", ["0", "FALSE", "off", "No"])
def test_a_switch_is_off(text: str) -> None:
    assert Config.from_env({"KVCACHE_VERIFY": text}).verify is False


@pytest.mark.parametrize(
    ("variable", "text", "allowed"),
    [
        ("KVCACHE_RDMA_NICS", "mlx5_0,,mlx5_1", "mlx5_0,mlx5_1"),
        ("KVCACHE_RDMA_NICS", "mlx5_0 mlx5_1", "commas"),
        ("KVCACHE_RDMA_GID_INDEX", "-1", "0 to 65535, or auto"),
        ("KVCACHE_IB_TIMEOUT", "13", "14 to 31"),
        ("KVCACHE_IB_TIMEOUT", "32", "14 to 31"),
        ("KVCACHE_IB_TIMEOUT", "1_8", "14 to 31"),
        ("KVCACHE_IB_TIMEOUT", "18.0", "14 to 31"),
        ("KVCACHE_RELAX_ORDERING", "2", "1/true/on/yes or 0/false/off/no"),
        ("KVCACHE_SOCKET_IFNAME", "an-interface-name", "15 characters"),
        ("KVCACHE_SOCKET_IFNAME", "eth0 eth1", "the name of a network interface"),
        ("KVCACHE_GDRCOPY_FLUSH_ENABLE", "maybe", "auto"),
        ("KVCACHE_DEBUG", "verbose", "0/false/off/no"),
        ("KVCACHE_DEBUG_FILE", "1", "the name of a file"),
        ("KVCACHE_ERROR_FILE", "true", "0 for none"),
        ("KVCACHE_TRANSPORT", "udp", "auto, rdma, cuda_ipc, shm, cma, tcp"),
        ("KVCACHE_TIMEOUT_S", "0", "above 0"),
        ("KVCACHE_PEER_TIMEOUT_S", "0.4", "from 0.5 to 86400"),
        ("KVCACHE_PEER_TIMEOUT_S", "86401", "from 0.5 to 86400"),
        ("KVCACHE_TIMEOUT_S", "-1", "above 0"),
        ("KVCACHE_TIMEOUT_S", "nan", "above 0"),
        ("KVCACHE_TIMEOUT_S", "inf", "above 0"),
        ("KVCACHE_TIMEOUT_S", "30s", "a number of seconds"),
        ("KVCACHE_QPS_PER_PEER", "0", "1 to 16"),
        ("KVCACHE_QPS_PER_PEER", "17", "1 to 16"),
        ("KVCACHE_TCP_STREAMS", "many", "1 to 64"),
        ("KVCACHE_VERIFY", "y", "1/true/on/yes"),
    ],
)
def test_a_bad_value_names_its_variable_and_what_is_allowed(
    variable: str, text: str, allowed: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        Config.from_env({variable: text})

    assert f"{variable}={text}" in str(caught.value)
    assert allowed in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rdma_nics", ()),
        ("rdma_nics", ["mlx5_0"]),
        ("rdma_nics", "mlx5_0"),
        ("ib_timeout", 99),
        ("ib_timeout", True),
        ("ib_timeout", 18.0),
        ("debug", 1),
        ("debug_file", ""),
        ("transport", "auto "),
        ("timeout_s", 0),
        ("timeout_s", float("nan")),
        ("timeout_s", True),
        ("qps_per_peer", 0),
        ("auth_key_file", "secret"),
    ],
)
def test_a_bad_argument_is_refused_like_a_bad_variable(field: str, value: Any) -> None:
    variable = f"KVCACHE_{field.upper()}"

    with pytest.raises(ConfigError) as caught:
        Config(**{field: value})

    assert variable in str(caught.value)
    assert repr(value) in str(caught.value)


def test_a_config_error_is_caught_with_all_the_others() -> None:
    with pytest.raises(RdmaKvError):
        Config(ib_timeout=0)


def test_a_config_does_not_change() -> None:
    config = Config()

    with pytest.raises(dataclasses.FrozenInstanceError):
        config.ib_timeout = 20  # type: ignore[misc]


def test_each_value_tells_where_it_came_from() -> None:
    config = dataclasses.replace(
        Config.from_env({"KVCACHE_IB_TIMEOUT": "20", "KVCACHE_TRANSPORT": "cma"}), transport="tcp"
    )

    assert config.origin("ib_timeout") == "environment"
    assert config.origin("transport") == "argument"
    assert config.origin("timeout_s") == "default"


def test_a_variable_set_to_its_default_still_came_from_the_environment() -> None:
    assert Config.from_env({"KVCACHE_IB_TIMEOUT": "18"}).origin("ib_timeout") == "environment"


def test_the_origin_of_no_field_is_an_error() -> None:
    with pytest.raises(ValueError, match="ib_timout"):
        Config().origin("ib_timout")


def test_the_table_shows_what_the_environment_said() -> None:
    rows = {r.variable: r for r in Config.from_env({"KVCACHE_RDMA_NICS": "b,a"}).table()}

    assert rows["KVCACHE_RDMA_NICS"].value == "b,a"
    assert rows["KVCACHE_RDMA_NICS"].origin == "environment"
    assert all(row.meaning for row in rows.values())


def test_the_environment_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVCACHE_IB_TIMEOUT", "20")
    config = Config.from_env()

    monkeypatch.setenv("KVCACHE_IB_TIMEOUT", "21")

    assert config.ib_timeout == 20


def test_a_misspelled_variable_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    environment = {"KVCACHE_IB_TIMOUT": "20"}

    with caplog.at_level(logging.WARNING, logger="rdma_kv"):
        Config.from_env(environment)
        Config.from_env(environment)

    assert len(caplog.records) == 1
    assert "KVCACHE_IB_TIMOUT" in caplog.text
    assert "KVCACHE_IB_TIMEOUT is" in caplog.text


@pytest.mark.parametrize("name", ["KVCACHE_MY_OWN_THING", "KVCACH_DEBUG", "OTHER_DEBUG"])
def test_other_peoples_variables_are_left_alone(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="rdma_kv"):
        Config.from_env({name: "1"})

    assert not caplog.records
