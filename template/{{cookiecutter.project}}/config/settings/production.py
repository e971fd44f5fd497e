"""Production: what is missing is an error at the start, and not a surprise in the night."""

from django.core.exceptions import ImproperlyConfigured
{%- if cookiecutter.django != "5.2" %}
from django.utils.csp import CSP
{%- endif %}

from config.settings.base import *  # noqa: F403
from config.settings.base import ALLOWED_HOSTS, LOGGING, {% if cookiecutter.django != "5.2" or cookiecutter.deployment == "kubernetes" %}MIDDLEWARE, {% endif %}STORAGES, env
from config.settings.tasks import *  # noqa: F403

DEBUG = False
env.required("ALLOWED_HOSTS", "give the names under which the site is reached, separated by commas")

SECURE_SSL_REDIRECT = SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = True
# Probes{% if cookiecutter.observability == "prometheus" %} and Prometheus{% endif %} ask from inside, without HTTPS.
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$"{% if cookiecutter.observability == "prometheus" %}, r"^metrics$"{% endif %}]
SECURE_HSTS_SECONDS = 3600  # raise it once HTTPS has worked for a while; browsers remember it
# Whether all subdomains have HTTPS too is for the owner of the domain to say.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]
if env.yes("BEHIND_PROXY"):
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
{%- if cookiecutter.deployment == "kubernetes" %}
# /readyz{% if cookiecutter.observability == "prometheus" %} and /metrics are{% else %} is{% endif %} not for who comes by the Ingress.
MIDDLEWARE += ["config.inside.inside_only"]
{%- endif %}
{%- if cookiecutter.django != "5.2" %}

# Browsers load nothing from elsewhere, and run no script that a page has in itself.
MIDDLEWARE += ["django.middleware.csp.ContentSecurityPolicyMiddleware"]
SECURE_CSP = {
    "default-src": [CSP.SELF],
    "img-src": [CSP.SELF, "data:"],
    "frame-ancestors": [CSP.NONE],
    "base-uri": [CSP.NONE],
    "object-src": [CSP.NONE],
}
{%- endif %}

# Names of static files hold a hash of what is in them: browsers keep them for ever, and get the new ones at once.
STORAGES["staticfiles"] = {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"}

_host = env.required("EMAIL_HOST", "give the server that takes mails; receipts go out by it")
_port = env.number("EMAIL_PORT", 587)
_password = env.text("EMAIL_HOST_PASSWORD")
if _password and _port == 25:
    raise ImproperlyConfigured("EMAIL_PORT is 25, where the password would go in clear text: give 587, or 465.")
{%- if cookiecutter.django == "6.1" %}
MAILERS = {
    "default": {
        "BACKEND": "django.core.mail.backends.smtp.EmailBackend",
        "OPTIONS": {
            "host": _host,
            "port": _port,
            "username": env.text("EMAIL_HOST_USER"),
            "password": _password,
            "use_ssl": _port == 465,
            "use_tls": _port not in (25, 465),  # STARTTLS; without, the password goes in clear text
            "timeout": 20,  # seconds; without: a mail server that hangs holds a worker until the time limit
        },
    }
}
{%- else %}
EMAIL_HOST, EMAIL_PORT = _host, _port
EMAIL_HOST_USER, EMAIL_HOST_PASSWORD = env.text("EMAIL_HOST_USER"), _password
EMAIL_USE_SSL = EMAIL_PORT == 465
EMAIL_USE_TLS = EMAIL_PORT not in (25, 465)  # STARTTLS; without, the password goes in clear text
EMAIL_TIMEOUT = 20  # seconds; without: a mail server that hangs holds a worker until the time limit
{%- endif %}
# Mail servers refuse what comes from localhost, and then every receipt is a dead letter.
_domain = ALLOWED_HOSTS[0].lstrip("*.")
if not _domain:
    env.required("DEFAULT_FROM_EMAIL", "say who mails are from, as ALLOWED_HOSTS names no host")
DEFAULT_FROM_EMAIL = env.text("DEFAULT_FROM_EMAIL", f"{{ cookiecutter.project }}@{_domain}")
DIGEST_TO = env.text("DIGEST_TO", f"owner@{_domain}" if _domain else "")

LOGGING["handlers"]["console"]["formatter"] = "json"
{%- if cookiecutter.observability == "sentry" %}

if dsn := env.text("SENTRY_DSN"):
    import sentry_sdk
    from django_taskkit.observability.sentry import TaskkitIntegration

    from config.settings.base import RELEASE

    # Each death of a task is told once, with a link to its dead letter.
    sentry_sdk.init(
        dsn=dsn,
        release=RELEASE,
        environment=env.text("SENTRY_ENVIRONMENT", "production"),
        traces_sample_rate=0.0,
        integrations=[TaskkitIntegration()],
    )
{%- endif %}
