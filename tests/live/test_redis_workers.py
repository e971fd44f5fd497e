"""The atomic Redis transport under real Celery workers, which are killed and stopped."""

import contextlib
import itertools
import shutil

import pytest
import redis
from harness import RedisBroker, RedisServer, unavailable, wait_until


def pools(*first):
    """All of them, where the code under test is the same for all: ``first`` always, the others in long runs."""
    others = (pool for pool in ("prefork", "threads", "gevent", "solo") if pool not in first)
    return [*first, *(pytest.param(pool, marks=pytest.mark.soak) for pool in others)]


class Project:
    """A queue on Redis, a ledger of what its tasks did, and workers."""

    def __init__(self, broker, start_worker, folder, url=None):
        broker.settings.update(
            broker_transport="django_taskkit.transports.redis:Transport",
            # The last two are kombu 5.7's; with 5.5, only a worker's start looks at once.
            broker_transport_options={
                "visibility_timeout": 5,
                "unacked_restore_interval": 1,
                "unacked_restore_throttle": 1,
            },
            result_backend=None,
            worker_prefetch_multiplier=4,
        )
        if url:
            broker.settings["broker_url"] = url
        self.broker, self.ledger = broker, folder / "ledger"
        self.app = broker.app()
        self._start_worker = start_worker

    def start_worker(self, pool="prefork", **options):
        env = {"TASKKIT_TEST_LEDGER": str(self.ledger)}
        options = {"concurrency": 1 if pool == "solo" else 2, **options}
        return self._start_worker("redis_transport_app", self.broker, pool=pool, env=env, **options)

    def send(self, number, **kwargs):
        return self.app.send_task("work", (number,), kwargs)

    def numbers(self, event):
        lines = self.ledger.read_text().splitlines() if self.ledger.exists() else []
        return [int(line.split()[1]) for line in lines if line.startswith(f"{event} ")]

    def done(self):
        return set(self.numbers("done"))

    def put_back_overdue(self):
        """What any worker does from time to time; with kombu 5.5, once in 100 seconds."""
        with self.app.connection_for_read() as connection:
            connection.default_channel.qos.restore_visible(num=None)

    def wait_for_all(self, numbers, seconds=120):
        def all_done():
            self.put_back_overdue()
            return self.done() >= set(numbers)

        wait_until(all_done, seconds, "all tasks are done", interval=0.5)
        wait_until(lambda: self.left() == (0, 0, 0), 60, "nothing is left in Redis")
        assert self.done() == set(numbers)

    def left(self):
        with self.app.connection_for_read() as connection:
            channel = connection.default_channel
            client = channel.client
            waiting = channel._size(self.broker.queue)
            return waiting, client.hlen("unacked"), client.execute_command("ZCARD", "unacked_index")


@pytest.fixture
def project(broker, start_worker, tmp_path):
    project = Project(broker, start_worker, tmp_path)
    yield project
    project.app.close()


@pytest.mark.parametrize("pool", pools("prefork", "gevent"))
def test_tasks_retries_and_remote_control_work(project, pool):
    worker = project.start_worker(pool)
    for number in range(10):
        project.send(number, retry=number == 5)

    project.wait_for_all(range(10))
    replies = wait_until(lambda: project.app.control.ping(timeout=2, limit=1))
    stats = project.app.control.inspect(timeout=3, limit=1).stats()
    worker.stop()

    assert [list(reply.values()) for reply in replies] == [[{"ok": "pong"}]]
    (broker,) = [answer["broker"] for answer in stats.values()]
    assert broker["transport"] == "django_taskkit.transports.redis:Transport"
    assert "redis://" in worker.log()
    assert project.left() == (0, 0, 0)


# The other pools are killed many times below.
@pytest.mark.parametrize("pool", pools("solo"))
def test_no_task_is_lost_when_a_worker_is_killed(project, pool):
    for number in range(20):
        project.send(number, seconds=0.2)
    worker = project.start_worker(pool)
    wait_until(lambda: len(project.done()) >= 3)

    worker.kill()
    project.start_worker(pool)

    project.wait_for_all(range(20))


