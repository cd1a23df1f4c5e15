"""The page as programs reach it: what it refuses, fetches, keeps and serves; without a browser."""

import io
import json
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from PIL import Image
from serving import gradio

from janus_kit import JanusPipeline, Settings, png_bytes

pytest.importorskip("gradio")

# Gradio and its server leave sockets open, and warn of pandas.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def pipe(hf_folder: Path) -> JanusPipeline:
    return JanusPipeline.from_pretrained(hf_folder)


@pytest.fixture(scope="module")
def url(pipe: JanusPipeline) -> Iterator[str]:
    from janus_kit.demos.app import opened

    with gradio(), opened(pipe, port=0, drain=5) as url:
        yield url


@pytest.fixture
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=60) as client:
        yield client


@pytest.fixture
def quiet(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """What the page is sent leaves no traceback in its log."""
    yield
    assert "Traceback" not in capfd.readouterr().err


def call(http: httpx.Client, name: str, data: list[Any]) -> list[tuple[str, Any]]:
    """The events of a call over Gradio's HTTP interface."""
    body = json.dumps({"data": data})
    head = {"Content-Type": "application/json"}
    answer = http.post(f"/gradio_api/call/{name}", content=body, headers=head)
    assert answer.status_code == 200, answer.text
    text = http.get(f"/gradio_api/call/{name}/{answer.json()['event_id']}").text
    found = re.findall(r"^event: (\w+)\ndata: (.*)$", text, re.MULTILINE)
    return [(event, json.loads(data)) for event, data in found if event != "heartbeat"]


def refused(http: httpx.Client, name: str, data: list[Any]) -> str:
    """The sentence with which a call is refused."""
    event, answer = call(http, name, data)[-1]
    assert event == "error", answer
    assert isinstance(answer["error"], str), answer
    return str(answer["error"])


def file(path: str) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def upload(http: httpx.Client, name: str, data: bytes) -> str:
    """The path under which a file is kept."""
    answer = http.post("/gradio_api/upload", files={"files": (name, data)})
    assert answer.status_code == 200, answer.text
    return str(answer.json()[0])


def png(settings: Settings | None = None, size: tuple[int, int] = (64, 64)) -> bytes:
    image = Image.new("RGB", size, "red")
    if settings is not None:
        return png_bytes(image, settings)
    data = io.BytesIO()
    image.save(data, format="PNG")
    return data.getvalue()


# What it would fetch


@contextmanager
def listening() -> Iterator[tuple[str, list[Any]]]:
    """An address that must not be asked, and who has asked it all the same."""
    asked: list[Any] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        yield f"http://127.0.0.1:{server.getsockname()[1]}/x.png", asked
        with suppress(TimeoutError):
            asked.append(server.accept())


@pytest.fixture
def reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradio's own guard, which refuses private addresses, is out of the way."""
    import safehttpx

    async def known(name: str) -> str:
        return "127.0.0.1"

    monkeypatch.setattr(safehttpx, "async_validate_url", known)


@pytest.mark.usefixtures("reachable", "quiet")
def test_a_url_in_place_of_a_file_is_not_fetched(http: httpx.Client) -> None:
    with listening() as (url, asked):
        for name, data in (
            ("describe", [[file(url)], "what?"]),
            ("read", [file(url)]),
            ("ask", [{"text": "what?", "files": [file(url)]}, 8, 0]),
        ):
            assert "not fetched from the web" in refused(http, name, data)
        for path in (f"/gradio_api/file={url}", f"/gradio_api/file/{url}"):
            answer = http.get(path)
            assert answer.status_code == 403
            assert "fetches nothing" in answer.json()["error"]["message"]
    assert asked == []


def test_the_history_of_a_chat_is_the_pages_own(pipe: JanusPipeline) -> None:
    """What a browser sends as a chat can name any component and file, which Gradio would open."""
    import gradio as gr

    from janus_kit.demos.app import build_app

    taken = [block for fn in build_app(pipe).fns.values() for block in fn.inputs]
    assert len(taken) > 20
    assert not any(isinstance(block, gr.Chatbot) for block in taken)


# What it is sent


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("draw", [None, None, 1, None, 1.5, 0.5, None, None], "Write a prompt first"),
        ("draw", ["a", "", None, "", 1.5, 0.5, 0, False], "cannot be read"),
        ("draw", ["a", "", 99, "", 1.5, 0.5, 0, False], "greater than maximum"),
        ("draw", ["a", "", 1, "", 1.5, 0.5, float("nan"), False], "cannot be read"),
        ("draw", ["a", "", float("nan"), "", 1.5, 0.5, 0, False], "whole number from 1 to 8"),
        ("draw", ["a", "", 1, "", "x", 0.5, 0, False], "cannot be read"),
        ("draw", ["a", "", 1, "0" * 30 + "9" * 25, 1.5, 0.5, 0, False], "whole number from 0 on"),
        ("draw", ["a", "", 1, "9" * 5000, 1.5, 0.5, 0, False], "whole number from 0 on"),
        ("draw", ["a", "", 1, "", float("nan"), 0.5, 0, False], "Guidance must be"),
        ("ask", [None, 8, 0], "Write a question first"),
        ("ask", [{"text": "hello", "files": []}, None, 0], "cannot be read"),
        ("ask", [{"text": "hello", "files": []}, float("nan"), 0], "whole number from 1 to 512"),
        ("ask", [{"text": "hello", "files": [{"path": 5}]}, 8, 0], "cannot be read"),
        ("ask", [{"text": "hello", "files": [file("/etc/hostname")]}, 8, 0], "cannot be read"),
        ("describe", [None, None], "Add pictures first"),
        ("describe", [[file("/etc/hostname")], None], "cannot be read"),
        ("read", [file("/etc/hostname")], "cannot be read"),
        ("read", [file("../../../../etc/hostname")], "cannot be read"),
        ("compare", [None, "Guidance", "1", "1"], "Write a prompt first"),
        ("compare", ["a", "Guidance", None, "1"], "whole number from 1 to 8"),
        ("compare", ["a", "Colour", "1", "1"], "Colour"),
    ],
)
def test_what_cannot_be_done_gets_a_sentence(
    http: httpx.Client, name: str, data: list[Any], words: str
) -> None:
    sentence = refused(http, name, data)
    assert words in sentence
    assert "/tmp" not in sentence


