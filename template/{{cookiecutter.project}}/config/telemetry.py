"""OpenTelemetry: numbers and traces of this process, sent to OTEL_EXPORTER_OTLP_ENDPOINT.

Set up in each process for itself, after it was forked: the thread that sends does not survive a fork, and what is set
up once can't be replaced. So nothing here runs on import, and a process of the web begins with its first request, by
whatever server it is run.
"""

import os
import socket
import threading

from celery.signals import beat_init, worker_process_init
from django.conf import settings
from django.core.signals import request_started
from django.dispatch import receiver
from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.instrumentation.django import DjangoInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

_first = threading.Lock()


def instrument() -> None:
    """Have requests and tasks say what they do. Starts no thread, and what they say before set_up goes nowhere."""
    if not settings.OTLP_ENDPOINT:
        return
    # A task is a part of the trace of the request that sent it.
    for instrumentor in CeleryInstrumentor(), DjangoInstrumentor():
        if not instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.instrument()


@receiver(request_started, dispatch_uid="telemetry", weak=False)
@worker_process_init.connect(dispatch_uid="telemetry", weak=False)
@beat_init.connect(dispatch_uid="telemetry", weak=False)
def set_up(**kwargs: object) -> None:
    """Begin to count and to trace, once. Does nothing without an endpoint."""
    # Kept for ever: of two requests that are the first ones at the same time, one does it.
    if not settings.OTLP_ENDPOINT or not _first.acquire(blocking=False):
        return
    # The exporters read it themselves, from the environment alone; it may stand in .env.
    os.environ.setdefault("OTEL_EXPORTER_OTLP_ENDPOINT", settings.OTLP_ENDPOINT)
    resource = Resource.create(
        {
            "service.name": "{{ cookiecutter.project }}",
            "service.version": settings.RELEASE,
            # Sums of processes with one id overwrite each other.
            "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
        }
    )
    reader = PeriodicExportingMetricReader(OTLPMetricExporter())
    metrics.set_meter_provider(MeterProvider([reader], resource=resource))
    tracer_provider = TracerProvider(resource=resource)
    tracer_provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(tracer_provider)
    instrument()
