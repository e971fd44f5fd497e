"""Thumbnails: a chord of one task for each size, and one that publishes them; what becomes of files that are none."""

import os
from functools import partial
from io import BytesIO
from itertools import chain

import pytest
from django.contrib.auth.models import Permission, User
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage, storages
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import call_command
from django.utils import timezone
from django_taskkit.models import DeadLetter, OutboxMessage
from PIL import Image

from orders import photos
from orders.models import Product
from orders.photos import NotAPictureError, delete_photo, make_thumbnail, publish, shrink, thumbnail_name
from orders.services import save_product

pytestmark = pytest.mark.django_db


def picture(width=600, height=400, mode="RGB", colour="orange", kind="PNG", **options):
    file = BytesIO()
    Image.new(mode, (width, height), colour).save(file, kind, **options)
    return file.getvalue()


def product_with(content, name="Teapot", filename="teapot.png"):
    product = Product.objects.filter(name=name).first() or Product(name=name)
    product.photo = ContentFile(content, filename)
    return save_product(product, has_new_photo=True)


ALL = ["photo", *(f"{width}.jpg" for width in photos.WIDTHS)]


def is_ready(product):
    return lambda: Product.objects.get(pk=product.pk).is_ready


def there(photo):
    """Which files of a photo there are: itself, and thumbnails."""
    stem = thumbnail_name(photo, 0).removesuffix("0.jpg")
    _, names = storages["thumbnails"].listdir("")
    found = [name.removeprefix(stem) for name in names if name.startswith(stem)]
    return ["photo"] * default_storage.exists(photo) + sorted(found, key=lambda name: (len(name), name))


def test_a_photo_from_the_admin_gets_its_thumbnails_which_the_admin_then_shows(worker, admin_client, until):
    upload = SimpleUploadedFile("teapot.png", picture(3000, 2000), "image/png")
    assert admin_client.post("/admin/orders/product/add/", {"name": "Teapot", "photo": upload}).status_code == 302
    product = Product.objects.get()
    page = f"/admin/orders/product/{product.pk}/change/"
    assert "thumbnails are being made" in admin_client.get(page).content.decode()

    until(is_ready(product))

    sizes = []
    for width in photos.WIDTHS:
        shown = admin_client.get(f"/products/{product.pk}/thumbnails/{width}/")
        assert shown["Content-Type"] == "image/jpeg"
        sizes.append(Image.open(BytesIO(b"".join(shown.streaming_content))).size)
    assert sizes == [(160, 107), (480, 320), (1200, 800)]
    text = admin_client.get(page).content.decode()
    assert "ready" in text
    assert text.count(f'src="/products/{product.pk}/thumbnails/') == 1
    assert text.count(f'href="/products/{product.pk}/thumbnails/') == 3


def test_nothing_is_shown_until_all_of_it_is_there(admin_client):
    product = product_with(picture())

    for width in photos.WIDTHS:
        make_thumbnail(product.pk, product.photo.name, width)
        assert admin_client.get(f"/products/{product.pk}/thumbnails/{width}/").status_code == 404
    publish(product.pk, product.photo.name)

    assert admin_client.get(f"/products/{product.pk}/thumbnails/{photos.WIDTHS[0]}/").status_code == 200
    assert admin_client.get(f"/products/{product.pk}/thumbnails/161/").status_code == 404


def test_who_may_not_see_products_sees_no_thumbnail(client):
    product = product_with(picture())
    url = f"/products/{product.pk}/thumbnails/160/"

    assert client.get(url).status_code == 302
    client.force_login(User.objects.create_user("packer", is_staff=True))
    assert client.get(url).status_code == 403


def test_a_file_that_is_no_picture_is_held_and_completed_from_the_admin_once_it_is_one(worker, admin_client, until):
    product = product_with(b"<html>no picture</html>")
    held = until(lambda: len(found := DeadLetter.objects.filter(status="held")) == len(photos.WIDTHS) and found)
    for letter in held:
        assert (letter.task_name, letter.reason) == ("orders.photos.make_thumbnail", "permanent")
        assert letter.attempts == 1, "a second look would find the same"
        assert f"The photo of product {product.pk}" in letter.exception_message
    listed = admin_client.get("/admin/orders/product/").content.decode()
    assert f"/admin/django_taskkit/deadletter/{held[0].pk}/change/" in listed
    assert "is none of JPEG, PNG, WEBP" in listed
    assert not Product.objects.get().is_ready

    default_storage.delete(product.photo.name)
    default_storage.save(product.photo.name, ContentFile(picture()))
    for letter in held:
        assert not Product.objects.get().is_ready, "not before the last one is done"
        admin_client.post(f"/admin/django_taskkit/deadletter/{letter.pk}/requeue/", {"confirmed": "1"})
        until(DeadLetter.objects.filter(pk=letter.pk, status="recovered").exists)

    until(is_ready(product))
    assert there(product.photo.name) == ALL


