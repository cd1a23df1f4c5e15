"""What stands before every request: trusted hosts, origins, the size of bodies, the API key."""

import hashlib
import hmac
import ipaddress
import json
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["LOOPBACK", "Guard", "error_body", "is_loopback", "trusted"]

LOOPBACK = ("localhost", "127.0.0.1", "::1")
_SAFE = ("GET", "HEAD", "OPTIONS")


def error_body(
    message: str, kind: str, *, code: str | None = None, param: str | None = None
) -> dict[str, dict[str, str | None]]:
    """An error as OpenAI's clients read it."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def is_loopback(host: str) -> bool:
    """Whether a host to listen on can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def trusted(host: str, more: Sequence[str] = ()) -> tuple[str, ...]:
    """The names under which a server on host may be asked for; () trusts all.

    On a loopback address a foreign name is a web page that rebinds its DNS entry to reach us.
    Elsewhere the names are the operator's to know; without any, all are taken.
    """
    if is_loopback(host):
        return (*LOOPBACK, host, *more)
    return (*LOOPBACK, host, *more) if more else ()


class Guard:
    """ASGI middleware that answers what must not get through, with a sentence."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: Sequence[str] = (),
        body_limit: int = 32_000_000,
        limits: Mapping[str, int] | None = None,
        api_key: str | None = None,
        keyed: str = "/v1/",
        closed: Sequence[str] = (),
    ) -> None:
        """limits: of bodies, by the beginning of the path. keyed: which paths need the key.

        closed: beginnings of paths that nobody gets through to.
        """
        self.app = app
        self.hosts = {host.lower() for host in hosts}
        self.body_limit = body_limit
        self.limits = dict(limits or {})
        self.digest = _digest(api_key.encode()) if api_key else None
        self.keyed = keyed
        self.closed = tuple(closed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket" and self.hosts and not self._known(scope):
                await send({"type": "websocket.close", "code": 1008})
                return
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await _answer(send, *refusal)
            return
        limit = next(
            (n for path, n in self.limits.items() if scope["path"].startswith(path)),
            self.body_limit,
        )
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length[:20]) > limit:
            await _answer(send, 413, _too_large(limit), "invalid_request_error", "body_too_large")
            return
        await self.app(scope, _Counted(receive, limit), send)

    def _known(self, scope: Scope) -> bool:
        return _host(dict(scope["headers"]).get(b"host", b"").decode("latin-1")) in self.hosts

    def _refusal(self, scope: Scope) -> tuple[int, str, str, str] | None:
        """Status, sentence, type and code of what is refused by its head alone."""
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        if self.hosts and not self._known(scope):
            sentence = f"{host[:100]!r} is not a name of this server; start it with --allow-host"
            return 400, sentence, "invalid_request_error", "unknown_host"
        origin = headers.get(b"origin", b"").decode("latin-1")
        if origin and scope["method"] not in _SAFE and not self._own(origin, host):
            sentence = f"a page of {origin[:100]!r} may not use this server"
            return 403, sentence, "permission_error", "foreign_origin"
        if scope["path"].lower().startswith(self.closed):
            sentence = "this server fetches nothing from the web"
            return 403, sentence, "permission_error", "closed_path"
        if self.digest is not None and scope["path"].startswith(self.keyed):
            given = headers.get(b"authorization", b"")
            kind, _, key = given.partition(b" ")
            # Digests have one length, and their comparison takes one time.
            if not hmac.compare_digest(_digest(key.strip()), self.digest) or kind.lower() != (
                b"bearer"
            ):
                sentence = "the API key is missing or wrong; send it as 'Authorization: Bearer KEY'"
                return 401, sentence, "authentication_error", "invalid_api_key"
        return None

    def _own(self, origin: str, host: str) -> bool:
        """Whether a page of that origin is one of ours."""
        try:
            name = urlsplit(origin).netloc
        except ValueError:  # a bracket that is not closed, say
            return False
        return name == host or (bool(self.hosts) and _host(name) in self.hosts)


class _Counted:
    """receive, until the body is longer than it may be."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self.receive, self.limit, self.read = receive, limit, 0

    async def __call__(self) -> Message:
        message = await self.receive()
        if message["type"] == "http.request":
            self.read += len(message.get("body", b""))
            if self.read > self.limit:
                from starlette.exceptions import HTTPException

                raise HTTPException(413, _too_large(self.limit))
        return message


def _host(header: str) -> str:
    """The name in a Host header, without its port, in lower case."""
    name = header.lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.rpartition(":")[0] if ":" in name else name


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _too_large(limit: int) -> str:
    return f"the body is larger than {limit / 10**6:g} MB; send less"


async def _answer(send: Send, status: int, sentence: str, kind: str, code: str) -> None:
    body = json.dumps(error_body(sentence, kind, code=code)).encode()
    head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        head.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})
