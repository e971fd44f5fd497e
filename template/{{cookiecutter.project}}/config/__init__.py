{%- if cookiecutter.database == "mariadb" -%}
import pymysql

# Django knows this driver by the name of another one; both speak to MariaDB and to MySQL, and this one needs no
# compiler to be installed.
pymysql.install_as_MySQLdb()

{% endif -%}
# Imported here, so that every process has the app before the first task is sent.
from config.celery import app as celery_app{% if cookiecutter.database == "mariadb" %}  # noqa: E402{% endif %}

__all__ = ["celery_app"]
