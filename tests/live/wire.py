"""A wire to a server that a test can cut, or let go dead: connections stay open and nothing comes through."""

from __future__ import annotations

import contextlib
import socket
import threading


class Wire:
    """Forwards one port of loopback to a server. Starts connected."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener: socket.socket | None = None
        self._sockets: list[socket.socket] = []
        self._alive = threading.Event()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.connect()

    def connect(self) -> None:
        self._alive.set()
        if self._listener is None:
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", self.port))
            listener.listen(50)
            self._listener = listener
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def go_dead(self) -> None:
        """Swallow what is sent from now on; new connections are taken and never answered."""
        self._alive.clear()

    def cut(self) -> None:
        """Close every connection, and refuse new ones."""
        if self._listener is not None:
            # A thread that waits in accept() would keep the port open.
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        while self._sockets:
            end = self._sockets.pop()
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            self._sockets.append(near)
            if not self._alive.is_set():
                continue
            far = socket.create_connection(self._target)
            self._sockets.append(far)
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, target), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self._alive.is_set():
                    target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)
