"""A window of Chromium in front of the site, which notes whatever a browser complains of."""

from __future__ import annotations

from typing import Any

from tests.template.boot.booted import PASSWORD, Site

WATCH = """
    document.addEventListener("securitypolicyviolation",
        (event) => console.error(`CSP: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
"""


class Window:
    def __init__(self, chromium: Any, site: Site) -> None:
        self.site = site
        self.complaints: list[str] = []
        self.context = chromium.new_context(
            base_url=site.front.url, ignore_https_errors=True, viewport={"width": 1280, "height": 900}
        )
        self.context.set_default_timeout(60_000)
        self.context.add_init_script(WATCH)
        self.page = self.context.new_page()
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(f"{self.page.url}: {error}"))
        self.page.on("response", self._see)

    def _hear(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{self.page.url}: {message.text}")

    def _see(self, response: Any) -> None:
        if response.status >= 400:
            self.complaints.append(f"{response.url}: {response.status}")

    def log_in(self, path: str = "/admin/") -> Any:
        self.page.goto(path)
        if self.page.locator("#id_username").count():
            self.page.fill("#id_username", "ann")
            self.page.fill("#id_password", PASSWORD)
            self.page.click("[type=submit]")
            self.page.wait_for_url(lambda address: "/login/" not in address)
        return self.page

    def shot(self, name: str) -> None:
        self.page.screenshot(path=self.site.kept / f"{name}.png", full_page=True)

    def reload_until(self, text: str, within: float = 60) -> None:
        """Reload the page, as a person would, until the text is there."""
        from tests.live.waiting import wait_until

        def there() -> bool:
            self.page.reload()
            return text in self.page.inner_text("#content")

        wait_until(there, within, f"{self.page.url} shows {text!r}", interval=1)

    def close(self) -> None:
        self.context.close()
