"""Add three products with photos, so that there is something to make thumbnails of."""

from io import BytesIO
from typing import Any

from django.core.files.base import ContentFile
from django.core.management.base import BaseCommand
from PIL import Image, ImageColor, ImageDraw

from orders.models import Product
from orders.services import save_product

#: Name, colour of the glaze, width and height of the photo.
PRODUCTS = [("Teapot", "#b5522b", 1800, 1200), ("Two cups", "#2b6fb5", 1400, 1400), ("Kettle", "#3c7a4a", 1300, 1900)]


class Command(BaseCommand):
    help = "Adds three products with photos: for each, a chord of three thumbnails, and a task that publishes them."

    def handle(self, **options: Any) -> None:
        for name, colour, width, height in PRODUCTS:
            product = Product.objects.filter(name=name).first() or Product(name=name)
            product.photo = ContentFile(photo(colour, width, height), "photo.png")
            save_product(product, has_new_photo=True)
            self.stdout.write(f"{name}: {width} x {height} pixels")


def photo(colour: str, width: int, height: int) -> bytes:
    """Return a picture of something round and glazed, on a table."""
    image = Image.linear_gradient("L").resize((width, height)).convert("RGB")
    drawing = ImageDraw.Draw(image)
    drawing.rectangle((0, height * 3 // 4, width, height), fill="#8a6f52")
    radius = min(width, height) // 3
    x, y = width // 2, height // 2
    for light in range(60):  # circles that get smaller and brighter, towards the lamp
        drawing.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_brighter(colour, light / 100))
        radius -= radius // 20
        x, y = x - radius // 60, y - radius // 60
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _brighter(colour: str, light: float) -> tuple[int, ...]:
    return tuple(int(part + (255 - part) * light) for part in ImageColor.getrgb(colour))
