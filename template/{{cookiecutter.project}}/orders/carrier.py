"""A sandbox that stands in for a carrier's API, so that the project runs without an account anywhere.

It behaves as the API of a carrier on a bad day: it is busy for the first two requests about every parcel, and
it knows no postcode that starts with 00. Put the client of your carrier in its place: only `book` is used.
"""

from django.db.models import F

from orders.models import SandboxParcel

BUSY_FOR = 2


class CarrierError(Exception):
    """The carrier did not take the parcel; asking again may help."""


class CarrierBusyError(CarrierError):
    """The carrier has no time right now."""


class UnknownPostcodeError(CarrierError):
    """The carrier does not know where that is. Its register is updated all day, so it may a little later."""


def book(reference: str, postcode: str) -> str:
    """Return the tracking number of the parcel; the same one if it was booked before."""
    if postcode.startswith("00"):
        raise UnknownPostcodeError(f"no depot serves postcode {postcode!r} (parcel {reference})")
    parcel, _ = SandboxParcel.objects.get_or_create(reference=reference)
    SandboxParcel.objects.filter(pk=parcel.pk).update(requests=F("requests") + 1)
    parcel.refresh_from_db()
    if parcel.requests <= BUSY_FOR:
        raise CarrierBusyError(f"too many requests, try again later (parcel {reference})")
    return f"TRK-{reference}"
