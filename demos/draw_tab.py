"""The tab that draws: live rows, a gallery with settings inside, and ways to go on from it."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image
from torch import Tensor

from janus_kit import Settings, make_image_grid
from janus_kit.demos.jobs import Drawing, Drawn, Preview, Row, Waiting
from janus_kit.demos.studio import (
    Picture,
    Progress,
    Studio,
    before_error,
    parse_seed,
    stoppable,
    whole,
)

__all__ = ["DrawTab", "draw_tab"]

MOST = 8  # pictures of one drawing
MOST_GUIDANCE, MOST_TEMPERATURE, MOST_TOP_K = 10.0, 2.0, 2**31 - 1
PAUSE = 0.25  # seconds between two lines of progress
EXAMPLES = (
    "a bench left of a teddy bear",
    "four pizzas",
    "a giraffe above a couch",
    "a photo of a red apple and a blue cup",
)
REAL_EXAMPLES = (
    "a photo of a red apple left of a blue car",
    "a lighthouse on a cliff at dusk, oil painting",
    "a corgi in a space suit, studio light",
)
EMPTY = "Write what you would like to see and press **Draw**. It appears row by row, from the top."


@dataclass(frozen=True)
class DrawTab:
    """The components that other tabs fill or read."""

    prompt: gr.Textbox
    negative: gr.Textbox
    count: gr.Slider
    seed: gr.Textbox
    guidance: gr.Slider
    temperature: gr.Slider
    top_k: gr.Number
    ask: gr.Button
    album: gr.State
    chosen: gr.State
    status: gr.Markdown

    def fill(self, settings: Settings) -> dict[Any, Any]:
        """The fields as a picture's settings have them, and a word on what they cannot hold."""
        guidance = min(max(settings.guidance_scale, 1.0), MOST_GUIDANCE)
        temperature = min(max(settings.temperature, 0.0), MOST_TEMPERATURE)
        top_k = min(max(settings.top_k or 0, 0), MOST_TOP_K)
        lost = []
        if settings.initial_codes:
            lost.append(f"the {len(settings.initial_codes)} codes that it begins with")
        if settings.top_p not in (None, 1):
            lost.append(f"top-p {settings.top_p:g}")
        for name, asked, held in (
            ("guidance", settings.guidance_scale, guidance),
            ("temperature", settings.temperature, temperature),
            ("top-k", settings.top_k or 0, top_k),
        ):
            if asked != held:
                lost.append(f"{name} {asked:.15g}, which is {held:.15g} here")
        status = "The settings of the file are here; press **Draw**."
        if lost:
            status = f"This page cannot take over {'; '.join(lost)}: it will draw another picture."
        return {
            self.prompt: settings.prompt,
            self.negative: settings.negative_prompt,
            self.seed: "" if settings.seed is None else str(settings.seed),
            self.guidance: guidance,
            self.temperature: temperature,
            self.top_k: top_k,
            self.count: 1,
            self.status: status,
        }


def _caption(picture: Picture) -> str:
    seed = f"seed {picture.settings.seed}"
    return seed if picture.score is None else f"yes {picture.score:.1%} · {seed}"


def _grid(images: list[Image.Image], path: Path) -> str:
    """All pictures on one; the path of its file."""
    make_image_grid(images).save(path)
    return str(path)


