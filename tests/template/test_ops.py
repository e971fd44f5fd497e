"""What watches a generated project: what Prometheus asks, its alerts and dashboard, and OpenTelemetry's collector."""

import gzip
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.observability.metrics.promtool import promtool

pytestmark = pytest.mark.template


@pytest.fixture(params=["compose", "systemd"])
def watched(bake, request):
    return bake(observability="prometheus", deployment=request.param)


def filled_in(text):
    """The block that is there as a comment, for who has an Alertmanager."""
    before, block = text.split("# alerting:\n")
    lines = block.split("\n\n")[0].splitlines()
    return "\n".join(
        [before, "alerting:", *(line.removeprefix("# ") for line in lines), block[len("\n".join(lines)) :]]
    )


@pytest.mark.parametrize("alertmanager", [False, True], ids=["nobody is called", "with an Alertmanager"])
def test_prometheus_takes_what_it_is_to_ask_and_the_alerts(watched, tmp_path, alertmanager):
    """It looks for the token's file, which is not in the project."""
    ops = watched.path / "ops"
    token = tmp_path / "token"
    token.write_text("a token of some length")
    given = (ops / "prometheus.yml").read_text()
    text = "\n".join(
        line.split("credentials_file:")[0] + f"credentials_file: {token}}}" if "credentials_file:" in line else line
        for line in (filled_in(given) if alertmanager else given).splitlines()
    )
    assert ("\nalerting:" in text) == alertmanager
    (tmp_path / "prometheus.yml").write_text(text)
    (tmp_path / "alerts.yml").write_text((ops / "alerts.yml").read_text())

    code, said = promtool("check", "config", tmp_path / "prometheus.yml")

    assert code == 0, said
    assert "13 rules found" in said


def test_alerts_and_dashboard_are_those_of_the_package(watched):
    """`manage.py taskkit metrics` prints them; after an update of the package, print them again."""
    for name, verb in (("alerts.yml", "rules"), ("dashboard.json", "dashboard")):
        assert (watched.path / "ops" / name).read_text() == watched.run("manage.py", "taskkit", "metrics", verb), name


@pytest.mark.parametrize("deployment", ["compose", "systemd"])
def test_each_lane_and_each_process_is_asked(bake, deployment):
    text = (bake(observability="prometheus", deployment=deployment).path / "ops" / "prometheus.yml").read_text()

    for name in ("customers", "reports", "geocoding", "default", "beat", "relay", "exporter"):
        assert name in text, name


class Collector:
    """Takes what OpenTelemetry's exporters send, as a collector does."""

    def __init__(self):
        self.metrics, self.spans = set(), []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.take(self.path, gzip.decompress(body) if self.headers.get("Content-Encoding") else body)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, path, body):
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        if path.endswith("/metrics"):
            sent = ExportMetricsServiceRequest.FromString(body).resource_metrics
            self.metrics |= {metric.name for of in sent for scope in of.scope_metrics for metric in scope.metrics}
        else:
            sent = ExportTraceServiceRequest.FromString(body).resource_spans
            self.spans += [(s.name, s.trace_id.hex()) for of in sent for scope in of.scope_spans for s in scope.spans]


@pytest.fixture
def collector():
    pytest.importorskip("opentelemetry.instrumentation.celery", reason="OpenTelemetry is not installed")
    collector = Collector()
    yield collector
    collector.server.shutdown()


SEND = """
from config.environment import choose_settings
choose_settings()
import django
django.setup()
from config import telemetry
telemetry.set_up()
from opentelemetry import trace
from orders.tasks import send_receipt
with trace.get_tracer("test").start_as_current_span("a request") as span:
    send_receipt.apply_async((1,), outbox=True)
    print(format(span.get_span_context().trace_id, "032x"))
"""


def test_a_task_is_part_of_the_trace_of_its_request_also_by_way_of_the_outbox(bake, collector):
    project = bake(observability="opentelemetry")
    quick = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_METRIC_EXPORT_INTERVAL": "500",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
    }
    project.run("manage.py", "migrate", "--verbosity", "0")
    project.run("manage.py", "createcachetable")
    trace = project.run("-c", SEND, **quick).split()[-1]
    project.run("manage.py", "taskkit", "relay", "--once", **quick)
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "config", "worker", "-c1", "--queues", f"{project.path.name}.customers"],
        cwd=project.path,
        env=project.environment(**quick),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while ("run/orders.tasks.send_receipt", trace) not in collector.spans or not collector.metrics:
            assert time.monotonic() < deadline, (collector.spans, collector.metrics)
            assert worker.poll() is None
            time.sleep(0.1)
        while "taskkit.tasks.started" not in collector.metrics:
            assert time.monotonic() < deadline, collector.metrics
            time.sleep(0.1)
    finally:
        worker.terminate()
        worker.wait(60)


def test_without_an_endpoint_nothing_is_set_up(bake):
    shown = bake(observability="opentelemetry").run(
        "-c",
        "from config.environment import choose_settings; choose_settings(); import django; django.setup();"
        "from config import telemetry; telemetry.set_up(); from opentelemetry import trace;"
        "print(type(trace.get_tracer_provider()).__name__)",
    )

    assert shown.split()[-1] == "ProxyTracerProvider"
