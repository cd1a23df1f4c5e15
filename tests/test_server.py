"""The server, over real sockets: by OpenAI's own client, and by hand where that is too polite."""

import base64
import io
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from serving import Served, served

from janus_kit import JanusPipeline, read_settings
from janus_kit.demos.jobs import Job, Row
from janus_kit.demos.server import build_server

openai = pytest.importorskip("openai")

KEY = "sesame"
PROMPT = "a red cat"


@pytest.fixture(scope="module")
def pipe(hf_folder: Path) -> JanusPipeline:
    return JanusPipeline.from_pretrained(hf_folder)


@pytest.fixture(scope="module")
def server(pipe: JanusPipeline) -> Iterator[Served]:
    app = build_server(pipe, api_key=KEY, hosts=("localhost", "127.0.0.1"), cap=4, max_batch=4)
    with served(app) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Served) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture
def http(server: Served) -> Iterator[httpx.Client]:
    head = {"Authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=server.url, headers=head, timeout=60) as client:
        yield client


def opened(data: str) -> Image.Image:
    image = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
    image.info = {}  # it would count in a comparison
    return image


def data_url(color: str = "red", kind: str = "PNG") -> str:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), color).save(file, format=kind)
    return f"data:image/{kind.lower()};base64," + base64.b64encode(file.getvalue()).decode()


def question(*urls: str, text: str = "what is it?") -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": u}} for u in urls]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def error_of(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "Traceback" not in answer.text
    return str(error["message"])


# OpenAI's client


def test_pictures_are_those_that_the_pipeline_draws(client: Any, pipe: JanusPipeline) -> None:
    reply = client.images.generate(
        model=pipe.name,
        prompt=PROMPT,
        n=2,
        size="64x64",
        extra_body={"seed": 7, "guidance_scale": 2.0, "negative_prompt": "a dog", "top_k": 9},
    )
    alone = [
        pipe(PROMPT, negative_prompt="a dog", seed=seed, guidance_scale=2.0, top_k=9)
        for seed in (7, 8)
    ]
    assert [opened(data.b64_json) for data in reply.data] == [drawn.images[0] for drawn in alone]
    assert [data.seed for data in reply.data] == [7, 8]
    assert reply.usage.output_tokens == 2 * 16
    assert (reply.size, reply.output_format) == ("64x64", "png")


def test_a_picture_carries_its_settings(client: Any, pipe: JanusPipeline, tmp_path: Path) -> None:
    (data,) = client.images.generate(prompt=PROMPT, extra_body={"seed": 3}).data
    (tmp_path / "a.png").write_bytes(base64.b64decode(data.b64_json))
    assert read_settings(tmp_path / "a.png") == pipe(PROMPT, seed=3).settings[0]


def test_without_a_seed_a_random_one_is_told(client: Any) -> None:
    seeds = [client.images.generate(prompt=PROMPT).data[0].seed for _ in range(2)]
    assert seeds[0] != seeds[1]


def test_a_picture_can_be_fetched_by_its_url(client: Any, http: httpx.Client) -> None:
    (data,) = client.images.generate(
        prompt=PROMPT, response_format="url", extra_body={"seed": 3}
    ).data
    assert data.b64_json is None
    answer = httpx.get(data.url)
    assert answer.headers["content-type"] == "image/png"
    (other,) = client.images.generate(prompt=PROMPT, extra_body={"seed": 3}).data
    assert answer.content == base64.b64decode(other.b64_json)
    assert "no such picture" in error_of(http.get("/pictures/abc.png"), 404)


def test_a_streamed_picture_comes_by_its_rows(client: Any, pipe: JanusPipeline) -> None:
    stream = client.images.generate(
        prompt=PROMPT, stream=True, partial_images=3, n=2, extra_body={"seed": 5}
    )
    events = list(stream)
    partial = [e for e in events if e.type == "image_generation.partial_image"]
    done = [e for e in events if e.type == "image_generation.completed"]
    assert len(partial) == 6
    assert [e.partial_image_index for e in partial if e.image_index == 1] == [0, 1, 2]
    upper = opened(partial[2].b64_json)
    assert upper.crop((0, 32, 64, 64)).getcolors() == [(32 * 64, (127, 127, 127))]
    assert len(upper.crop((0, 0, 64, 32)).getcolors(9999)) > 1
    assert [opened(e.b64_json) for e in done] == pipe(
        PROMPT, seed=5, num_images_per_prompt=2
    ).images
    assert done[0].usage.output_tokens == 16
    assert done[0].size == "64x64"


