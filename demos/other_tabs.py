"""The smaller tabs: describe several pictures, read settings back, compare a sweep."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image, ImageDraw, ImageFont

from janus_kit import ImageError, JanusKitError, OptionError, Settings, load_image, read_settings
from janus_kit.demos.jobs import Drawing, Drawn, Row, Thinking, Waiting
from janus_kit.demos.studio import (
    Progress,
    Studio,
    parse_seed,
    plain,
    stoppable,
    table_bytes,
    whole,
)

__all__ = ["ReadTab", "compare_tab", "describe_tab", "read_tab"]

MOST_FILES = 200
MOST_VALUES = 8
MOST_SHOWN = 1024  # pixels of a side
HEADER = ("File", "Caption")


def describe_tab(studio: Studio) -> None:
    """Captions of many pictures, as a table and a file."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=300):
            files = gr.File(
                label="Pictures",
                file_count="multiple",
                file_types=["image"],
                height=220,
                elem_id="describe-files",
            )
            ask = gr.Textbox(
                "Describe the image.", label="Question", max_length=2000, elem_id="describe-ask"
            )
            with gr.Row():
                go = gr.Button("Describe", variant="primary", elem_id="describe-go", scale=3)
                stop = gr.Button(
                    "Stop", interactive=False, elem_id="describe-stop", scale=1, min_width=90
                )
        with gr.Column(scale=6, min_width=300):
            status = gr.Markdown(
                "Add pictures; each gets a line here as soon as it has been read.",
                elem_id="describe-status",
                elem_classes="status",
            )
            table = gr.Dataframe(
                headers=list(HEADER),
                datatype=["str", "str"],
                type="array",
                interactive=False,
                wrap=True,
                visible=False,
                column_widths=["35%", "65%"],
                label="Captions",
                elem_id="describe-table",
            )
            download = gr.DownloadButton("Download CSV", visible=False, elem_id="describe-csv")
    outputs = [status, table, download, stop]

    async def describe(paths: list[str] | None, asked: str | None) -> AsyncIterator[dict[Any, Any]]:
        if not paths:
            raise gr.Error("Add pictures first.", title="Nothing to see", print_exception=False)
        if len(paths) > MOST_FILES:
            raise gr.Error(
                f"{len(paths)} pictures; the page takes {MOST_FILES}. For more there is "
                "janus-kit caption FOLDER.",
                title="Too many pictures",
                print_exception=False,
            )

        question = (asked or "").strip() or "Describe the image."

        def work(path: str) -> Iterator[tuple[str, bool]]:
            try:
                yield studio.pipe.caption(path, question), True
            except ImageError as error:
                yield str(error).replace(path, "").lstrip(": "), False

        rows: list[list[str]] = []
        failed = 0
        for number, path in enumerate(paths):
            async for event in studio.events(Thinking(partial(work, path)), later=number > 0):
                if isinstance(event, Waiting):
                    if event.ahead or not number:
                        told = Progress(1).tell(event)
                        yield {stop: gr.update(interactive=True), status: told}
                    continue
                text, good = event
                failed += not good
                rows.append([Path(path).name, text if good else f"Not read: {text}"])
                yield {
                    table: gr.update(value=rows, visible=True),
                    status: f"{len(rows)} of {len(paths)}",
                }
        file = studio.folder() / "captions.csv"
        file.write_bytes(table_bytes(HEADER, rows))
        bad = f", {failed} could not be read" if failed else ""
        yield {
            status: f"Done: {len(rows) - failed} captions{bad}.",
            download: gr.update(value=str(file), visible=True),
            stop: gr.update(interactive=False),
        }

    event = go.click(
        describe,
        [files, ask],
        outputs,
        api_name="describe",
        concurrency_id="think",
        concurrency_limit=studio.worker.max_batch,
        show_progress="full",
        show_progress_on=[status],
    )
    stoppable([event], stop, status, outputs)


@dataclass(frozen=True)
class ReadTab:
    """What the page wires up: the settings found, and the button that takes them to Draw."""

    found: gr.State
    use: gr.Button


def read_tab(studio: Studio) -> ReadTab:
    """The settings inside a PNG, of this program or of others that write AUTOMATIC1111's text."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=300):
            file = gr.File(label="A PNG", file_types=[".png"], height=180, elem_id="read-file")
            use = gr.Button("Use in Draw", variant="primary", interactive=False, elem_id="read-use")
        with gr.Column(scale=6, min_width=300):
            status = gr.Markdown(
                "Drop a picture that was drawn here, or by a tool that keeps its settings in the "
                "file. You see how it was made, and can go on from there.",
                elem_id="read-status",
                elem_classes="status",
            )
            shown = gr.Image(
                label="Picture",
                format="png",
                visible=False,
                interactive=False,
                buttons=[],
                height=320,
                elem_id="read-picture",
            )
            text = gr.Textbox(
                label="Settings",
                lines=5,
                visible=False,
                interactive=False,
                buttons=["copy"],
                elem_id="read-text",
            )
    found = gr.State(None, time_to_live=3600)
    outputs = [status, shown, text, found, use]

    def look(path: str) -> tuple[Settings, str]:
        """The settings inside a file, and a picture of it that is not too large to show."""
        settings = read_settings(path)
        picture = load_image(path)
        picture.thumbnail((MOST_SHOWN, MOST_SHOWN))
        seen = str(studio.folder() / "seen.png")
        picture.save(seen)
        return settings, seen

    async def read(path: str | None) -> dict[Any, Any]:
        empty = {
            shown: gr.update(value=None, visible=False),
            text: gr.update(value="", visible=False),
            found: None,
            use: gr.update(interactive=False),
        }
        if path is None:
            return empty
        try:
            settings, seen = await studio.opened(look, path)
        except JanusKitError as error:
            sentence = str(error).replace(path, Path(path).name)
            return empty | {status: _escaped(f"{sentence}.")}
        model = f" by {settings.model}" if settings.model else ""
        return {
            status: _escaped(f"Drawn{model}, {settings.size[0]}×{settings.size[1]} pixels."),
            shown: gr.update(value=seen, visible=True),
            text: gr.update(value=settings.to_infotext(), visible=True),
            found: settings,
            use: gr.update(interactive=True),
        }

    file.change(read, file, outputs, api_name="read", show_progress="hidden")
    return ReadTab(found, use)


def _escaped(text: str) -> str:
    """Text of a stranger's file as Markdown shows it, letter by letter."""
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]()<>#+-!|~" else letter for letter in text)