def test_a_photo_that_was_none_is_cleared_away_once_there_is_another(worker, until):
    broken = product_with(b"<html>no picture</html>").photo.name
    until(lambda: DeadLetter.objects.filter(status="held").count() == len(photos.WIDTHS))

    product = product_with(picture())
    until(is_ready(product))
    call_command("taskkit", "requeue", "--task", "orders.photos.*", "--yes")

    until(lambda: there(broken) == [])
    assert not DeadLetter.objects.filter(status__in=["dead", "held"]).exists()
    assert Product.objects.get().is_ready


def test_another_photo_takes_the_place_of_the_first_and_its_files(worker, until):
    product = product_with(picture(colour="orange"))
    until(is_ready(product))
    first = product.photo.name
    assert there(first) == ALL

    product = product_with(picture(colour="green"))
    assert Product.objects.get().published == first, "the old one is shown until the new one is ready"
    until(is_ready(product))

    until(lambda: there(first) == [])
    assert there(product.photo.name) == ALL


def test_a_photo_that_was_replaced_meanwhile_is_not_published_and_its_files_go():
    first = product_with(picture(colour="orange")).photo.name
    make_thumbnail(Product.objects.get().pk, first, 160)
    second = product_with(picture(colour="green"))
    OutboxMessage.objects.all().delete()

    make_thumbnail(second.pk, first, 480)
    assert there(first) == ["photo", "160.jpg"]
    publish(second.pk, first)
    assert Product.objects.get().published == ""
    assert OutboxMessage.objects.get().task_name == "orders.photos.delete_photo"
    delete_photo(first)

    assert there(first) == []


def test_what_runs_twice_leaves_one_thumbnail_and_deletes_none_that_is_shown():
    product = product_with(picture())
    for width in [160, 160, 480, 1200]:
        make_thumbnail(product.pk, product.photo.name, width)
    publish(product.pk, product.photo.name)
    OutboxMessage.objects.all().delete()
    product_with(picture(colour="green"))
    OutboxMessage.objects.all().delete()

    publish(product.pk, product.photo.name)
    make_thumbnail(product.pk, product.photo.name, 160)

    assert not OutboxMessage.objects.exists()
    assert there(product.photo.name) == ALL


def test_two_runs_at_once_leave_one_thumbnail(monkeypatch):
    product = product_with(picture())
    names = [product.photo.name, thumbnail_name(product.photo.name, 160)]
    run = partial(make_thumbnail, product.pk, product.photo.name, 160)
    save = storages["thumbnails"].save

    def save_after_the_other_run(*file):
        monkeypatch.setattr(storages["thumbnails"], "save", save)
        run()
        return save(*file)

    monkeypatch.setattr(storages["thumbnails"], "save", save_after_the_other_run)
    run()

    assert there(names[0]) == ["photo", "160.jpg"]
    assert Image.open(storages["thumbnails"].open(names[1])).width == 160


