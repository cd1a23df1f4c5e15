"""What the routes share: errors as OpenAI's clients read them, and clients that leave."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from janus_kit import GenerationError, JanusKitError, JanusPipeline
from janus_kit.demos.guard import error_body
from janus_kit.demos.jobs import BROKEN, Full, Stopped, Waiting
from janus_kit.demos.media import Fetcher
from janus_kit.demos.schemas import ErrorReply
from janus_kit.demos.worker import ModelWorker

__all__ = [
    "ERRORS",
    "STREAM",
    "ApiError",
    "Ascii",
    "Room",
    "begin",
    "chained",
    "check_model",
    "handle_errors",
    "last_words",
    "only",
    "sse",
    "while_connected",
]

log = logging.getLogger(__name__)

T = TypeVar("T")


class ApiError(Exception):
    """An answer that is an error."""

    def __init__(
        self, status: int, message: str, code: str | None = None, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param


class Ascii(JSONResponse):
    """JSON in ASCII: half a character, as a request may hold, does not break it."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False).encode()


@dataclass(frozen=True)
class Room:
    """What the routes share."""

    pipe: JanusPipeline
    worker: ModelWorker
    fetcher: Fetcher
    born: int


ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorReply, "description": text}
    for status, text in {
        400: "The request is wrong; message says what.",
        401: "The API key is missing or wrong.",
        403: "A foreign web page sent it.",
        404: "There is no such model.",
        413: "The body is too large.",
        429: "The queue is full; Retry-After says when to come back.",
        500: "Something broke; the server's log has more.",
        503: "The server is stopping.",
    }.items()
}
STREAM = {
    "text/event-stream": {
        "schema": {
            "type": "object",
            "description": "One server-sent event; data is JSON, or [DONE].",
            "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
            "required": ["data"],
        }
    }
}


def _error(status: int, message: str, code: str | None, param: str | None = None) -> Ascii:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return Ascii(error_body(message, kind, code=code, param=param), status)


def handle_errors(app: FastAPI) -> None:
    """Every error becomes a status and one sentence in OpenAI's shape; none a traceback."""

    def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return _error(400, "the body is not JSON; send an object", "invalid_json")
        place = ".".join(str(part) for part in first["loc"] if part != "body")
        shown = ascii(first.get("input"))[:60] if place else ""
        message = f"{place}: {first['msg']}, not {shown}" if place else str(first["msg"])
        return _error(400, message, "invalid_value", place or None)

    def api(_: Request, error: Exception) -> Response:
        assert isinstance(error, ApiError)
        return _error(error.status, str(error), error.code, error.param)

    def http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        answer = _error(error.status_code, str(error.detail), None)
        answer.headers.update(error.headers or {})
        return answer

    def full(_: Request, error: Exception) -> Response:
        assert isinstance(error, Full)
        answer = _error(429, str(error), "queue_full")
        answer.headers["Retry-After"] = str(error.retry_after)
        return answer

    def stopped(_: Request, error: Exception) -> Response:
        answer = _error(503, str(error), "stopping")
        answer.headers["Retry-After"] = "30"
        return answer

    def ours(_: Request, error: Exception) -> Response:
        broken = isinstance(error, GenerationError)
        return _error(500 if broken else 400, str(error), None if broken else "invalid_value")

    def unforeseen(_: Request, error: Exception) -> Response:
        return _error(500, BROKEN, None)

    handlers: Mapping[type[Exception], Callable[[Request, Exception], Response]] = {
        RequestValidationError: invalid,
        ApiError: api,
        HTTPException: http,
        Full: full,
        Stopped: stopped,
        JanusKitError: ours,
        Exception: unforeseen,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


def only(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Those of ERRORS that a route can give."""
    return {status: ERRORS[status] for status in statuses}


def check_model(room: Room, name: str | None) -> None:
    """Raise ApiError for a model that is not here; none named is the one that is."""
    if name not in (None, "", room.pipe.name):
        message = f"there is no model {name[:100]!a}; this server has {room.pipe.name!a}"
        raise ApiError(404, message, "model_not_found", "model")


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What work gives; when the client leaves, work is cancelled, and with it its job."""
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ApiError(400, "the client has left", "client_closed")  # which nobody reads
        return await task
    finally:
        for one in (task, watch):
            one.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await one


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def begin(events: AsyncIterator[Any]) -> Any:
    """The first event that is not of the queue: errors come before the answer has a status."""
    async for event in events:
        if not isinstance(event, Waiting):
            return event
    return None


async def chained(first: Any, rest: AsyncIterator[Any]) -> AsyncIterator[Any]:
    yield first
    async for event in rest:
        yield event


def last_words(error: Exception) -> Mapping[str, Any]:
    """What a stream ends with that broke off; what nobody foresaw is in the log alone."""
    known = isinstance(error, JanusKitError | Stopped)
    if not known:
        log.error("a stream broke off", exc_info=error)
    return error_body(str(error) if known else BROKEN, "server_error")


def sse(data: Mapping[str, Any], event: str | None = None) -> bytes:
    head = f"event: {event}\n" if event else ""
    return f"{head}data: {json.dumps(data)}\n\n".encode()