def test_a_chat_answers_as_the_pipeline_does(client: Any, pipe: JanusPipeline) -> None:
    reply = client.chat.completions.create(
        model=pipe.name, messages=question(data_url()), max_tokens=8
    )
    turns = [
        {
            "role": "user",
            "content": "what is it?",
            "images": [Image.new("RGB", (40, 30), "red")],
        }
    ]
    assert reply.choices[0].message.content == pipe.chat(turns, max_new_tokens=8)
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert reply.usage.prompt_tokens > 16
    assert reply.choices[0].finish_reason in ("stop", "length")


def test_a_streamed_chat_gives_the_same_text_in_pieces(client: Any) -> None:
    options = {"model": "", "messages": question(data_url("blue")), "max_tokens": 12}
    whole = client.chat.completions.create(**options)
    chunks = list(
        client.chat.completions.create(
            **options, stream=True, stream_options={"include_usage": True}
        )
    )
    pieces = [c.choices[0].delta.content or "" for c in chunks if c.choices]
    assert "".join(pieces).strip() == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage
    reasons = [c.choices[0].finish_reason for c in chunks if c.choices]
    assert reasons[-1] == whole.choices[0].finish_reason
    assert set(reasons[:-1]) == {None}
    assert len({chunk.id for chunk in chunks}) == 1


def test_system_messages_and_messages_in_a_row_become_turns(
    client: Any, pipe: JanusPipeline
) -> None:
    said = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": data_url()}}]},
        {"role": "user", "content": "what is it?"},
        {"role": "assistant", "content": "a cat"},
        {"role": "user", "content": "what colour?"},
    ]
    reply = client.chat.completions.create(model="", messages=said, max_tokens=6)
    turns = [
        {
            "role": "user",
            "content": "be brief\nwhat is it?",
            "images": [Image.new("RGB", (40, 30), "red")],
        },
        {"role": "assistant", "content": "a cat"},
        {"role": "user", "content": "what colour?"},
    ]
    assert reply.choices[0].message.content == pipe.chat(turns, max_new_tokens=6)


def test_the_model_is_listed(client: Any, pipe: JanusPipeline) -> None:
    assert [model.id for model in client.models.list()] == [pipe.name]
    assert client.models.retrieve(pipe.name).id == pipe.name


def test_errors_are_those_that_the_client_knows(server: Served, client: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="size must be 64x64 or auto"):
        client.images.generate(prompt=PROMPT, size="1024x1024")
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt-5'"):
        client.images.generate(prompt=PROMPT, model="gpt-5")
    url = "data:image/png;base64," + base64.b64encode(b"no picture").decode()
    with pytest.raises(openai.BadRequestError, match="not a readable PNG"):
        client.chat.completions.create(model="", messages=question(url))
    wrong = openai.OpenAI(base_url=f"{server.url}/v1", api_key="guess", max_retries=0)
    with wrong, pytest.raises(openai.AuthenticationError, match="API key is missing or wrong"):
        wrong.models.list()


# The queue


