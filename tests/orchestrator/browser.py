"""A real browser without a window, for the tests of what people see: what it is shown, what it says, what it loads."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SECONDS = 30.0  # for which a busy machine is waited for


def lacking() -> str:
    """Why there is no browser here, with what to do; empty where there is one."""
    browser = any(map(shutil.which, BROWSERS))
    missing = [
        name for name, there in (("Chromium", browser), ("chromedriver", shutil.which("chromedriver"))) if not there
    ]
    return f"no {' and no '.join(missing)} here; `make browser` installs them on Debian" if missing else ""


class Browser:
    """One window, which shows a page at a time."""

    def __init__(self, driver: webdriver.Chrome, folder: Path) -> None:
        self.driver, self.folder = driver, folder
        self.uri = ""

    def show(self, html: str, *, width: int = 1400, height: int = 900, dark: bool = False) -> float:
        """Open a page from a file; -> in how many seconds it was there."""
        page = self.folder / "report.html"
        page.write_text(html, encoding="utf-8")
        self.driver.get("about:blank")
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        calm = {"name": "prefers-reduced-motion", "value": "reduce"}
        self.command("Emulation.setEmulatedMedia", media="", features=[scheme, calm])
        self.said(), self.loaded()
        self.command("Performance.disable"), self.command("Performance.enable", timeDomain="threadTicks")
        self.uri = page.as_uri()
        started = time.monotonic()
        self.driver.get(self.uri)
        return time.monotonic() - started

    def command(self, name: str, **arguments: Any) -> Any:
        """One of the browser's own, of its DevTools Protocol."""
        return self.driver.execute_cdp_cmd(name, arguments)

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script returns in the page."""
        return self.driver.execute_script(script, *arguments)

    def processor(self) -> float:
        """Seconds for which the page's thread had the processor since the page was opened."""
        found = self.command("Performance.getMetrics")["metrics"]
        return next(one["value"] for one in found if one["name"] == "TaskDuration")

    def until(self, script: str, *arguments: Any) -> Any:
        """What an expression says in the page once that is true, or not null."""
        end = time.monotonic() + SECONDS
        while not (found := self.run(f"return {script}", *arguments)):
            assert time.monotonic() < end, f"never: {script}"
            time.sleep(0.02)
        return found

    def said(self) -> list[str]:
        """Errors, warnings and messages in the console since it was last asked, those of uncaught exceptions and of the
        page's own rules among them."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def loaded(self) -> list[str]:
        """The addresses that the page has asked for since then, less those that have in them what they stand for."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
        return [address for address in asked if not address.startswith("data:")]

    def all_drawn(self) -> None:
        """Have every picture drawn, also those that nobody has seen yet."""
        self.run("dispatchEvent(new Event('beforeprint'))")

    def press(self, *keys: str) -> None:
        """Keys, one after the other."""
        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def click(self, selector: str, number: int = 0) -> None:
        """As a mouse does, in the middle of it: whatever covers it gets the click."""
        found = self.driver.find_elements("css selector", selector)[number]
        self.driver.execute_async_script(  # pictures that come into sight are drawn, and move what is below them
            "const [node, done] = arguments, to = () => node.scrollIntoView({block: 'center', inline: 'center'});"
            "to(); setTimeout(() => requestAnimationFrame(() => { to(); done(); }), 60);",
            found,
        )
        ActionChains(self.driver).move_to_element(found).click().perform()

    def choose(self, selector: str, value: str) -> None:
        """As one does in a list, or with a slider."""
        self.run(
            "const node = document.querySelector(arguments[0]); node.value = arguments[1];"
            "for (const one of ['input', 'change']) node.dispatchEvent(new Event(one, {bubbles: true}));",
            selector,
            value,
        )

    def texts(self, selector: str) -> list[str]:
        """As they read, spaces as one."""
        return self.run(
            "return [...document.querySelectorAll(arguments[0])].map(x => x.textContent.trim().replace(/\\s+/g, ' '))",
            selector,
        )

    def column(self, table: str, head: str) -> list[str]:
        """The cells under a heading, from top to bottom."""
        return self.run(
            "const table = document.getElementById(arguments[0]),"
            " head = [...table.tHead.rows[0].cells].findIndex(x => x.textContent.trim() === arguments[1]);"
            "return [...table.tBodies[0].rows].map(row => row.cells[head].textContent.trim())",
            table,
            head,
        )

    def taken(self) -> list[Path]:
        """What was downloaded. A browser makes an empty file of the name before it has the content."""
        named = [file for file in self.folder.iterdir() if file.suffix in (".csv", ".json", ".yaml")]
        return [file for file in named if file.stat().st_size]

    def take(self, label: str) -> Path:
        """The file that is downloaded by the button of this name."""
        (file,) = self.take_all(f"[aria-label='{label}']")
        return file

    def take_all(self, selector: str) -> list[Path]:
        """The files that are downloaded by these buttons."""
        for old in self.taken():
            old.unlink()
        click = "[...document.querySelectorAll(arguments[0])].slice(...arguments[1]).forEach(x => x.click())"
        number = self.run("return document.querySelectorAll(arguments[0]).length", selector)
        found: list[Path] = []
        for first in range(0, number, 10):  # a browser takes no more than ten in a second
            self.run(click, selector, (first, first + 10))
            end = time.monotonic() + SECONDS
            time.sleep(1.1 if first + 10 < number else 0)
            while len(found := self.taken()) < min(number, first + 10):
                assert time.monotonic() < end, f"only {found} came of {selector}"
                time.sleep(0.02)
        return found


@contextmanager
def browsing(folder: Path) -> Iterator[Browser]:
    """A browser that reaches nothing but files, and downloads into this folder."""
    options = webdriver.ChromeOptions()
    options.binary_location = next(filter(None, map(shutil.which, BROWSERS)))
    for word in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "host-resolver-rules=MAP * ~NOTFOUND"):
        options.add_argument(f"--{word}")
    options.add_experimental_option("prefs", {"download.default_directory": str(folder)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, Service(shutil.which("chromedriver"), log_output=os.devnull))
    try:
        driver.set_script_timeout(SECONDS)
        driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)})
        yield Browser(driver, folder)
    finally:
        driver.quit()
