"""The page: build_app(pipeline) → gr.Blocks, and run(...) that serves it safely."""

import asyncio
import os
import shutil
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence, Set
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # Gradio reads it when it is imported

import gradio as gr
from PIL import Image
from starlette.middleware import Middleware

from janus_kit import JanusPipeline, OptionError, Settings
from janus_kit.demos.ask_tab import ask_tab
from janus_kit.demos.draw_tab import draw_tab
from janus_kit.demos.guard import Guard, trusted
from janus_kit.demos.look import CSS, JS, theme
from janus_kit.demos.other_tabs import compare_tab, describe_tab, read_tab
from janus_kit.demos.page import Page
from janus_kit.demos.studio import Picture, Studio
from janus_kit.demos.worker import ModelWorker

__all__ = ["build_app", "opened", "sweep"]

CAP = 32  # jobs that may wait or run
KEPT_SECONDS = 3600  # files of the page
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")


def build_app(
    pipeline: JanusPipeline, *, worker: ModelWorker | None = None, cap: int = CAP
) -> gr.Blocks:
    """The page on a pipeline; nothing is loaded, served or opened here.

    opened() serves it behind checks of hosts, origins and sizes, and cleans up; launch() alone has
    only Gradio's own. worker: the queue before the model, by default one of its own. cap: jobs that
    may wait.
    """
    pipeline.set_progress_bar_config(disable=True)
    worker = worker or ModelWorker(pipeline, cap=cap)
    studio = Studio(pipeline, worker)
    app = Page(
        title="janus_kit",
        analytics_enabled=False,
        delete_cache=(60, KEPT_SECONDS),
    )
    with app:
        gr.Markdown(
            f"# janus_kit\nDraw pictures and ask about them, with {_plain(pipeline.name)} on "
            f"{pipeline.device.type}. Nothing leaves this machine.",
            elem_id="head",
        )
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Draw", id="draw", elem_id="tab-draw"):
                draw = draw_tab(studio)
            with gr.Tab("Ask", id="ask", elem_id="tab-ask", render_children=True):
                ask = ask_tab(studio)
            with gr.Tab("Describe", id="describe", elem_id="tab-describe"):
                describe_tab(studio)
            with gr.Tab("Read", id="read", elem_id="tab-read", render_children=True):
                read = read_tab(studio)
            with gr.Tab("Compare", id="compare", elem_id="tab-compare"):
                compare_tab(studio)

        def ask_about(pictures: list[Picture], place: int) -> dict[Any, Any]:
            if not pictures:
                return {tabs: gr.skip()}
            picture = pictures[place if place < len(pictures) else 0]
            return {
                ask.box: {"text": "", "files": [picture.path]},
                tabs: gr.Tabs(selected="ask"),
            }

        def use(settings: Settings | None) -> dict[Any, Any]:
            if settings is None:
                return {tabs: gr.skip()}
            return {**draw.fill(settings), tabs: gr.Tabs(selected="draw")}

        quiet: dict[str, Any] = {"queue": False, "api_visibility": "private"}
        draw.ask.click(ask_about, [draw.album, draw.chosen], [ask.box, tabs], **quiet)
        fields: list[Any] = list(draw.fill(Settings(prompt="")))
        read.use.click(use, read.found, [*fields, tabs], **quiet)
    limit = worker.max_batch
    app.queue(max_size=max(1, cap - limit), default_concurrency_limit=limit, api_open=False)
    return app


def _plain(name: str) -> str:
    """A model's name, which may be a folder's, as Markdown shows it letter by letter."""
    return "".join(letter if letter.isalnum() else f"&#{ord(letter)};" for letter in name)


def _free_port(host: str) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listening:
        port: int = listening.getsockname()[1]
        return port


def sweep(folder: Path, age: float, kept: Set[str]) -> None:
    """Delete files that are older than age seconds, and folders that are left empty.

    Gradio's own sweep knows only files that the page has taken in or shown, and leaves folders.
    """
    old = time.time() - age
    for path in sorted(folder.rglob("*"), reverse=True):  # what is in a folder before the folder
        with suppress(OSError):  # such as for a folder that is not empty
            if path.lstat().st_ctime < old and str(path) not in kept:
                path.rmdir() if path.is_dir() else path.unlink()


@contextmanager
def opened(
    pipeline: JanusPipeline,
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    share: bool = False,
    auth: tuple[str, str] | None = None,
    hosts: Sequence[str] = (),
    cap: int = CAP,
    drain: float = 30.0,
    quiet: bool = True,
) -> Iterator[str]:
    """Serve the page until the block ends, and clean up after it; gives its URL.

    port: 0 takes a free one. share: also open a public link, through Gradio's tunnel. auth: a user
    and a password. hosts: more names that the page may be asked for by; on a loopback address only
    its own are taken.
    Raises OptionError where a setting of the environment would let the browser edit this program,
    and OSError for a port that is taken.
    """
    if os.environ.get("GRADIO_VIBE_MODE"):
        raise OptionError("GRADIO_VIBE_MODE lets a browser change this program; unset it first")
    before = os.environ.get("GRADIO_TEMP_DIR")
    folder = tempfile.mkdtemp(prefix="janus-kit-")  # 0700
    os.environ["GRADIO_TEMP_DIR"] = folder
    worker = ModelWorker(pipeline, cap=cap)
    app = build_app(pipeline, worker=worker, cap=cap)
    kept = {path for block in app.blocks.values() for path in block.keep_in_cache}

    @asynccontextmanager
    async def swept(_: Any) -> AsyncIterator[None]:
        async def again() -> None:
            while True:
                await asyncio.sleep(60)
                await asyncio.to_thread(sweep, Path(folder), KEPT_SECONDS + 120, kept)

        task = asyncio.create_task(again())
        yield
        task.cancel()

    guard = Middleware(
        Guard,
        hosts=() if share else trusted(host, hosts),
        body_limit=4_000_000,
        limits={"/gradio_api/upload": 200_000_000},
        # Behind these Gradio would fetch any address of the web for whoever asks.
        closed=("/gradio_api/file=http", "/gradio_api/file/http"),
    )
    # Gradio opens some files by itself: Pillow is left with the formats that our loader reads.
    Image.init()
    formats = list(Image.ID)
    Image.ID[:] = [name for name in formats if name in FORMATS]
    try:
        app.launch(
            server_name=f"[{host}]" if ":" in host else host,
            server_port=port or _free_port(host),
            share=share,
            auth=auth,
            prevent_thread_lock=True,
            quiet=quiet,
            show_error=False,
            footer_links=[],
            run_history=False,
            max_file_size="20mb",
            allowed_paths=[],
            strict_cors=True,
            ssr_mode=False,
            mcp_server=False,
            enable_monitoring=False,
            app_kwargs={
                "middleware": [guard],
                "lifespan": swept,
                "docs_url": None,
                "redoc_url": None,
            },
            theme=theme(),
            css=CSS,
            js=JS,
        )
        yield str((app.share_url if share else None) or app.local_url).rstrip("/")
    finally:
        worker.close(drain)
        app.close(verbose=False)
        Image.ID[:] = formats
        if before is None:
            os.environ.pop("GRADIO_TEMP_DIR", None)
        else:
            os.environ["GRADIO_TEMP_DIR"] = before
        shutil.rmtree(folder, ignore_errors=True)