@pytest.mark.parametrize("pool", ["gevent", "prefork"])
def test_an_idle_worker_puts_back_what_a_killed_one_held(project, pool):
    """A gevent worker has no event loop that would call for it; kombu's own transport never does so there."""
    project.start_worker(pool)
    project.app.send_task("work", (1,), queue="elsewhere")
    client = redis.Redis.from_url(project.broker.url)
    message, queue = client.rpop("elsewhere").decode(), project.broker.queue

    client.hset("unacked", "a tag", f'[{message},"","{queue}"]')
    client.zadd("unacked_index", {"a tag": 1})
    client.close()

    wait_until(lambda: project.done() == {1}, 150, "the task runs")


def test_a_warm_shutdown_finishes_what_runs_and_gives_back_the_rest(project):
    for number in range(12):
        project.send(number, seconds=0.5)
    first = project.start_worker("prefork")
    wait_until(lambda: len(project.numbers("started")) >= 2)

    first.stop(timeout=30)
    done = project.numbers("done")

    assert set(project.numbers("started")) == set(done)
    assert project.left() == (12 - len(done), 0, 0)
    project.start_worker("threads")
    project.wait_for_all(range(12))
    assert sorted(project.numbers("done")) == list(range(12))


def test_a_worker_outlives_a_restart_of_redis(start_worker, tmp_path):
    if not shutil.which("redis-server"):
        unavailable("no redis-server")
    server, broker = RedisServer(durable=True).start(), RedisBroker()
    project = Project(broker, start_worker, tmp_path, url=server.url())
    try:
        worker = project.start_worker("prefork")
        project.send(0)
        wait_until(lambda: project.done() == {0})

        server.kill()
        server.start()
        for number in range(1, 5):
            project.send(number)

        project.wait_for_all(range(5))
        assert worker.alive
    finally:
        project.app.close()
        server.close()
        broker.cleanup()


def test_no_task_of_a_thousand_is_lost_under_kills_of_three_pools(project):
    kill_and_account(project, total=1_200, every=250)


@pytest.mark.soak
def test_no_task_of_tens_of_thousands_is_lost_under_many_kills(project):
    kill_and_account(project, total=30_000, every=800)


def kill_and_account(project, total, every):
    """Kill the worker, busy, each time that so many tasks more are done; in the end, all that was sent is done."""
    turns, kills = itertools.cycle(["threads", "prefork", "gevent"]), 0
    with project.app.producer_or_acquire() as producer:
        for number in range(total):
            project.app.send_task("work", (number,), producer=producer)
    while (done := len(project.done())) < total - every:
        worker, goal = project.start_worker(next(turns)), done + every
        wait_until(lambda goal=goal: len(project.done()) >= goal, 300, f"{goal} tasks are done", interval=0.02)
        worker.kill()
        kills += 1
    held = project.left()[1]
    project.start_worker("prefork")

    project.wait_for_all(range(total), seconds=300)

    assert kills >= 3
    assert held > 0
    again = len(project.numbers("done")) - total
    print(f"{total} sent, {total} done, {again} of them twice, 0 missing, {kills} kills")


def test_an_idle_worker_asks_redis_little(project):
    """Two commands a second: one look and one wait; kombu's own transport only waits."""
    project.start_worker("prefork", arguments=["--without-gossip", "--without-mingle", "--without-heartbeat"])
    client = redis.Redis.from_url(project.broker.url)

    def commands():
        stats = client.info("commandstats")
        names = ("cmdstat_evalsha", "cmdstat_brpop")
        return sum(stats.get(name, {"calls": 0})["calls"] for name in names)

    with contextlib.closing(client):
        before, started = commands(), client.time()[0]
        wait_until(lambda: client.time()[0] - started >= 6)
        per_second = (commands() - before) / (client.time()[0] - started)

    assert 0 < per_second < 4  # fewer on a busy machine
