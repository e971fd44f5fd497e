"""Sending one message, or one workflow, of a given fate."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import kombu
from celery import Celery, chain, chord, group

from account.ledger import token

RAW_TRIES = 40


class Sending:
    """What a fate needs to send itself: the app, and the names of its items."""

    def __init__(self, app: Celery, number: int, later: Callable[[float, Callable[[], None]], None]) -> None:
        self.app = app
        self.number = number
        self._later = later

    def _name(self, task: str) -> str:
        return f"account.{task}"

    def _signature(self, task: str, part: str, kwargs: dict[str, Any] | None = None) -> Any:
        name = token(self.number, part)
        signature = self.app.signature(self._name(task), kwargs={"item": name, **(kwargs or {})}, immutable=True)
        return signature.set(task_id=name)

    def task(self, task: str, kwargs: dict[str, Any] | None = None, **options: Any) -> None:
        self._signature(task, "a", kwargs).apply_async(**options)

    def chain(self, *tasks: str) -> None:
        chain(*(self._signature(task, part) for task, part in zip(tasks, "abcd", strict=False))).apply_async()

    def linked(self, task: str, then: str) -> None:
        self._signature(task, "a").apply_async(link=self._signature(then, "b"))

    def chord(self, members: Sequence[str], body: str) -> None:
        parts = "abcd"[: len(members) + 1]
        header = group(self._signature(task, part) for task, part in zip(members, parts, strict=False))
        last = self._signature(body, parts[-1])
        chord(header, last, app=self.app).apply_async(task_id=last.options["task_id"])

    def revoke(self, after: float = 0, **options: Any) -> None:
        def revoke() -> None:
            with contextlib.suppress(Exception):  # nobody promises that a revocation arrives
                self.app.control.revoke(token(self.number), **options)

        if after:
            self._later(after, revoke)
        else:
            revoke()

    def raw(
        self,
        body: str,
        headers: dict[str, Any] | None = None,
        content_type: str = "application/json",
        content_encoding: str = "utf-8",
    ) -> None:
        """Put bytes into the queue, past Celery; tried until the broker has confirmed them."""
        name = token(self.number)
        known = {"lang": "py", "task": "account.succeeds", "id": name, "root_id": name, "argsrepr": "()"}
        known.update(parent_id=None, group=None, kwargsrepr="{}", retries=0, timelimit=[None, None])
        known.update(eta=None, expires=None, origin="elsewhere")
        message = body.replace("TOKEN", name).encode("utf-8", "surrogateescape")
        for attempt in range(RAW_TRIES):
            try:
                self._publish(
                    message,
                    headers={} if headers == {} else {**known, **(headers or {})},
                    content_type=content_type,
                    content_encoding=content_encoding,
                    correlation_id=name,
                )
                return
            except Exception:
                if attempt == RAW_TRIES - 1:
                    raise
                time.sleep(0.5)

    def _publish(self, message: bytes, **properties: Any) -> None:
        queue = self.app.conf.task_default_queue
        options = {**self.app.conf.broker_transport_options, "confirm_publish": True}
        with (
            kombu.Connection(self.app.conf.broker_url, transport_options=options, connect_timeout=3) as connection,
            connection.Producer(auto_declare=False) as producer,
        ):
            producer.publish(message, exchange="", routing_key=queue, serializer=None, **properties)
