"""The template renders, refuses what it can't render, and what it makes holds what it says."""

import json
import os
import re
import stat
import subprocess
import sys

import pytest
import tomllib

from tests.template.conftest import TEMPLATE
from tests.template.test_options import ASK

pytestmark = pytest.mark.template


@pytest.fixture(params=["shop", "odd"])
def baked(request):
    return request.getfixturevalue(request.param)


def test_the_folder_has_the_name_of_the_project(shop, odd):
    assert (shop.path.name, odd.path.name) == ("shop", "x")


def test_what_django_renders_is_left_as_it_is(shop):
    assert "{{ project_name }}" in shop.text("orders/templates/orders/base.html")


def test_what_the_answers_do_not_need_is_not_there(bake, shop):
    hidden = {".env", ".env.example", ".gitignore", ".github", ".dockerignore"}
    files = {"LICENSE", "Makefile", "Procfile", "README.md", "pyproject.toml"}
    files |= {"constraints.txt", "requirements.txt", "requirements-dev.txt"}
    code = {"config", "orders", "tests", "manage.py", "run.py", "reload.py", "gunicorn.conf.py"}
    folders = {"deploy", "docs", "ops"}
    assert {path.name for path in shop.path.iterdir() if path.name not in ("var", "staticfiles")} == {
        *(hidden | files | code | folders | {"Dockerfile", "compose.yaml"})
    }
    assert [path.name for path in (shop.path / "deploy").iterdir()] == ["compose"]

    bare = bake(deployment="supervisor", ci="none")
    there = {path.name for path in bare.path.iterdir()}
    assert not there & {".github", ".gitlab-ci.yml", "Dockerfile", ".dockerignore", "compose.yaml", "compose.dev.yaml"}


def test_the_answers_arrive(odd):
    shown = odd.run(
        "-c",
        "import json; from django.conf import settings; from config.celery import app;"
        "print(json.dumps([settings.PROJECT_NAME, settings.TIME_ZONE, str(app.conf.timezone), app.main]))",
        DJANGO_SETTINGS_MODULE="config.settings.development",
    )

    zone = "America/Argentina/Buenos_Aires"
    assert json.loads(shown) == ["O'Brien & Söhne <Tee> {50 %} #1", zone, zone, "x"]
    assert "Zoë 'Zed' d'Arc" in odd.text("LICENSE")


def test_the_version_of_the_template_is_stamped_into_the_project(shop):
    version = json.loads((TEMPLATE / "cookiecutter.json").read_text())["_template_version"]

    assert tomllib.loads(shop.text("pyproject.toml"))["tool"]["taskkit-template"] == {"version": version}
    assert f"from version {version} of the template" in shop.text("docs/updating.md")


@pytest.mark.parametrize(
    ("licence", "words"),
    [
        ("proprietary", "All rights reserved."),
        ("MIT", "Permission is hereby granted, free of charge"),
        ("BSD-3-Clause", "Neither the name of the copyright holder"),
    ],
)
def test_the_licence_is_the_one_that_was_asked_for(bake, licence, words):
    text = bake(licence=licence).text("LICENSE")

    assert words in " ".join(text.split())
    assert re.search(r"Copyright \(c\) 20\d\d,? The Shop Team", text)


def test_the_secrets_are_private_and_new_each_time(shop, odd):
    keys = set()
    for baked in (shop, odd):
        file = baked.path / ".env"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        lines = dict(line.split("=", 1) for line in file.read_text().splitlines() if "=" in line and line[0] != "#")
        assert len(lines["SECRET_KEY"]) >= 50
        keys.add(lines["SECRET_KEY"])

    assert len(keys) == 2
    assert ".env" in shop.text(".gitignore").split()


def test_the_example_of_the_secrets_is_blank(baked):
    lines = baked.text(".env.example").splitlines()

    assert all(line.endswith("=") for line in lines if line and not line.startswith("#"))


#: Loaded by every Python that is started: who asks another machine for anything is told off.
OFFLINE = """
import socket


def refuse(*arguments):
    raise AssertionError(f"asks the network: {arguments}")


socket.socket.connect = socket.getaddrinfo = refuse
"""


def test_rendering_needs_no_network_no_git_and_no_docker(tmp_path):
    pytest.importorskip("cookiecutter")
    (tmp_path / "sitecustomize.py").write_text(OFFLINE)
    (tmp_path / "bin").mkdir()
    code = (
        "import cookiecutter.main, sys;"
        "cookiecutter.main.cookiecutter(sys.argv[1], no_input=True, default_config=True, output_dir='.',"
        "extra_context=dict(database='postgresql', broker='rabbitmq', deployment='kubernetes'))"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, str(TEMPLATE)],
        cwd=tmp_path,
        env={"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path), "PYTHONPATH": str(tmp_path), "LANG": "C"},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr
    assert "shop/ is ready" in done.stdout
    assert (tmp_path / "shop" / ".env").is_file()


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


def test_a_second_rendering_does_not_touch_what_is_there(tmp_path):
    main = pytest.importorskip("cookiecutter.main")
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / ".env").write_text("SECRET_KEY=mine\n")

    with pytest.raises(Exception, match="already exists"):
        main.cookiecutter(str(TEMPLATE), no_input=True, default_config=True, output_dir=str(tmp_path))

    assert [path.name for path in (tmp_path / "shop").iterdir()] == [".env"]


