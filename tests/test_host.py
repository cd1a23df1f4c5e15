"""The commands that serve: what they refuse, what they print, and how they end."""

import base64
import io
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from conftest import Run
from PIL import Image

from janus_kit import JanusPipeline


@pytest.mark.parametrize("auth", ["", "me", ":secret", "me:"])
def test_a_sign_in_needs_a_user_and_a_password(janus: Run, auth: str) -> None:
    ended = janus("demo", "--auth", auth)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == "janus-kit: --auth must be USER:PASS, both not empty\n"


@pytest.mark.parametrize(("command", "package"), [("demo", "gradio"), ("serve", "fastapi")])
def test_without_its_extra_a_command_says_what_to_install(
    janus: Run, monkeypatch: pytest.MonkeyPatch, command: str, package: str
) -> None:
    for name in [n for n in sys.modules if n.startswith("janus_kit.demos.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    ended = janus(command)
    assert (ended.code, ended.out) == (2, "")
    assert f"pip install 'janus-kit[{command}]'" in ended.err


def test_a_port_that_is_taken_is_told(janus: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        ended = janus("serve", "--port", port)
    assert (ended.code, ended.out) == (2, "")
    assert f"cannot listen on 127.0.0.1:{port}" in ended.err


@contextmanager
def running(
    folder: Path, model: Path, *arguments: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A command in a process of its own, and the first line that it prints."""
    environment = os.environ | {"JANUS_KIT_MODEL": str(model), "JANUS_KIT_API_KEY": "sesame"}
    command = [sys.executable, "-m", "janus_kit", *arguments]
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment | {"TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def test_the_server_drains_at_sigterm(hf_folder: Path, tmp_path: Path) -> None:
    with running(tmp_path, hf_folder, "serve", "--port", "0") as (process, url):
        assert url.startswith("http://127.0.0.1:")
        assert url.endswith("/v1")
        head = {"Authorization": "Bearer sesame"}
        found: list[httpx.Response] = []

        def ask() -> None:
            # Ten pictures in parts of eight and two: long enough to be under way.
            body = {"prompt": "a red cat", "seed": 5, "n": 10}
            answer = httpx.post(f"{url}/images/generations", json=body, headers=head, timeout=120)
            found.append(answer)

        assert httpx.get(f"{url}/models").status_code == 401
        thread = threading.Thread(target=ask)
        thread.start()
        health = url.removesuffix("/v1") + "/health"
        while not httpx.get(health).json()["busy"] and not found:
            pass
        process.send_signal(signal.SIGTERM)
        thread.join(120)
        assert process.wait(60) == 143
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert found[0].status_code == 200
    pictures = found[0].json()["data"]
    assert len(pictures) == 10
    with Image.open(io.BytesIO(base64.b64decode(pictures[0]["b64_json"]))) as image:
        shown = image.convert("RGB").tobytes()
    pipe = JanusPipeline.from_pretrained(hf_folder)
    assert shown == pipe("a red cat", seed=5).images[0].tobytes()


def test_the_page_ends_at_sigterm_and_leaves_no_file(hf_folder: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = str(listening.getsockname()[1])
    arguments = ("demo", "--port", port, "--auth", "me:secret", "--drain", "2")
    with running(tmp_path, hf_folder, *arguments) as (process, url):
        assert url == f"http://127.0.0.1:{port}"
        (folder,) = tmp_path.glob("janus-kit-*")
        assert folder.stat().st_mode & 0o777 == 0o700
        assert httpx.get(f"{url}/config").status_code == 401
        answer = httpx.get(url, headers={"Host": "evil.example"})
        assert answer.status_code == 400
        large = b"x" * 5_000_000
        head = {"Content-Type": "application/json"}
        answer = httpx.post(f"{url}/gradio_api/queue/join", content=large, headers=head)
        assert answer.status_code == 413
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
    assert not list(tmp_path.glob("janus-kit-*"))