def test_an_error_that_nobody_foresaw_gets_a_sentence_and_the_queue_goes_on(
    http: httpx.Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("of nobody's intent")

    drawing = ["a", "", 1, "1", 1.5, 0.5, 0, False]
    for place in ("janus_kit.pipeline.JanusPipeline.decode", "janus_kit.demos.studio.Studio.keep"):
        with monkeypatch.context() as patch:
            patch.setattr(place, broken)
            sentence = refused(http, "draw", drawing)
        assert sentence == "Something broke here; the program's log has more."
    kinds = [record.exc_info[0] for record in caplog.records if record.exc_info]
    assert kinds == [ZeroDivisionError] * 2  # for those who run it
    assert call(http, "draw", drawing)[-1][0] == "complete"


@pytest.mark.usefixtures("quiet")
def test_handlers_are_reached_through_the_queue_alone(http: httpx.Client) -> None:
    for name, data in (("read", [None]), ("compare", ["a", "Guidance", "1", "1"])):
        for place in ("run", "api"):
            answer = http.post(f"/gradio_api/{place}/{name}", json={"data": data})
            assert answer.status_code == 404, place


# What it keeps and serves


@pytest.mark.parametrize("name", ["../../e<i>.html", "..%2f..%2fe.html", "/etc/e.svg", "e.xhtml"])
def test_an_upload_lies_in_its_own_folder_and_is_never_shown_as_a_page(
    http: httpx.Client, name: str
) -> None:
    path = Path(upload(http, name, b"<script>alert(1)</script>"))
    cache = Path(os.environ["GRADIO_TEMP_DIR"])
    assert path.resolve() == path
    assert path.parent.parent == cache
    assert not set("<>/\\") & set(path.name)
    answer = http.get(f"/gradio_api/file={quote(str(path))}")
    assert answer.status_code == 200
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["content-type"] == "application/octet-stream"


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "/etc/../etc/passwd",
        "../../../../../../etc/passwd",
        "%2Fetc%2Fpasswd",
        "..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
        "README.md",
        "file:///etc/passwd",
        "{cache}",
        "{cache}/../../etc/passwd",
        "{cache}/%00",
        "x" * 5000,
    ],
)
def test_no_path_leads_out_of_the_pages_files(http: httpx.Client, path: str) -> None:
    path = path.format(cache=os.environ["GRADIO_TEMP_DIR"])
    for place in (f"/gradio_api/file={path}", f"/gradio_api/file/{path}", f"/file={path}"):
        answer = http.get(place)
        assert answer.status_code in (400, 403, 404), place
        assert "root:" not in answer.text


