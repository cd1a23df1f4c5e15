"""The tab that talks about pictures, piece by piece, and remembers what was said."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image, ImageDraw

from janus_kit import JanusKitError
from janus_kit.demos.jobs import Thinking, Waiting
from janus_kit.demos.studio import Progress, Studio, cancels, plain, stoppable, whole

__all__ = ["AskTab", "ask_tab"]

MOST = 6  # pictures of one message
LONGEST = 512  # tokens of an answer
PLACEHOLDER = (
    "### Ask about a picture\n"
    "Drop one or several below, or draw one and press **Ask about it**. "
    "The conversation is kept: go on asking."
)


@dataclass(frozen=True)
class AskTab:
    """The component that other tabs fill."""

    box: gr.MultimodalTextbox


def _examples(folder: Path) -> list[tuple[str, str]]:
    """Two pictures made here, so that there is something to ask offline, and a question to each."""
    scenes = (
        ("What color is the frisbee?", "frisbee", (216, 24, 32), [(192, 192)], 96),
        ("How many frisbees are there?", "frisbees", (28, 84, 222), [(104, 192), (280, 192)], 56),
    )
    made = []
    for question, name, color, centres, radius in scenes:
        image = Image.new("RGB", (384, 384), (252, 252, 252))
        pen = ImageDraw.Draw(image)
        for x, y in centres:
            box = (x - radius, y - radius, x + radius, y + radius)
            pen.ellipse(box, fill=color)
        path = folder / f"{name}.png"
        image.save(path)
        made.append((question, str(path)))
    return made


def ask_tab(studio: Studio) -> AskTab:
    """Build the tab inside a gr.Tab."""
    examples = _examples(studio.folder())
    chat = gr.Chatbot(
        label="Conversation",
        height=470,
        placeholder=PLACEHOLDER,
        buttons=["copy"],
        render_markdown=False,  # an answer is text, whatever it spells
        elem_id="ask-chat",
    )
    box = gr.MultimodalTextbox(
        label="Question",
        placeholder="What do you see?",
        file_count="multiple",
        file_types=["image"],
        sources=["upload"],
        max_plain_text_length=10_000,
        elem_id="ask-box",
    )
    box.keep_in_cache.update(path for _, path in examples)  # the sweep would take them in an hour
    with gr.Row():
        stop = gr.Button("Stop", interactive=False, elem_id="ask-stop", min_width=90, size="md")
        clear = gr.Button("New conversation", elem_id="ask-clear", min_width=140, size="md")
    status = gr.Markdown("", elem_id="ask-status", elem_classes="status")
    with gr.Row(elem_id="ask-examples"):
        buttons = [gr.Button(question, size="sm") for question, _ in examples]
    with gr.Accordion("More settings", open=False):
        longest = gr.Slider(1, LONGEST, 128, step=1, label="Longest answer, in tokens")
        heat = gr.Slider(
            0, 2, 0, step=0.05, label="Temperature", info="0 takes the likeliest words."
        )
    turns = gr.State([], time_to_live=3600)
    # What chat shows. What a browser sends back as its chat may name any component and any file,
    # and Gradio would make and open them.
    history = gr.State([], time_to_live=3600)
    outputs = [chat, box, status, turns, history, stop]

    async def send(
        given: dict[str, Any] | None,
        said: list[dict[str, Any]],
        seen: list[dict[str, Any]],
        tokens: float,
        warmth: float | None,
    ) -> AsyncIterator[dict[Any, Any]]:
        text = ((given or {}).get("text") or "").strip()
        files = list((given or {}).get("files") or [])
        if not text and not files:
            raise gr.Error("Write a question first.", title="Nothing to ask", print_exception=False)
        if len(files) > MOST:
            raise gr.Error(f"A message takes {MOST} pictures at most.", print_exception=False)
        most = whole("the longest answer", tokens, 1, LONGEST)
        try:
            images = [await studio.opened(studio.pipe.view, path) for path in files]
        except JanusKitError as error:
            raise plain(error) from error
        asked = {"role": "user", "content": text or "Describe the image.", "images": images}
        now = [*said, asked]
        options = {"max_new_tokens": most, "temperature": warmth or 0.0}

        def work() -> Iterator[str]:
            yield from studio.pipe.chat(now, stream=True, **options)

        shown = [*seen, *({"role": "user", "content": {"path": path}} for path in files)]
        shown.append({"role": "user", "content": asked["content"]})

        def told(answer: str) -> dict[Any, Any]:
            reply = {"role": "assistant", "content": answer}
            return {chat: [*shown, reply], history: [*shown, reply], turns: [*now, reply]}

        yield {chat: shown, box: None, stop: gr.update(interactive=True), status: "Reading …"}
        answer = ""
        try:
            async for event in studio.events(Thinking(work)):
                if isinstance(event, Waiting):
                    yield {status: Progress(1).tell(event)}
                else:
                    # Only the first piece wipes the line: a later one may cross the word of Stop.
                    wiped = {} if answer else {status: ""}
                    answer += event
                    yield told(answer) | wiped
        except Exception:
            # What was written is not lost.
            yield {chat: seen, history: seen, turns: said, box: given, status: ""}
            raise
        yield {
            **told(answer or "(no answer)"),
            stop: gr.update(interactive=False),
            status: "",
        }

    event = box.submit(
        send,
        [box, turns, history, longest, heat],
        outputs,
        api_name="ask",
        concurrency_id="think",
        concurrency_limit=studio.worker.max_batch,
        show_progress="hidden",
    )
    stoppable([event], stop, status, outputs)
    cancels(
        clear,
        [event],
        lambda: {
            chat: [],
            turns: [],
            history: [],
            status: "",
            box: None,
            stop: gr.update(interactive=False),
        },
        outputs,
    )
    for button, (question, path) in zip(buttons, examples, strict=True):
        button.click(
            lambda question=question, path=path: {"text": question, "files": [path]},
            None,
            box,
            queue=False,
            api_visibility="private",
        )
    return AskTab(box)
