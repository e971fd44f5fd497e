"""A database that workers lose and find again, while the test itself keeps it."""

from __future__ import annotations

import contextlib
import socket
import sqlite3
import threading
from typing import Any

from waiting import free_port


class LockedFile:
    """SQLite: an outage is another process that holds the file."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = {**settings, "OPTIONS": {**settings["OPTIONS"], "timeout": 1}}
        self._holder: sqlite3.Connection | None = None

    def down(self) -> None:
        self._holder = sqlite3.connect(self.settings["NAME"], isolation_level=None, timeout=20)
        self._holder.execute("BEGIN EXCLUSIVE")

    def up(self) -> None:
        if self._holder is not None:
            self._holder.close()
            self._holder = None

    close = up


class Proxy:
    """A server: the workers reach it by way of a port that the test opens and closes."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._target = (settings["HOST"] or "127.0.0.1", int(settings["PORT"]))
        self._port = free_port()
        self._open: list[socket.socket] = []
        self._listener: socket.socket | None = None
        self._answers = threading.Event()
        self.settings = {**settings, "HOST": "127.0.0.1", "PORT": str(self._port)}
        self.up()

    def up(self) -> None:
        self._answers.set()
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self._port))
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def down(self) -> None:
        """Connections break, and new ones are refused."""
        listener, self._listener = self._listener, None
        for open_socket in [*([listener] if listener else []), *self._open]:
            with contextlib.suppress(OSError):
                open_socket.shutdown(socket.SHUT_RDWR)
            open_socket.close()
        self._open.clear()
        self._answers.set()

    def fall_silent(self) -> None:
        """Connections stay, new ones are accepted, and nothing is answered."""
        self._answers.clear()

    close = down

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _address = listener.accept()
                server = socket.create_connection(self._target)
                self._open += [client, server]
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._answers.wait()
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def losable(settings: dict[str, Any]) -> LockedFile | Proxy:
    """The database of `settings`; `.settings` are those for the workers."""
    return LockedFile(settings) if settings["ENGINE"].endswith("sqlite3") else Proxy(settings)
