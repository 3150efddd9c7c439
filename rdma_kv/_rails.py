"""Which NIC a communicator uses, and why it uses none."""

from __future__ import annotations

import logging
from typing import Any

from rdma_kv import _core
from rdma_kv._config import Config
from rdma_kv._errors import ConfigError, RegistrationError, TransportUnavailable
from rdma_kv._flush import NO_FLUSH, plan_flush

logger = logging.getLogger("rdma_kv")


def open_rails(
    engine: _core.Engine,
    config: Config,
    gpu_idx: int,
    *,
    is_written_to: bool,
) -> tuple[list[_core.RdmaRail], str]:
    """Registers the engine's regions on the NIC of this GPU.

    Returns:
        The rails, and when there are none the reason in one sentence.

    Raises:
        ConfigError: KVCACHE_RDMA_NICS names a NIC that does not exist, or
            KVCACHE_RDMA_GID_INDEX a GID that does not.
        TransportUnavailable: KVCACHE_TRANSPORT=rdma, and no NIC can be used.
        RegistrationError: KVCACHE_TRANSPORT=rdma, and a region cannot be registered.
    """
    if config.transport not in ("auto", "rdma"):
        return [], f"KVCACHE_TRANSPORT={config.transport} on this side"
    try:
        nic = _choose_nic(config, gpu_idx)
        rail = _open_rail(engine, config, nic, is_written_to)
    except (TransportUnavailable, RegistrationError) as error:
        if config.transport == "rdma":
            raise type(error)(f"KVCACHE_TRANSPORT=rdma: {error}") from error
        if isinstance(error, RegistrationError):
            # There is a NIC, yet blocks will take a slower way.
            logger.warning("rdma is not used: %s", error)
        return [], str(error)
    logger.info("rdma: %s", rail.describe())
    return [rail], ""


def _choose_nic(config: Config, gpu_idx: int) -> str:
    try:
        ports = _core.rdma_devices()
    except TransportUnavailable as error:
        if config.rdma_nics:
            raise _unknown_nics(config.rdma_nics, [], str(error)) from error
        raise
    names = list(dict.fromkeys(port["nic"] for port in ports))
    if config.rdma_nics:
        # "mlx5_0:2" is port 2 of mlx5_0; whether it has that port the core tells.
        unknown = tuple(name for name in config.rdma_nics if name.split(":")[0] not in names)
        if unknown:
            raise _unknown_nics(unknown, names, "")
        return config.rdma_nics[max(gpu_idx, 0) % len(config.rdma_nics)]
    active = [port["nic"] for port in ports if _is_active(port)]
    if active:
        return str(active[0])
    if not names:
        raise TransportUnavailable("this machine has no RDMA device")
    states = ", ".join(f"{p['nic']} port {p['port']} is {p['state']}" for p in ports)
    raise TransportUnavailable(f"no RDMA port is active: {states}")


def _is_active(port: dict[str, Any]) -> bool:
    return str(port["state"]).upper().removeprefix("PORT_") == "ACTIVE"


def _unknown_nics(unknown: tuple[str, ...], names: list[str], reason: str) -> ConfigError:
    existing = ", ".join(names) if names else f"none ({reason or 'no RDMA device'})"
    return ConfigError(
        f"KVCACHE_RDMA_NICS: no such NIC: {', '.join(unknown)}; this machine has {existing}"
    )


def _open_rail(
    engine: _core.Engine,
    config: Config,
    nic: str,
    is_written_to: bool,
) -> _core.RdmaRail:
    flush = plan_flush(engine.layout, config) if is_written_to else NO_FLUSH
    if not flush.is_enough:
        logger.warning("rdma: flush: %s", flush.reason)
    gid_index = -1 if config.rdma_gid_index is None else config.rdma_gid_index
    try:
        return _core.RdmaRail(
            engine,
            nic,
            gid_index,
            config.ib_timeout,
            config.relax_ordering,
            flush.by_reading,
            remote_write=is_written_to,
            flush=flush.reason,
        )
    except ValueError as error:
        raise ConfigError(f"KVCACHE_RDMA_GID_INDEX={gid_index} on {nic}: {error}") from error
