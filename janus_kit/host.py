"""The commands that serve: the page in a browser, and the server for other programs."""

import os
import threading
from typing import TYPE_CHECKING, Annotated

import typer

from janus_kit import console
from janus_kit.console import Load, with_model
from janus_kit.errors import OptionError

if TYPE_CHECKING:
    from janus_kit.pipeline import JanusPipeline

__all__ = ["demo", "serve"]

KEY = "JANUS_KIT_API_KEY"

Host = Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 is every one.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")]
Names = Annotated[
    list[str] | None,
    typer.Option("--allow-host", help="A further name to be asked for by. Can be repeated."),
]
Cap = Annotated[
    int,
    typer.Option("--max-queue", min=1, max=10_000, help="Jobs that may wait."),
]
Drain = Annotated[float, typer.Option(min=0, help="Seconds that running jobs have after SIGTERM.")]


@with_model
def demo(
    load: Load,
    host: Host = "127.0.0.1",
    port: Port = 7860,
    share: Annotated[
        bool, typer.Option("--share", help="Also a public link, through Gradio's tunnel.")
    ] = False,
    auth: Annotated[
        str | None,
        typer.Option(envvar="JANUS_KIT_DEMO_AUTH", metavar="USER:PASS", help="Ask for these."),
    ] = None,
    allow_host: Names = None,
    max_queue: Cap = 32,
    drain: Drain = 30.0,
) -> None:
    """Open a page to draw, ask, describe and compare in a browser; prints its address.

    It listens on this machine only, and nothing leaves it. Needs pip install 'janus-kit[demo]'.

    \b
    janus-kit demo
    janus-kit demo --model deepseek-community/Janus-Pro-1B --port 8080
    """
    pair = None
    if auth is not None:
        user, _, password = auth.partition(":")
        if not user or not password:
            raise OptionError("--auth must be USER:PASS, both not empty")
        pair = (user, password)
    try:
        from janus_kit.demos.app import opened
    except ImportError as error:
        raise _missing("demo", error) from error
    pipe = load()
    if pair is None and (share or not _local(host)):
        console.log.warning("anyone who finds the page can use it; --auth USER:PASS asks for more")
    try:
        with opened(
            pipe,
            host=host,
            port=port,
            share=share,
            auth=pair,
            hosts=allow_host or (),
            cap=max_queue,
            drain=drain,
        ) as url:
            typer.echo(url)
            threading.Event().wait()  # until a signal
    except OSError as error:
        raise _taken(host, port, error) from error


@with_model
def serve(
    load: Load,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    allow_host: Names = None,
    allow_media_domain: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-media-domain",
            help="Fetch pictures of https URLs there; .example.org: all below, too. Repeatable.",
        ),
    ] = None,
    max_queue: Cap = 32,
    max_batch: Annotated[int, typer.Option(min=1, max=256, help="Pictures drawn at once.")] = 8,
    drain: Drain = 30.0,
) -> None:
    """Answer OpenAI's clients: images, chat about pictures, models; prints the base URL.

    With JANUS_KIT_API_KEY set, /v1/ asks for that key. /health and /metrics (Prometheus) need
    none. SIGTERM lets running requests end. Needs pip install 'janus-kit[serve]'.

    \b
    janus-kit serve
    JANUS_KIT_API_KEY=sesame janus-kit serve --host 0.0.0.0 --port 8080
    """
    try:
        from janus_kit.demos.guard import trusted
        from janus_kit.demos.media import Fetcher
        from janus_kit.demos.server import build_server
        from janus_kit.demos.server import serve as run
    except ImportError as error:
        raise _missing("serve", error) from error
    key = os.environ.get(KEY) or None
    if key is None and not _local(host):
        console.log.warning("anyone who finds the server can use it; set %s", KEY)
    pipe: JanusPipeline = load()
    app = build_server(
        pipe,
        api_key=key,
        hosts=trusted(host, allow_host or ()),
        fetcher=Fetcher(allow_media_domain or ()),
        cap=max_queue,
        max_batch=max_batch,
    )
    try:
        run(app, host=host, port=port, drain=drain, ready=lambda url: typer.echo(f"{url}/v1"))
    except OSError as error:
        raise _taken(host, port, error) from error


def _local(host: str) -> bool:
    from janus_kit.demos.guard import is_loopback

    return is_loopback(host)


def _missing(extra: str, error: ImportError) -> OptionError:
    return OptionError(
        f"this needs {error.name or 'more packages'}; pip install 'janus-kit[{extra}]'"
    )


def _taken(host: str, port: int, error: OSError) -> OptionError:
    reason = error.strerror or str(error)
    return OptionError(
        f"cannot listen on {host}:{port} ({reason}); choose another --port or --host"
    )
