"""A browser of few lines: it follows links, fills in forms and keeps cookies, as a person would."""

from __future__ import annotations

import http.cookiejar
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator
from email.message import Message
from html.parser import HTMLParser

VOID = frozenset(["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "wbr"])
BREAKING = frozenset(["br", "div", "h1", "h2", "li", "p", "td", "th", "tr"])


class PageError(Exception):
    """A page is not what the story says."""


class Element:
    """A tag with what is in it."""

    def __init__(self, tag: str, attributes: dict[str, str]):
        self.tag = tag
        self.attributes = attributes
        self.children: list[Element | str] = []

    def all(self, tag: str = "", **attributes: str) -> Iterator[Element]:
        """Yield the elements below, with these attributes; `class_` asks for one of the classes."""
        for child in self.children:
            if isinstance(child, Element):
                if child._fits(tag, attributes):
                    yield child
                yield from child.all(tag, **attributes)

    def _fits(self, tag: str, attributes: dict[str, str]) -> bool:
        wanted = dict(attributes)
        class_ = wanted.pop("class_", None)
        return (
            (not tag or self.tag == tag)
            and (class_ is None or class_ in self.attributes.get("class", "").split())
            and all(self.attributes.get(name) == value for name, value in wanted.items())
        )

    def first(self, tag: str = "", **attributes: str) -> Element:
        for element in self.all(tag, **attributes):
            return element
        raise PageError(f"there is no <{tag or 'element'}> with {attributes}")

    @property
    def text(self) -> str:
        return " ".join("".join(self._texts()).split())

    def _texts(self) -> Iterator[str]:
        for child in self.children:
            if isinstance(child, str):
                yield child
            elif child.tag not in ("script", "style"):
                yield from child._texts()
        if self.tag in BREAKING:
            yield " "

    def form_fields(self) -> list[tuple[str, str]]:
        """Return what a browser would send if the form were submitted as it is, buttons left out."""
        fields = []
        for element in self.all():
            name, kind = element.attributes.get("name"), element.attributes.get("type", "text")
            if not name or "disabled" in element.attributes:
                continue
            if element.tag == "textarea":
                fields.append((name, "".join(str(child) for child in element.children)))
            elif element.tag == "select":
                chosen = [o for o in element.all("option") if "selected" in o.attributes]
                fields += [(name, option.attributes.get("value", option.text)) for option in chosen]
            elif element.tag == "input" and kind in ("checkbox", "radio"):
                if "checked" in element.attributes:
                    fields.append((name, element.attributes.get("value", "on")))
            elif element.tag == "input" and kind not in ("submit", "button", "image", "reset", "file"):
                fields.append((name, element.attributes.get("value", "")))
        return fields


class _Builder(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attributes})
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        if any(element.tag == tag for element in self.open):
            while self.open.pop().tag != tag:
                pass  # closes what the page left open

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


class Page(Element):
    """A page as it arrived."""

    def __init__(self, url: str, text: str):
        builder = _Builder()
        builder.feed(text)
        super().__init__("", {})
        self.url = url
        self.children = builder.root.children

    def field(self, name: str) -> str:
        """Return the text of a read-only field on a detail page of the admin."""
        return self.first(class_=f"field-{name}").first(class_="readonly").text


class Browser:
    """Keeps cookies between pages."""

    def __init__(self, address: str):
        self.address = address
        self.cookies = http.cookiejar.CookieJar()
        # No proxy, whatever the environment says: the site is on this machine.
        self.opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(self.cookies)
        )

    def open(self, url: str, data: list[tuple[str, str]] | None = None) -> Page:
        """Return the page at `url`, after redirects.

        Raises:
            PageError: the site answers with an error or not at all.
        """
        address, content, _ = self._fetch(url, data)
        return Page(address, content.decode())

    def download(self, url: str) -> tuple[str, bytes]:
        """Return name and content of the file at `url`, under which a browser would save it.

        Raises:
            PageError: the site answers with an error or not at all, or with a page.
        """
        address, content, headers = self._fetch(url, None)
        name = headers.get_filename()
        if headers.get_content_disposition() != "attachment" or not name:
            raise PageError(f"{address} is no file to save, but {headers.get_content_type()}")
        return name, content

    def _fetch(self, url: str, data: list[tuple[str, str]] | None) -> tuple[str, bytes, Message]:
        url = urllib.parse.urljoin(self.address, url)
        body = None if data is None else urllib.parse.urlencode(data).encode()
        request = urllib.request.Request(url, body, {"Referer": url})
        try:
            with self.opener.open(request, timeout=30) as response:
                return response.url, response.read(), response.headers
        except urllib.error.HTTPError as exc:
            shown = Page(url, exc.read().decode(errors="replace")).text[:300]
            raise PageError(f"{url} answers {exc.code}: {shown}") from exc
        except OSError as exc:
            raise PageError(f"{url} does not answer: {exc}") from exc

    def follow(self, page: Page, link: Element) -> Page:
        return self.open(urllib.parse.urljoin(page.url, link.attributes["href"]))

    def submit(self, page: Page, form: Element, more: Iterable[tuple[str, str]] = (), **values: str) -> Page:
        """Send `form` with `values` in its fields, and with `more`: ticked boxes and the button pressed."""
        fields = [(name, values.pop(name, value)) for name, value in form.form_fields()]
        target = urllib.parse.urljoin(page.url, form.attributes.get("action", ""))
        return self.open(target, [*fields, *values.items(), *more])
