"""The template renders, refuses what it can't render, and what it makes works."""

import json
import stat
import subprocess
import sys

import pytest

pytestmark = pytest.mark.template


@pytest.fixture(params=["shop", "odd"])
def baked(request):
    return request.getfixturevalue(request.param)


def test_the_folder_has_the_name_of_the_project(shop, odd):
    assert (shop.path.name, odd.path.name) == ("shop", "x")


def test_nothing_is_left_unrendered(baked):
    for path in baked.files:
        text = path.read_text(encoding="utf-8")
        marks = ["cookiecutter"] if path.suffix == ".html" else ["cookiecutter", "{{", "{%", "{#"]
        assert not any(mark in text for mark in marks), path


def test_what_django_renders_is_left_as_it_is(shop):
    assert "{{ project_name }}" in (shop.path / "orders/templates/orders/base.html").read_text(encoding="utf-8")


def test_nothing_but_the_project_is_rendered(baked):
    names = {path.name for path in baked.path.iterdir()}

    assert names - {"var"} == {
        *(
            ".env",
            ".env.example",
            ".gitignore",
            "Makefile",
            "README.md",
            "manage.py",
            "pyproject.toml",
            "run.py",
        ),
        *("requirements.txt", "requirements-dev.txt", "config", "orders", "tests"),
    }


def test_every_python_file_compiles(baked):
    for path in baked.files:
        if path.suffix == ".py":
            compile(path.read_bytes(), str(path), "exec")


def test_the_answers_arrive(odd):
    shown = odd.run(
        "-c",
        "import json; from django.conf import settings; from config.celery import app;"
        "print(json.dumps([settings.PROJECT_NAME, settings.TIME_ZONE, str(app.conf.timezone), app.main]))",
        DJANGO_SETTINGS_MODULE="config.settings",
    )

    zone = "America/Argentina/Buenos_Aires"
    assert json.loads(shown) == ["O'Brien & Söhne <Tee> {50 %} #1", zone, zone, "x"]
    assert "Zoë 'Zed' d'Arc" in (odd.path / "README.md").read_text(encoding="utf-8")


def test_the_secrets_are_private_and_new_each_time(shop, odd):
    keys = set()
    for baked in (shop, odd):
        file = baked.path / ".env"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        lines = dict(line.split("=", 1) for line in file.read_text().splitlines() if "=" in line[1:20])
        assert len(lines["SECRET_KEY"]) >= 50
        keys.add(lines["SECRET_KEY"])

    assert len(keys) == 2
    assert ".env" in (shop.path / ".gitignore").read_text().split()


def test_the_example_of_the_secrets_is_blank(baked):
    lines = (baked.path / ".env.example").read_text().splitlines()

    assert all(line.endswith("=") for line in lines if line and not line.startswith("#"))


def test_every_variable_of_the_example_is_read_and_every_one_read_is_in_it(shop):
    settings = (shop.path / "config" / "settings.py").read_text()
    lines = (shop.path / ".env.example").read_text().splitlines()
    named = {line.partition("=")[0] for line in lines if line and not line.startswith("#")}

    read = {part.split('"')[1] for part in settings.split("env.")[1:] if part.split("(")[0].isalpha()}
    assert read == named


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"project": "Web Shop"}, "project is 'Web Shop', but it has to start with a small letter"),
        ({"project": "shöp"}, "project is 'shöp', but"),
        ({"project": "1shop"}, "project is '1shop', but"),
        ({"project": "a" * 41}, "at most 39 small letters, digits and underscores, for example 'web_shop'."),
        ({"project": "celery"}, "project is 'celery', which Python code needs already"),
        ({"project": "json"}, "project is 'json', which Python code needs already"),
        ({"project": "class"}, "project is 'class', which Python code needs already"),
        ({"project_name": 'The "Shop"'}, "without double quotes and backslashes, for example 'The Shop'."),
        ({"project_name": "back\\slash"}, "without double quotes and backslashes"),
        ({"project_name": "two\nlines"}, "project_name is 'two\\nlines', but it has to be one line"),
        ({"project_name": "   "}, "project_name is '   ', but"),
        ({"project_name": "x" * 61}, "1 to 60 characters"),
        ({"author_name": "'''; import os; '''\t"}, "author_name is"),
        (
            {"timezone": "Mars/Olympus"},
            "timezone is 'Mars/Olympus', which is not a time zone; give one like 'UTC'",
        ),
        ({"timezone": "../../etc/passwd"}, "which is not a time zone"),
    ],
)
def test_a_bad_answer_is_refused_in_one_sentence(bake, capfd, answers, message):
    with pytest.raises(Exception, match="Hook script failed"):
        bake(**answers)

    said = [line for line in capfd.readouterr().err.splitlines() if " is " in line]
    assert len(said) == 1
    assert message in said[0]


