from functools import partial
from typing import Any

from django.apps import AppConfig
from django.db import transaction
from django.db.models.signals import post_delete, post_save
from django_taskkit.results import invalidate_tag


class OrdersConfig(AppConfig):
    name = "orders"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        for model in (self.get_model("Customer"), self.get_model("Order")):
            for signal in (post_save, post_delete):
                signal.connect(forget_reports, sender=model)


def forget_reports(**kwargs: Any) -> None:
    """Have reports about orders made anew, also those that are being made now.

    On commit: before, a report could be made of the old figures, and kept. Robust: an order that is saved is no
    error page because the cache is down; the report is then old, for an hour at most.
    `update()` and `bulk_create()` send no signals: call this after them.
    """
    transaction.on_commit(partial(invalidate_tag, "orders"), robust=True)
