{% if cookiecutter.observability == "opentelemetry" -%}
import django
from django.core.asgi import get_asgi_application

from config.environment import choose_settings

choose_settings()
django.setup()

from config import telemetry  # noqa: E402

# Before the application is made, which then has the middleware that traces. It sends once a request is there: a server
# may fork in between.
telemetry.instrument()
{% else -%}
from django.core.asgi import get_asgi_application

from config.environment import choose_settings

choose_settings()
{% endif %}
application = get_asgi_application()
