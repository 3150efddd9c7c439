"""A TCP proxy that keeps every byte that passes: what an attacker on the path sees."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

HOST = "127.0.0.1"


class Recorder:
    """What both sides said, connection by connection."""

    def __init__(self, listening: socket.socket, target: tuple[str, int]) -> None:
        self.port: int = listening.getsockname()[1]
        self.said: list[tuple[bytearray, bytearray]] = []  # by the client, by the server
        self._listening = listening
        self._target = target
        self._open: list[socket.socket] = []

    @property
    def to_server(self) -> bytes:
        """Everything that clients said."""
        return b"".join(bytes(client) for client, _ in self.said)

    @property
    def to_client(self) -> bytes:
        """Everything that the server said."""
        return b"".join(bytes(server) for _, server in self.said)

    def serve(self) -> None:
        """Accepts until the listening socket is shut down."""
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                far = socket.create_connection(self._target)
                self._open += [near, far]
                kept = (bytearray(), bytearray())
                self.said.append(kept)
                for source, sink, record in ((near, far, kept[0]), (far, near, kept[1])):
                    threading.Thread(target=_pump, args=(source, sink, record), daemon=True).start()

    def close(self) -> None:
        """Ends all connections."""
        for line in self._open:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
            line.close()


def _pump(source: socket.socket, sink: socket.socket, record: bytearray) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            record += data
            sink.sendall(data)
    with contextlib.suppress(OSError):  # also after a reset
        sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def recording(port: int | str) -> Iterator[Recorder]:
    """A recorder in front of a port of this host."""
    with socket.create_server((HOST, 0)) as listening:
        recorder = Recorder(listening, (HOST, int(port)))
        thread = threading.Thread(target=recorder.serve, daemon=True)
        thread.start()
        try:
            yield recorder
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()
            recorder.close()
