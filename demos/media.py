"""The pictures of a chat request: data URLs, and https where the operator has allowed a domain."""

import base64
import binascii
import http.client
import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import TypeVar
from urllib.parse import urlsplit

from PIL import Image

from janus_kit import ImageError, load_image

__all__ = ["LARGEST", "Fetcher", "is_public", "read_data_url"]

LARGEST = 20_000_000  # bytes of a picture
_DATA = re.compile(r"data:([\w.+-]+/[\w.+-]+)?((?:;[\w=.+-]+)*),", re.ASCII)
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
T = TypeVar("T")
Resolve = Callable[[str, int], Sequence[str]]


def is_public(address: Address) -> bool:
    """Whether an address is out on the internet: not private, local, reserved or mapped to such."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if inner is not None:
            return is_public(inner)
        if address in ipaddress.ip_network("64:ff9b::/96"):  # NAT64 leads to any IPv4 address
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return address.is_global and not address.is_multicast


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host, as the system knows them."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Fetcher:
    """Gets pictures from the domains that the operator allows, and from nowhere else.

    https only, no redirects, a public address that is looked up once and then used, at most
    20 MB and ten seconds in all.
    """

    def __init__(
        self,
        domains: Sequence[str] = (),
        *,
        seconds: float = 10.0,
        largest: int = LARGEST,
        resolve: Resolve = resolve,
        public: Callable[[Address], bool] = is_public,
        context: ssl.SSLContext | None = None,
    ) -> None:
        """domains: names such as images.example.org; .example.org is that and all below it."""
        self.domains = tuple(domain.lower() for domain in domains)
        self.seconds, self.largest = seconds, largest
        self.resolve, self.public = resolve, public
        self.context = context

    def allows(self, host: str) -> bool:
        return any(
            host == domain.lstrip(".") or (domain.startswith(".") and host.endswith(domain))
            for domain in self.domains
        )

    def get(self, url: str, end: float | None = None) -> bytes:
        """The bytes behind a URL; raises ImageError for what may not or cannot be fetched.

        end: what the monotonic clock may show at most, where several share their seconds.
        """
        end = time.monotonic() + self.seconds if end is None else end
        host, port, path = self._parts(url)
        try:
            names = _in_time(lambda: self.resolve(host, port), end)
            found = [ipaddress.ip_address(name.partition("%")[0]) for name in names]
        except (OSError, ValueError) as error:
            raise self._failed(host, end, "cannot be found; check the URL") from error
        # One private address among public ones is how a name is made to lead inside.
        if not found or not all(map(self.public, found)):
            raise ImageError(f"{host}: leads to an address that is not public; send a data URL")
        connection = _Pinned(host, str(found[0]), port, end, self.context)
        try:
            connection.request(
                "GET", path, headers={"Accept": "image/*", "User-Agent": "janus_kit"}
            )
            answer = connection.getresponse()
            if answer.status != 200:
                moved = "; redirects are not followed" if 300 <= answer.status < 400 else ""
                raise ImageError(f"{host}: answered with status {answer.status}{moved}")
            return self._body(answer, connection, host, end)
        except (OSError, http.client.HTTPException) as error:
            what = "the picture cannot be fetched; check the URL"
            raise self._failed(host, end, what) from error
        finally:
            connection.hang_up()
            connection.close()

    def _failed(self, host: str, end: float, what: str) -> ImageError:
        if time.monotonic() >= end:
            what = f"took more than {self.seconds:g} s; try again"
        return ImageError(f"{host}: {what}")

    def _parts(self, url: str) -> tuple[str, int, str]:
        """Host, port, and path with query."""
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").lower(), parts.port or 443
        except ValueError as error:
            raise ImageError("the URL of the picture cannot be read; send a data URL") from error
        if parts.scheme != "https" or not self.allows(host):
            raise ImageError(
                f"pictures of {parts.scheme[:20]}://{host[:100]} are not fetched here; send them as"
                " data:image/png;base64,…, or start the server with --allow-media-domain"
            )
        if parts.username or parts.password or port != 443:
            raise ImageError("the URL of a picture has neither a user nor a port; send a data URL")
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if not path.isascii() or not path.isprintable() or " " in path:
            raise ImageError("the URL of the picture holds odd characters; send a data URL")
        return host, port, path

    def _body(
        self, answer: http.client.HTTPResponse, connection: "_Pinned", host: str, end: float
    ) -> bytes:
        data = bytearray()
        while True:
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError
            if connection.sock is not None:
                connection.sock.settimeout(left)
            part = answer.read1(65536)
            data += part
            if len(data) > self.largest:
                raise ImageError(f"{host}: the picture is larger than {self.largest // 10**6} MB")
            if not part:
                if time.monotonic() >= end:  # it may be we who have hung up
                    raise TimeoutError
                return bytes(data)


class _Pinned(http.client.HTTPSConnection):
    """https to an address that has been checked, under the name that it was found by."""

    def __init__(
        self, host: str, address: str, port: int, end: float, context: ssl.SSLContext | None
    ) -> None:
        self._trust = context or ssl.create_default_context()
        super().__init__(host, port, context=self._trust)
        self._address, self._end = address, end
        self._line: socket.socket | None = None
        self._clock = threading.Timer(0, self.hang_up)

    def connect(self) -> None:
        left = max(0.01, self._end - time.monotonic())
        sock = socket.create_connection((self._address, self.port), timeout=left)
        # The timeout of a socket is for its next byte: one byte a second would go on for ever.
        self._line = sock.dup()
        self._clock = threading.Timer(max(0.01, self._end - time.monotonic()), self.hang_up)
        self._clock.daemon = True
        self._clock.start()
        self.sock = self._trust.wrap_socket(sock, server_hostname=self.host)

    def hang_up(self) -> None:
        """End the connection, from any thread, whoever waits for it."""
        self._clock.cancel()
        if self._line is not None:
            with suppress(OSError):  # the other side was faster
                self._line.shutdown(socket.SHUT_RDWR)
            self._line.close()


def _in_time(work: Callable[[], T], end: float) -> T:
    """What work gives before the clock shows end; then TimeoutError, and nobody waits for it."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future.result(max(0.0, end - time.monotonic()))


def read_data_url(url: str) -> Image.Image:
    """The picture in a data URL, opened by our own loader. Raises ImageError."""
    head = _DATA.match(url)
    if head is None or "base64" not in head[2]:
        raise ImageError("a data URL must begin like data:image/png;base64, and go on in base64")
    if not (head[1] or "").startswith("image/"):
        raise ImageError(f"the data URL holds {head[1] or 'plain text'}, not a picture")
    if (len(url) - head.end()) * 3 // 4 > LARGEST + 2:
        raise ImageError(f"the picture is larger than {LARGEST // 10**6} MB; make it smaller first")
    try:
        data = base64.b64decode(url[head.end() :].encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ImageError("the data URL is not base64; was it cut short?") from error
    return load_image(data)
