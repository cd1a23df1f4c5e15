"""A server of ours on a free port of this machine, in a thread, for tests and the load test."""

import gc
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn
from fastapi import FastAPI

from janus_kit.demos.worker import ModelWorker


@dataclass
class Served:
    url: str
    app: FastAPI
    server: uvicorn.Server

    @property
    def worker(self) -> ModelWorker:
        worker: ModelWorker = self.app.state.worker
        return worker

    def wait_until_idle(self, seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while self.worker.busy or self.worker.waiting:
            assert time.monotonic() < end
            time.sleep(0.01)


@contextmanager
def gradio() -> Iterator[None]:
    """What Gradio leaves open, sockets and loops, is collected at the end without a warning."""
    try:
        yield
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gc.collect()


@contextmanager
def served(app: FastAPI, **options: Any) -> Iterator[Served]:
    """app on a free port of the loopback address, until the block ends."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", **options)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Served(f"http://127.0.0.1:{port}", app, server)
    finally:
        server.should_exit = True
        thread.join(40)
        assert not thread.is_alive()
