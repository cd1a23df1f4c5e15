"""Where a server may fetch pictures from: reliability's row 92, over real sockets."""

import io
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from PIL import Image

from janus_kit import ImageError, load_image
from janus_kit.demos import media
from janus_kit.demos.media import Fetcher, is_public

PRIVATE = (
    *("127.0.0.1", "10.1.2.3", "192.168.1.1", "172.16.0.1", "169.254.169.254", "100.64.0.1"),
    *("0.0.0.0", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "fe80::1", "fd00::1"),
    *("64:ff9b::7f00:1", "2002:7f00:1::", "224.0.0.1", "255.255.255.255", "ff02::1", "::"),
)


@pytest.mark.parametrize("text", PRIVATE)
def test_addresses_inside_are_not_public(text: str) -> None:
    import ipaddress

    assert not is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_addresses_outside_are_public(text: str) -> None:
    import ipaddress

    assert is_public(ipaddress.ip_address(text))


# Answers that never come to their end: of a status line, of the headers, of a chunk's length.
DRIPS = {
    "/status": (b"HTTP/1.1 200 ", b"O"),
    "/headers": (b"HTTP/1.1 200 OK\r\nX-Head: ", b"x"),
    "/chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
}


class Site(BaseHTTPRequestHandler):
    """A small https site on the loopback address, which plays a public one."""

    picture: bytes = b""

    def do_GET(self) -> None:
        kind = self.path.split("?")[0]
        if kind == "/moved":
            self.send_response(302)
            self.send_header("Location", "https://127.0.0.1/secret")
            self.end_headers()
            return
        if kind in DRIPS:
            self.drip(*DRIPS[kind])
            return
        self.send_response(404 if kind == "/none" else 200)
        self.end_headers()
        try:
            if kind == "/large":
                for _ in range(400):
                    self.wfile.write(b"x" * 10_000)
            elif kind == "/slow":
                for _ in range(40):
                    self.wfile.write(b"x")
                    self.wfile.flush()
                    time.sleep(0.1)
            else:
                self.wfile.write(self.picture)
        except OSError:
            pass  # the client has had enough

    def drip(self, head: bytes, drop: bytes) -> None:
        """A byte at a time, for six seconds."""
        with suppress(OSError):  # the client has had enough
            self.wfile.write(head)
            for _ in range(60):
                self.wfile.write(drop)
                self.wfile.flush()
                time.sleep(0.1)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, ssl.SSLContext]]:
    """Its port, and the trust of a client in it."""
    folder = tmp_path_factory.mktemp("site")
    key, cert = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-keyout",
            key,
            "-out",
            cert,
            "-subj",
            "/CN=pictures.example.org",
            "-addext",
            "subjectAltName=DNS:pictures.example.org",
        ],
        check=True,
        capture_output=True,
    )
    data = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(data, format="PNG")
    Site.picture = data.getvalue()
    server = HTTPServer(("127.0.0.1", 0), Site)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port, ssl.create_default_context(cafile=str(cert))
    server.shutdown()
    server.server_close()


@pytest.fixture
def fetcher(site: tuple[int, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch) -> Fetcher:
    """A fetcher that finds the site behind a public name on port 443."""
    port, context = site
    connect = media.socket.create_connection

    def to_site(address: tuple[str, int], timeout: float) -> Any:
        assert address == ("127.0.0.1", 443)
        return connect((address[0], port), timeout=timeout)

    monkeypatch.setattr(media.socket, "create_connection", to_site)
    return Fetcher(
        ["pictures.example.org"],
        seconds=1.5,
        largest=1_000_000,
        resolve=lambda host, port: ["127.0.0.1"],
        public=lambda address: True,
        context=context,
    )


def test_an_allowed_picture_is_fetched_and_opened(fetcher: Fetcher) -> None:
    image = load_image(fetcher.get("https://pictures.example.org/a.png?b=c"))
    assert (image.size, image.mode) == ((8, 8), "RGB")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("moved", "status 302; redirects are not followed"),
        ("none", "status 404"),
        ("large", "larger than 1 MB"),
        ("slow", "took more than 1.5 s"),
        ("status", "took more than 1.5 s"),
        ("headers", "took more than 1.5 s"),
        ("chunks", "took more than 1.5 s"),
    ],
)
def test_an_allowed_site_cannot_lead_on_flood_or_stall(
    fetcher: Fetcher, path: str, words: str
) -> None:
    begun = time.monotonic()
    with pytest.raises(ImageError, match=words):
        fetcher.get(f"https://pictures.example.org/{path}")
    assert time.monotonic() - begun < 3


def test_a_name_is_looked_up_once_so_that_it_cannot_change_after_the_check(
    fetcher: Fetcher,
) -> None:
    asked: list[str] = []

    def changing(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["10.0.0.1"]

    fetcher.resolve = changing
    assert fetcher.get("https://pictures.example.org/a.png")
    assert asked == ["pictures.example.org"]


def test_a_name_that_takes_too_long_to_be_found_is_given_up() -> None:
    def slow(host: str, port: int) -> list[str]:
        time.sleep(2)
        return ["8.8.8.8"]

    begun = time.monotonic()
    with pytest.raises(ImageError, match=r"took more than 0\.2 s"):
        Fetcher(["a.org"], seconds=0.2, resolve=slow).get("https://a.org/x")
    assert time.monotonic() - begun < 1.5


def test_one_private_address_among_public_ones_is_enough_to_refuse() -> None:
    fetcher = Fetcher(["a.org"], resolve=lambda host, port: ["8.8.8.8", "127.0.0.1"])
    with pytest.raises(ImageError, match="not public"):
        fetcher.get("https://a.org/x")


def test_another_sites_certificate_is_not_trusted(fetcher: Fetcher) -> None:
    fetcher.domains = ("other.example.org",)
    with pytest.raises(ImageError, match="cannot be fetched"):
        fetcher.get("https://other.example.org/a.png")