class Hold:
    """Keeps the model at the first row of the next drawing, until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.open = threading.Event(), threading.Event()
        put = Job.put

        def wait(job: Job, event: object) -> None:
            put(job, event)
            if isinstance(event, Row) and not self.begun.is_set():
                self.begun.set()
                assert self.open.wait(30)

        monkeypatch.setattr(Job, "put", wait)


def later(
    http: httpx.Client, path: str, body: dict[str, Any], found: list[Any]
) -> threading.Thread:
    thread = threading.Thread(target=lambda: found.append(http.post(path, json=body)))
    thread.start()
    return thread


def test_a_full_queue_answers_429_at_once_and_the_rest_share_a_batch(
    server: Served, client: Any, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = Hold(monkeypatch)
    found: list[httpx.Response] = []
    path = "/v1/images/generations"
    threads = [later(http, path, {"prompt": "first", "seed": 0}, found)]
    assert hold.begun.wait(30)
    batches = dict(server.worker.counts.batches)
    for i in range(4):
        threads.append(later(http, path, {"prompt": f"number {i}", "seed": i}, found))
        while server.worker.waiting < i + 1:
            time.sleep(0.01)
    begun = time.monotonic()
    answer = http.post(path, json={"prompt": PROMPT})
    assert time.monotonic() - begun < 2
    assert "the queue is full: 4 jobs are waiting" in error_of(answer, 429)
    assert int(answer.headers["retry-after"]) >= 1
    with pytest.raises(openai.RateLimitError, match="queue is full"):
        client.images.generate(prompt=PROMPT)
    assert http.get("/health").json()["waiting"] == 4
    hold.open.set()
    for thread in threads:
        thread.join(60)
    assert [answer.status_code for answer in found] == [200] * 5
    new = {k: n - batches.get(k, 0) for k, n in server.worker.counts.batches.items()}
    assert {size: n for size, n in new.items() if n} == {1: 1, 4: 1}


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_stops_its_drawing_within_a_row(
    server: Served, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    server.wait_until_idle()
    hold = Hold(monkeypatch)
    rows, cancelled = server.worker.counts.rows, server.worker.counts.cancelled
    body = json.dumps({"prompt": PROMPT, "stream": stream, "partial_images": 3}).encode()
    sock = post(server, "/v1/images/generations", body)
    assert hold.begun.wait(30)
    sock.close()
    time.sleep(0.3)  # the server hears of it
    hold.open.set()
    server.wait_until_idle()
    assert server.worker.counts.rows - rows == 2
    assert server.worker.counts.cancelled - cancelled == 1


def test_a_client_that_leaves_the_queue_makes_room(
    server: Served, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.wait_until_idle()
    hold = Hold(monkeypatch)
    found: list[httpx.Response] = []
    thread = later(http, "/v1/images/generations", {"prompt": PROMPT, "seed": 1}, found)
    assert hold.begun.wait(30)
    sock = post(server, "/v1/images/generations", json.dumps({"prompt": "x"}).encode())
    while server.worker.waiting < 1:
        time.sleep(0.01)
    pictures = server.worker.counts.pictures
    sock.close()
    time.sleep(0.3)
    hold.open.set()
    thread.join(60)
    server.wait_until_idle()
    assert found[0].status_code == 200
    assert server.worker.counts.pictures - pictures == 1


def post(server: Served, path: str, body: bytes, head: str = "") -> socket.socket:
    """A request by hand; the answer is not read."""
    host, port = server.url.removeprefix("http://").split(":")
    sock = socket.create_connection((host, int(port)))
    sock.sendall(
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n{head}\r\n".encode()
        + body
    )
    return sock


# What operators look at


def test_health_and_metrics_need_no_key_and_count(server: Served, http: httpx.Client) -> None:
    assert httpx.get(f"{server.url}/health").json()["status"] == "ok"
    http.post("/v1/images/generations", json={"prompt": PROMPT})
    http.get("/no/such/path")
    text = httpx.get(f"{server.url}/metrics").text
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
    assert float(lines["janus_pictures_total"]) >= 1
    assert float(lines["janus_rows_total"]) >= 4
    route = 'route="/v1/images/generations",status="200"'
    assert any(route in name for name in lines)
    assert not any("no/such" in name for name in lines)


def test_the_document_of_the_api_names_its_routes(server: Served) -> None:
    paths = httpx.get(f"{server.url}/openapi.json").json()["paths"]
    for path in ("/v1/images/generations", "/v1/chat/completions", "/v1/models", "/health"):
        assert path in paths
    assert httpx.get(f"{server.url}/docs").status_code == 404  # it would load foreign scripts


def test_stopping_answers_what_is_under_way(
    pipe: JanusPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = Hold(monkeypatch)
    found: list[httpx.Response] = []
    app = build_server(pipe)
    with (
        served(app, timeout_graceful_shutdown=30) as server,
        httpx.Client(base_url=server.url, timeout=60) as http,
    ):
        thread = later(http, "/v1/images/generations", {"prompt": PROMPT, "seed": 1}, found)
        assert hold.begun.wait(30)
        server.server.should_exit = True
        time.sleep(0.3)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.url}/health")
        hold.open.set()
        thread.join(60)
    assert found[0].status_code == 200
    assert isinstance(found[0].json()["data"][0]["seed"], int)
