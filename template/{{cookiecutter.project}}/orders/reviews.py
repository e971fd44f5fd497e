"""An invitation to write a review, three days after the parcel: a task as Django itself declares them.

It runs in the same lanes as all others, and dies as a dead letter. What it adds is a result that Django can look up.
"""

from datetime import timedelta

from django.conf import settings
from django.core.mail import send_mail
{%- if cookiecutter.django == "5.2" %}
from django.utils import timezone
from django_tasks import task
{%- else %}
from django.tasks import task
from django.utils import timezone
{%- endif %}

from orders.models import Order

#: So long may a parcel take. No worker holds the message meanwhile: it is in the outbox, and survives every restart.
WAIT = timedelta(days=3)


@task
def invite_to_review(order_id: int) -> bool:
    """Say whether there was anybody to write to."""
    order = Order.objects.select_related("customer").get(pk=order_id)
    if order.review_asked_at or not order.customer.email:
        return False
    send_mail(
        subject=f"How do you like {order.item}?",
        message=f"Dear {order.customer.name},\n\nwrite to us, we read it.\n\n{settings.PROJECT_NAME}\n",
        from_email=None,
        recipient_list=[order.customer.email],
    )
    # A crash between these two lines sends the mail once more; the other way round it might never be sent.
    Order.objects.filter(pk=order.pk).update(review_asked_at=timezone.now())
    return True


def invite_later(order: Order) -> str:
    """Have the customer invited when the parcel must be there; return the id under which the result is found."""
    return invite_to_review.using(run_after=timezone.now() + WAIT).enqueue(order.pk).id
