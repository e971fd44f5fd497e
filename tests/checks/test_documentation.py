"""Each id has a section, and each section an id."""

import re
from pathlib import Path

import django_taskkit
from django_taskkit.checks import celery_settings

PACKAGE = Path(django_taskkit.__file__).parent
DOCS = Path(__file__).resolve().parents[2] / "docs" / "checks.md"


def ids_of_code():
    """What is between quotes, and what a call of ``error`` or ``warning`` begins with."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        source = path.read_text()
        found |= set(re.findall(r"\"(?:taskkit\.)?([EW]0\d\d)\"", source))
    return found


def ids_of(functions):
    return {number for function in functions for number in re.findall(r"taskkit\.([EW]0\d\d)", function.__doc__)}


def test_each_id_has_a_section_and_each_section_an_id():
    sections = re.findall(r"^### taskkit\.([EW]\d{3}): ", DOCS.read_text(), re.MULTILINE)

    assert sections == sorted(ids_of_code())


def test_the_anchor_of_each_section_is_its_id():
    text = DOCS.read_text()

    assert re.findall(r"^### (taskkit\.[EW]\d{3}): ", text, re.MULTILINE) == re.findall(r'<a id="([^"]+)"></a>', text)
    assert set(re.findall(r"\(#(taskkit\.\w+)\)", text)) <= set(re.findall(r'<a id="([^"]+)"></a>', text))


def test_each_check_names_its_ids_and_the_page_says_which_need_deploy():
    sections = dict(re.findall(r"^### taskkit\.([EW]\d{3}): .+\n\n(.*)", DOCS.read_text(), re.MULTILINE))
    always = {
        number for check in celery_settings.ALWAYS for number in re.findall(r"taskkit\.([EW]0\d\d)", check.__doc__)
    }
    deploy = {
        number for check in celery_settings.DEPLOY for number in re.findall(r"taskkit\.([EW]0\d\d)", check.__doc__)
    }

    for number, text in sections.items():
        if number in always | deploy:
            assert (number in always) is not text.startswith("Said with `--deploy`. "), number
