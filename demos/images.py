"""POST /v1/images/generations: pictures, whole or as they are drawn."""

import asyncio
import base64
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from io import BytesIO
from typing import Annotated, Any

from fastapi import FastAPI, Request
from fastapi import Path as InPath
from fastapi.responses import Response, StreamingResponse

from janus_kit import png_bytes
from janus_kit.demos.jobs import Drawing, Drawn, Job, Preview
from janus_kit.demos.schemas import ImageRequest, ImagesReply
from janus_kit.demos.web import (
    ERRORS,
    STREAM,
    ApiError,
    Ascii,
    Room,
    begin,
    chained,
    check_model,
    last_words,
    only,
    sse,
    while_connected,
)

__all__ = ["add_images"]

KEPT = 256  # pictures that response_format "url" keeps
KEPT_SECONDS = 3600.0


class Shelf:
    """Finished pictures under names that cannot be guessed; the oldest go first."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[float, bytes]] = OrderedDict()

    def put(self, data: bytes) -> str:
        self._sweep()
        name = secrets.token_urlsafe(24)
        self._kept[name] = (time.monotonic(), data)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return name

    def get(self, name: str) -> bytes | None:
        self._sweep()
        found = self._kept.get(name)
        return found and found[1]

    def _sweep(self) -> None:
        old = time.monotonic() - KEPT_SECONDS
        while self._kept and next(iter(self._kept.values()))[0] < old:
            self._kept.popitem(last=False)


def add_images(app: FastAPI, room: Room) -> None:
    """Add the route for drawing, and the one for pictures that are fetched later."""
    side = room.pipe.config.vision.image_size
    shelf = Shelf()
    size = f"{side}x{side}"

    def drawing(body: ImageRequest) -> Drawing:
        check_model(room, body.model)
        if body.size not in (None, "auto", size):
            message = f"size must be {size} or auto, not {body.size[:40]!a}: Janus draws no other"
            raise ApiError(400, message, "invalid_value", "size")
        first = secrets.randbelow(2**32) if body.seed is None else body.seed
        parts = (body.partial_images or 0) + 1
        rows = room.pipe.config.side
        given = {
            name: value
            for name in ("guidance_scale", "temperature", "top_k", "top_p")
            if (value := getattr(body, name)) is not None
        }
        return Drawing(
            prompt=body.prompt,
            negative_prompt=body.negative_prompt or "",
            seeds=[first + i for i in range(body.n)],
            preview_rows=frozenset(rows * i // parts for i in range(1, parts)) - {0},
            **given,
        )

    def usage(prompt: str, pictures: int) -> dict[str, Any]:
        read = len(room.pipe.tokenizer.encode(prompt))
        drawn = pictures * room.pipe.config.codes
        details = {"text_tokens": read, "image_tokens": 0}
        return {
            "input_tokens": read,
            "input_tokens_details": details,
            "output_tokens": drawn,
            "total_tokens": read + drawn,
        }

    async def collect(job: Job) -> list[tuple[bytes, int]]:
        found = []
        async for event in job.events():
            if isinstance(event, Drawn):
                found += await asyncio.to_thread(_pngs, event)
        return found

    async def told(
        body: ImageRequest, first: Any, events: AsyncIterator[Any]
    ) -> AsyncIterator[bytes]:
        """The events of a streamed drawing, as OpenAI's gpt-image models send them."""
        base = {
            "created_at": int(time.time()),
            "size": size,
            "quality": "auto",
            "background": "opaque",
            "output_format": "png",
        }
        shown: dict[int, int] = {}
        try:
            async for event in chained(first, events):
                if isinstance(event, Preview):
                    for place, image in enumerate(event.images, event.first):
                        kind = "image_generation.partial_image"
                        number = shown[place] = shown.get(place, -1) + 1
                        data = await asyncio.to_thread(_encoded, image)
                        more: dict[str, Any] = {"partial_image_index": number, "image_index": place}
                        yield sse({"type": kind, "b64_json": data, **base, **more}, kind)
                if isinstance(event, Drawn):
                    finished = await asyncio.to_thread(_pngs, event)
                    for place, (png, seed) in enumerate(finished, event.first):
                        kind = "image_generation.completed"
                        more = {"seed": seed, "image_index": place, "usage": usage(body.prompt, 1)}
                        data = base64.b64encode(png).decode()
                        yield sse({"type": kind, "b64_json": data, **base, **more}, kind)
        except Exception as error:  # noqa: BLE001 - the answer has begun, and needs an end
            yield sse(last_words(error), "error")

    @app.post(
        "/v1/images/generations",
        response_model=ImagesReply,
        responses={200: {"content": STREAM}, **ERRORS},
    )
    async def generations(request: Request, body: ImageRequest) -> Response:
        job = room.worker.submit(drawing(body))
        if body.stream:
            events = job.events()
            first = await while_connected(request, begin(events))
            return StreamingResponse(told(body, first, events), media_type="text/event-stream")
        pictures = await while_connected(request, collect(job))
        data: list[dict[str, Any]] = []
        for png, seed in pictures:
            if body.response_format == "url":
                name = shelf.put(png)
                data.append({"url": str(request.url_for("picture", name=name)), "seed": seed})
            else:
                data.append({"b64_json": base64.b64encode(png).decode(), "seed": seed})
        reply = {"created": int(time.time()), "data": data, "output_format": "png", "size": size}
        return Ascii(reply | {"usage": usage(body.prompt, len(data))})

    @app.get(
        "/pictures/{name}.png",
        name="picture",
        response_class=Response,
        responses={200: {"content": {"image/png": {}}}, **only(400, 404)},
    )
    async def picture(name: Annotated[str, InPath(max_length=64)]) -> Response:
        data = shelf.get(name)
        if data is None:
            raise ApiError(404, "there is no such picture; it may be older than an hour", None)
        return Response(data, media_type="image/png")


def _pngs(drawn: Drawn) -> list[tuple[bytes, int]]:
    """The finished pictures as PNG with their settings inside, and their seeds."""
    pairs = zip(drawn.images, drawn.settings, strict=True)
    return [(png_bytes(image, settings), settings.seed or 0) for image, settings in pairs]


def _encoded(image: Any) -> str:
    data = BytesIO()
    image.save(data, format="PNG")
    return base64.b64encode(data.getvalue()).decode()
