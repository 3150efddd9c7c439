"""Who hears what: the application's handlers, standard error, and the two files."""

from __future__ import annotations

import io
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from rdma_kv import _logging
from rdma_kv._config import Config
from rdma_kv._errors import ConfigError
from rdma_kv._logging import setup


@pytest.fixture
def logger(monkeypatch: pytest.MonkeyPatch) -> Iterator[logging.Logger]:
    """As in a process that has just started: nobody listens, not even pytest."""
    fresh = logging.Logger("rdma_kv", logging.WARNING)
    monkeypatch.setattr(_logging, "logger", fresh)
    monkeypatch.setattr(_logging, "_added", {})
    yield fresh
    for handler in fresh.handlers:
        handler.close()


def test_without_settings_nothing_is_added(logger: logging.Logger) -> None:
    level = logger.level

    setup(Config())

    assert logger.handlers == []
    assert logger.level == level


def test_debug_speaks_on_standard_error_where_nobody_listens(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    setup(Config(debug=True))

    logger.debug("one transfer")

    assert "one transfer" in capsys.readouterr().err


def test_debug_leaves_the_output_to_an_application_that_configured_it(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    heard = io.StringIO()
    logger.parent = logging.Logger("root")
    logger.parent.addHandler(logging.StreamHandler(heard))

    setup(Config(debug=True))
    logger.debug("one transfer")

    assert heard.getvalue() == "one transfer\n"
    assert capsys.readouterr().err == ""


def test_the_debug_file_gets_everything(logger: logging.Logger, tmp_path: Path) -> None:
    path = tmp_path / "debug.log"

    setup(Config(debug_file=str(path)))
    logger.debug("a small thing")
    logger.error("a bad thing")

    assert "a small thing" in path.read_text()
    assert "a bad thing" in path.read_text()


def test_the_error_file_gets_errors_only(logger: logging.Logger, tmp_path: Path) -> None:
    path = tmp_path / "error.log"

    setup(Config(error_file=str(path), debug=True))
    logger.warning("a slow thing")
    logger.error("a bad thing")

    assert "a slow thing" not in path.read_text()
    assert "ERROR" in path.read_text()
    assert "a bad thing" in path.read_text()


def test_an_error_file_alone_does_not_make_it_talk_more(
    logger: logging.Logger, tmp_path: Path
) -> None:
    level = logger.level

    setup(Config(error_file=str(tmp_path / "error.log")))

    assert logger.level == level


def test_a_second_communicator_doubles_no_line(
    logger: logging.Logger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "debug.log"
    config = Config(debug=True, debug_file=str(path))

    setup(config)
    setup(config)
    logger.info("one peer")

    assert path.read_text().count("one peer") == 1
    assert capsys.readouterr().err.count("one peer") == 1


def test_standard_error_and_a_file_both_get_the_line(
    logger: logging.Logger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "debug.log"

    setup(Config(debug_file=str(path)))
    setup(Config(debug=True))
    logger.info("one peer")

    assert "one peer" in path.read_text()
    assert "one peer" in capsys.readouterr().err


def test_file_names_hold_host_and_process(logger: logging.Logger, tmp_path: Path) -> None:
    setup(Config(debug_file=str(tmp_path / "%h-%p.log")))

    assert (tmp_path / f"{socket.gethostname()}-{os.getpid()}.log").exists()


def test_a_file_that_cannot_be_written_is_named_with_the_reason(
    logger: logging.Logger, tmp_path: Path
) -> None:
    path = tmp_path / "missing" / "error.log"

    with pytest.raises(ConfigError) as caught:
        setup(Config(debug_file=str(tmp_path / "debug.log"), error_file=str(path)))

    assert f"KVCACHE_ERROR_FILE: cannot write {path}: No such file or directory" in str(
        caught.value
    )
    assert logger.handlers == []


def test_after_a_fork_the_parents_files_are_left_to_the_parent(
    logger: logging.Logger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config(debug_file=str(tmp_path / "%p.log"))
    setup(config)

    monkeypatch.setattr(os, "getpid", lambda: 4242)
    setup(config)
    logger.info("said by the child")
    monkeypatch.undo()

    assert "said by the child" in (tmp_path / "4242.log").read_text()
    assert "said by the child" not in (tmp_path / f"{os.getpid()}.log").read_text()
