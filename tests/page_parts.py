"""What tests of the page share: a real browser, Debian's chromium, on the embedded model's page."""

import io
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from janus_kit import JanusPipeline

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

MARKS = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium"),
    # Gradio and its server leave sockets to the end of the process.
    pytest.mark.filterwarnings("default"),
]

PROMPT = "a bench left of a teddy bear"
LONG = 120_000  # ms; on a busy machine a picture takes a while
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--disable-features=Translate,OptimizationHints,MediaRouter",
)


@pytest.fixture(scope="module")
def embedded_pipe() -> JanusPipeline:
    return JanusPipeline.from_pretrained()


@pytest.fixture(scope="module")
def url(embedded_pipe: JanusPipeline) -> Iterator[str]:
    from janus_kit.demos.app import opened

    with opened(embedded_pipe, port=_free_port(), drain=5) as url:
        yield url.rstrip("/")


def _free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync = pytest.importorskip("playwright.sync_api")
    sync.expect.set_options(timeout=LONG)
    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


class Page:
    """A tab of the browser on our page, with what it has asked for and complained of."""

    def __init__(self, browser: Any, url: str, **options: Any) -> None:
        self.url = url
        self.context = browser.new_context(
            **{"viewport": {"width": 1280, "height": 900}, **options}
        )
        self.page = self.context.new_page()
        self.page.set_default_timeout(LONG)
        self.foreign: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", self._note)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(url)
        self.button("Draw").wait_for()

    def _note(self, request: Any) -> None:
        if not request.url.startswith((self.url, "data:", "blob:")):
            self.foreign.append(request.url)

    def button(self, name: str) -> Any:
        return self.page.get_by_role("button", name=name, exact=True).locator("visible=true")

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name, exact=True).click()

    def label(self, name: str) -> Any:
        return self.page.get_by_label(name, exact=True).locator("visible=true").first

    def status(self, part: str) -> Any:
        return self.page.locator(f"#{part}-status p").locator("visible=true")

    def wait_for(self, part: str, words: str) -> str:
        self.status(part).filter(has_text=re.compile(words)).wait_for()
        return str(self.status(part).inner_text())

    def draw(self, prompt: str = PROMPT, seed: str = "8") -> None:
        self.label("Prompt").fill(prompt)
        self.label("Seed").fill(seed)
        self.button("Draw").click()

    def picture(self, selector: str) -> Image.Image:
        """The file behind a picture on the page, as it was sent."""
        source = self.page.locator(selector).first.get_attribute("src")
        data = self.page.request.get(source).body()
        return Image.open(io.BytesIO(data))

    def toast(self) -> str:
        box = self.page.get_by_test_id("toast-body").first
        box.wait_for()
        text = str(box.inner_text())
        for close in self.page.get_by_test_id("toast-close").all():
            close.click()
        box.wait_for(state="detached")  # it fades, and would be read again
        return text


@pytest.fixture
def page(browser: Any, url: str) -> Iterator[Page]:
    page = Page(browser, url)
    yield page
    page.context.close()
    assert page.foreign == []
    assert page.errors == []


def shot(page: Page, name: str) -> None:
    """A screenshot for people, where one is asked for."""
    folder = os.environ.get("JANUS_KIT_SCREENSHOTS")
    if folder:
        page.page.screenshot(path=Path(folder) / f"{name}.png")
