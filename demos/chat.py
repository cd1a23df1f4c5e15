"""POST /v1/chat/completions: answers about pictures, whole or piece by piece."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse

from janus_kit import JanusKitError, PromptError
from janus_kit.demos.guard import error_body
from janus_kit.demos.jobs import Job, Stopped, Thinking
from janus_kit.demos.media import read_url
from janus_kit.demos.schemas import ChatMessage, ChatRequest, Completion, ImagePart, TextPart
from janus_kit.demos.web import (
    ERRORS,
    STREAM,
    Ascii,
    Room,
    begin,
    check_model,
    sse,
    while_connected,
)

__all__ = ["add_chat", "read_turns"]

MOST_IMAGES = 16  # of a request; the context of most models ends before that


def read_turns(messages: Sequence[ChatMessage], room: Room) -> list[dict[str, Any]]:
    """The messages as JanusPipeline.chat takes them, with pictures as the model sees them.

    Messages of one role in a row become one turn. Janus has no place for a system message: its
    text goes before that of the next user message. Opens and fetches pictures, so it takes time.
    Raises PromptError and ImageError.
    """
    count = sum(
        isinstance(part, ImagePart)
        for message in messages
        if isinstance(message.content, list)
        for part in message.content
    )
    if count > MOST_IMAGES:
        raise PromptError(f"the request has {count} pictures; at most {MOST_IMAGES} are read")
    turns: list[dict[str, Any]] = []
    for message in messages:
        parts = message.content or []
        parts = [TextPart(type="text", text=parts)] if isinstance(parts, str) else parts
        text = "\n".join(part.text for part in parts if isinstance(part, TextPart))
        urls = [part.image_url.url for part in parts if isinstance(part, ImagePart)]
        role = "assistant" if message.role == "assistant" else "user"
        if urls and message.role != "user":
            raise PromptError(f"a message of the {message.role} cannot have pictures")
        images = [room.pipe.view(read_url(url, room.fetcher)) for url in urls]
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] = "\n".join(filter(None, (turns[-1]["content"], text)))
            turns[-1]["images"] += images
        else:
            turns.append({"role": role, "content": text, "images": images})
    return turns


def add_chat(app: FastAPI, room: Room) -> None:
    """Add the route."""
    opening = asyncio.Semaphore(2)  # a picture of 64 megapixels takes 200 MB while it is read

    async def thought(body: ChatRequest) -> Thinking:
        async with opening:
            turns = await asyncio.to_thread(read_turns, body.messages, room)
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

        return Thinking(work)

    async def collect(job: Job) -> tuple[Any, str]:
        """The reply, which has counted its tokens, and its text."""
        reply: Any = None
        text = ""
        async for event in job.events():
            if isinstance(event, str):
                text += event
            elif hasattr(event, "completion_tokens"):
                reply = event
        return reply, text

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
        except (JanusKitError, Stopped) as error:
            yield sse(error_body(str(error), "server_error"))

    @app.post(
        "/v1/chat/completions",
        response_model=Completion,
        responses={200: {"content": STREAM}, **ERRORS},
    )
    async def completions(request: Request, body: ChatRequest) -> Response:
        check_model(room, body.model)
        job = room.worker.submit(await thought(body))
        base = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": room.pipe.name,
        }
        if body.stream:
            events = job.events()
            reply = await while_connected(request, begin(events))
            wanted = bool(body.stream_options and body.stream_options.include_usage)
            base["object"] = "chat.completion.chunk"
            return StreamingResponse(
                told(base, reply, events, wanted), media_type="text/event-stream"
            )
        reply, text = await while_connected(request, collect(job))
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text.strip()},
            "finish_reason": reply.finish_reason or "stop",
            "logprobs": None,
        }
        return Ascii(
            {**base, "object": "chat.completion", "choices": [choice], "usage": usage(reply)}
        )
