"""POST /v1/chat/completions: answers about pictures, whole or piece by piece."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse

from janus_kit import PromptError, load_image
from janus_kit.demos.jobs import Job, Thinking
from janus_kit.demos.media import read_data_url
from janus_kit.demos.schemas import ChatMessage, ChatRequest, Completion, ImagePart, TextPart
from janus_kit.demos.web import (
    ERRORS,
    STREAM,
    Ascii,
    Room,
    begin,
    check_model,
    last_words,
    sse,
    while_connected,
)

__all__ = ["add_chat", "turns_of", "urls_of"]

MOST_IMAGES = 16  # of a request; the context of most models ends before that


def urls_of(messages: Sequence[ChatMessage]) -> list[str]:
    """The URLs of all pictures, in their order; raises PromptError where they cannot be."""
    urls: list[str] = []
    for message in messages:
        parts = message.content if isinstance(message.content, list) else []
        found = [part.image_url.url for part in parts if isinstance(part, ImagePart)]
        if found and message.role != "user":
            raise PromptError(f"a message of the {message.role} cannot have pictures")
        urls += found
    if len(urls) > MOST_IMAGES:
        raise PromptError(f"the request has {len(urls)} pictures; at most {MOST_IMAGES} are read")
    return urls


def turns_of(messages: Sequence[ChatMessage], images: Iterable[Any]) -> list[dict[str, Any]]:
    """The messages as JanusPipeline.chat takes them; images: all their pictures, in their order.

    Messages of one role in a row become one turn. Janus has no place for a system message: its
    text goes before that of the next user message.
    """
    rest = iter(images)
    turns: list[dict[str, Any]] = []
    for message in messages:
        parts = message.content or []
        parts = [TextPart(type="text", text=parts)] if isinstance(parts, str) else parts
        text = "\n".join(part.text for part in parts if isinstance(part, TextPart))
        own = [next(rest) for part in parts if isinstance(part, ImagePart)]
        role = "assistant" if message.role == "assistant" else "user"
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] = "\n".join(filter(None, (turns[-1]["content"], text)))
            turns[-1]["images"] += own
        else:
            turns.append({"role": role, "content": text, "images": own})
    return turns


def add_chat(app: FastAPI, room: Room) -> None:
    """Add the route."""
    # Threads of their own: a picture of 64 megapixels takes 200 MB while it is opened, and a slow
    # site must not keep others from being answered.
    opening = ThreadPoolExecutor(2, "janus-open")
    fetching = ThreadPoolExecutor(8, "janus-fetch")
    coming = 0  # requests whose pictures are being fetched or opened

    def view(found: str | bytes) -> Any:
        image = read_data_url(found) if isinstance(found, str) else load_image(found)
        return room.pipe.view(image)

    async def opened(urls: Sequence[str]) -> list[Any]:
        """The pictures of a request as the model sees them; the clock of a fetcher is for all."""
        nonlocal coming
        loop = asyncio.get_running_loop()
        end = time.monotonic() + room.fetcher.seconds
        images = []
        room.worker.check(coming)
        coming += 1
        try:
            for url in urls:
                found: Any = url
                if not url.startswith("data:"):
                    found = await loop.run_in_executor(fetching, room.fetcher.get, url, end)
                images.append(await loop.run_in_executor(opening, view, found))
        finally:
            coming -= 1
        return images

    async def submitted(body: ChatRequest) -> Job:
        urls = urls_of(body.messages)
        turns = turns_of(body.messages, await opened(urls) if urls else [])
        options = {
            "max_new_tokens": body.max_completion_tokens or body.max_tokens,
            "temperature": body.temperature or 0.0,
            "top_p": 1.0 if body.top_p is None else body.top_p,
            "seed": body.seed,
        }

        def work() -> Iterator[Any]:
            reply = room.pipe.chat(turns, stream=True, **options)
            yield reply
            yield from reply

        return room.worker.submit(Thinking(work))

    async def collect(body: ChatRequest) -> tuple[Any, str]:
        """The reply, which has counted its tokens, and its text."""
        reply: Any = None
        text = ""
        async for event in (await submitted(body)).events():
            if isinstance(event, str):
                text += event
            elif hasattr(event, "completion_tokens"):
                reply = event
        return reply, text

    async def begun(body: ChatRequest) -> tuple[Any, AsyncIterator[Any]]:
        """The reply, and the events that are to come."""
        events = (await submitted(body)).events()
        return await begin(events), events

    def usage(reply: Any) -> dict[str, int]:
        read, written = reply.prompt_tokens, reply.completion_tokens
        return {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
        }

    async def told(
        base: dict[str, Any], reply: Any, events: AsyncIterator[Any], with_usage: bool
    ) -> AsyncIterator[bytes]:
        """The chunks of a streamed answer."""

        def chunk(delta: dict[str, str], reason: str | None = None) -> bytes:
            choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
            more = {"usage": None} if with_usage else {}
            return sse({**base, "choices": [choice], **more})

        try:
            yield chunk({"role": "assistant", "content": ""})
            async for event in events:
                if isinstance(event, str):
                    yield chunk({"content": event})
            yield chunk({}, reply.finish_reason or "stop")
            if with_usage:
                yield sse({**base, "choices": [], "usage": usage(reply)})
            yield b"data: [DONE]\n\n"
        except Exception as error:  # noqa: BLE001 - the answer has begun, and needs an end
            yield sse(last_words(error))

    @app.post(
        "/v1/chat/completions",
        response_model=Completion,
        responses={200: {"content": STREAM}, **ERRORS},
    )
    async def completions(request: Request, body: ChatRequest) -> Response:
        check_model(room, body.model)
        base = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": room.pipe.name,
        }
        if body.stream:
            reply, events = await while_connected(request, begun(body))
            wanted = bool(body.stream_options and body.stream_options.include_usage)
            base["object"] = "chat.completion.chunk"
            return StreamingResponse(
                told(base, reply, events, wanted), media_type="text/event-stream"
            )
        reply, text = await while_connected(request, collect(body))
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text.strip()},
            "finish_reason": reply.finish_reason or "stop",
            "logprobs": None,
        }
        return Ascii(
            {**base, "object": "chat.completion", "choices": [choice], "usage": usage(reply)}
        )
