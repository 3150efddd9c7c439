"""Settings: every ``KVCACHE_*`` variable, read once into one frozen dataclass."""

from __future__ import annotations

import dataclasses
import difflib
import logging
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from rdma_kv._errors import ConfigError

Origin = Literal["default", "environment", "argument"]

_TRUE = frozenset({"1", "true", "on", "yes"})
_FALSE = frozenset({"0", "false", "off", "no"})
_TRANSPORTS = ("auto", "rdma", "cuda_ipc", "shm", "cma", "tcp")
# Moves bytes within one process only, so it is offered to nobody but accepted from tests.
_TEST_TRANSPORTS = ("loopback",)

_logger = logging.getLogger("rdma_kv")


class Row(NamedTuple):
    """One line of the effective table that ``rdma-kv doctor`` prints."""

    variable: str
    value: str
    origin: Origin
    meaning: str


@dataclass(frozen=True)
class _Setting:
    """How one field is spelled in the environment.

    ``parse`` turns text into a value and raises ValueError for what is not even of the right
    kind; ``is_allowed`` judges values, wherever they came from.
    """

    variable: str
    meaning: str
    allowed: str
    parse: Callable[[str], object]
    is_allowed: Callable[[object], bool]
    unset: str = "auto"  # how None is shown

    def show(self, value: object) -> str:
        if value is None:
            return self.unset
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, tuple):
            return ",".join(value)
        return f"{value:g}" if isinstance(value, float) else str(value)


# ---- kinds of values ---------------------------------------------------------------------------


def _parse_bool(text: str) -> bool:
    word = text.lower()
    if word not in _TRUE | _FALSE:
        raise ValueError(text)
    return word in _TRUE


def _parse_int(text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]+", text):  # int() would take "1_8" and other scripts' digits
        raise ValueError(text)
    return int(text)


def _parse_names(text: str) -> tuple[str, ...]:
    # One comma at the end is what shell loops leave behind; anywhere else an empty name would
    # shift the NICs of the GPUs after it.
    return tuple(name.strip() for name in text.removesuffix(",").split(","))


def _parse_file(text: str) -> str | None:
    return None if text.lower() in _FALSE else text


def _or_auto(parse: Callable[[str], object]) -> Callable[[str], object]:
    return lambda text: None if text.lower() == "auto" else parse(text)


def _is_bool(value: object) -> bool:
    return isinstance(value, bool)


def _is_int(low: int, high: int) -> Callable[[object], bool]:
    return lambda value: (
        isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
    )