@pytest.mark.parametrize("line", ["flush", "rename"])
def test_a_run_that_is_killed_while_it_writes_leaves_the_thumbnail_that_was_there(monkeypatch, line):
    product = product_with(picture())
    run = partial(make_thumbnail, product.pk, product.photo.name, 160)
    run()

    def killed(*arguments):
        raise KeyboardInterrupt

    if line == "flush":
        monkeypatch.setattr(ContentFile, "chunks", lambda file: chain([b"half of it"], map(killed, [1])))
    else:
        monkeypatch.setattr(os, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        run()

    name = thumbnail_name(product.photo.name, 160)
    assert Image.open(storages["thumbnails"].open(name)).getpixel((80, 50))[2] < 50, "orange, all of it"
    assert storages["thumbnails"].listdir("unfinished") == ([], [])


def test_a_product_that_is_deleted_in_the_admin_takes_its_files_along(worker, admin_client, until):
    product = product_with(picture())
    until(is_ready(product))
    assert there(product.photo.name) == ALL

    admin_client.post(
        "/admin/orders/product/", {"action": "delete_selected", "_selected_action": [product.pk], "post": "yes"}
    )

    until(lambda: there(product.photo.name) == [])
    assert not Product.objects.exists()


def test_who_gives_a_new_name_takes_nothing_back_that_was_published_meanwhile():
    product = product_with(picture())
    read_before = Product.objects.get()

    publish(product.pk, product.photo.name)
    read_before.name = "A teapot"
    save_product(read_before, has_new_photo=False)

    assert Product.objects.get(name="A teapot").is_ready


def test_a_new_name_makes_no_new_thumbnails(admin_client):
    product = product_with(picture())
    OutboxMessage.objects.all().delete()

    admin_client.post(f"/admin/orders/product/{product.pk}/change/", {"name": "A teapot"})

    assert Product.objects.get().name == "A teapot"
    assert not OutboxMessage.objects.exists()


@pytest.mark.parametrize("content", [b"", b"GIF89a" + bytes(50), picture(kind="BMP"), picture()[:200], b"%!PS"])
def test_what_is_no_picture_of_a_kind_we_know_is_refused(content):
    with pytest.raises(NotAPictureError):
        shrink(content, 160)


def test_a_picture_that_would_fill_the_memory_is_refused_before_it_is_decoded():
    bomb = picture(9000, 6000, mode="1", colour=0)
    assert len(bomb) < 10_000

    with pytest.raises(NotAPictureError, match="9000 x 6000 pixels"):
        shrink(bomb, 160)


def test_a_bomb_and_a_script_are_refused_in_the_form_already(admin_client):
    for name, content in [("bomb.png", picture(9000, 6000, mode="1", colour=0)), ("photo.svg", b"<svg/>")]:
        upload = SimpleUploadedFile(name, content)
        response = admin_client.post("/admin/orders/product/add/", {"name": "Teapot", "photo": upload})
        assert response.status_code == 200
        assert response.context["adminform"].form.errors["photo"]
    assert not Product.objects.exists()


def test_a_file_that_is_too_large_is_refused(monkeypatch):
    monkeypatch.setattr(photos, "MAX_BYTES", 100)

    with pytest.raises(NotAPictureError, match="more than 100 bytes"):
        shrink(picture(), 160)


def test_a_photo_of_a_telephone_is_upright_and_tells_no_place():
    exif = Image.Exif()
    exif[0x0112] = 6  # up is to the right
    exif[0x010F] = "Telephone"
    content = picture(600, 400, kind="JPEG", exif=exif)

    thumbnail = Image.open(BytesIO(shrink(content, 160)))

    assert thumbnail.size == (160, 240)
    assert not dict(thumbnail.getexif())


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "1", "I;16", "CMYK"])
def test_every_mode_becomes_a_jpeg(mode):
    kind = "JPEG" if mode == "CMYK" else "PNG"

    assert Image.open(BytesIO(shrink(picture(mode=mode, colour=0, kind=kind), 160))).mode == "RGB"


def test_sixteen_bits_of_grey_are_as_grey_as_before():
    [middle] = {Image.open(BytesIO(shrink(picture(mode="I;16", colour=128 * 256), 160))).getpixel((80, 50))}

    assert middle == pytest.approx((128,) * 3, abs=2)


@pytest.mark.parametrize("lies", range(1, 9))
def test_a_photo_is_as_wide_as_it_may_be_however_it_lies(lies):
    exif = Image.Exif()
    exif[0x0112] = lies

    thumbnail = Image.open(BytesIO(shrink(picture(400, 1600, kind="JPEG", exif=exif), 160)))

    assert thumbnail.size == ((80, 320) if lies < 5 else (160, 40))


def test_what_is_transparent_is_white():
    thumbnail = Image.open(BytesIO(shrink(picture(mode="RGBA", colour=(0, 0, 0, 0)), 160)))

    assert thumbnail.getpixel((80, 50)) == (255, 255, 255)


def test_a_small_picture_is_not_blown_up():
    assert Image.open(BytesIO(shrink(picture(100, 50), 160))).size == (100, 50)


def dead_letter(root, message):
    return DeadLetter.objects.create(
        task_id=message, root_id=root, exception_message=message, status="dead", died_at=timezone.now()
    )


def test_a_product_without_a_task_has_nothing_to_do_with_letters_without_a_root(admin_client):
    dead_letter("", "the secret of another task")
    Product.objects.create(name="Teapot", photo="products/teapot.jpg")

    for page in ("", "add/"):
        assert "secret" not in admin_client.get(f"/admin/orders/product/{page}").content.decode()


def test_who_may_not_see_dead_letters_sees_that_there_is_one_and_no_more(client):
    clerk = User.objects.create_user("clerk", is_staff=True)
    clerk.user_permissions.add(Permission.objects.get(codename="view_product"))
    client.force_login(clerk)
    product = Product.objects.create(name="Teapot", photo="products/teapot.jpg", thumbnails_task="root")
    letter = dead_letter("root", "the secret of the task")

    for page in ("", f"{product.pk}/change/"):
        text = client.get(f"/admin/orders/product/{page}").content.decode()
        assert ">died<" in text
        assert "secret" not in text
        assert f"deadletter/{letter.pk}" not in text


def test_the_list_asks_once_for_all_letters(admin_client, django_assert_max_num_queries):
    for number in range(30):
        Product.objects.create(name=f"Pot {number}", photo=f"products/{number}.jpg", thumbnails_task=f"task-{number}")

    with django_assert_max_num_queries(8):
        admin_client.get("/admin/orders/product/")


def test_the_products_of_the_demonstration_become_ready(worker, until, capsys):
    call_command("add_demo_products")

    until(lambda: [product.is_ready for product in Product.objects.all()] == [True] * 3)
    assert not DeadLetter.objects.exists()
