"""lanes(): what comes out, and that Celery itself makes of it what was meant."""

import json
import subprocess
import sys

import pytest
from celery import Celery
from celery.app.defaults import SETTING_KEYS

from django_taskkit.exceptions import ConfigurationError
from django_taskkit.routing import Lane, by_app, by_priority, by_workload, lanes, retry_lane

URLS = ["redis://", "amqp://", "sqs://", "filesystem://", "memory://"]


def celery(**config):
    app = Celery("lanes", fixups=[], set_as_current=False)
    app.config_from_object(config)
    return app


@pytest.mark.parametrize("queue_type", ["quorum", "classic"])
@pytest.mark.parametrize("url", URLS)
class TestOnEachBroker:
    def test_every_key_is_one_of_celerys_settings_or_ours(self, url, queue_type):
        upper = lanes(broker=url, queue_type=queue_type, **by_priority(), **retry_lane())
        lower = lanes(broker=url, queue_type=queue_type, namespace="", **by_priority(), **retry_lane())

        assert set(lower) - SETTING_KEYS == {"TASKKIT_LANES"}
        assert {name for name in upper if not name.startswith("CELERY_")} == {"TASKKIT_LANES"}
        assert {name.removeprefix("CELERY_").lower(): value for name, value in upper.items()} == {
            name.lower(): value for name, value in lower.items()
        }

    def test_it_is_plain_data(self, url, queue_type):
        made = lanes(broker=url, queue_type=queue_type, **by_workload(slow=["reports.*"]))

        assert json.loads(json.dumps(made)) == made
        assert eval(repr(made), {}) == made  # noqa: S307 (what is printed can be put in the settings)

    def test_celery_routes_by_it(self, url, queue_type):
        made = lanes(
            broker=url,
            queue_type=queue_type,
            namespace="",
            default=Lane(queue="work"),
            reports=Lane(tasks=["reports.*", "shop.tasks.report"]),
            images=Lane(tasks=["media.*", "reports.thumbnail"]),
        )
        app = celery(**made)

        def queue(task, **options):
            return app.amqp.router.route(options, task)["queue"].name

        assert list(app.amqp.queues.consume_from) == ["work", "reports", "images"]
        assert queue("reports.monthly.build") == "reports"
        assert queue("shop.tasks.report") == "reports"
        assert queue("reports.thumbnail") == "images", "a whole name wins over another lane's pattern"
        assert queue("shop.tasks.reports") == "work"
        assert queue("shop.tasks.report", queue="images") == "images", "the call wins"

    def test_there_is_always_a_default(self, url, queue_type):
        made = lanes(broker=url, queue_type=queue_type, reports=Lane(tasks=["reports.*"]))

        assert list(made["TASKKIT_LANES"]) == ["default", "reports"]
        assert made["CELERY_TASK_DEFAULT_QUEUE"] == "default"
        assert "*" not in made["CELERY_TASK_ROUTES"], "the default queue takes the rest without a rule"


