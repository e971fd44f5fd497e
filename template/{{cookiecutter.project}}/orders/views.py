"""Pages for those who may see orders in the admin: a report that is cached, and an export."""

from django.contrib.admin.views.decorators import staff_member_required
from django.contrib.auth.decorators import permission_required
from django.core.files.storage import storages
from django.http import FileResponse, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from orders import exports
from orders.tasks import export_orders, sales_report


def for_staff(view):
    """Send to the log-in who is not known yet, and refuse who may not see orders."""
    return staff_member_required(permission_required("orders.view_order", raise_exception=True)(view))


@staff_member_required
@require_safe
def start(request: HttpRequest) -> HttpResponse:
    this_year = timezone.localdate().year
    return render(request, "orders/start.html", {"years": [this_year, this_year - 1]})


@for_staff
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def sales(request: HttpRequest, year: int) -> HttpResponse:
    """Show the report, or how far it is; have it made anew when asked to (POST)."""
    report = sales_report.cached
    state = report.refresh(year=year) if request.method == "POST" else report.get_or_dispatch(year=year)
    return render(request, "orders/sales.html", {"state": state, "report": state.value, "year": year})


@for_staff
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def export(request: HttpRequest, year: int) -> HttpResponse:
    """Make a file when asked to (POST), and say how it stands. To open the page makes nothing."""
    file = export_orders.cached
    # Who asks while it is being made, twice or with somebody else, waits for the same file.
    state = file.refresh(year=year) if request.method == "POST" else file.peek(year=year)
    context = {"state": state, "year": year, "is_there": exports.is_there(state.value)}
    return render(request, "orders/export.html", context)


@for_staff
@never_cache
@require_safe
def export_file(request: HttpRequest, year: int) -> HttpResponseBase:
    """Hand out the file that the page offers. Its name in the storage is never told, nor asked for."""
    made = export_orders.cached.peek(year=year).value
    if not exports.is_there(made):
        return redirect("export", year=year)
    return FileResponse(
        storages["exports"].open(made["file"]),
        as_attachment=True,
        filename=f"orders-{year}.xlsx",
        content_type=exports.CONTENT_TYPE,
    )