def test_django_has_nothing_to_say_about_a_deployment(baked):
    options = ("--deploy", "--fail-level", "WARNING")

    shown = baked.run("manage.py", "check", *options, DEBUG="no", ALLOWED_HOSTS="example.org")

    assert "no issues" in shown


def test_the_migrations_are_complete(baked):
    assert "No changes detected" in baked.run("manage.py", "makemigrations", "--check", "--dry-run")


def test_without_a_secret_key_the_settings_say_what_to_do(shop, tmp_path):
    empty = tmp_path / "shop"
    subprocess.run(["cp", "-r", shop.path, empty], check=True)
    (empty / ".env").unlink()

    done = subprocess.run(
        [sys.executable, "manage.py", "check"],
        cwd=empty,
        env=shop.environment(),
        capture_output=True,
        text=True,
    )

    assert "copy .env.example to .env and fill it in" in done.stderr


def test_the_tests_of_the_project_pass(baked):
    pytest.importorskip("pytest_django")

    shown = baked.run("-m", "pytest", "-p", "no:cacheprovider", "-q")

    assert " passed" in shown
    assert " skipped" not in shown


def said_when_deployed(shop, expression, **environment):
    """What ``check --deploy`` prints, and then the value of ``expression``."""
    code = (
        "import django; django.setup()\n"
        "from django.conf import settings\n"
        "from django.core.management import call_command\n"
        "from config.celery import app\n"
        "call_command('check', deploy=True, fail_level='WARNING')\n"
        f"print({expression})"
    )
    deployed = {"DEBUG": "no", "ALLOWED_HOSTS": "example.org", "DJANGO_SETTINGS_MODULE": "config.settings"}
    return shop.run("-c", code, **environment, **deployed)


@pytest.mark.parametrize(
    ("url", "transport"),
    [
        ("", "django_taskkit.transports.filesystem:Transport"),
        ("rediss://broker.example.org/1", "django_taskkit.transports.redis:Transport"),
        ("amqp://broker.example.org//", None),
    ],
)
def test_each_broker_gets_a_transport_that_loses_nothing(shop, url, transport):
    shown = said_when_deployed(shop, "app.conf.broker_transport", BROKER_URL=url)

    assert "no issues" in shown
    assert shown.split()[-1] == str(transport)


@pytest.mark.parametrize(
    ("url", "cache"),
    [
        ("", "django.core.cache.backends.db.DatabaseCache"),
        ("rediss://cache.example.org/1", "django.core.cache.backends.redis.RedisCache"),
    ],
)
def test_each_cache_is_one_that_web_and_workers_share(shop, url, cache):
    shown = said_when_deployed(shop, "settings.CACHES['default']['BACKEND']", CACHE_URL=url)

    assert "no issues" in shown
    assert shown.split()[-1] == cache


def test_a_cache_that_nobody_knows_is_refused_without_its_password(shop):
    done = subprocess.run(
        [sys.executable, "manage.py", "check"],
        cwd=shop.path,
        env=shop.environment(CACHE_URL="memcached://:secret@cache.example.org"),
        capture_output=True,
        text=True,
    )

    assert "CACHE_URL begins with 'memcached'; give redis://, rediss://, or db:// for a table." in done.stderr
    assert "secret" not in done.stderr


def test_the_tests_of_the_project_never_meet_its_broker_and_its_cache(shop):
    code = "from django.conf import settings; print(settings.CELERY_BROKER_URL, settings.CACHE_URL)"
    real = {"BROKER_URL": "redis://real.example.org", "CACHE_URL": "redis://real.example.org"}

    assert shop.run("-c", code, DJANGO_SETTINGS_MODULE="config.settings_test", **real) == "filesystem:// db://\n"


def test_without_debug_a_web_server_finds_all_that_the_pages_load(shop, tmp_path):
    shop.run("manage.py", "collectstatic", "--noinput", DEBUG="no", VAR_DIR=str(tmp_path))

    for name in ("django_taskkit/progress.js", "django_taskkit/progress.css", "orders/pages.css"):
        assert (tmp_path / "static" / name).is_file(), name
