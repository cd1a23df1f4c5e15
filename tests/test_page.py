"""The page in a real browser: Debian's chromium, headless, with the embedded model.

What a person sees and does, by role and label; and what the machine must never do for it.
"""

import io
import re
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from page_parts import LONG, MARKS, PROMPT, Page, shot
from PIL import Image

from janus_kit import JanusPipeline, OptionError, Settings, read_settings, save_png

pytest.importorskip("gradio")
sync = pytest.importorskip("playwright.sync_api")
pytestmark = MARKS


def _is_grey(image: Image.Image) -> bool:
    """Whether there is nothing but the grey of codes that are not drawn; JPEG moves it a little."""
    return bool(np.ptp(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0).max() <= 4)


def test_the_upper_half_is_seen_while_the_lower_is_not_drawn_yet(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    from janus_kit.demos.jobs import Job, Row

    seen = threading.Event()
    put = Job.put

    def hold(job: Job, event: object) -> None:
        """The row after the middle waits until the browser has been looked at."""
        put(job, event)
        if isinstance(event, Row) and event.row == event.of // 2 + 1:
            seen.wait(LONG / 1000)

    monkeypatch.setattr(Job, "put", hold)
    page.draw()
    try:
        for _ in range(1000):
            live = page.page.locator("#draw-live img")
            if live.count() and live.first.get_attribute("src"):
                image = page.picture("#draw-live img")
                side = image.height
                lower = image.crop((0, side // 2 + 2, side, side))
                assert _is_grey(lower)
                if not _is_grey(image.crop((0, side // 3, side, side // 2 - 2))):
                    break
            page.page.wait_for_timeout(10)
        else:
            pytest.fail("no picture was seen half-way")
        assert not _is_grey(image.crop((0, 0, side, side // 3)))
        taken = page.page.locator("#draw-live img").first.screenshot()
        shot(page, "live")
    finally:
        seen.set()
    on_screen = Image.open(io.BytesIO(taken))
    wide, high = on_screen.size
    inner = on_screen.crop((wide // 8, high // 8, wide * 7 // 8, high * 7 // 8))
    middle = inner.height // 2
    assert not _is_grey(inner.crop((0, 0, inner.width, middle - 4)))
    assert _is_grey(inner.crop((0, middle + 4, inner.width, inner.height)))
    page.wait_for("draw", "^Done in")


def test_a_picture_is_the_one_of_the_api_the_command_line_and_the_server(
    page: Page, embedded_pipe: JanusPipeline, tmp_path: Path
) -> None:
    import base64
    import subprocess
    import sys

    from serving import served

    from janus_kit.demos.server import build_server

    page.draw(seed="8")
    page.wait_for("draw", "^Done in .* Seed 8")
    shown = page.picture("#draw-gallery img").convert("RGB").tobytes()
    drawn = embedded_pipe(PROMPT, seed=8)
    assert shown == drawn.images[0].tobytes()
    with page.page.expect_download() as download:
        page.page.locator("#draw-download").click()
    download.value.save_as(tmp_path / "page.png")
    assert read_settings(tmp_path / "page.png") == drawn.settings[0]
    assert re.fullmatch(r"000_8_a-bench.*\.png", download.value.suggested_filename)
    command = [sys.executable, "-m", "janus_kit", "generate", PROMPT, "--seed", "8"]
    options = ["-o", str(tmp_path / "out"), "-q"]
    subprocess.run([*command, *options], check=True, cwd=tmp_path)
    with Image.open(tmp_path / "out" / "000_8.png") as image:
        assert image.convert("RGB").tobytes() == shown
    body = {"prompt": PROMPT, "seed": 8}
    with served(build_server(embedded_pipe)) as server:
        answer = httpx.post(f"{server.url}/v1/images/generations", json=body, timeout=LONG / 1000)
    with Image.open(io.BytesIO(base64.b64decode(answer.json()["data"][0]["b64_json"]))) as image:
        assert image.convert("RGB").tobytes() == shown


def test_stop_ends_a_drawing_within_a_row_and_the_next_one_begins(
    page: Page, embedded_pipe: JanusPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    from janus_kit.demos.jobs import Job, Row

    rows: list[float] = []
    put = Job.put

    def note(job: Job, event: object) -> None:
        put(job, event)
        if isinstance(event, Row):
            rows.append(time.monotonic())
            # A picture may be done before the click arrives; the one after Stop isn't stopped.
            while not stopped.is_set() and not job.cancelled.wait(0.05):
                put(job, event)  # lines that may cross the word of Stop
                if time.monotonic() - rows[0] > LONG / 1000:
                    break

    stopped = threading.Event()
    monkeypatch.setattr(Job, "put", note)
    monkeypatch.setattr("janus_kit.demos.draw_tab.PAUSE", 0)
    page.draw()
    page.wait_for("draw", "^Row ")
    page.button("Stop").click()
    page.wait_for("draw", "^Stopped")
    stopped.set()
    after = len(rows)
    page.page.wait_for_timeout(2500)
    assert len(rows) <= after + 1 < 24
    assert page.status("draw").inner_text() == "Stopped."  # and nothing wipes it away
    page.draw("three yellow kites", "3")
    page.wait_for("draw", "^Done in .* Seed 3")


@pytest.mark.parametrize("part", ["draw", "ask"])
def test_an_error_on_the_way_leaves_the_page_ready(
    page: Page, embedded_pipe: JanusPipeline, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    from janus_kit.demos.jobs import Job, Row

    put = Job.put

    def fail(job: Job, event: object) -> None:
        put(job, OptionError("the lamp is out") if isinstance(event, Row | str) else event)

    monkeypatch.setattr(Job, "put", fail)
    if part == "draw":
        page.draw()
    else:
        page.tab("Ask")
        box = page.page.locator("#ask-box textarea")
        box.fill("What is new?")
        box.press("Enter")
    assert "The lamp is out." in page.toast()
    page.button("Stop").and_(page.page.locator("[disabled]")).wait_for()
    told = page.status(part).all_inner_texts()
    assert told == [] if part == "ask" else told[0].startswith("Write what you would like")
    if part == "ask":
        assert box.input_value() == "What is new?"


def test_several_pictures_are_judged_and_shown_best_first(page: Page) -> None:
    page.page.locator("#draw-count input[type=number]").fill("3")
    page.label("Best first").check()
    page.draw("three yellow kites", "5")
    assert "Seeds 5 to 7" in page.wait_for("draw", "^Done in")
    captions = page.page.locator("#draw-gallery .caption-label")
    captions.nth(2).wait_for()
    texts = captions.all_inner_texts()
    shares = [float(re.match(r"yes ([\d.]+)%", text)[1]) for text in texts]  # type: ignore[index]
    assert len(shares) == 3
    assert shares == sorted(shares, reverse=True)
    shot(page, "ranked")
    with page.page.expect_download() as download:
        page.page.locator("#draw-sheet").click()
    with Image.open(download.value.path()) as sheet:
        assert sheet.size == (768, 768)


def test_the_lower_part_is_varied_and_the_upper_part_stays(page: Page) -> None:
    # The embedded model is so sure of a prompt that, coolly drawn, every seed gives one picture.
    page.page.locator("#draw-more button").first.click()
    heat = page.page.locator("#draw-temperature input[type=number]")
    heat.fill("2")
    heat.press("Tab")
    page.draw("two green cups", "1")
    page.wait_for("draw", "^Done in")
    first = page.picture("#draw-gallery img")
    shown = page.page.locator("#draw-gallery img").first
    before = shown.get_attribute("src")
    page.button("Vary the lower part").click()
    page.wait_for("draw", r"^Done in .* Seed (?!1\.)")
    sync.expect(shown).not_to_have_attribute("src", before)
    second = page.picture("#draw-gallery img")
    ours = Settings.from_json(second.info["janus_kit"])
    assert len(ours.initial_codes) == 12 * 24
    top, bottom = (
        np.abs(np.asarray(first.convert("RGB"), int) - np.asarray(second.convert("RGB"), int))[part]
        for part in (slice(0, 160), slice(224, 384))
    )
    assert top.mean() < 3  # the decoder lets a picture's whole shine through a little
    assert bottom.mean() > top.mean()


def test_pictures_are_described_in_a_table_and_a_file(page: Page, tmp_path: Path) -> None:
    for name, color in (("one.png", "red"), ("=two.png", "blue")):
        Image.new("RGB", (90, 60), color).save(tmp_path / name)
    (tmp_path / "bad.png").write_bytes(b"no picture")
    page.tab("Describe")
    files = [tmp_path / name for name in ("one.png", "=two.png", "bad.png")]
    page.page.locator("#describe-files input[type=file]").set_input_files(files)
    page.page.locator("#describe-files").filter(has_text="bad").wait_for()
    page.button("Describe").click()
    assert page.wait_for("describe", "^Done") == "Done: 2 captions, 1 could not be read."
    shot(page, "describe")
    with page.page.expect_download() as download:
        page.page.locator("#describe-csv").click()
    text = Path(download.value.path()).read_text(encoding="utf-8-sig")
    lines = text.splitlines()
    assert lines[0] == '"File","Caption"'
    assert lines[1].startswith('"one.png"')
    assert "Not read" in lines[3]
    assert str(tmp_path) not in text
    assert "janus-kit-" not in text  # nor where the page keeps its files


def test_a_dropped_picture_gives_its_settings_back(page: Page, tmp_path: Path) -> None:
    settings = Settings(
        prompt="two <b>green</b> fish, #1",
        negative_prompt="a car",
        seed=2**62 + 1,
        guidance_scale=3.5,
        temperature=0.75,
        top_k=40,
    )
    save_png(Image.new("RGB", (384, 384), "green"), tmp_path / "ours.png", settings)
    page.tab("Read")
    page.page.locator("#read-file input[type=file]").set_input_files(tmp_path / "ours.png")
    page.wait_for("read", "^Drawn")
    shot(page, "read")
    page.button("Use in Draw").click()
    sync.expect(page.label("Prompt")).to_have_value(settings.prompt)
    sync.expect(page.label("Seed")).to_have_value(str(settings.seed))
    page.page.locator("#draw-more button").first.click()
    assert page.page.locator("#draw-negative textarea").input_value() == "a car"
    numbers = [
        page.page.locator(f"#draw-{name} input[type=number]").input_value()
        for name in ("guidance", "temperature", "top-k")
    ]
    assert list(map(float, numbers)) == [3.5, 0.75, 40]


def test_a_sweep_is_one_labelled_picture(page: Page) -> None:
    page.tab("Compare")
    page.page.locator("#compare-prompt textarea").fill("a red apple")
    page.page.locator("#compare-values textarea, #compare-values input").fill("1, 2.5")
    page.button("Compare").click()
    page.wait_for("compare", "^Done. Seed 1")
    sheet = page.picture("#compare-sheet img")
    assert sheet.size == (2 * (384 + 12) + 12, 384 + 34 + 2 * 12)
    assert not _is_grey(sheet.crop((12, 12, 200, 46)))  # the label
    shot(page, "compare")


def test_wrong_input_gets_a_sentence_and_loses_nothing(page: Page, tmp_path: Path) -> None:
    page.button("Draw").click()
    assert "Write a prompt first" in page.toast()
    for seed in ("-1", "1.5", "abc", str(2**63)):
        page.draw("a red apple", seed)
        assert "whole number from 0 on" in page.toast()
    assert page.label("Prompt").input_value() == "a red apple"
    (tmp_path / "text.png").write_text("no picture")
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    page.tab("Read")
    choose = page.page.locator("#read-file input[type=file]")
    choose.set_input_files(tmp_path / "text.png")
    assert "text.png: is not a readable PNG" in page.wait_for("read", "text")
    page.page.get_by_label("Clear").locator("visible=true").first.click()
    choose.set_input_files(tmp_path / "plain.png")
    assert "plain.png: carries no settings" in page.wait_for("read", "plain")
    page.tab("Compare")
    page.page.locator("#compare-prompt textarea").fill("a red apple")
    page.page.locator("#compare-values textarea, #compare-values input").fill("1, much")
    page.button("Compare").click()
    assert "must be numbers with commas" in page.toast()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_there_is_no_serious_barrier_that_is_ours(browser: Any, url: str, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = Page(browser, f"{url}/?__theme={scheme}", color_scheme=scheme)
    found: list[str] = []
    for tab in ("Draw", "Ask", "Describe", "Read", "Compare"):
        page.tab(tab)
        page.page.wait_for_timeout(400)
        shot(page, f"{tab.lower()}-{scheme}")
        results = axe.Axe().run(page.page).response
        for violation in results["violations"]:
            if violation["impact"] in ("serious", "critical"):
                nodes = [node["target"] for node in violation["nodes"]]
                found += [f"{tab}: {violation['id']} {node}" for node in nodes]
    page.context.close()
    assert [entry for entry in found if not _is_gradios(entry)] == []


def _is_gradios(entry: str) -> bool:
    """Barriers inside Gradio's own widgets, which no argument of theirs can change."""
    return any(part in entry for part in GRADIOS)


GRADIOS = ("aria-prohibited-attr", "label-content-name-mismatch", ".or.", ".or svelte")


EDGE = """
() => Math.max(0,
  ...[...document.querySelectorAll("[role=tabpanel] .block, [role=tabpanel] button")]
    .filter((e) => e.checkVisibility() && e.getBoundingClientRect().width > 1)
    .map((e) => e.getBoundingClientRect().right))
"""


def test_a_narrow_screen_has_no_sideways_scroll(browser: Any, url: str) -> None:
    page = Page(browser, url, viewport={"width": 390, "height": 844}, has_touch=True)
    assert page.page.locator("h1").inner_text() == "janus_kit"
    for tab in ("Draw", "Ask", "Describe", "Read", "Compare"):
        choice = page.page.get_by_role("tab", name=tab, exact=True).locator("visible=true")
        if not choice.count():  # what has no room is behind the dots
            page.page.locator(".overflow-menu button").first.click()
            choice = page.page.get_by_text(tab, exact=True).locator("visible=true").last
        choice.first.click()
        page.page.wait_for_timeout(300)
        shot(page, f"{tab.lower()}-390")
        # What lies beyond the edge is cut off, so the width of the document does not tell.
        edge = page.page.evaluate(EDGE)
        assert 0 < edge <= 390, tab
    page.context.close()
    assert page.foreign == []


def test_the_keyboard_alone_draws(page: Page) -> None:
    page.label("Prompt").focus()
    page.page.keyboard.type("a red apple")
    for _ in range(8):
        page.page.keyboard.press("Tab")
        if page.page.evaluate("document.activeElement.id") == "draw-go":
            break
    page.page.keyboard.press("Enter")
    page.wait_for("draw", "^Done in")


def test_a_seed_is_shown_reused_and_drawn_anew(page: Page) -> None:
    def seed_of(words: str) -> str:
        return re.search(r"Seed (\d+)\.", words)[1]  # type: ignore[index]

    page.draw("two green cups", "")
    first = seed_of(page.wait_for("draw", "^Done in"))
    assert page.label("Seed").input_value() == ""
    page.button("Reuse last").click()
    page.page.wait_for_function(
        f"document.querySelector('#draw-seed textarea, #draw-seed input').value == '{first}'"
    )
    shown = page.picture("#draw-gallery img").tobytes()
    page.button("Draw").click()
    page.wait_for("draw", "^(Waiting|Row)")
    assert seed_of(page.wait_for("draw", "^Done in")) == first
    assert page.picture("#draw-gallery img").tobytes() == shown
    page.button("Draw again").click()
    page.wait_for("draw", "^(Waiting|Row)")
    assert seed_of(page.wait_for("draw", "^Done in")) != first
    assert page.label("Seed").input_value() == ""


def test_what_the_page_cannot_take_over_from_a_file_is_told(page: Page, tmp_path: Path) -> None:
    settings = Settings(prompt="a", seed=1, guidance_scale=12.0, initial_codes=(1, 2, 3))
    save_png(Image.new("RGB", (384, 384), "green"), tmp_path / "ours.png", settings)
    page.tab("Read")
    page.page.locator("#read-file input[type=file]").set_input_files(tmp_path / "ours.png")
    page.wait_for("read", "^Drawn")
    page.page.locator("#read-picture img").wait_for()
    page.button("Use in Draw").click()
    words = page.wait_for("draw", "cannot take over")
    assert "the 3 codes that it begins with; guidance 12, which is 10 here" in words
