from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.core.files.uploadedfile import UploadedFile
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
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
    date_hierarchy = "placed_at"

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


@admin.register(Product)
class ProductAdmin(admin.ModelAdmin):
    form = ProductForm
    list_display = ["name", "small", "state"]
    search_fields = ["name"]
    readonly_fields = ["state", "small", "thumbnails"]

    def save_model(self, request: HttpRequest, obj: Product, form: Any, change: bool) -> None:
        save_product(obj, has_new_photo="photo" in form.changed_data)

    def delete_model(self, request: HttpRequest, obj: Product) -> None:
        forget_product(obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Product]) -> None:
        for product in queryset:
            forget_product(product)

    @admin.display(description="photo")
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
        died = DeadLetter.objects.filter(root_id=product.thumbnails_task, status__in=["dead", "held"]).first()
        if died is None:
            return "thumbnails are being made" if product.pk else ""
        url = reverse("admin:django_taskkit_deadletter_change", args=[died.pk])
        return format_html('<a href="{}">died: {}</a>', url, died.exception_message)


def _url_of_thumbnail(product: Product, width: int) -> str:
    # With the name of the photo: a browser that keeps pictures does not take the old one for the new one.
    return f"{reverse('thumbnail', args=[product.pk, width])}?{product.published}"