def draw_tab(studio: Studio) -> DrawTab:
    """Build the tab inside a gr.Tab."""
    usual = studio.pipe.defaults
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=300):
            prompt = gr.Textbox(
                label="Prompt",
                placeholder="a bench left of a teddy bear",
                lines=3,
                max_length=2000,
                elem_id="draw-prompt",
            )
            with gr.Row():
                go = gr.Button("Draw", variant="primary", elem_id="draw-go", scale=3)
                stop = gr.Button(
                    "Stop", interactive=False, elem_id="draw-stop", scale=1, min_width=90
                )
            count = gr.Slider(1, MOST, 1, step=1, label="Pictures", elem_id="draw-count")
            rank = gr.Checkbox(
                label="Best first",
                info="The same model looks at each picture and tells how sure it is of the prompt.",
                elem_id="draw-rank",
            )
            with gr.Row(elem_classes="ends"):
                seed = gr.Textbox(
                    label="Seed", placeholder="random", max_length=20, elem_id="draw-seed", scale=3
                )
                reuse = gr.Button("Reuse last", elem_id="draw-reuse", scale=1, min_width=90)
            with gr.Accordion("More settings", open=False, elem_id="draw-more"):
                negative = gr.Textbox(
                    label="Negative prompt",
                    info="What to draw away from; Janus was not trained for it.",
                    max_length=2000,
                    elem_id="draw-negative",
                )
                guidance = gr.Slider(
                    1,
                    MOST_GUIDANCE,
                    usual.guidance,
                    step=0.1,
                    label="Guidance",
                    elem_id="draw-guidance",
                )
                temperature = gr.Slider(
                    0,
                    MOST_TEMPERATURE,
                    usual.temperature,
                    step=0.05,
                    label="Temperature",
                    elem_id="draw-temperature",
                )
                top_k = gr.Number(
                    0,
                    label="Top-k",
                    info="0 keeps the whole codebook.",
                    precision=0,
                    minimum=0,
                    maximum=MOST_TOP_K,
                    elem_id="draw-top-k",
                )
            gr.Examples(
                [[text] for text in (EXAMPLES if studio.embedded else REAL_EXAMPLES)],
                prompt,
                label="Try one of these",
                elem_id="draw-examples",
            )
        with gr.Column(scale=6, min_width=300):
            status = gr.Markdown(EMPTY, elem_id="draw-status", elem_classes="status")
            live = gr.Image(
                label="As it is drawn",
                format="jpeg",
                visible=False,
                interactive=False,
                buttons=[],
                elem_id="draw-live",
            )
            gallery = gr.Gallery(
                label="Pictures",
                columns=2,
                object_fit="contain",
                height="auto",
                format="png",
                interactive=False,
                visible=False,
                buttons=["download", "fullscreen"],
                elem_id="draw-gallery",
            )
            with gr.Column(visible=False, elem_id="draw-after") as after:
                with gr.Row():
                    again = gr.Button("Draw again", elem_id="draw-again", min_width=120)
                    ask = gr.Button("Ask about it", elem_id="draw-ask", min_width=120)
                    sheet = gr.DownloadButton("Contact sheet", elem_id="draw-sheet", min_width=120)
                    download = gr.DownloadButton(
                        "Download PNG", elem_id="draw-download", min_width=120
                    )
                with gr.Row(elem_classes="ends"):
                    kept = gr.Slider(
                        1,
                        studio.pipe.config.side - 1,
                        studio.pipe.config.side // 2,
                        step=1,
                        label="Rows to keep",
                        info="The rest below is drawn anew, as the model would go on from there.",
                        elem_id="draw-kept",
                        scale=3,
                    )
                    vary = gr.Button("Vary the lower part", elem_id="draw-vary", scale=1)
    album = gr.State([], time_to_live=3600)
    chosen = gr.State(0)
    last_seed = gr.State("")

    shown = [status, live, gallery, after, sheet, download, album, chosen, last_seed, stop, seed]
    idle = {stop: gr.update(interactive=False), status: EMPTY}

    def written(parts: list[Drawn], scores: list[float]) -> tuple[list[Picture], str]:
        """The pictures as files, best first where there are scores, and the contact sheet."""
        folder = studio.folder()
        pictures = studio.keep(parts, folder)
        images = [image for drawn in parts for image in drawn.images]
        if scores:
            order = sorted(range(len(scores)), key=lambda place: -scores[place])
            pictures = [replace(pictures[place], score=scores[place]) for place in order]
            images = [images[place] for place in order]
        return pictures, _grid(images, folder / "contact-sheet.png")

    async def run(
        base: Drawing, number: int, first: int, ranked: bool
    ) -> AsyncIterator[dict[Any, Any]]:
        """Draw, perhaps judge, and show; the updates of the page."""
        begun = time.monotonic()
        seeds = [first + i for i in range(number)]
        half = frozenset({studio.pipe.config.side // 2})  # seen however fast the model is
        work = replace(base, seeds=seeds, live=True, preview_rows=half)
        progress = Progress(number)
        parts: list[Drawn] = []
        images: list[Image.Image] = []
        told = 0.0
        async for event in studio.events(work):
            if isinstance(event, Waiting):
                yield {stop: gr.update(interactive=True), status: progress.tell(event)}
            elif isinstance(event, Row):
                line, now = progress.tell(event), time.monotonic()
                # A small model draws a row sooner than a page is told of it.
                if now - told >= PAUSE:
                    told = now
                    yield {status: line}
            elif isinstance(event, Preview):
                seen = [*images[: event.first], *event.images]
                path = studio.folder() / "live.jpg"
                yield {
                    live: gr.update(value=await asyncio.to_thread(_grid, seen, path), visible=True),
                    gallery: gr.update(visible=False),
                    after: gr.update(visible=False),
                }
            elif isinstance(event, Drawn):
                parts.append(event)
                images += event.images
        scores: list[float] = []
        if ranked:
            async for score in studio.scores(images, base.prompt):
                scores.append(score)
                yield {status: f"Judging: {len(scores)} of {number} …"}
        pictures, one = await asyncio.to_thread(written, parts, scores)
        named = f"Seed {first}" if number == 1 else f"Seeds {first} to {first + number - 1}"
        hint = studio.pipe.hint.about([base.prompt])
        hint = f" By the way, {hint}." if hint else ""
        yield {
            status: f"Done in {time.monotonic() - begun:.1f} s. {named}.{hint}",
            live: gr.update(value=None, visible=False),
            gallery: gr.update(
                value=[(picture.path, _caption(picture)) for picture in pictures],
                visible=True,
                selected_index=None,
                columns=1 if number == 1 else 2,
            ),
            after: gr.update(visible=True),
            sheet: gr.update(value=one, visible=number > 1),
            download: pictures[0].path,
            album: pictures,
            chosen: 0,
            last_seed: str(first),
            stop: gr.update(interactive=False),
        }

    async def draw(
        text: str | None,
        against: str,
        number: float,
        given: str,
        scale: float,
        heat: float,
        best: float,
        ranked: bool,
    ) -> AsyncIterator[dict[Any, Any]]:
        pictures = whole("pictures", number, 1, MOST)
        if not text or not text.strip():
            raise gr.Error("Write a prompt first.", title="Nothing to draw", print_exception=False)
        drawing = Drawing(
            prompt=text,
            negative_prompt=against or "",
            seeds=[],
            guidance_scale=scale,
            temperature=heat,
            top_k=whole("top-k", best or 0, 0, MOST_TOP_K),
        )
        updates = run(drawing, pictures, parse_seed(given, pictures), ranked)
        async for update in before_error(updates, idle):
            yield update

    async def draw_again(
        text: str | None,
        against: str,
        number: float,
        _: str,
        scale: float,
        heat: float,
        best: float,
        ranked: bool,
    ) -> AsyncIterator[dict[Any, Any]]:
        async for update in draw(text, against, number, "", scale, heat, best, ranked):
            yield update | ({seed: ""} if status in update else {})

    async def draw_below(
        pictures: list[Picture], place: int, rows: float, number: float, ranked: bool
    ) -> AsyncIterator[dict[Any, Any]]:
        if not pictures:
            raise gr.Error("Draw a picture first.", title="Nothing to vary", print_exception=False)
        picture = pictures[place if place < len(pictures) else 0]
        side = studio.pipe.config.side
        begun: Tensor = picture.codes[: side * whole("rows to keep", rows, 1, side - 1)]
        settings = picture.settings
        drawing = Drawing(
            prompt=settings.prompt,
            negative_prompt=settings.negative_prompt,
            seeds=[],
            guidance_scale=settings.guidance_scale,
            temperature=settings.temperature,
            top_k=settings.top_k or 0,
            initial_codes=begun,
        )
        count = whole("pictures", number, 1, MOST)
        updates = run(drawing, count, parse_seed("", count), ranked)
        async for update in before_error(updates, idle):
            yield update

    def choose(pictures: list[Picture], event: gr.SelectData) -> dict[Any, Any]:
        place = event.index if isinstance(event.index, int) else 0
        path = pictures[place].path if place < len(pictures) else None
        return {chosen: place, download: path}

    fields: list[Any] = [prompt, negative, count, seed, guidance, temperature, top_k, rank]
    common: dict[str, Any] = {
        "outputs": shown,
        "concurrency_id": "draw",
        "concurrency_limit": studio.worker.max_batch,
        "show_progress": "full",
        "show_progress_on": [status],
    }
    events = [
        gr.on([go.click, prompt.submit], draw, fields, api_name="draw", **common),
        again.click(draw_again, fields, api_visibility="private", **common),
        vary.click(
            draw_below, [album, chosen, kept, count, rank], api_visibility="private", **common
        ),
    ]
    stoppable(events, stop, status, shown)
    reuse.click(lambda given: given, last_seed, seed, queue=False, api_visibility="private")
    gallery.select(choose, album, [chosen, download], queue=False, api_visibility="private")
    return DrawTab(
        prompt, negative, count, seed, guidance, temperature, top_k, ask, album, chosen, status
    )
