import django.core.validators
import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models

import orders.models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Customer",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=100)),
                (
                    "email",
                    models.EmailField(
                        blank=True,
                        help_text="May be unknown, as when somebody orders by telephone.",
                        max_length=254,
                    ),
                ),
                ("postcode", models.CharField(max_length=10)),
                (
                    "latitude",
                    models.DecimalField(
                        blank=True, decimal_places=6, editable=False, max_digits=9, null=True
                    ),
                ),
                (
                    "longitude",
                    models.DecimalField(
                        blank=True, decimal_places=6, editable=False, max_digits=9, null=True
                    ),
                ),
            ],
            options={"ordering": ["name"]},
        ),
        migrations.CreateModel(
            name="MonthlyClosing",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("month", models.DateField(help_text="Its first day.", unique=True)),
                ("orders", models.PositiveIntegerField()),
                ("total", models.DecimalField(decimal_places=2, max_digits=12)),
                (
                    "days",
                    models.JSONField(default=list, help_text="Day, orders, total; for days with orders."),
                ),
                ("closed_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("mailed_at", models.DateTimeField(blank=True, null=True)),
            ],
            options={"ordering": ["-month"]},
        ),
        migrations.CreateModel(
            name="Product",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=100, unique=True)),
                (
                    "photo",
                    models.ImageField(
                        upload_to=orders.models.name_of_photo,
                        validators=[
                            django.core.validators.FileExtensionValidator(["jpg", "jpeg", "png", "webp"])
                        ],
                    ),
                ),
                ("published", models.CharField(blank=True, editable=False, max_length=100)),
                ("thumbnails_task", models.CharField(blank=True, editable=False, max_length=36)),
            ],
            options={"ordering": ["name"]},
        ),
        migrations.CreateModel(
            name="SandboxParcel",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("reference", models.CharField(max_length=30, unique=True)),
                ("requests", models.PositiveIntegerField(default=0)),
            ],
        ),
        migrations.CreateModel(
            name="Order",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("item", models.CharField(max_length=100)),
                ("amount", models.DecimalField(decimal_places=2, max_digits=9)),
                ("placed_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ("receipt_sent_at", models.DateTimeField(blank=True, editable=False, null=True)),
                ("review_asked_at", models.DateTimeField(blank=True, editable=False, null=True)),
                (
                    "customer",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="orders",
                        to="orders.customer",
                    ),
                ),
            ],
            options={
                "ordering": ["-placed_at", "-pk"],
                "indexes": [models.Index(fields=["-placed_at", "-id"], name="orders_order_newest")],
            },
        ),
        migrations.CreateModel(
            name="Shipment",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("tracking_number", models.CharField(max_length=30, unique=True)),
                ("attempts", models.PositiveIntegerField(help_text="How often the carrier had to be asked.")),
                ("booked_at", models.DateTimeField(default=django.utils.timezone.now)),
                (
                    "order",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="shipment",
                        to="orders.order",
                    ),
                ),
            ],
            options={"ordering": ["-booked_at", "-pk"]},
        ),
    ]
