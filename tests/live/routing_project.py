"""A project with lanes on a real broker, for the tests of lanes."""

from __future__ import annotations

import time

import harness
import routing_app

from django_taskkit.routing import lanes

ALONE = ["--without-mingle", "--without-gossip"]


class Project:
    """An app with lanes, whose queues no other test knows."""

    def __init__(self, broker, producer, start_worker, env, folder):
        self.broker, self.app, self.folder = broker, producer, str(folder)
        self._start_worker, self._env = start_worker, env
        self.settings = {}

    def lay(self, **lanes_and_options):
        prefix = f"{self.broker.queue}."
        self.settings = lanes(broker=self.broker.url, namespace="", prefix=prefix, **lanes_and_options)
        self.broker.settings.update(self.settings)
        self.broker._queues += [*self.settings["task_queues"], f"{prefix}taskkit.dead"]
        self.app.conf.update({name: value for name, value in self.settings.items() if name != "TASKKIT_LANES"})
        return self

    def named(self, lane):
        """The name of the lane's queue, or of any other with the prefix of this test."""
        own = self.settings.get("TASKKIT_LANES", {}).get(lane, {})
        return own.get("queue") or f"{self.broker.queue}.{lane}"

    def start(self, *names, **options):
        queues = [self.named(name) for name in names]
        options = {"pool": "solo", "arguments": ALONE, **options}
        return self._start_worker("routing_app", self.broker, queues=queues, env=self._env, **options)

    def send(self, lane, name, seconds=0, **options):
        self.app.send_task(f"{lane}.work", (self.folder, name, seconds, time.time()), **options)

    def wait_for(self, count, seconds=60):
        return harness.wait_until(
            lambda: len(found := self.noted()) >= count and found, seconds, f"{count} tasks have begun"
        )

    def noted(self, **what):
        """What the tasks wrote down, in its order."""
        return routing_app.noted(self.folder, **what)
