"""Pages for staff: a report that is cached, an export, and the thumbnails of products."""

from collections.abc import Callable

from django.contrib.admin.views.decorators import staff_member_required
from django.contrib.auth.decorators import permission_required
from django.core.files.storage import storages
from django.db.models import Min
from django.http import FileResponse, Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.templatetags.static import static
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from orders import exports, photos
from orders.models import Order, Product
from orders.tasks import export_orders, sales_report


def for_staff(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """Send to the log-in who is not known yet, and refuse who may not see orders."""
    return staff_member_required(permission_required("orders.view_order", raise_exception=True)(view))


@require_safe
def icon(request: HttpRequest) -> HttpResponse:
    """Browsers ask for it on every page, those of the admin too. Without: an error in the console of each."""
    return redirect(static("orders/icon.svg"))


@staff_member_required
@require_safe
def start(request: HttpRequest) -> HttpResponse:
    this_year = timezone.localdate().year
    first = Order.objects.aggregate(first=Min("placed_at"))["first"]
    first_year = timezone.localtime(first).year if first else this_year
    return render(request, "orders/start.html", {"years": range(this_year, first_year - 1, -1)})


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
    """Make a file when asked to (POST), and say how each stands. To open the page makes nothing."""
    wanted = request.POST.get("kind")
    files = []
    for name, kind in exports.KINDS.items():
        file = export_orders.cached
        # Who asks while it is being made, twice or with somebody else, waits for the same file.
        ask = file.refresh if name == wanted else file.peek
        state = ask(year=year, kind=name)
        is_there = exports.is_there(state.value)
        files.append({"kind": name, "label": kind.label, "state": state, "is_there": is_there})
    return render(request, "orders/export.html", {"files": files, "year": year})


@for_staff
@never_cache
@require_safe
def export_file(request: HttpRequest, year: int, kind: str) -> HttpResponseBase:
    """Hand out the file that the page offers. Its name in the storage is never told, nor asked for."""
    made = export_orders.cached.peek(year=year, kind=kind).value
    if not exports.is_there(made):
        return redirect("export", year=year)
    return FileResponse(
        storages["exports"].open(made["file"]),
        as_attachment=True,
        filename=f"orders-{year}.{kind}",
        content_type=exports.KINDS[kind].content_type,
    )


@staff_member_required
@permission_required("orders.view_product", raise_exception=True)
@require_safe
def thumbnail(request: HttpRequest, pk: int, width: int) -> FileResponse:
    """Hand out a thumbnail of a product. Of a shop that shows its products to all, this is for all."""
    product = get_object_or_404(Product, pk=pk)
    if not product.published or width not in photos.WIDTHS:
        raise Http404
    try:
        file = storages["thumbnails"].open(photos.thumbnail_name(product.published, width))
    except FileNotFoundError:
        raise Http404 from None  # the photo was replaced since the line before
    return FileResponse(file, content_type="image/jpeg")
