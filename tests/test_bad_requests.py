"""What a server must not fall over: reliability's rows 90 to 100, over real sockets."""

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from serving import Served, served
from test_server import data_url, error_of, post, question

from janus_kit import JanusPipeline
from janus_kit.demos.guard import trusted
from janus_kit.demos.media import Fetcher
from janus_kit.demos.server import build_server

KEY = "sesame"
DRAW, CHAT = "/v1/images/generations", "/v1/chat/completions"


@pytest.fixture(scope="module")
def server(hf_folder: Path) -> Iterator[Served]:
    pipe = JanusPipeline.from_pretrained(hf_folder)
    hosts = trusted("127.0.0.1")
    fetcher = Fetcher([".example.org"], resolve=lambda host, port: ["10.0.0.1"])
    with served(build_server(pipe, api_key=KEY, hosts=hosts, fetcher=fetcher)) as server:
        yield server


@pytest.fixture
def http(server: Served) -> Iterator[httpx.Client]:
    head = {"Authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=server.url, headers=head, timeout=60) as client:
        yield client
    with httpx.Client(base_url=server.url, timeout=60) as client:  # whatever came, it lives on
        assert client.get("/health").json()["status"] == "ok"


def send(http: httpx.Client, path: str, body: bytes) -> httpx.Response:
    return http.post(path, content=body, headers={"Content-Type": "application/json"})


# 90: bodies that are not what they should be


@pytest.mark.parametrize("path", [DRAW, CHAT])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"prompt": "\\ud800", "messages": [{"role": "user", "content": "\\ud800"}]}',
    ],
)
def test_a_body_that_is_no_request_is_refused(http: httpx.Client, path: str, body: bytes) -> None:
    error_of(send(http, path, body), 400)


@pytest.mark.parametrize(
    "field", ["guidance_scale", "temperature", "top_p", "seed", "n", "top_k", "partial_images"]
)
@pytest.mark.parametrize("value", ["NaN", "Infinity", "-1", "1e999", '"x"', "[1]", "0.5e-400"])
def test_numbers_that_are_none_are_refused_by_name(
    http: httpx.Client, field: str, value: str
) -> None:
    answer = send(http, DRAW, f'{{"prompt": "a", "{field}": {value}}}'.encode())
    if (field, value) in (("temperature", "0.5e-400"), ("top_k", "0.5e-400")) or (
        (field, value) in (("seed", "0.5e-400"), ("partial_images", "0.5e-400"))
    ):
        assert answer.status_code == 200  # it is 0
    else:
        assert field in error_of(answer, 400)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 0),
        ("n", 11),
        ("seed", 2**63),
        ("seed", 1.5),
        ("top_p", 0),
        ("top_p", 1.1),
        ("guidance_scale", 0),
        ("guidance_scale", 1000000000.0),
        ("size", "1024x1024"),
        ("size", "x" * 999),
        ("response_format", "pickle"),
        ("output_format", "webp"),
        ("partial_images", 24),
    ],
)
def test_values_out_of_range_are_refused_by_name(
    http: httpx.Client, field: str, value: object
) -> None:
    answer = http.post(DRAW, json={"prompt": "a", field: value})
    assert field in error_of(answer, 400)


def test_a_body_of_50_mb_is_refused_before_it_is_read(server: Served, http: httpx.Client) -> None:
    assert "larger than 32 MB" in error_of(send(http, DRAW, b" " * 50_000_000), 413)


def test_a_body_without_a_length_is_counted(server: Served) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(50):
            yield b" " * 1_000_000

    head = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    try:
        answer = httpx.post(server.url + DRAW, content=parts(), headers=head, timeout=60)
    except httpx.WriteError:
        return  # the server has hung up, which is an answer as well
    assert answer.status_code == 413


# 91: fields that are missing, or are not known


def test_missing_fields_are_named(http: httpx.Client) -> None:
    assert "prompt" in error_of(http.post(DRAW, json={}), 400)
    assert "messages" in error_of(http.post(CHAT, json={}), 400)
    assert "messages" in error_of(http.post(CHAT, json={"messages": []}), 400)


