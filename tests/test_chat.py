"""The server under strain: slow sites, full queues, clients that leave, what breaks half-way."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import Served, served
from test_server import data_url, error_of, later, post, question

from janus_kit import ImageError, JanusPipeline
from janus_kit.demos.jobs import Job
from janus_kit.demos.media import Fetcher
from janus_kit.demos.server import build_server
from janus_kit.demos.worker import ModelWorker

CHAT, DRAW = "/v1/chat/completions", "/v1/images/generations"
REMOTE = question(*["https://slow.example.org/x.png"] * 16)


@pytest.fixture(scope="module")
def pipe(hf_folder: Path) -> JanusPipeline:
    return JanusPipeline.from_pretrained(hf_folder)


class Slow(Fetcher):
    """A fetcher whose sites do not answer until they are let go."""

    def __init__(self) -> None:
        super().__init__(["slow.example.org"])
        self.asked = 0
        self.go = threading.Event()

    def get(self, url: str, end: float | None = None) -> bytes:
        self.asked += 1
        assert end is not None
        self.go.wait(30)
        raise ImageError("slow.example.org: took more than 10 s; try again")


@contextmanager
def slow(pipe: JanusPipeline, cap: int) -> Iterator[tuple[Slow, Served, httpx.Client]]:
    fetcher = Slow()
    with (
        served(build_server(pipe, cap=cap, fetcher=fetcher)) as server,
        httpx.Client(base_url=server.url, timeout=60) as http,
    ):
        try:
            yield fetcher, server, http
        finally:
            fetcher.go.set()


def until(true: Any) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_slow_sites_keep_nobody_else_from_an_answer(pipe: JanusPipeline) -> None:
    with slow(pipe, cap=8) as (fetcher, _, http):
        found: list[httpx.Response] = []
        threads = [later(http, CHAT, {"messages": REMOTE}, found) for _ in range(4)]
        until(lambda: fetcher.asked == 4)
        for content in ("hello", question(data_url())[0]["content"]):
            body = {"messages": [{"role": "user", "content": content}], "max_tokens": 2}
            assert http.post(CHAT, json=body, timeout=10).status_code == 200
        assert http.post(DRAW, json={"prompt": "a"}, timeout=10).status_code == 200
        fetcher.go.set()
        for thread in threads:
            thread.join(30)
        assert [error_of(answer, 400) for answer in found] == [
            "slow.example.org: took more than 10 s; try again"
        ] * 4
        assert fetcher.asked == 4  # the first picture that fails is the last that is asked for


def test_requests_whose_pictures_are_on_their_way_count_in_the_queue(pipe: JanusPipeline) -> None:
    with slow(pipe, cap=3) as (fetcher, server, http):
        socks = [post(server, CHAT, json.dumps({"messages": REMOTE}).encode()) for _ in range(3)]
        until(lambda: fetcher.asked == 3)
        answer = http.post(CHAT, json={"messages": REMOTE}, timeout=5)
        assert "the queue is full: 3 jobs are waiting" in error_of(answer, 429)
        assert int(answer.headers["retry-after"]) >= 1
        assert fetcher.asked == 3
        for sock in socks:  # whoever leaves makes room, though a site still keeps its thread
            sock.close()
        body = {"messages": question(data_url()), "max_tokens": 2}
        until(lambda: http.post(CHAT, json=body).status_code == 200)


def test_a_client_that_leaves_in_the_middle_of_an_answer_stops_it(
    pipe: JanusPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go = threading.Event(), threading.Event()
    pieces: list[str] = []
    put = Job.put

    def hold(job: Job, event: object) -> None:
        put(job, event)
        if isinstance(event, str):
            pieces.append(event)
            begun.set()
            assert go.wait(30)

    monkeypatch.setattr(Job, "put", hold)
    body = {"messages": question(data_url()), "max_tokens": 60}
    whole = {"role": "user", "content": "what is it?", "images": [pipe.view(data_image())]}
    assert len(list(pipe.chat([whole], stream=True, max_new_tokens=60))) > 4
    for stream in (False, True):
        pieces.clear(), begun.clear(), go.clear()
        with served(build_server(pipe)) as server:
            sock = post(server, CHAT, json.dumps({**body, "stream": stream}).encode())
            assert begun.wait(30)
            sock.close()
            time.sleep(0.3)  # the server hears of it
            go.set()
            server.wait_until_idle()
            assert len(pieces) <= 2
            assert (server.worker.counts.cancelled, server.worker.counts.done) == (1, 0)


def data_image() -> Any:
    from PIL import Image

    return Image.new("RGB", (40, 30), "red")


@pytest.mark.parametrize("path", [CHAT, DRAW])
def test_a_stream_that_breaks_off_ends_with_an_error(
    pipe: JanusPipeline,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    path: str,
) -> None:
    def broken(*_: object, **__: object) -> Any:
        raise MemoryError("no memory left on this very device")

    class Broken:
        completion_tokens = 1
        __iter__ = broken

        def __init__(self, *_: object, **__: object) -> None:
            pass

    monkeypatch.setattr(JanusPipeline, "chat", Broken)
    monkeypatch.setattr("janus_kit.demos.images._pngs", broken)
    body = {"messages": [{"role": "user", "content": "a"}]} if path == CHAT else {"prompt": "a"}
    with (
        served(build_server(pipe)) as server,
        httpx.Client(base_url=server.url, timeout=60) as http,
    ):
        answer = http.post(path, json={**body, "stream": True, "partial_images": 1})
        assert answer.status_code == 200
        lines = [line for line in answer.text.splitlines() if line.startswith("data:")]
        error = json.loads(lines[-1].removeprefix("data:"))["error"]
        assert error["type"] == "server_error"
        assert error["message"] == "something broke here; the program's log has more"
        assert "on this very device" in caplog.text
        answer = http.post(path, json=body)
        assert "on this very device" not in error_of(answer, 500)
        assert httpx.get(f"{server.url}/health").json()["status"] == "ok"


def test_the_end_takes_the_drain_once(pipe: JanusPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """uvicorn waits for requests; who is left after that has been given up."""
    waits: list[float] = []
    close = ModelWorker.close

    def closed(worker: ModelWorker, seconds: float = 30.0) -> bool:
        waits.append(seconds)
        return close(worker, seconds)

    monkeypatch.setattr(ModelWorker, "close", closed)
    with served(build_server(pipe)):
        pass
    assert waits == [0]
