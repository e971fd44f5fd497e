"""Thumbnails of a product's photo: one task for each size, and one that publishes them all at once.

A chord: the sizes are made at the same time, on whichever workers are free, and what follows starts when the last one
is there. If one of them dies, the others are not wasted: it is held, and what follows waits until it is requeued.
"""

import warnings
from io import BytesIO

from celery import chord, shared_task
from celery.exceptions import SoftTimeLimitExceeded
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage, storages
from django.db import transaction
from django_taskkit.base_tasks import BaseTaskWithRetry, Permanent
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from orders.models import Product

WIDTHS = [160, 480, 1200]
#: A picture may be small as a file and fill the memory once it is opened: 10 KB of PNG can be a billion pixels.
MAX_PIXELS = 50_000_000
MAX_BYTES = 25_000_000
#: Others have decoders that nobody here needs, and that had more holes than these.
FORMATS = ["JPEG", "PNG", "WEBP"]
#: Of the eight ways in which a picture can lie, those where its height becomes its width.
SIDEWAYS = (5, 6, 7, 8)


class NotAPictureError(ValueError):
    """What was uploaded can't be shown, however often it is tried."""


@shared_task(base=BaseTaskWithRetry)
def make_thumbnails(product_id: int, photo: str) -> None:
    """Start the chord. A task of its own, so that to save a product needs neither broker nor result backend."""
    members = [make_thumbnail.s(product_id, photo, width) for width in WIDTHS]
    chord(members, publish.si(product_id, photo)).apply_async()


# hold: else a member that dies fails the chord, and the rest of it never runs, not even when it is requeued.
# ignore_result=False: the chord counts its members by their results; without, it would wait for ever.
# OSError is a storage that is down or slow. A picture that is none is worth no second look.
@shared_task(base=BaseTaskWithRetry, autoretry_for=(OSError,), hold=True, ignore_result=False)
def make_thumbnail(product_id: int, photo: str, width: int) -> None:
    if not Product.objects.filter(pk=product_id, photo=photo).exclude(published=photo).exists():
        return  # there is a newer photo, or this one has its thumbnails
    try:
        content = shrink(_read(photo), width)
    except NotAPictureError as exc:
        raise Permanent(
            f"The photo of product {product_id} ({photo}) {exc}: upload another one in the admin, then requeue this, "
            "and what is left of the old one is deleted."
        ) from exc
    # This storage replaces what has the name. With any other: two runs leave two files, one of them for ever.
    storages["thumbnails"].save(thumbnail_name(photo, width), ContentFile(content))


@shared_task(base=BaseTaskWithRetry, autoretry_for=(OSError,))
def publish(product_id: int, photo: str) -> None:
    """Show the new thumbnails, all at once, and forget the files of the photo before. All are there by now."""
    with transaction.atomic():
        product = Product.objects.select_for_update().filter(pk=product_id).first()
        shown = product.published if product else ""
        if photo == shown:
            return  # done before
        if product and product.photo.name == photo:
            Product.objects.filter(pk=product_id).update(published=photo)
            outdated = shown
        else:
            outdated = photo  # replaced while its thumbnails were made
        if outdated:
            delete_photo.apply_async((outdated,), outbox=True)  # if this is committed, and only then


@shared_task(base=BaseTaskWithRetry, autoretry_for=(OSError,))
def delete_photo(photo: str) -> None:
    """Delete a photo and its thumbnails. To delete what is not there is no error."""
    default_storage.delete(photo)
    for width in WIDTHS:
        storages["thumbnails"].delete(thumbnail_name(photo, width))


def thumbnail_name(photo: str, width: int) -> str:
    """Return the name in the storage `thumbnails`."""
    return f"{photo.removeprefix('products/').replace('.', '-')}-{width}.jpg"


def _read(photo: str) -> bytes:
    with default_storage.open(photo) as file:
        return bytes(file.read(MAX_BYTES + 1))  # enough to see that it is too much


def check_size(size: int, image: Image.Image) -> None:
    if size > MAX_BYTES:
        raise NotAPictureError(f"has more than {MAX_BYTES:,} bytes")
    if image.width * image.height > MAX_PIXELS:
        raise NotAPictureError(f"has {image.width} x {image.height} pixels, more than {MAX_PIXELS:,} in all")


def shrink(content: bytes, width: int) -> bytes:
    """Return a JPEG of this width at most, twice as high at most, upright, without what a camera adds."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the next lines are stricter
            image: Image.Image = Image.open(BytesIO(content), formats=FORMATS)
        check_size(len(content), image)  # known before any pixel is decoded
        # A telephone writes pixels as its sensor lies, and by the side of them where up is. All else that it writes
        # there, as the place, stays out of what is published. Smaller first: of a JPEG, no more is decoded than the
        # thumbnail needs, and no large picture is turned, of which there would be two in memory.
        lies = image.getexif().get(ExifTags.Base.Orientation, 1) in SIDEWAYS
        most = (2 * width, width) if lies else (width, 2 * width)
        ratio = min(most[0] / image.width, most[1] / image.height, 1)
        # The exact size: of the largest one that it may have, Pillow would decode as much as that needs.
        image.thumbnail((max(1, round(image.width * ratio)), max(1, round(image.height * ratio))))
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):  # 16 bits of grey; as it is, all that is no black comes out white
            image = image.point(lambda value: value * (1 / 256)).convert("L")
            image.info.pop("transparency", None)
        if image.has_transparency_data:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
        file = BytesIO()
        image.convert("RGB").save(file, "JPEG", quality=82, optimize=True)
    except (NotAPictureError, SoftTimeLimitExceeded, MemoryError):
        raise
    except UnidentifiedImageError as exc:
        raise NotAPictureError(f"is none of {', '.join(FORMATS)}") from exc
    except Exception as exc:  # for a broken file, Pillow raises whatever it trips over
        raise NotAPictureError(f"can't be read as a picture ({exc})") from exc
    return file.getvalue()
