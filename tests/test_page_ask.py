"""Asking about pictures on the page, in a real browser; see test_page.py."""

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from page_parts import LONG, MARKS, PROMPT, Page, shot
from PIL import Image

from janus_kit import JanusPipeline

pytest.importorskip("gradio")
sync = pytest.importorskip("playwright.sync_api")
pytestmark = MARKS


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[list[str], Any]]:
    """Answers wait after their second piece, until they go on or are stopped.

    The pieces so far, and what lets them go on.
    """
    from janus_kit.demos.jobs import Job

    pieces: list[str] = []
    go = threading.Event()
    put = Job.put

    def hold(job: Job, event: object) -> None:
        put(job, event)
        if isinstance(event, str):
            pieces.append(event)
            ends = time.monotonic() + LONG / 1000
            while len(pieces) == 2 and not job.cancelled.is_set() and time.monotonic() < ends:
                if go.wait(0.05):
                    break

    monkeypatch.setattr(Job, "put", hold)
    yield pieces, go
    go.set()


def _ask(page: Page, question: str, *pictures: Path) -> Any:
    """Send a question; the answers on the page."""
    if pictures:
        page.page.locator("#ask-box input[type=file]").first.set_input_files(pictures)
        page.page.locator("#ask-box .thumbnail-item").nth(len(pictures) - 1).wait_for()
    box = page.page.locator("#ask-box textarea")
    box.fill(question)
    box.press("Enter")
    return page.page.locator("#ask-chat [data-testid=bot]")


def test_a_drawn_picture_is_asked_about_and_the_answer_comes_in_pieces(
    page: Page, embedded_pipe: JanusPipeline
) -> None:
    page.draw(seed="8")
    page.wait_for("draw", "^Done in")
    page.button("Ask about it").click()
    box = page.page.locator("#ask-box textarea")
    box.wait_for()
    box.fill("Describe the picture.")
    box.press("Enter")
    bot = page.page.locator("#ask-chat .bot.message, #ask-chat [data-testid=bot]").last
    drawn = embedded_pipe(PROMPT, seed=8).images[0]
    expected = embedded_pipe.ask(drawn, "Describe the picture.")
    bot.filter(has_text=expected).wait_for()
    box.fill("How many benches are there?")
    box.press("Enter")
    page.page.locator("#ask-chat [data-testid=bot]").nth(1).wait_for()
    page.button("Stop").and_(page.page.locator("[disabled]")).wait_for()
    shot(page, "ask")
    page.button("New conversation").click()
    page.page.locator("#ask-chat [data-testid=bot]").first.wait_for(state="detached")


def test_an_example_question_works_offline(page: Page) -> None:
    page.tab("Ask")
    page.button("What color is the frisbee?").click()
    page.page.locator("#ask-box .thumbnail-item img, #ask-box img").first.wait_for()
    page.page.locator("#ask-box textarea").press("Enter")
    page.page.locator("#ask-chat [data-testid=bot]").first.wait_for()


def test_an_answer_is_seen_growing(
    page: Page, embedded_pipe: JanusPipeline, tmp_path: Path, held: tuple[list[str], Any]
) -> None:
    pieces, go = held
    embedded_pipe(PROMPT, seed=8).images[0].save(tmp_path / "drawn.png")
    expected = embedded_pipe.ask(tmp_path / "drawn.png", "Describe the picture.")
    page.tab("Ask")
    bot = _ask(page, "Describe the picture.", tmp_path / "drawn.png").last
    bot.filter(has_text=re.compile(r"\w")).wait_for()
    page.page.wait_for_timeout(300)
    begun = bot.inner_text().strip()
    assert len(pieces) == 2
    assert expected.startswith(begun)
    assert len(begun) < len(expected)
    go.set()
    bot.filter(has_text=expected).wait_for()


def test_stop_ends_an_answer_and_the_next_question_is_answered(
    page: Page, tmp_path: Path, held: tuple[list[str], Any]
) -> None:
    pieces, _ = held
    Image.new("RGB", (90, 60), "red").save(tmp_path / "red.png")
    page.tab("Ask")
    bots = _ask(page, "Describe the picture.", tmp_path / "red.png")
    bots.last.filter(has_text=re.compile(r"\w")).wait_for()
    page.button("Stop").click()
    page.wait_for("ask", "^Stopped")
    page.page.wait_for_timeout(1500)
    assert len(pieces) <= 3
    assert page.status("ask").all_inner_texts() == ["Stopped."]  # and nothing wipes it away
    _ask(page, "Is it red?").nth(1).filter(has_text=re.compile(r"\w")).wait_for()
    page.button("Stop").and_(page.page.locator("[disabled]")).wait_for()


def test_two_pictures_are_asked_about_and_the_second_turn_knows_them(
    page: Page, embedded_pipe: JanusPipeline, tmp_path: Path
) -> None:
    for name, seed in (("a", 8), ("b", 9)):
        embedded_pipe(PROMPT if name == "a" else "four pizzas", seed=seed).images[0].save(
            tmp_path / f"{name}.png"
        )
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    first = {
        "role": "user",
        "content": "What do you see?",
        "images": [*map(embedded_pipe.view, paths)],
    }
    one = embedded_pipe.chat([first], max_new_tokens=128)
    turns = [first, {"role": "assistant", "content": one}]
    two = embedded_pipe.chat(
        [*turns, {"role": "user", "content": "What else?"}], max_new_tokens=128
    )
    page.tab("Ask")
    bots = _ask(page, "What do you see?", *paths)
    bots.first.filter(has_text=one).wait_for()
    sync.expect(page.page.locator("#ask-chat [data-testid=user] img")).to_have_count(2)
    page.button("Stop").and_(page.page.locator("[disabled]")).wait_for()
    _ask(page, "What else?").nth(1).filter(has_text=two).wait_for()