class TestOnRabbitMQ:
    def test_queues_are_quorum_queues_on_one_topic_exchange(self):
        made = lanes(broker="amqp://", namespace="", reports=Lane(delivery_limit=5))

        assert made["task_queues"]["reports"] == {
            "exchange": "taskkit.lanes",
            "exchange_type": "topic",
            "routing_key": "reports",
            "queue_arguments": {
                "x-queue-type": "quorum",
                "x-delivery-limit": 5,
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": "taskkit.dead",
            },
        }
        assert made["task_queues"]["default"]["queue_arguments"]["x-delivery-limit"] == 20
        queue = celery(**made).amqp.queues["reports"]
        assert (queue.exchange.name, queue.exchange.type, queue.routing_key) == ("taskkit.lanes", "topic", "reports")
        assert queue.queue_arguments == made["task_queues"]["reports"]["queue_arguments"]

    def test_the_default_is_of_the_same_kind(self):
        made = lanes(broker="amqp://", namespace="", prefix="shop.")

        assert {name: value for name, value in made.items() if name.startswith("task_default")} == {
            "task_default_queue": "shop.default",
            "task_default_exchange": "shop.taskkit.lanes",
            "task_default_exchange_type": "topic",
            "task_default_routing_key": "shop-default",
            "task_default_queue_type": "quorum",
        }

    def test_classic_queues_have_priorities(self):
        made = lanes(broker="amqp://", queue_type="classic", namespace="")

        assert made["task_queues"]["default"] == {
            "exchange": "default",
            "exchange_type": "direct",
            "routing_key": "default",
            "queue_arguments": {
                "x-queue-type": "classic",
                "x-max-priority": 9,
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": "taskkit.dead",
            },
        }
        assert made["task_default_queue_type"] == "classic"

    @pytest.mark.parametrize("nowhere", [None, ""])
    def test_without_a_queue_for_the_dead_nothing_is_said_of_one(self, nowhere):
        for kind in ("quorum", "classic"):
            made = lanes(broker="amqp://", queue_type=kind, dead_letter_queue=nowhere)
            arguments = made["CELERY_TASK_QUEUES"]["default"]["queue_arguments"]
            assert not [name for name in arguments if "dead" in name or "overflow" in name]

    def test_lanes_that_share_a_quorum_queue_and_differ_in_priority_are_refused(self):
        with pytest.raises(ConfigurationError, match='quorum queues have not before RabbitMQ 4.*"classic"'):
            lanes(broker="amqp://", **by_priority(queue="work"))

        assert (
            len(lanes(broker="amqp://", queue_type="classic", **by_priority(queue="work"))["CELERY_TASK_QUEUES"]) == 1
        )

    def test_a_lane_can_not_be_where_the_dead_go(self):
        with pytest.raises(ConfigurationError, match="is the queue of the lane 'late'"):
            lanes(broker="amqp://", late=Lane(queue="graves"), dead_letter_queue="graves")

    def test_queues_whose_messages_would_mix_are_refused(self):
        with pytest.raises(ConfigurationError, match="would both have the routing key 'a-b'"):
            lanes(broker="amqp://", one=Lane(queue="a.b"), two=Lane(queue="a-b"))

        lanes(broker="redis://", one=Lane(queue="a.b"), two=Lane(queue="a-b"))

    def test_a_name_that_leaves_no_room_for_a_delay_is_refused(self):
        with pytest.raises(ConfigurationError, match="take at most 199 bytes"):
            lanes(broker="amqp://", long=Lane(queue="q" * 200))


class TestPriorities:
    @pytest.mark.parametrize(
        ("url", "numbers"),
        [("redis://", [0, 3, 6, 9]), ("amqp://", [9, 6, 3, 0]), ("filesystem://", [9, 6, 3, 0])],
    )
    def test_have_the_brokers_numbers(self, url, numbers):
        made = lanes(broker=url, namespace="", **by_priority(critical=["a"], high=["b"], low=["d"]))

        routes = [celery(**made).amqp.router.route({}, name) for name in ("a", "b", "c", "d")]

        assert [route["queue"].name for route in routes] == ["critical", "high", "default", "low"]
        assert [route["priority"] for route in routes] == numbers

    def test_survive_on_a_task_that_is_called(self):
        """Which task_default_priority would prevent: it counts as the task's own."""
        app = celery(**lanes(broker="redis://", namespace="", **by_priority(low=["low.*"])))

        @app.task(name="low.work", shared=False)
        def task(): ...

        assert app.amqp.router.route(task._get_exec_options(), task.name)["priority"] == 9

    def test_one_lane_with_a_priority_gives_all_others_the_default_one(self):
        made = lanes(broker="redis://", urgent=Lane(tasks=["a"], priority="critical"), slow=Lane(tasks=["b"]))

        assert made["CELERY_TASK_ROUTES"] == {
            "a": {"queue": "urgent", "priority": 0},
            "b": {"queue": "slow", "priority": 6},
            "*": {"queue": "default", "priority": 6},
        }

    def test_sqs_has_none(self):
        made = lanes(broker="sqs://", **by_priority(critical=["a"]))

        assert made["CELERY_TASK_ROUTES"] == {"a": {"queue": "critical"}}


class TestOnSQS:
    def test_nothing_is_asked_for_that_it_lacks(self):
        made = lanes(broker="sqs://", namespace="", transport_options={"region": "eu-west-1"})

        assert made["broker_transport_options"] == {
            "visibility_timeout": 3600,
            "wait_time_seconds": 20,
            "region": "eu-west-1",
        }
        assert (made["worker_enable_remote_control"], made["worker_send_task_events"]) == (False, False)

    @pytest.mark.parametrize("name", ["a.b", "q" * 81, "a b", "schön"])
    def test_a_name_that_amazon_would_not_take_is_refused(self, name):
        with pytest.raises(ConfigurationError, match="can't be one of SQS; take at most 80 letters"):
            lanes(broker="sqs://", odd=Lane(queue=name))

    def test_kombu_leaves_the_others_as_they_are(self):
        sqs = pytest.importorskip("kombu.transport.SQS")
        names = ["default", "shop-slow", "shop_fast", "ordered.fifo", "q" * 80]

        for name in names:
            lanes(broker="sqs://", one=Lane(queue=name))
            assert sqs.Channel.entity_name(None, name) == name

    def test_a_run_that_it_can_not_wait_for_is_refused(self):
        with pytest.raises(ConfigurationError, match="the lane 'slow' may hold a message for 57600 s.*prefetch=1"):
            lanes(broker="sqs://", slow=Lane(time_limit=14400))

        lanes(broker="sqs://", slow=Lane(time_limit=14400, prefetch=1))