def test_fields_that_are_not_known_are_passed_over(http: httpx.Client) -> None:
    answer = http.post(DRAW, json={"prompt": "a", "user": "me", "style": "vivid", "x": {"y": 1}})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tools", []),
        ("stop", ["a"]),
        ("n", 2),
        ("logprobs", True),
        ("response_format", {"type": "json_object"}),
        ("functions", []),
    ],
)
def test_what_would_change_an_answer_and_is_not_there_is_refused(
    http: httpx.Client, field: str, value: object
) -> None:
    body = {"messages": [{"role": "user", "content": "hello"}], field: value}
    assert "response_format" in error_of(http.post(CHAT, json=body), 400) or field in (
        error_of(http.post(CHAT, json=body), 400)
    )


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "robot", "content": "a"}],
        [{"role": "assistant", "content": "a"}],
        [{"role": "user", "content": 5}],
        [{"role": "user", "content": [{"type": "video"}]}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}],
        [{"role": "system", "content": question("data:,")[0]["content"]}],
        [{"role": "user", "content": "a\x00b"}],
        [{"role": "user", "content": "x" * 100_001}],
    ],
)
def test_messages_that_cannot_be_answered_are_refused(http: httpx.Client, messages: Any) -> None:
    error_of(http.post(CHAT, json={"messages": messages}), 400)


# 92: where a picture may not come from


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "/etc/passwd",
        "C:\\boot.ini",
        "http://a.example.org/x.png",
        "http://127.0.0.1/x.png",
        "https://127.0.0.1/x.png",
        "https://2130706433/x.png",
        "https://[::ffff:7f00:1]/x.png",
        "https://169.254.169.254/latest/meta-data",
        "https://evil.org/x.png",
        "https://notexample.org/x.png",
        "https://a.example.org.evil.org/x.png",
        "https://a.example.org@evil.org/x.png",
        "https://user:pass@a.example.org/x.png",
        "https://a.example.org:8443/x.png",
        "https://a.example.org:99999999/x.png",
        "https://[/x.png",
        "https://a.example.org/x.png",  # which resolves to 10.0.0.1 here
        "ftp://a.example.org/x.png",
        "gopher://a.example.org/",
        "",
    ],
)
def test_a_url_that_may_not_be_fetched_is_refused(http: httpx.Client, url: str) -> None:
    message = error_of(http.post(CHAT, json={"messages": question(url)}), 400)
    assert "passwd" not in message


# 93 and 94: pictures in the request itself


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("data:image/png;base64,!!!", "not base64"),
        ("data:image/png;base64,ääää", "not base64"),
        ("data:image/png;base64,", "empty"),
        ("data:image/png,abc", "must begin like"),
        ("data:", "must begin like"),
        ("data:text/html;base64,PGh0bWw+", "holds text/html"),
        ("data:;base64,PGh0bWw+", "holds plain text"),
        ("data:image/svg+xml;base64," + base64.b64encode(b"<svg/>").decode(), "SVG"),
        (data_url()[:-30], "damaged|not base64"),
    ],
)
def test_a_data_url_that_holds_no_picture_is_refused(
    http: httpx.Client, url: str, words: str
) -> None:
    import re

    assert re.search(words, error_of(http.post(CHAT, json={"messages": question(url)}), 400))


def test_a_picture_that_is_too_large_is_refused_by_its_head(http: httpx.Client) -> None:
    file = io.BytesIO()
    Image.new("1", (13_300, 13_300)).save(file, format="PNG")
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    answer = http.post(CHAT, json={"messages": question(url)})
    assert "million pixels" in error_of(answer, 400)
    url = "data:image/png;base64," + "A" * 27_000_000
    assert "larger than 20 MB" in error_of(http.post(CHAT, json={"messages": question(url)}), 400)


def test_twenty_pictures_in_a_message_are_refused(http: httpx.Client) -> None:
    answer = http.post(CHAT, json={"messages": question(*[data_url()] * 20)})
    assert "20 pictures; at most 16" in error_of(answer, 400)
    # Fewer, but more than this model's context holds.
    error_of(http.post(CHAT, json={"messages": question(*[data_url()] * 16)}), 400)


# 95 and 96 are in test_server.py: clients that leave, and a queue that is full.