def compare_tab(studio: Studio) -> None:
    """One prompt and one seed over a row of values."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=300):
            prompt = gr.Textbox(
                label="Prompt",
                placeholder="four pizzas",
                lines=2,
                max_length=2000,
                elem_id="compare-prompt",
            )
            what = gr.Radio(
                ["Guidance", "Temperature"], value="Guidance", label="Sweep", elem_id="compare-what"
            )
            values = gr.Textbox(
                "1, 2, 3, 5",
                label="Values",
                info=f"Up to {MOST_VALUES} numbers with commas between.",
                max_length=200,
                elem_id="compare-values",
            )
            seed = gr.Textbox(
                "1", label="Seed", placeholder="random", max_length=20, elem_id="compare-seed"
            )
            with gr.Row():
                go = gr.Button("Compare", variant="primary", elem_id="compare-go", scale=3)
                stop = gr.Button(
                    "Stop", interactive=False, elem_id="compare-stop", scale=1, min_width=90
                )
        with gr.Column(scale=6, min_width=300):
            status = gr.Markdown(
                "The same prompt and seed, once for each value, side by side.",
                elem_id="compare-status",
                elem_classes="status",
            )
            sheet = gr.Image(
                label="Comparison",
                show_label=False,  # which would lie on the first value
                type="filepath",
                format="png",
                visible=False,
                interactive=False,
                buttons=["download", "fullscreen"],
                elem_id="compare-sheet",
            )
    outputs = [status, sheet, stop]

    def written(images: list[Image.Image], labels: list[str]) -> str:
        """The path of a sheet."""
        path = studio.folder() / f"compare-{len(images)}.png"
        _labelled(images, labels).save(path)
        return str(path)

    async def compare(
        text: str | None, kind: str, listed: str | None, given: str | None
    ) -> AsyncIterator[dict[Any, Any]]:
        if not text or not text.strip():
            raise gr.Error("Write a prompt first.", title="Nothing to draw", print_exception=False)
        numbers = _numbers(listed)
        first = parse_seed(given)
        name = "temperature" if kind == "Temperature" else "guidance_scale"
        base: dict[str, Any] = {"prompt": text, "seeds": [first]}
        labels = [f"{kind.lower()} {value:g}" for value in numbers]
        images: list[Image.Image] = []
        for number, value in enumerate(numbers):
            place = f"{number + 1} of {len(numbers)} · {labels[number]}"
            progress = Progress(1)
            drawing = Drawing(**{**base, name: value})
            async for event in studio.events(drawing, later=number > 0):
                if isinstance(event, Row | Waiting):
                    told = f"{place} · {progress.tell(event)}"
                    yield {stop: gr.update(interactive=True), status: told}
                elif isinstance(event, Drawn):
                    images += event.images
            path = await asyncio.to_thread(written, images, labels[: len(images)])
            yield {sheet: gr.update(value=path, visible=True)}
        yield {status: f"Done. Seed {first}.", stop: gr.update(interactive=False)}

    event = go.click(
        compare,
        [prompt, what, values, seed],
        outputs,
        api_name="compare",
        concurrency_id="draw",
        concurrency_limit=studio.worker.max_batch,
        show_progress="full",
        show_progress_on=[status],
    )
    stoppable([event], stop, status, outputs)


def _numbers(text: str | None) -> list[float]:
    """The values of a sweep, each once, in the order given."""
    try:
        found = list(dict.fromkeys(float(part) for part in (text or "").split(",") if part.strip()))
    except ValueError as error:
        sentence = "the values must be numbers with commas between, such as 1, 2.5, 5"
        raise plain(OptionError(sentence)) from error
    whole("the count of values", len(found), 1, MOST_VALUES)
    return found


def _labelled(images: list[Image.Image], labels: list[str]) -> Image.Image:
    """Pictures in a grid, a label above each."""
    side, head, gap = images[0].width, 34, 12
    columns = min(len(images), 2 if len(images) in (2, 4) else 3)
    rows = -(-len(images) // columns)
    size = (columns * (side + gap) + gap, rows * (side + head + gap) + gap)
    sheet = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(20)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        x = gap + number % columns * (side + gap)
        y = gap + number // columns * (side + head + gap)
        pen.text((x + 2, y + 4), label, fill=(30, 41, 59), font=font)
        sheet.paste(image, (x, y + head))
    return sheet
