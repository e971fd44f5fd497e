from collections.abc import Iterable
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import ValidationError
from django.core.files.uploadedfile import UploadedFile
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
{%- if cookiecutter.database == "mariadb" and cookiecutter.scheduler == "django-celery-beat" %}
from django_celery_beat.models import PeriodicTask
{%- endif %}
{%- if cookiecutter.database == "mariadb" and cookiecutter.results == "database" %}
from django_celery_results.models import GroupResult, TaskResult
{%- endif %}
from django_taskkit.models import DeadLetter

from orders import photos
from orders.geocoding import locate_customer
from orders.models import Customer, MonthlyClosing, Order, Product, Shipment
from orders.services import forget_product, place_order, save_customer, save_product


@admin.register(Customer)
class CustomerAdmin(admin.ModelAdmin):
    list_display = ["name", "email", "postcode", "latitude", "longitude"]
    search_fields = ["name", "email", "postcode"]
    readonly_fields = ["latitude", "longitude"]
    actions = ["locate"]

    def save_model(self, request: HttpRequest, obj: Customer, form: Any, change: bool) -> None:
        save_customer(obj)

    @admin.action(description="Look up where selected customers are", permissions=["change"])
    def locate(self, request: HttpRequest, queryset: QuerySet[Customer]) -> None:
        """For those who were there before the geocoder was, or whose postcode it did not know then."""
        if not settings.GEOCODER_URL:
            self.message_user(request, "There is nobody to ask: GEOCODER_URL is empty.", messages.ERROR)
            return
        customers = queryset.filter(latitude=None)
        for customer in customers:
            locate_customer.delay_on_commit(customer.pk)
        self.message_user(request, f"{len(customers)} to look up, one a second.")


@admin.register(Order)
class OrderAdmin(admin.ModelAdmin):
    list_display = ["__str__", "customer", "item", "amount", "placed_at", "receipt_sent_at", "shipment"]
    list_select_related = ["customer", "shipment"]
    search_fields = ["customer__name", "item"]
    autocomplete_fields = ["customer"]  # without: a page with all customers on it
{%- if cookiecutter.database == "mariadb" %}
    # No date_hierarchy: until somebody loads its tables of time zones (mariadb-tzinfo-to-sql), MariaDB answers NULL
    # when it is asked for the year of a time, and the page is an error.
{%- else %}
    date_hierarchy = "placed_at"
{%- endif %}

    def get_readonly_fields(self, request: HttpRequest, obj: Order | None = None) -> list[str]:
        return ["customer", "placed_at", "receipt_sent_at", "shipment"] if obj else []

    def save_model(self, request: HttpRequest, obj: Order, form: Any, change: bool) -> None:
        if change:
            super().save_model(request, obj, form, change)
        else:
            place_order(obj)


class ReadOnlyAdmin(admin.ModelAdmin):
    """For what tasks write: to be looked at."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Shipment)
class ShipmentAdmin(ReadOnlyAdmin):
    list_display = ["tracking_number", "order", "attempts", "booked_at"]
    list_select_related = ["order"]


@admin.register(MonthlyClosing)
class MonthlyClosingAdmin(ReadOnlyAdmin):
    list_display = ["__str__", "orders", "total", "closed_at", "mailed_at"]

    def has_delete_permission(self, request: HttpRequest, obj: MonthlyClosing | None = None) -> bool:
        return False  # it would be closed anew, with other figures, and mailed


class ProductForm(forms.ModelForm):
    class Meta:
        # Without the link to the file: no web server serves it, and what a customer sees are the thumbnails.
        widgets = {"photo": forms.FileInput}

    def clean_photo(self) -> Any:
        """Refuse at once what the task would refuse later."""
        photo = self.cleaned_data["photo"]
        if isinstance(photo, UploadedFile):
            try:
                photos.check_size(photo.size or 0, photo.image)  # type: ignore[attr-defined]
            except photos.NotAPictureError as exc:
                raise ValidationError(f"This photo {exc}.") from exc
        return photo


class ProductList(ChangeList):
    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        _find_the_dead(self.result_list, request)


def _find_the_dead(products: Iterable[Product], request: HttpRequest) -> None:
    """Note by each product what its state says of a dead letter: by one query, as root_id has no index."""
    waiting = {product.thumbnails_task: product for product in products if not product.is_ready}
    waiting.pop("", None)  # what has no task is not the root of letters without a root
    if not waiting:
        return
    may_see = request.user.has_perm("django_taskkit.view_deadletter")
    letters = DeadLetter.objects.filter(status__in=["dead", "held"], root_id__in=waiting)
    for pk, root, message in letters.reverse().values_list("pk", "root_id", "exception_message"):
        url = reverse("admin:django_taskkit_deadletter_change", args=[pk])
        text = format_html('<a href="{}">died: {}</a>', url, message) if may_see else "died"
        waiting[root].died = text  # type: ignore[attr-defined]


@admin.register(Product)
class ProductAdmin(admin.ModelAdmin):
    form = ProductForm
    list_display = ["name", "small", "state"]
    search_fields = ["name"]
    readonly_fields = ["state", "small", "thumbnails"]

    def get_changelist(self, request: HttpRequest, **options: Any) -> type[ChangeList]:
        return ProductList

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Product | None:
        product = super().get_object(request, object_id, from_field)
        _find_the_dead([product] if product else [], request)
        return product

    def save_model(self, request: HttpRequest, obj: Product, form: Any, change: bool) -> None:
        save_product(obj, has_new_photo="photo" in form.changed_data)

    def delete_model(self, request: HttpRequest, obj: Product) -> None:
        forget_product(obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Product]) -> None:
        for product in queryset:
            forget_product(product)

    @admin.display(description="preview")
    def small(self, product: Product) -> SafeString:
        if not product.published:
            return SafeString("")
        url = _url_of_thumbnail(product, photos.WIDTHS[0])
        return format_html('<img src="{}" alt="{}" width="{}">', url, product.name, photos.WIDTHS[0])

    @admin.display(description="pixels wide")
    def thumbnails(self, product: Product) -> SafeString:
        widths = photos.WIDTHS if product.published else []
        return format_html_join(
            " ", '<a href="{}">{}</a>', ((_url_of_thumbnail(product, width), width) for width in widths)
        )

    @admin.display
    def state(self, product: Product) -> str:
        if product.is_ready:
            return "ready"
        return getattr(product, "died", "thumbnails are being made" if product.thumbnails_task else "")


def _url_of_thumbnail(product: Product, width: int) -> str:
    # With the name of the photo: a browser that keeps pictures does not take the old one for the new one.
    return f"{reverse('thumbnail', args=[product.pk, width])}?{product.published}"
{%- if cookiecutter.database == "mariadb" and (cookiecutter.scheduler == "django-celery-beat" or cookiecutter.results == "database") %}


# As for orders, above. These apps come before this one in INSTALLED_APPS, so they are registered by now.
for model in [{% if cookiecutter.scheduler == "django-celery-beat" %}PeriodicTask{% endif %}
{%- if cookiecutter.scheduler == "django-celery-beat" and cookiecutter.results == "database" %}, {% endif %}
{%- if cookiecutter.results == "database" %}TaskResult, GroupResult{% endif %}]:
    type(admin.site.get_model_admin(model)).date_hierarchy = None
{%- endif %}