def test_a_thousand_at_once_are_served_or_refused(server: Served) -> None:
    import asyncio

    async def ask(client: httpx.AsyncClient, seed: int) -> int:
        body = {"prompt": "a", "seed": seed}
        answer = await client.post(DRAW, json=body)
        assert answer.status_code == 200 or int(answer.headers["retry-after"]) >= 1
        return answer.status_code

    async def all_of() -> list[int]:
        # A connection that is used again can meet the server as it closes it for idleness.
        limits = httpx.Limits(max_connections=200, max_keepalive_connections=0)
        head = {"Authorization": f"Bearer {KEY}"}
        async with httpx.AsyncClient(
            base_url=server.url, headers=head, timeout=120, limits=limits
        ) as client:
            return await asyncio.gather(*(ask(client, i) for i in range(1000)))

    codes = asyncio.run(all_of())
    assert set(codes) == {200, 429}
    assert server.worker.waiting == 0


# 97 and 98: who asks, and by which name


@pytest.mark.parametrize(
    "head",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": KEY},
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": "Bearer " + "x" * 10_000},
        {"X-API-Key": KEY},
    ],
)
def test_a_wrong_key_gets_401_and_nothing_else(server: Served, head: dict[str, str]) -> None:
    for path in (DRAW, CHAT, "/v1/models", "/v1/no/such/path"):
        answer = httpx.post(server.url + path, json={}, headers=head)
        assert "API key" in error_of(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "evil.example:80"])
def test_a_foreign_name_is_refused(server: Served, host: str) -> None:
    answer = httpx.get(f"{server.url}/health", headers={"Host": host})
    assert answer.status_code == 400


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1", "LOCALHOST:80", "[::1]:8000"])
def test_our_own_names_are_not(server: Served, host: str) -> None:
    assert httpx.get(f"{server.url}/health", headers={"Host": host}).status_code == 200


def test_a_foreign_page_may_not_post(server: Served) -> None:
    head = {"Authorization": f"Bearer {KEY}", "Origin": "https://evil.example"}
    answer = httpx.post(server.url + DRAW, json={"prompt": "a"}, headers=head)
    assert "may not use this server" in error_of(answer, 403)
    head["Origin"] = server.url
    assert httpx.post(server.url + DRAW, json={"prompt": "a"}, headers=head).status_code == 200


def test_an_unknown_model_is_not_found(http: httpx.Client) -> None:
    body = {"messages": [{"role": "user", "content": "a"}], "model": "gpt-4\ud800"}
    answer = send(http, CHAT, json.dumps(body).encode())
    assert "\\ud800" in error_of(answer, 404)  # half a character does not break the sentence
    body["model"] = "gpt-4"
    answer = http.post(CHAT, json=body)
    assert "no model 'gpt-4'" in error_of(answer, 404)
    assert answer.json()["error"]["code"] == "model_not_found"


# 99: paths


@pytest.mark.parametrize(
    "path",
    [
        "/pictures/..%2f..%2fetc%2fpasswd.png",
        "/pictures/%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
        "/pictures/%00.png",
        "/pictures/C:%5Cboot.ini.png",
        "/v1/models/..%2f..%2fetc%2fpasswd",
        "/v1/models/%00",
        "/pictures/" + "x" * 5000 + ".png",
        "/static/../../etc/passwd",
    ],
)
def test_no_path_leads_to_a_file(server: Served, http: httpx.Client, path: str) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    import socket

    with socket.create_connection((host, int(port))) as sock:
        sock.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {KEY}\r\n"
            "Connection: close\r\n\r\n".encode()
        )
        answer = b""
        while part := sock.recv(65536):
            answer += part
    status = int(answer.split(b" ", 2)[1])
    assert status in (400, 404, 405)
    assert b"root:" not in answer


def test_wrong_methods_and_unknown_paths_get_a_sentence(http: httpx.Client) -> None:
    assert error_of(http.get(DRAW), 405)
    assert error_of(http.get("/no/such/path"), 404)


def test_a_request_that_is_no_http_is_turned_away(server: Served) -> None:
    sock = post(server, DRAW, b"", head="Broken header\r\n")
    sock.settimeout(20)
    assert sock.recv(100).startswith(b"HTTP/1.1 400")
    sock.close()
