"""Where customers are, asked of a Nominatim server: an API that allows one request a second, and says so with 429."""

from decimal import Decimal

import httpx
from celery import shared_task
from celery.utils.log import get_task_logger
from django.conf import settings
from django_taskkit.base_tasks import BaseTaskWithRetry, Permanent

from orders.models import Customer

logger = get_task_logger(__name__)

#: Seconds for each step of a request. Without: a server that hangs holds the only process until the time limit.
TIMEOUT = 10
TOO_MANY_REQUESTS = 429
FIRST_ERROR_OF_SERVERS = 500


# rate_limit: Celery counts in each worker for itself, and a worker with several processes is one. So it holds for the
# shop because the lane "geocoding" has one worker; a second one doubles the rate.
# httpx.HTTPError is a server that can't be reached, is too slow, or answers 429 or 5xx. If it says when to come back
# (Retry-After), the retry waits for as long.
@shared_task(base=BaseTaskWithRetry, autoretry_for=(httpx.HTTPError,), rate_limit="1/s")
def locate_customer(customer_id: int) -> None:
    customer = Customer.objects.filter(pk=customer_id).first()
    if customer is None or customer.latitude is not None:
        return
    place = find(customer.postcode)
    if place is None:
        logger.info("no place has the postcode of customer %s", customer_id)
        return
    latitude, longitude = place
    # Only if the customer has not moved meanwhile: the next task has been sent for that.
    Customer.objects.filter(pk=customer_id, postcode=customer.postcode).update(latitude=latitude, longitude=longitude)


def find(postcode: str) -> tuple[Decimal, Decimal] | None:
    """Return latitude and longitude. The postcode is all that the server is told: names are nobody's business."""
    response = httpx.get(
        settings.GEOCODER_URL,
        params={"postalcode": postcode, "format": "jsonv2", "limit": 1},
        # Nominatim wants to know who asks, and blocks what calls itself by the name of a library.
        headers={"User-Agent": (settings.SITE_URL or settings.PROJECT_NAME).encode("ascii", "replace").decode()},
        timeout=TIMEOUT,
    )
    status = response.status_code
    if not response.is_success and status != TOO_MANY_REQUESTS and status < FIRST_ERROR_OF_SERVERS:
        raise Permanent(f"The geocoder answers {status} {response.reason_phrase}: waiting changes nothing.")
    response.raise_for_status()
    places = response.json()
    if not places:
        return None
    return _degrees(places[0]["lat"]), _degrees(places[0]["lon"])


def _degrees(text: str) -> Decimal:
    return round(Decimal(text), 6)  # ten centimetres, which is what the database keeps
