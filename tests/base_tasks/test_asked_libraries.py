"""What an error asks for, with the real errors of real client libraries that talked to a real server."""

import asyncio
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from django.utils import timezone

from django_taskkit.base_tasks import BaseTaskWithRetry
from django_taskkit.base_tasks.asked import Refusal, asked_delay
from django_taskkit.signals import task_retry_scheduled


class Server(ThreadingHTTPServer):
    """Answers every request as a test says."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.status, self.headers, self.body = 200, {}, b""
        self.asked = 0

    def answers(self, status, body=b"", **headers):
        self.status, self.body = status, body
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked += 1
        self.send_response(self.server.status)
        for name, value in {**self.server.headers, "Content-Length": str(len(self.server.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(self.server.body)

    do_POST = do_PUT = do_GET

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def error_of_urllib(url):
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(url)  # noqa: S310 (the URL is the server's above)
    caught.value.close()
    return caught.value


def error_of_requests(url):
    requests = pytest.importorskip("requests", reason="requests is not installed")
    with pytest.raises(requests.HTTPError) as caught:
        requests.get(url, timeout=5).raise_for_status()
    return caught.value


def error_of_httpx(url):
    httpx = pytest.importorskip("httpx", reason="httpx is not installed")
    with pytest.raises(httpx.HTTPStatusError) as caught:
        httpx.get(url).raise_for_status()
    return caught.value


def error_of_aiohttp(url):
    aiohttp = pytest.importorskip("aiohttp", reason="aiohttp is not installed")

    async def get():
        async with aiohttp.ClientSession(raise_for_status=True) as session:
            await session.get(url)

    with pytest.raises(aiohttp.ClientResponseError) as caught:
        asyncio.run(get())
    return caught.value


def response_of_urllib3(url):
    """urllib3 itself raises no error for a status; people keep its response in one of their own."""
    urllib3 = pytest.importorskip("urllib3", reason="urllib3 is not installed")

    class BadStatus(Exception):
        response = urllib3.PoolManager().request("GET", url, retries=False)

    return BadStatus()


CLIENTS = [error_of_urllib, error_of_requests, error_of_httpx, error_of_aiohttp, response_of_urllib3]


def asked(error):
    return asked_delay(error, now=timezone.now().timestamp())


@pytest.mark.parametrize("client", CLIENTS)
class TestHTTP:
    def test_seconds(self, server, client):
        server.answers(503, Retry_After="120")

        assert asked(client(server.url)) == 120

    def test_a_date(self, server, client):
        in_two_minutes = timezone.now() + timedelta(minutes=2)
        server.answers(429, Retry_After=format_datetime(in_two_minutes, usegmt=True))

        assert 90 <= asked(client(server.url)) <= 121

    def test_a_rate_limit_that_ends_some_time(self, server, client):
        reset = int(timezone.now().timestamp()) + 300
        server.answers(403, X_RateLimit_Remaining="0", X_RateLimit_Reset=str(reset))

        assert 270 <= asked(client(server.url)) <= 301

    def test_a_rate_limit_that_was_not_the_cause(self, server, client):
        server.answers(403, X_RateLimit_Remaining="4999", X_RateLimit_Reset="300")

        assert asked(client(server.url)) is None

    def test_nothing(self, server, client):
        server.answers(500)

        assert asked(client(server.url)) is None


@pytest.mark.parametrize("client", [error_of_urllib, error_of_requests, error_of_httpx])
def test_an_error_without_a_response_asks_nothing(client):
    kinds = {
        "error_of_requests": lambda: pytest.importorskip("requests").ConnectionError("refused"),
        "error_of_httpx": lambda: pytest.importorskip("httpx").ConnectError("refused"),
        "error_of_urllib": lambda: urllib.error.URLError("refused"),
    }

    assert asked(kinds[client.__name__]()) is None


class TestBotocore:
    @pytest.fixture
    def client(self, server, monkeypatch):
        session = pytest.importorskip("botocore.session", reason="botocore is not installed")
        config = pytest.importorskip("botocore.config")
        for proxy in ("HTTP_PROXY", "http_proxy"):
            monkeypatch.delenv(proxy, raising=False)

        def client(service, attempts=1):
            return session.Session().create_client(
                service,
                region_name="eu-west-1",
                endpoint_url=server.url,
                aws_access_key_id="none",
                aws_secret_access_key="none",
                config=config.Config(retries={"total_max_attempts": attempts, "mode": "standard"}),
            )

        return client

    def error(self, call, **arguments):
        errors = pytest.importorskip("botocore.exceptions")
        with pytest.raises(errors.ClientError) as caught:
            call(**arguments)
        return caught.value

    def test_throttling_that_names_no_time_goes_on_where_botocore_stopped(self, server, client):
        server.answers(400, b'{"__type": "ThrottlingException"}', Content_Type="application/x-amz-json-1.0")

        assert asked(self.error(client("dynamodb").list_tables)) == 1
        error = self.error(client("dynamodb", attempts=2).list_tables)
        assert error.response["ResponseMetadata"]["RetryAttempts"] == 1
        assert server.asked == 3
        assert asked(error) == 2

    def test_the_time_that_aws_names_is_in_milliseconds(self, server, client):
        server.answers(
            400,
            b'{"__type": "ThrottlingException"}',
            Content_Type="application/x-amz-json-1.0",
            X_Amz_Retry_After="4500",
        )

        assert asked(self.error(client("dynamodb").list_tables)) == 4.5

    def test_retry_after_is_read_from_its_metadata(self, server, client):
        server.answers(503, b"<Error><Code>SlowDown</Code></Error>", Retry_After="7")

        assert asked(self.error(client("s3").list_buckets)) == 7

    def test_an_error_that_is_no_throttling_asks_nothing(self, server, client):
        server.answers(404, b"<Error><Code>NoSuchBucket</Code></Error>")

        assert asked(self.error(client("s3").list_buckets)) is None


class TestGRPC:
    @pytest.fixture
    def address(self):
        """A server that refuses every call, with the trailing metadata that the test puts here."""
        grpc = pytest.importorskip("grpc", reason="grpcio is not installed")

        def refuse(request, context):
            context.set_trailing_metadata(tuple(self.trailing))
            context.abort(grpc.StatusCode.UNAVAILABLE, "busy")

        class Everything(grpc.GenericRpcHandler):
            def service(self, details):
                return grpc.unary_unary_rpc_method_handler(refuse)

        server = grpc.server(ThreadPoolExecutor(2), handlers=[Everything()])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(grace=None).wait()

    def sync_error(self, address):
        grpc = pytest.importorskip("grpc")
        options = [("grpc.enable_retries", 0), ("grpc.enable_http_proxy", 0)]
        with grpc.insecure_channel(address, options=options) as channel, pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/shop.Orders/Send")(b"", timeout=10)
        return caught.value

    def aio_error(self, address):
        grpc = pytest.importorskip("grpc")

        async def call():
            options = [("grpc.enable_retries", 0), ("grpc.enable_http_proxy", 0)]
            async with grpc.aio.insecure_channel(address, options=options) as channel:
                await channel.unary_unary("/shop.Orders/Send")(b"", timeout=10)

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            asyncio.run(call())
        return caught.value

    @pytest.mark.parametrize("client", ["sync_error", "aio_error"])
    @pytest.mark.parametrize(
        ("trailing", "expected"),
        [
            ([], None),
            ([("grpc-retry-pushback-ms", "2500")], 2.5),
            ([("grpc-retry-pushback-ms", "-1")], Refusal.DO_NOT_RETRY),
            ([("grpc-retry-pushback-ms", "later")], Refusal.DO_NOT_RETRY),
        ],
        ids=["none", "a delay", "never", "unreadable"],
    )
    def test_pushback(self, address, client, trailing, expected):
        self.trailing = trailing

        assert asked(getattr(self, client)(address)) == expected

    @pytest.mark.parametrize("client", ["sync_error", "aio_error"])
    @pytest.mark.parametrize(("seconds", "nanos", "expected"), [(30, 500_000_000, 30.5), (0, 0, 0), (-5, 0, 0)])
    def test_retry_info(self, address, client, seconds, nanos, expected):
        details = pytest.importorskip(
            "google.rpc.error_details_pb2", reason="googleapis-common-protos is not installed"
        )
        status = pytest.importorskip("google.rpc.status_pb2")
        message = status.Status(code=14, message="busy")
        for detail in (
            details.DebugInfo(detail="a queue is full"),
            details.RetryInfo(retry_delay={"seconds": seconds, "nanos": nanos}),
        ):
            message.details.add().Pack(detail)
        self.trailing = [("grpc-status-details-bin", message.SerializeToString())]

        assert asked(getattr(self, client)(address)) == expected

    def test_other_details_ask_nothing(self, address):
        details = pytest.importorskip(
            "google.rpc.error_details_pb2", reason="googleapis-common-protos is not installed"
        )
        status = pytest.importorskip("google.rpc.status_pb2")
        message = status.Status(code=14)
        message.details.add().Pack(details.DebugInfo(detail="a queue is full"))
        self.trailing = [("grpc-status-details-bin", message.SerializeToString())]

        assert asked(self.sync_error(address)) is None


def test_throttled_of_django_rest_framework_says_how_long_to_wait():
    exceptions = pytest.importorskip("rest_framework.exceptions", reason="djangorestframework is not installed")

    assert asked(exceptions.Throttled(wait=41.2)) == 42
    assert asked(exceptions.Throttled()) is None
    assert asked(exceptions.NotFound()) is None


def test_an_error_of_ones_own_keeps_what_the_response_asked_for(server):
    server.answers(429, Retry_After="33")

    with pytest.raises(RuntimeError) as caught:
        raise RuntimeError("the supplier is busy") from error_of_requests(server.url)

    assert asked(caught.value) == 33


@pytest.mark.django_db
def test_a_task_comes_back_when_the_server_said(server, station):
    server.answers(503, Retry_After="120")
    delays = []

    def receiver(event, **kwargs):
        delays.append(event.delay)

    @station.app.task(base=BaseTaskWithRetry, max_retries=2)
    def fetch():
        urllib.request.urlopen(server.url)  # noqa: S310 (the URL is the server's above)

    task_retry_scheduled.connect(receiver)
    try:
        fetch.delay()
        station.run_all()
    finally:
        task_retry_scheduled.disconnect(receiver)

    assert server.asked == 3
    assert len(delays) == 2
    assert all(120 <= delay <= 180 for delay in delays)
