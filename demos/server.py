"""An OpenAI-compatible server on a pipeline: build_server(pipe) → FastAPI, serve(...) runs it."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.responses import Response

from janus_kit import JanusPipeline
from janus_kit.demos.chat import add_chat
from janus_kit.demos.guard import Guard
from janus_kit.demos.images import add_images
from janus_kit.demos.media import Fetcher
from janus_kit.demos.metrics import Metrics
from janus_kit.demos.schemas import Health, ModelEntry, Models
from janus_kit.demos.web import Ascii, Room, check_model, handle_errors, only
from janus_kit.demos.worker import ModelWorker

__all__ = ["build_server", "serve"]


def build_server(
    pipe: JanusPipeline,
    *,
    api_key: str | None = None,
    hosts: Sequence[str] = (),
    fetcher: Fetcher | None = None,
    cap: int = 32,
    max_batch: int = 8,
) -> FastAPI:
    """The server as an ASGI app, with a thread for the model that ends with its lifespan.

    api_key: what /v1/ asks for; None asks for nothing. hosts: names that the Host header may have;
    () takes all. fetcher: where image URLs may come from; by default from nowhere. cap: jobs that
    may wait. max_batch: pictures drawn at once.
    """
    pipe.set_progress_bar_config(disable=True)
    worker = ModelWorker(pipe, cap=cap, max_batch=max_batch)
    metrics = Metrics(worker)
    room = Room(pipe, worker, fetcher or Fetcher(), int(time.time()))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(worker.close, 0)  # all requests have been answered or given up

    app = FastAPI(
        title="janus_kit",
        description=f"Pictures and answers by {pipe.name}, over OpenAI's protocol.",
        lifespan=lifespan,
        default_response_class=Ascii,
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
    )
    app.state.worker = worker
    app.add_middleware(Guard, hosts=hosts, api_key=api_key)
    app.add_middleware(_Counting, metrics=metrics)
    handle_errors(app)
    _add_status(app, room, metrics)
    add_images(app, room)
    add_chat(app, room)
    return app


class _Counting:
    """Metrics.wrap as a middleware class."""

    def __init__(self, app: Any, metrics: Metrics) -> None:
        self.inner = metrics.wrap(app)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.inner(scope, receive, send)


def _add_status(app: FastAPI, room: Room, metrics: Metrics) -> None:
    entry = ModelEntry(id=room.pipe.name, created=room.born)

    @app.get("/health", responses={503: {"model": Health}})
    async def health() -> Response:
        worker = room.worker
        status = "stopping" if worker.closing else "ok"
        found = Health(
            status=status,  # type: ignore[arg-type] # one of the two
            model=room.pipe.name,
            waiting=worker.waiting,
            busy=worker.busy,
        )
        return Ascii(found.model_dump(), 503 if worker.closing else 200)

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def prometheus() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/v1/models", responses=only(400, 401))
    async def models() -> Models:
        return Models(data=[entry])

    @app.get("/v1/models/{model:path}", responses=only(400, 401, 404))
    async def model(model: str) -> ModelEntry:
        check_model(room, model)
        return entry


def serve(
    app: FastAPI,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    drain: float = 30.0,
    ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Run a server until SIGINT or SIGTERM; requests that are under way are answered first.

    drain: seconds that they have. ready is called with the URL once the server listens; port 0
    takes a free one. Raises OSError where it cannot listen.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, round(drain)),
    )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.create_server((host, port), family=family, backlog=128)
    name, number = listening.getsockname()[:2]
    ready(f"http://{f'[{name}]' if ':' in name else name}:{number}")
    uvicorn.Server(config).run(sockets=[listening])
