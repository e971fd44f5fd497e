"""Vietnamese and Traditional Chinese are complete, and what is shipped is what was translated."""

import gettext
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from django.utils import translation

import django_taskkit

PACKAGE = Path(django_taskkit.__file__).parent
LANGUAGES = ("vi", "zh_Hant")


def entries(text):
    """Pairs of a text and its first translation, whatever the line breaks in the file."""

    def joined(quoted):
        return "".join(re.findall(r'"(.*)"', quoted))

    found = re.findall(
        r'^msgid ((?:".*"\n)+)(?:msgid_plural (?:".*"\n)+)?msgstr(?:\[0\])? ((?:".*"\n?)+)', text, re.MULTILINE
    )
    return {joined(source): joined(translated) for source, translated in found if joined(source)}


def catalogue(language, kind):
    return PACKAGE / "locale" / language / "LC_MESSAGES" / f"django.{kind}"


@pytest.mark.parametrize("language", LANGUAGES)
def test_nothing_is_left_in_english_or_doubtful(language):
    text = catalogue(language, "po").read_text()

    assert "#, fuzzy" not in text
    assert all(entries(text).values())


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_compiled_catalogue_has_what_the_source_has(language):
    with catalogue(language, "mo").open("rb") as file:
        compiled = gettext.GNUTranslations(file)._catalog
    source = catalogue(language, "po").read_text()

    texts = {key[0] if isinstance(key, tuple) else key: value for key, value in compiled.items()}
    del texts[""]
    assert {key.replace("\n", "\\n"): value for key, value in texts.items()} == entries(source)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_catalogue_knows_every_text_of_the_package(language, tmp_path):
    if not shutil.which("xgettext"):
        pytest.fail("needs gettext") if os.environ.get("CI") else pytest.skip("needs gettext (Debian: gettext)")
    copy = tmp_path / "django_taskkit"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "*.mo"))
    before = copy.joinpath("locale", language, "LC_MESSAGES", "django.po").read_text()

    command = [sys.executable, "-m", "django", "makemessages", "-l", language, "--no-location", "--no-obsolete"]
    subprocess.run(command, cwd=copy, check=True, capture_output=True, env={**os.environ, "DJANGO_SETTINGS_MODULE": ""})

    after = copy.joinpath("locale", language, "LC_MESSAGES", "django.po").read_text()
    assert entries(after).keys() == entries(before).keys()


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("language", "title", "action"),
    [
        ("vi", "Đưa thư chết trở lại hàng đợi", "Bỏ các thư chết đã chọn"),
        ("zh-hant", "將死信重新排入佇列", "捨棄所選的死信"),
    ],
)
def test_the_admin_speaks_the_language_of_the_browser(admin_client, station, language, title, action):
    from tests.admin.test_dead_letters import LIST, letter

    row = letter()
    with translation.override(language):
        headers = {"accept-language": language}
        assert action in admin_client.get(LIST, headers=headers).content.decode()
        assert title in admin_client.get(f"{LIST}{row.pk}/requeue/", headers=headers).content.decode()