class TestOptions:
    def test_transport_options_of_the_projects_win(self):
        made = lanes(broker="redis://", transport_options={"visibility_timeout": 60, "master_name": "main"})

        assert made["CELERY_BROKER_TRANSPORT_OPTIONS"] == {
            "visibility_timeout": 60,
            "priority_steps": [0, 3, 6, 9],
            "queue_order_strategy": "round_robin",
            "master_name": "main",
        }

    def test_a_prefix_is_on_all_queues_but_those_that_have_names_of_their_own(self):
        made = lanes(broker="redis://", prefix="shop.", slow=Lane(tasks=["slow.*"]), mail=Lane(queue="mail"))

        assert list(made["CELERY_TASK_QUEUES"]) == ["shop.default", "shop.slow", "mail"]
        assert made["CELERY_TASK_ROUTES"] == {"slow.*": {"queue": "shop.slow"}}
        assert made["TASKKIT_LANES"]["slow"] == {"tasks": ["slow.*"], "queue": "shop.slow"}

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({"namespace": "CELERY"}, "lanes(namespace='CELERY') makes no sense; give 'CELERY_'"),
            ({"queue_type": "stream"}, "lanes(queue_type='stream') makes no sense"),
            ({"reports": ["reports.*"]}, "lanes(reports=['reports.*']) is neither an option nor a Lane"),
            ({"queue_typ": "classic"}, "lanes(queue_typ='classic') is neither an option nor a Lane"),
            ({"odd": Lane(queue="a,b")}, "can't be named on a worker's command line"),
            ({"odd": Lane(queue="a\nb")}, "can't be named on a worker's command line"),
            ({"": Lane(queue="x")}, "lanes() has a lane named ''"),
            ({"a\nb": Lane(queue="x")}, "lanes() has a lane named 'a\\nb'"),
            ({"prefix": 5}, "lanes(prefix=5) makes no sense"),
            ({"prefix": "amq."}, "which RabbitMQ keeps for itself"),
            ({"dead_letter_queue": 5}, "lanes(dead_letter_queue=5) makes no sense; give the name of a queue, or None"),
            ({"transport_options": "x"}, "lanes(transport_options='x') makes no sense; give a dict"),
        ],
    )
    def test_what_makes_no_sense_is_named(self, options, sentence):
        with pytest.raises(ConfigurationError) as refused:
            lanes(broker="memory://", **options)

        assert sentence in str(refused.value)

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({"odd": Lane(queue="amq.odd")}, "RabbitMQ keeps 'amq.' for itself"),
            ({"dead_letter_queue": "amq.dead"}, "RabbitMQ keeps 'amq.' for itself"),
            ({"dead_letter_queue": "x" * 300}, "too long for RabbitMQ"),
            ({"dead_letter_queue": "a\nb"}, "the queue 'a\\nb' can't be named"),
        ],
    )
    def test_what_rabbitmq_does_not_take_is_refused_there_alone(self, options, sentence):
        with pytest.raises(ConfigurationError) as refused:
            lanes(broker="amqp://", **options)

        assert sentence in str(refused.value)
        assert lanes(broker="redis://", **options)


def test_what_comes_out_belongs_to_the_caller():
    one = lanes(broker="amqp://", **by_workload(slow=["a", "b"]))
    one["CELERY_TASK_ROUTES"]["a"]["priority"] = 5
    one["CELERY_TASK_QUEUES"]["slow"]["queue_arguments"]["x-delivery-limit"] = 1

    other = lanes(broker="amqp://", **by_workload(slow=["a", "b"]))
    assert one["CELERY_TASK_ROUTES"]["b"] == {"queue": "slow"}
    assert other["CELERY_TASK_QUEUES"]["slow"]["queue_arguments"]["x-delivery-limit"] == 20


def test_a_module_of_celerys_own_settings_may_hold_it():
    """Names in small letters beside TASKKIT_LANES are no mixture of old and new settings to Celery."""
    app = celery(**lanes(broker="memory://", namespace="", **by_app("billing")))

    assert app.conf.task_default_queue == "default"


def test_a_settings_module_loads_neither_celery_nor_the_apps():
    code = (
        "import sys; from django_taskkit.routing import lanes, by_priority; lanes(broker='amqp://', **by_priority());"
        "print(*(name for name in sys.modules if name.split('.')[0] in ('celery', 'kombu')"
        " or name in ('django.apps', 'django.db')))"
    )

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []
