from django.urls import path, register_converter

from orders import views


class Year:
    regex = "20[0-9][0-9]"

    def to_python(self, value: str) -> int:
        return int(value)

    def to_url(self, value: int) -> str:
        return str(value)


register_converter(Year, "year")

urlpatterns = [
    path("", views.start, name="start"),
    path("reports/sales/<year:year>/", views.sales, name="sales"),
    path("exports/orders/<year:year>/", views.export, name="export"),
    path("exports/orders/<year:year>/file/", views.export_file, name="export-file"),
]
