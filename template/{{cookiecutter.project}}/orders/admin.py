from django.contrib import admin

from orders.models import Customer, Order, Shipment
from orders.services import place_order


@admin.register(Customer)
class CustomerAdmin(admin.ModelAdmin):
    list_display = ["name", "email", "postcode"]
    search_fields = ["name", "email", "postcode"]


@admin.register(Order)
class OrderAdmin(admin.ModelAdmin):
    list_display = ["__str__", "customer", "item", "amount", "placed_at", "receipt_sent_at", "shipment"]
    list_select_related = ["customer", "shipment"]
    search_fields = ["customer__name", "item"]
    date_hierarchy = "placed_at"

    def get_readonly_fields(self, request, obj=None):
        return ["customer", "placed_at", "receipt_sent_at", "shipment"] if obj else []

    def save_model(self, request, obj, form, change):
        if change:
            super().save_model(request, obj, form, change)
        else:
            place_order(obj)


@admin.register(Shipment)
class ShipmentAdmin(admin.ModelAdmin):
    list_display = ["tracking_number", "order", "attempts", "booked_at"]
    list_select_related = ["order"]
    readonly_fields = ["order", "tracking_number", "attempts", "booked_at"]

    def has_add_permission(self, request):
        return False  # the carrier gives the number
