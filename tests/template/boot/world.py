"""What is around the project: a mail server and a geocoder that answer as slowly as a test wants, and TLS in front."""

from __future__ import annotations

import gzip
import http.client
import json
import select
import socket
import socketserver
import ssl
import subprocess
import threading
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HOST = "shop.localhost"
"""The name of the site: browsers take whatever ends in .localhost for this machine."""


class Valve:
    """Holds up whoever comes, so that a task is in its midst for as long as a test needs."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._open.set()
        self._lock = threading.Lock()
        self.waiting: set[socket.socket] = set()

    def close(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    def pass_through(self, connection: socket.socket) -> bool:
        """Wait until it is open; returns whether the other side is still there."""
        with self._lock:
            self.waiting.add(connection)
        try:
            while not self._open.wait(0.1):
                if _is_gone(connection):
                    return False
            return not _is_gone(connection)
        finally:
            with self._lock:
                self.waiting.discard(connection)


def _is_gone(connection: socket.socket) -> bool:
    readable, _, _ = select.select([connection], [], [], 0)
    try:
        return bool(readable) and connection.recv(1, socket.MSG_PEEK) == b""
    except OSError:
        return True


class _Server:
    """A server in a thread, on a free port."""

    server: socketserver.BaseServer

    def serve(self) -> None:
        threading.Thread(target=self.server.serve_forever, args=(0.1,), daemon=True).start()

    @property
    def port(self) -> int:
        return self.server.server_address[1]

    def end(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class MailServer(_Server):
    """Takes mails by SMTP. One whose sender is gone before it was accepted counts as not sent."""

    def __init__(self) -> None:
        mails, valve = [], Valve()
        self.mails, self.valve = mails, valve

        class Session(socketserver.StreamRequestHandler):
            def say(self, line: str) -> None:
                self.wfile.write(f"{line}\r\n".encode())

            def handle(self) -> None:
                try:
                    self.say("220 mail.test")
                    while (line := self.rfile.readline()) and self.obey(line.decode().strip()):
                        pass
                except OSError:
                    pass  # the sender was killed

            def obey(self, command: str) -> bool:
                verb = command.upper().split(maxsplit=1)[0] if command else ""
                if verb == "DATA":
                    self.say("354 go on")
                    return self.take()
                self.say("221 bye" if verb == "QUIT" else "250 yes")
                return verb != "QUIT"

            def take(self) -> bool:
                lines = []
                while (line := self.rfile.readline()) not in (b".\r\n", b""):
                    lines.append(line.removeprefix(b".") if line.startswith(b"..") else line)
                if line == b"" or not valve.pass_through(self.connection):
                    return False
                mails.append(message_from_bytes(b"".join(lines), policy=policy.default))
                self.say("250 taken")
                return True

        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Session, bind_and_activate=True)
        self.server.daemon_threads = True
        self.serve()

    def subjects(self, beginning: str) -> list[str]:
        return [str(mail["Subject"]) for mail in list(self.mails) if str(mail["Subject"]).startswith(beginning)]


class Geocoder(_Server):
    """Knows one place for every question, as Nominatim would say it."""

    def __init__(self) -> None:
        valve, asked = Valve(), []
        self.valve, self.asked = valve, asked

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if valve.pass_through(self.connection):
                    asked.append(self.path)
                    body = json.dumps([{"lat": "38.72", "lon": "-9.14", "display_name": "Lisboa"}]).encode()
                    self.send_response(200)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *args: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.serve()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/search"


class Collector(_Server):
    """Takes what OpenTelemetry sends."""

    def __init__(self) -> None:
        self.taken: dict[str, bytes] = {}
        """All that was sent, by the path that it was sent to."""
        taken = self.taken

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                taken[self.path] = taken.get(self.path, b"") + body
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.serve()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class Front(_Server):
    """A proxy that ends HTTPS, says so in X-Forwarded-Proto, and lets nobody from outside say it."""

    PASSED_ON_BY_NOBODY = ("connection", "keep-alive", "transfer-encoding", "x-forwarded-proto", "x-forwarded-for")

    def __init__(self, folder: Path, upstream: int) -> None:
        left_out = self.PASSED_ON_BY_NOBODY

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def pass_on(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                headers = {name: value for name, value in self.headers.items() if name.lower() not in left_out}
                headers |= {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9"}
                connection = http.client.HTTPConnection("127.0.0.1", upstream, timeout=60)
                try:
                    connection.request(self.command, self.path, self.rfile.read(size), headers)
                    answer = connection.getresponse()
                    body = answer.read()
                finally:
                    connection.close()
                self.send_response_only(answer.status, answer.reason)
                for name, value in answer.getheaders():
                    if name.lower() not in (*left_out, "content-length"):
                        self.send_header(name, value)
                if answer.status not in (204, 304):
                    self.send_header("Content-Length", answer.getheader("Content-Length") or str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_HEAD = pass_on

            def log_message(self, *args: object) -> None: ...

        key, certificate = folder / "key.pem", folder / "certificate.pem"
        names = ["-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}"]
        files = ["-keyout", key, "-out", certificate]
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names, *files]
        subprocess.run(command, check=True, capture_output=True)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, *args: object) -> None:
                """A browser tries connections, and drops them; it says itself what it could not load."""

        self.server = Quiet(("127.0.0.1", 0), Handler)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.serve()

    @property
    def url(self) -> str:
        return f"https://{HOST}:{self.port}"