def test_odd_answers_are_no_reason_for_warnings(odd, production, tmp_path):
    said = odd.run("-c", ASK, VAR_DIR=str(tmp_path), **production)

    assert said.splitlines()[0].startswith("System check identified no issues")
    assert said.splitlines()[1:] == ["No changes detected", "[]"]


@pytest.mark.boot
def test_with_odd_answers_the_tests_of_the_project_pass(odd):
    assert re.search(r"\d+ passed", odd.run("-m", "pytest", "-p", "no:cacheprovider", "-q"))


def refusal(baked, **environment):
    """What is said when the settings refuse to load; of an exception, the last line."""
    done = subprocess.run(
        [sys.executable, "manage.py", "check"],
        cwd=baked.path,
        env=baked.environment(**environment),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    return done.stderr.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def without_secrets(bake, tmp_path_factory):
    """A project without .env, as in an image."""
    whole = bake(database="postgresql", broker="redis", results="redis", scheduler="file")
    bare = whole.copy(tmp_path_factory.mktemp("bare") / "shop")
    (bare.path / ".env").unlink()
    return bare


def test_what_production_misses_is_said_in_one_sentence_with_the_remedy(without_secrets):
    told = dict.fromkeys(without_secrets.variables, "")  # blank is not there
    for name, value, remedy in (
        ("SECRET_KEY", "x" * 60, "copy .env.example to .env and fill it in"),
        ("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none", "give postgresql://user:password@host/name"),
        ("BROKER_URL", "redis://127.0.0.1:1", "give redis://host:6379/0, or rediss:// for TLS"),
        ("RESULT_URL", "redis://127.0.0.1:1", "give redis://host:6379/2, or rediss:// for TLS"),
        ("ALLOWED_HOSTS", "shop.example", "give the names under which the site is reached, separated by commas"),
        ("EMAIL_HOST", "mail.example", "give the server that takes mails; receipts go out by it"),
    ):
        assert refusal(without_secrets, **told).endswith(f"ImproperlyConfigured: {name} is empty: {remedy}.")
        told[name] = value
    assert "EMAIL_PORT is 'smtp'; give a whole number" in refusal(without_secrets, **{**told, "EMAIL_PORT": "smtp"})


def test_production_is_what_runs_if_nobody_says_another_thing(without_secrets):
    code = (
        "import os; from config.environment import choose_settings; choose_settings();"
        "print(os.environ['DJANGO_SETTINGS_MODULE'])"
    )

    assert without_secrets.run("-c", code).strip() == "config.settings.production"


@pytest.mark.parametrize(
    ("url", "cache"),
    [
        ("", "django.core.cache.backends.db.DatabaseCache"),
        ("rediss://cache.example.org/1", "django.core.cache.backends.redis.RedisCache"),
    ],
)
def test_each_cache_is_one_that_web_and_workers_share(shop, url, cache):
    code = (
        "import django; django.setup(); from django.conf import settings; print(settings.CACHES['default']['BACKEND'])"
    )

    assert shop.run("-c", code, CACHE_URL=url, DJANGO_SETTINGS_MODULE="config.settings.development").strip() == cache


def test_a_cache_that_nobody_knows_is_refused_without_its_password(shop):
    said = refusal(shop, CACHE_URL="memcached://:secret@cache.example.org")

    assert "CACHE_URL begins with 'memcached'; give redis://, rediss://, or db:// for a table." in said
    assert "secret" not in said


def test_the_tests_of_the_project_never_meet_its_broker_and_its_cache(bake):
    code = (
        "from django.conf import settings;"
        "print(settings.CELERY_BROKER_URL, settings.CACHE_URL, settings.CELERY_RESULT_BACKEND)"
    )
    real = dict.fromkeys(("BROKER_URL", "CACHE_URL", "RESULT_URL"), "redis://real.example.org")

    said = bake(broker="redis", results="redis").run("-c", code, DJANGO_SETTINGS_MODULE="config.settings.test", **real)

    broker, cache, results = said.split()
    assert (broker, cache) == ("filesystem://", "db://")
    assert "real.example.org" not in results


def test_a_web_server_finds_all_that_the_pages_load(bake, production, tmp_path):
    project = bake(deployment="supervisor", ci="none").copy(tmp_path / "shop")
    project.run("manage.py", "collectstatic", "--noinput", SECRET_KEY="x" * 60, VAR_DIR=str(tmp_path), **production)

    made = {path.name for path in (project.path / "staticfiles").rglob("*")}
    for name in ("progress.js", "progress.css", "pages.css"):
        stem, _, suffix = name.partition(".")
        assert any(re.fullmatch(rf"{stem}\.[0-9a-f]{{12}}\.{suffix}", file) for file in made), name


def test_the_variables_of_this_machine_never_reach_a_project(shop, monkeypatch):
    for name in shop.variables | {"DEBUG", "CELERY_BROKER_URL", "AWS_PROFILE"}:
        monkeypatch.setenv(name, "of this machine")

    assert "of this machine" not in shop.environment().values()
    assert shop.environment()["PATH"] == os.environ["PATH"]


def test_what_is_handed_on_comes_from_the_file_and_blanks_are_taken_away(shop, tmp_path):
    code = (
        "import os; from config.environment import Environment; Environment().hand_on('A', 'B', 'C');"
        "print([os.environ.get(name) for name in 'ABC'])"
    )
    project = shop.copy(tmp_path / "shop")
    (project.path / ".env").write_text("A=1\nB=2\n")

    assert project.run("-c", code, B="3", C="").strip() == "['1', '3', None]"
