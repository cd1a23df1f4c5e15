"""Messages as users write them -> turns and pictures in the order of the template."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from janus_kit.errors import ImageError, PromptError
from janus_kit.prompts import Message, TextStream, Tokenizer

__all__ = ["is_picture", "listed", "pieces", "read"]


def is_picture(value: object) -> bool:
    """Whether value stands for one picture: a path, a PIL image, an array or a file's bytes."""
    if isinstance(value, np.ndarray):
        return value.ndim <= 3  # with one dimension more it is a batch
    return isinstance(value, str | bytes | os.PathLike | Image.Image)


def listed(images: Any) -> list[Any]:
    """One picture or several, as a list. Raises ImageError for what is neither."""
    if is_picture(images):
        return [images]
    if not isinstance(images, Iterable):
        raise ImageError(f"a picture is a path or a PIL image, not {images!r:.80}")
    return list(images)


def read(messages: Sequence[Mapping[str, Any]]) -> tuple[list[Message], list[Any]]:
    """The turns of a conversation and its pictures in order, not yet loaded.

    content is a text, or transformers' list of {"type": "text", "text": …} and {"type": "image",
    "image": …}; "images" lists more pictures. A message's pictures come before its text, as the
    published template has them. Raises PromptError for anything else.
    """
    turns, found = [], []
    for number, message in enumerate(messages, 1):
        if not isinstance(message, Mapping):
            raise PromptError(f"message {number} must be a dict, not {type(message).__name__}")
        extra = set(message) - {"role", "content", "images"}
        if extra:
            raise PromptError(f"message {number} has an unknown key {sorted(extra)[0]!r}")
        text, shown = _content(message.get("content", ""), number)
        more = message.get("images") or []
        if not is_picture(more) and not isinstance(more, Sequence):
            raise PromptError(f"the images of message {number} must be a list of pictures")
        shown = [*([more] if is_picture(more) else more), *shown]
        role = message.get("role")
        turns.append(Message(role, text, len(shown)))  # type: ignore[arg-type] # checked there
        found += shown
    if not turns:
        raise PromptError("a conversation needs at least one message")
    if turns[-1].role != "user":
        raise PromptError("the last message must be the user's; there is nothing to answer")
    return turns, found


def pieces(tokenizer: Tokenizer, tokens: Iterable[Tensor]) -> Iterator[str]:
    """The text of one answer as its tokens come, int64 [1] each; joined, it is the answer."""
    text = TextStream(tokenizer)
    held = ""  # blanks wait for what comes after them, since an answer ends without any
    started = False
    for token in tokens:
        if int(token) == tokenizer.eos:
            break
        held += text.put(int(token))
        piece = held.rstrip() if started else held.strip()
        if piece:
            held = held[len(held.rstrip()) :]
            started = True
            yield piece
    if rest := text.end():
        yield held + rest if started else rest


def _content(content: object, number: int) -> tuple[str, list[Any]]:
    if isinstance(content, str):
        return content, []
    if not isinstance(content, Sequence):
        raise PromptError(f"the content of message {number} must be text or a list of parts")
    texts, shown = [], []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind == "image" and "image" in part:
            shown.append(part["image"])
        else:
            raise PromptError(
                f'message {number} has a part that is neither {{"type": "text", "text": …}} nor '
                f'{{"type": "image", "image": …}}: {part!r:.80}'
            )
    return "\n".join(texts), shown