def test_a_picture_of_20_mb_is_the_largest(http: httpx.Client) -> None:
    assert upload(http, "a.png", b"x" * 19_900_000)
    answer = http.post("/gradio_api/upload", files={"files": ("a.png", b"x" * 21_000_000)})
    assert answer.status_code == 413
    assert "maximum allowed size" in answer.text


def test_an_upload_of_200_mb_is_refused_before_it_is_read(url: str) -> None:
    host, port = url.removeprefix("http://").split(":")
    for path, length, status in (
        ("/gradio_api/upload", 200_000_001, b"413"),
        ("/gradio_api/call/draw", 4_000_001, b"413"),
    ):
        with socket.create_connection((host, int(port)), timeout=20) as sock:
            sock.sendall(
                f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n"
                "Content-Type: multipart/form-data; boundary=x\r\n\r\n".encode()
            )
            assert sock.recv(100).split(b" ")[1] == status


def test_a_foreign_page_may_not_use_the_page(http: httpx.Client, url: str) -> None:
    body = {"data": ["a", "", 1, "1", 1.5, 0.5, 0, False]}
    for path in ("/gradio_api/call/draw", "/gradio_api/queue/join", "/gradio_api/upload"):
        for origin in ("https://evil.example", "null", "http://["):
            answer = http.post(path, json=body, headers={"Origin": origin})
            assert answer.status_code == 403, (path, origin)
            assert "may not use this server" in answer.json()["error"]["message"]
    answer = http.post("/gradio_api/call/draw", json=body, headers={"Origin": url})
    assert answer.status_code == 200


def test_a_picture_gives_its_settings_to_a_program(http: httpx.Client) -> None:
    settings = Settings(prompt="two cats", seed=3)
    path = upload(http, "a.png", png(settings))
    event, answer = call(http, "read", [file(path)])[-1]
    assert event == "complete"
    assert "two cats" in json.dumps(answer)
    for name, data in (("b.png", png()), ("c.png", b"no picture")):
        (event, answer) = call(http, "read", [file(upload(http, name, data))])[-1]
        assert event == "complete"
        assert "janus-kit-" not in json.dumps(answer)


@pytest.mark.parametrize("host", ["::1", "localhost"])
def test_a_free_port_is_taken_on_any_address(pipe: JanusPipeline, host: str) -> None:
    from janus_kit.demos.app import opened

    if host == "::1":
        try:
            socket.create_server((host, 0), family=socket.AF_INET6).close()
        except OSError:
            pytest.skip("this machine has no IPv6")
    with gradio(), opened(pipe, host=host, port=0, drain=5) as url:
        shown = f"[{host}]" if ":" in host else host
        assert re.fullmatch(rf"http://{re.escape(shown)}:[1-9]\d+", url)
        assert httpx.get(url).status_code == 200
        head = {"Host": "evil.example"}
        assert httpx.get(url, headers=head).status_code == 400
