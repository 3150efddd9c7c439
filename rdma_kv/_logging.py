"""Log lines of Python and of the core, all through ``logging.getLogger("rdma_kv")``.

The application decides where they go, as with every library; only the ``KVCACHE_DEBUG*`` and
``KVCACHE_ERROR_FILE`` variables make this module add handlers, and only to that one logger.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading

from rdma_kv._config import Config
from rdma_kv._errors import ConfigError

logger = logging.getLogger("rdma_kv")

_FORMAT = "%(asctime)s %(levelname)s [%(process)d] %(name)s: %(message)s"

_lock = threading.Lock()
# Handlers that setup() added, by what they write to.
_added: dict[str, logging.Handler] = {}
_pid = os.getpid()


def setup(config: Config) -> None:
    """Do what the logging settings ask for. Called by every communicator; repeats change nothing.

    Raises:
        ConfigError: A log file cannot be written; names the variable, the path and the reason.
            No handler was added then.
    """
    with _lock:
        _forget_parent()
        wanted = [
            ("KVCACHE_DEBUG_FILE", config.debug_file, logging.DEBUG),
            ("KVCACHE_ERROR_FILE", config.error_file, logging.ERROR),
        ]
        opened: dict[str, logging.Handler] = {}
        try:
            for variable, name, level in wanted:
                if name is not None and (key := f"{variable}={expand(name)}") not in _added:
                    opened[key] = _open(variable, expand(name), level)
        except ConfigError:
            for handler in opened.values():
                handler.close()
            raise
        # Asked before ours are added, or they would count as the application's.
        if config.debug and not _application_listens() and "stderr" not in _added:
            opened["stderr"] = logging.StreamHandler(sys.stderr)
        for key, handler in opened.items():
            handler.setFormatter(logging.Formatter(_FORMAT))
            logger.addHandler(handler)
            _added[key] = handler
        if config.debug or config.debug_file is not None:
            logger.setLevel(logging.DEBUG)


def expand(name: str) -> str:
    """The file that a setting names: ``%h`` is this host, ``%p`` this process."""
    return name.replace("%h", socket.gethostname()).replace("%p", str(os.getpid()))


def drain_core() -> None:
    """Hand the lines that wait in the core to the logger. Any thread; never blocks."""
    from rdma_kv import _core

    for level, text in _core.drain_log():
        logger.log(level, "%s", text)


def _open(variable: str, path: str, level: int) -> logging.Handler:
    try:
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{variable}: cannot write {path}: {error.strerror or error}; "
            "name a file in a directory that exists and may be written, or 0 for none"
        ) from error
    handler.setLevel(level)
    return handler


def _application_listens() -> bool:
    """Whether somebody else's handler gets our lines; as Logger.hasHandlers, without ours."""
    ours = set(map(id, _added.values()))
    current: logging.Logger | None = logger
    while current is not None:
        if any(id(handler) not in ours for handler in current.handlers):
            return True
        current = current.parent if current.propagate else None
    return False


def _forget_parent() -> None:
    """After a fork the handlers write to the parent's ``%p`` files: drop them, open our own."""
    global _pid
    if _pid == os.getpid():
        return
    _pid = os.getpid()
    for handler in _added.values():
        logger.removeHandler(handler)
    _added.clear()
