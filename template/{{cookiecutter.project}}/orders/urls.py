from django.urls import path, register_converter

from orders import views
from orders.exports import KINDS


class Year:
    regex = "20[0-9][0-9]"

    def to_python(self, value: str) -> int:
        return int(value)

    def to_url(self, value: int) -> str:
        return str(value)


class Kind:
    regex = "|".join(KINDS)

    def to_python(self, value: str) -> str:
        return value

    def to_url(self, value: str) -> str:
        return value


register_converter(Year, "year")
register_converter(Kind, "kind")

urlpatterns = [
    path("", views.start, name="start"),
    path("favicon.ico", views.icon),
    path("reports/sales/<year:year>/", views.sales, name="sales"),
    path("exports/orders/<year:year>/", views.export, name="export"),
    path("exports/orders/<year:year>/<kind:kind>/", views.export_file, name="export-file"),
    path("products/<int:pk>/thumbnails/<int:width>/", views.thumbnail, name="thumbnail"),
]