def _is_none_or(is_allowed: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or is_allowed(value)


def _is_names(value: object) -> bool:
    return (
        isinstance(value, tuple)
        and bool(value)
        and all(isinstance(name, str) and name and not re.search(r"[\s,]", name) for name in value)
    )


def _is_interface(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[^\s/]{1,15}", value) is not None


def _is_file(value: object) -> bool:
    # "1" and "true" are refused: they are meant as a switch, and would name a file.
    return isinstance(value, str) and bool(value) and value.lower() not in _TRUE | _FALSE


def _is_seconds(value: object) -> bool:
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and math.isfinite(value)
        and value > 0
    )


def _is_seconds_within(low: float, high: float) -> Callable[[object], bool]:
    return lambda value: (
        _is_seconds(value) and isinstance(value, (int, float)) and low <= value <= high
    )


# ---- the fields --------------------------------------------------------------------------------


def _switch(variable: str, meaning: str) -> Any:
    setting = _Setting(variable, meaning, "1/true/on/yes or 0/false/off/no", _parse_bool, _is_bool)
    return field(default=False, metadata={"setting": setting})


def _number(variable: str, meaning: str, low: int, high: int, default: int | None) -> Any:
    parse: Callable[[str], object] = _parse_int
    is_allowed = _is_int(low, high)
    allowed = f"a whole number from {low} to {high}"
    if default is None:
        parse, is_allowed, allowed = _or_auto(parse), _is_none_or(is_allowed), allowed + ", or auto"
    setting = _Setting(variable, meaning, allowed, parse, is_allowed)
    return field(default=default, metadata={"setting": setting})


def _log_file(variable: str, meaning: str) -> Any:
    setting = _Setting(
        variable,
        meaning,
        "the name of a file, with %h for the host and %p for the process, or 0 for none",
        _parse_file,
        _is_none_or(_is_file),
        unset="off",
    )
    return field(default=None, metadata={"setting": setting})


def _other(
    variable: str,
    meaning: str,
    allowed: str,
    parse: Callable[[str], object],
    is_allowed: Callable[[object], bool],
    *,
    default: object = None,
    unset: str = "auto",
) -> Any:
    setting = _Setting(variable, meaning, allowed, parse, is_allowed, unset)
    return field(default=default, metadata={"setting": setting})


@dataclass(frozen=True)
class Config:
    """What a communicator may be told besides its cache. Immutable, so it is safe to share.

    ``Config()`` holds the defaults, ``Config.from_env()`` what the environment says, and
    ``dataclasses.replace`` changes single fields of either.

    Raises:
        ConfigError: A value is not allowed; names the variable, the value and what is.
    """

    rdma_nics: tuple[str, ...] | None = _other(
        "KVCACHE_RDMA_NICS",
        "NICs, in this order: GPU i uses number i modulo their count",
        "NIC names with commas between them, as in mlx5_0,mlx5_1",
        _parse_names,
        _is_none_or(_is_names),
        unset="nearest, else all active",
    )
    rdma_gid_index: int | None = _number(
        "KVCACHE_RDMA_GID_INDEX", "which entry of the NIC's GID table to use", 0, 65535, None
    )
    ib_timeout: int = _number(
        "KVCACHE_IB_TIMEOUT", "the NIC sends again after 4.096 us * 2^this", 14, 31, 18
    )
    relax_ordering: bool = _switch(
        "KVCACHE_RELAX_ORDERING", "PCIe relaxed ordering for the blocks, never for the notice"
    )
    socket_ifname: str | None = _other(
        "KVCACHE_SOCKET_IFNAME",
        "network interface for the control connection and TCP data",
        "the name of a network interface (at most 15 characters), or auto",
        _or_auto(str),
        _is_none_or(_is_interface),
    )
    gdrcopy_flush_enable: bool | None = _other(
        "KVCACHE_GDRCOPY_FLUSH_ENABLE",
        "read after the last write, where a GPU does not order RDMA writes by itself",
        "1/true/on/yes, 0/false/off/no or auto",
        _or_auto(_parse_bool),
        _is_none_or(_is_bool),
    )
    debug: bool = _switch("KVCACHE_DEBUG", "log every transfer")
    debug_file: str | None = _log_file("KVCACHE_DEBUG_FILE", "file for all log lines")
    error_file: str | None = _log_file("KVCACHE_ERROR_FILE", "file for errors only")
    transport: str = _other(
        "KVCACHE_TRANSPORT",
        "the way that blocks take; auto: the first that both sides can open",
        ", ".join(_TRANSPORTS),
        str.lower,
        lambda value: value in _TRANSPORTS + _TEST_TRANSPORTS,
        default="auto",
    )
    timeout_s: float = _other(
        "KVCACHE_TIMEOUT_S",
        "seconds until a transfer without a deadline of its own fails",
        "a number of seconds above 0",
        float,
        _is_seconds,
        default=30.0,
    )
    peer_timeout_s: float = _other(
        "KVCACHE_PEER_TIMEOUT_S",
        "seconds of silence after which a peer is given up and its links are ended",
        "a number of seconds from 0.5 to 86400",
        float,
        _is_seconds_within(0.5, 86400),
        default=5.0,
    )
    qps_per_peer: int | None = _number(
        "KVCACHE_QPS_PER_PEER", "queue pairs for each peer and rail", 1, 16, None
    )
    tcp_streams: int | None = _number(
        "KVCACHE_TCP_STREAMS", "TCP connections for each peer", 1, 64, None
    )
    auth_key_file: Path | None = _other(  # noqa: RUF009 - it returns a field()
        "KVCACHE_AUTH_KEY_FILE",
        "secret that both sides share; without it any peer may connect",
        "the path of a file that holds the secret (in Config: a pathlib.Path)",
        Path,
        _is_none_or(lambda value: isinstance(value, Path)),
        unset="none",
    )
    verify: bool = _switch("KVCACHE_VERIFY", "checksum every block at both ends (slow)")

    # What from_env() found, field by field; kept to tell where a value came from.
    _environment: Mapping[str, object] = field(
        default_factory=dict, repr=False, compare=False, kw_only=True
    )

    _warned: ClassVar[set[str]] = set()

    def __post_init__(self) -> None:
        for name, setting in _settings().items():
            value = getattr(self, name)
            if not setting.is_allowed(value):
                raise ConfigError(
                    f"{setting.variable} (Config.{name}) is {value!r}; allowed: {setting.allowed}"
                )

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Config:
        """Read the ``KVCACHE_*`` variables. A variable that is empty counts as not set.

        Raises:
            ConfigError: A value is not allowed; names the variable, the value and what is.
        """
        _warn_of_misspelled(environ, cls._warned)
        found: dict[str, Any] = {}
        for name, setting in _settings().items():
            text = environ.get(setting.variable, "").strip()
            if not text:
                continue
            try:
                found[name] = setting.parse(text)
                is_allowed = setting.is_allowed(found[name])
            except ValueError:
                is_allowed = False
            if not is_allowed:
                raise ConfigError(f"{setting.variable}={text}: allowed: {setting.allowed}")
        return cls(**found, _environment=found)

    def origin(self, name: str) -> Origin:
        """Where the value of a field came from.

        Raises:
            ValueError: There is no such field.
        """
        if name not in _settings():
            raise ValueError(f"Config has no field {name!r}; it has {', '.join(_settings())}")
        value = getattr(self, name)
        if name in self._environment and self._environment[name] == value:
            return "environment"
        return "default" if value == _defaults()[name] else "argument"

    def table(self) -> list[Row]:
        """The effective settings, one row for each variable, for people to read."""
        return [
            Row(s.variable, s.show(getattr(self, name)), self.origin(name), s.meaning)
            for name, s in _settings().items()
        ]


def _settings() -> dict[str, _Setting]:
    return {
        f.name: f.metadata["setting"] for f in dataclasses.fields(Config) if "setting" in f.metadata
    }


def _defaults() -> dict[str, object]:
    return {f.name: f.default for f in dataclasses.fields(Config)}


def _warn_of_misspelled(environ: Mapping[str, str], warned: set[str]) -> None:
    """Say once per name when a variable looks like one of ours but is none: it has no effect.

    Names that resemble nothing are left alone: others may use the prefix too.
    """
    known = [setting.variable for setting in _settings().values()]
    for name in sorted(environ):
        if not name.startswith("KVCACHE_") or name in known or name in warned:
            continue
        if close := difflib.get_close_matches(name, known, n=1, cutoff=0.8):
            warned.add(name)
            _logger.warning("%s is not a known setting and is ignored; %s is", name, close[0])
