"""``manage.py taskkit health``: the folder of the settings, and exit codes."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from django_taskkit.observability.health import probe
from django_taskkit.observability.health.signs import SignOfLife


@pytest.fixture(autouse=True)
def folder(tmp_path, settings):
    settings.TASKKIT = {"HEALTH_DIR": str(tmp_path / "health")}


def health(*arguments):
    out, err = StringIO(), StringIO()
    code = 0
    try:
        call_command("taskkit", "health", *arguments, stdout=out, stderr=err)
    except SystemExit as exc:
        code = exc.code
    return code, out.getvalue(), err.getvalue()


def test_all_is_well():
    SignOfLife("relay", "web1").write({"errors": []})

    code, out, err = health("relay")

    assert (code, err) == (0, "")
    assert out.startswith("relay web1 (pid ")


def test_something_is_not():
    assert health("beat")[0] == 1
    SignOfLife("relay", "web1").write({"errors": ["broker: \x1b[2Jaway"]})
    code, _out, err = health("relay")
    assert code == 1
    assert r"\x1b[2Jaway" in err
    assert health("relay", "--alive")[0] == 0


def test_one_of_several_by_its_name():
    SignOfLife("relay", "web1").write({"errors": ["broker: away"]})
    SignOfLife("relay", "web1").remove()

    assert health("relay", "--name=web2")[0] == 1
    assert health("relay", "--name=web1", "--alive")[0] == 0


@pytest.mark.parametrize("age", ["0", "-1"])
def test_an_age_that_makes_no_sense_is_refused(age):
    with pytest.raises(CommandError, match="--max-age"):
        health("worker", f"--max-age={age}")


class Answering(BaseHTTPRequestHandler):
    status = 200
    hosts = paths = ()

    def do_GET(self):
        type(self).paths += (self.path,)
        type(self).hosts += (self.headers["Host"],)
        self.send_response(type(self).status)
        self.end_headers()
        self.wfile.write(b'{"ready": false}')

    def log_message(self, *args):
        pass


@pytest.fixture
def web():
    Answering.status, Answering.hosts, Answering.paths = 200, (), ()
    server = HTTPServer(("127.0.0.1", 0), Answering)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/readyz"
    server.shutdown()
    server.server_close()
    thread.join(10)


def test_a_web_process_is_asked_over_http(web):
    assert health("web", f"--url={web}", "--host=shop.example")[0] == 0
    assert Answering.hosts == ("shop.example",)


def test_a_part_that_is_left_out_is_left_out(web):
    assert health("web", f"--url={web}?without=broker")[0] == 0
    assert Answering.paths == ("/readyz?without=broker",)


@pytest.mark.parametrize("url", ["localhost:8000/healthz", "http://h:port/healthz", "http://h/a b", "http:///healthz"])
def test_what_is_no_address_is_refused(url, capsys):
    with pytest.raises(CommandError, match="--url is ") as refused:
        health("web", f"--url={url}")
    assert refused.value.returncode == 2
    assert probe.main(["web", f"--url={url}"]) == 2
    assert "give one such as http://127.0.0.1:8000/healthz" in capsys.readouterr().err


def test_a_web_process_needs_no_folder(web, monkeypatch, capsys):
    monkeypatch.setattr(probe, "default_folder", lambda: pytest.fail("asked"))

    assert probe.main(["web", f"--url={web}"]) == 0


def test_a_web_process_that_is_not_ready_or_not_there(web):
    Answering.status = 503
    code, _out, err = health("web", f"--url={web}")
    assert code == 1
    assert 'says 503: {"ready": false}' in err

    Answering.status = 400
    assert "give --host one of ALLOWED_HOSTS" in health("web", f"--url={web}")[2]
    assert "does not answer" in health("web", "--url=http://127.0.0.1:1/healthz")[2]
