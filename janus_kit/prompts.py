"""Text → ids, and back: the tokenizer, the chat template, padding → ModelInputs.

What a person writes is always text. Control ids are put in as integers by the template alone:
the stock tokenizer turns a typed "<image_placeholder>" into the control id, ours does not.
"""

import codecs
import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import tokenizers
import torch
from torch import Tensor

from janus_kit.errors import CheckpointError, PromptError

__all__ = [
    "ASSISTANT",
    "BEGIN_IMAGE",
    "BOS",
    "CHAT_LIMIT",
    "DRAWING_LIMIT",
    "END_IMAGE",
    "EOS",
    "IMAGE",
    "OLD",
    "PAD",
    "PRO",
    "USER",
    "Message",
    "ModelInputs",
    "Template",
    "TextStream",
    "Tokenizer",
    "chat_ids",
    "check_text",
    "drawing_ids",
    "pad_left",
    "unconditional_ids",
]

log = logging.getLogger(__name__)

# The strings of the published vocabularies. Their ids differ between sizes (pad is 100002 in
# Pro-1B and 100015 in Pro-7B), so ids are always looked up.
BOS: Final = "<｜begin▁of▁sentence｜>"
EOS: Final = "<｜end▁of▁sentence｜>"
PAD: Final = "<｜▁pad▁｜>"
BEGIN_IMAGE: Final = "<begin_of_image>"
END_IMAGE: Final = "<end_of_image>"
IMAGE: Final = "<image_placeholder>"
USER: Final = "<|User|>"
ASSISTANT: Final = "<|Assistant|>"
_NEEDED = (BOS, EOS, PAD, BEGIN_IMAGE, END_IMAGE, IMAGE)

DRAWING_LIMIT: Final = 2_000  # characters of a prompt
CHAT_LIMIT: Final = 100_000  # characters of a message; the context ends long before that

# Control characters but newline and tab, lone surrogates, and what Unicode calls noncharacters.
_FORBIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef"
    + "".join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF))
    + "]"
)


def check_text(text: str, limit: int) -> None:
    """Raise PromptError if text is longer than limit or holds what no prompt needs."""
    if len(text) > limit:
        raise PromptError(f"the text has {len(text)} characters; at most {limit} are allowed")
    if bad := _FORBIDDEN.search(text):
        raise PromptError(
            f"the text holds the character U+{ord(bad[0]):04X} at position {bad.start()}; "
            "of control characters only newline and tab are allowed"
        )


# Byte-level BPE writes a byte as its Latin-1 letter, or from U+0100 on if that cannot be seen.
_SEEN = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_UNSEEN = [byte for byte in range(256) if byte not in _SEEN]
_BYTE_OF = {chr(b): b for b in _SEEN} | {chr(256 + i): b for i, b in enumerate(_UNSEEN)}


class Tokenizer:
    """Text ↔ ids of one checkpoint. It never changes, so threads may share it."""

    def __init__(self, text: tokenizers.Tokenizer, added: Mapping[str, int]) -> None:
        self._text = text  # knows no control token, so no text can name one
        self._added = {id: string for string, id in added.items()}
        self.control = {string: id for string, id in added.items() if not _is_letter(string)}
        self.control_ids = frozenset(self.control.values())
        self.bos, self.eos, self.pad = added[BOS], added[EOS], added[PAD]
        self.begin_image, self.end_image = added[BEGIN_IMAGE], added[END_IMAGE]
        self.image = added[IMAGE]

    @classmethod
    def from_folder(cls, folder: Path, vocab_size: int | None = None) -> "Tokenizer":
        """Read folder/tokenizer.json; the ids must lie below vocab_size, the model's."""
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise CheckpointError(f"{path}: no such file; a model folder needs its tokenizer")
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            added = _added_ids(path, data)
            data = _without_control(data, added)
            text = tokenizers.Tokenizer.from_str(json.dumps(data))
        except CheckpointError:
            raise
        except Exception as error:  # tokenizers raises the bare class
            raise CheckpointError(f"{path}: not a readable tokenizer ({error})") from error
        _check_ids(path, data["model"]["vocab"] | {s: added[s] for s in _NEEDED}, vocab_size)
        return cls(text, added)

    def encode(self, text: str) -> list[int]:
        """The ids of text, without BOS; never a control id, whatever the text says."""
        ids = list(self._text.encode(text, add_special_tokens=False).ids)
        if not self.control_ids.isdisjoint(ids):  # a vocabulary with a trap in it
            raise PromptError("the text became a control token; this tokenizer cannot be trusted")
        return ids

    def decode(self, ids: Iterable[int], skip_control: bool = True) -> str:
        """The text of ids; bytes that are no UTF-8 become U+FFFD, control characters go."""
        data = b"".join(self.bytes_of(id, skip_control) for id in ids)
        return _FORBIDDEN.sub("", data.decode("utf-8", "replace"))

    def bytes_of(self, id: int, skip_control: bool = True) -> bytes:
        """What one id stands for: often a piece of a character; nothing for an unused id."""
        if id in self.control_ids and skip_control:
            return b""
        if id in self._added:
            return self._added[id].encode()
        return bytes(_BYTE_OF[letter] for letter in self._text.id_to_token(id) or "")


class TextStream:
    """Ids one by one → text in whole characters; the parts joined equal Tokenizer.decode."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def put(self, id: int) -> str:
        """The characters that id completes; the bytes of an unfinished one are held back."""
        return _FORBIDDEN.sub("", self._decoder.decode(self._tokenizer.bytes_of(id)))

    def end(self) -> str:
        """U+FFFD when the ids ended inside a character, or nothing."""
        return self._decoder.decode(b"", final=True)


def _is_letter(string: str) -> bool:
    """Whether an added token is a letter that people write, not a control token."""
    # Older DeepSeek vocabularies add the letters of the 13 bytes that UTF-8 never uses (ö, ü, ø
    # ...), so an ö has its own id, which the stock decoder spoils (huggingface/tokenizers#1424).
    return len(string) == 1


def _added_ids(path: Path, data: dict[str, Any]) -> dict[str, int]:
    """The added tokens of a tokenizer.json: string -> id, with all that Janus needs."""
    parts = json.dumps([data["pre_tokenizer"], data["decoder"]])
    if data["model"]["type"] != "BPE" or '"ByteLevel"' not in parts:
        raise CheckpointError(f"{path}: not a byte-level BPE tokenizer, which Janus has")
    vocab, entries = data["model"]["vocab"], data["added_tokens"]
    # A string that the vocabulary has too keeps its id there, as in the tokenizers library.
    added = {e["content"]: vocab.get(e["content"], e["id"]) for e in entries}
    added |= {string: vocab[string] for string in _NEEDED if string in vocab}
    # Janus-1.3B has no <image_placeholder>; its published processor adds it after the last id.
    added.setdefault(IMAGE, max([*vocab.values(), *added.values()]) + 1)
    for string in _NEEDED:
        if string not in added:
            raise CheckpointError(f"{path}: '{string}' is missing; is this a Janus tokenizer?")
    return added


def _without_control(data: dict[str, Any], added: Mapping[str, int]) -> dict[str, Any]:
    """The same tokenizer for plain text: it has never heard of control tokens."""
    control = {string for string in added if not _is_letter(string)}
    letters = [entry for entry in data["added_tokens"] if _is_letter(entry["content"])]
    vocab = {s: id for s, id in data["model"]["vocab"].items() if s not in control}
    # Reading numbers added tokens anew, except those that the vocabulary has.
    vocab |= {entry["content"]: added[entry["content"]] for entry in letters}
    pairs = [m.split(" ") if isinstance(m, str) else m for m in data["model"]["merges"]]
    merges = [pair for pair in pairs if control.isdisjoint([*pair, "".join(pair)])]
    model = {**data["model"], "vocab": vocab, "merges": merges}
    none = {"post_processor": None, "truncation": None, "padding": None}
    return {**data, **none, "model": model, "added_tokens": letters}


def _check_ids(path: Path, ids: Mapping[str, int], vocab_size: int | None) -> None:
    """Raise CheckpointError if an id is too large for the model or stands for two strings."""
    string, largest = max(ids.items(), key=lambda item: item[1])
    if vocab_size is not None and largest >= vocab_size:
        raise CheckpointError(
            f"{path}: '{string}' has the id {largest}, but the model has only {vocab_size} ids; "
            "is this the tokenizer of another model?"
        )
    if len(set(ids.values())) < len(ids):
        raise CheckpointError(f"{path}: two tokens share one id")


@dataclass(frozen=True, kw_only=True)
class Template:
    """Who speaks and what comes first, as one generation of checkpoints has learned it."""

    user: str
    assistant: str
    system: str  # for understanding; a drawing prompt has none


_SYSTEM = (
    "You are a helpful language and vision assistant. "
    "You are able to understand the visual content that the user provides, "
    "and assist the user with a variety of tasks using natural language."
)
PRO: Final = Template(user=USER, assistant=ASSISTANT, system=_SYSTEM)
OLD: Final = Template(user="User", assistant="Assistant", system=_SYSTEM)  # Janus-1.3B, JanusFlow


@dataclass(frozen=True)
class Message:
    """One turn. Pictures stand before the text, each on a line of its own."""

    role: Literal["user", "assistant"]
    text: str
    images: int = 0

    def __post_init__(self) -> None:
        if self.role not in ("user", "assistant"):
            raise PromptError(f"the role of a message is user or assistant, not '{self.role}'")
        if self.images < 0 or (self.images and self.role == "assistant"):
            raise PromptError(f"a message of the {self.role} cannot have {self.images} images")


_Part = str | int  # text, or a control id


def drawing_ids(tokenizer: Tokenizer, template: Template, prompt: str) -> list[int]:
    """The ids after which the model draws prompt. There is no system text, as published."""
    check_text(prompt, DRAWING_LIMIT)
    if not prompt.strip():
        log.warning("the prompt is empty: the picture will be of anything")
    parts = _turns(tokenizer, template, [Message("user", prompt)], 0)
    return _join(tokenizer, [tokenizer.bos, *parts, tokenizer.begin_image])


def unconditional_ids(
    ids: Sequence[int], tokenizer: Tokenizer, negative: Sequence[int] | None = None
) -> list[int]:
    """What guidance pushes away from: drawing ids with all between the first and last as pad.

    These pads are attended, not masked, as published. negative is the drawing_ids of a prompt.
    """
    if negative is not None:
        return list(negative)
    return [ids[0], *[tokenizer.pad] * (len(ids) - 2), ids[-1]]


def chat_ids(
    tokenizer: Tokenizer, template: Template, messages: Sequence[Message], image_tokens: int = 576
) -> list[int]:
    """The ids of a conversation; after a user's message, up to where the assistant speaks."""
    if not messages:
        raise PromptError("a conversation needs at least one message")
    for message in messages:
        check_text(message.text, CHAT_LIMIT)
    parts = _turns(tokenizer, template, messages, image_tokens)
    system = f"{template.system}\n\n" if template.system else ""
    return _join(tokenizer, [tokenizer.bos, system, *parts])


def _turns(
    tokenizer: Tokenizer, template: Template, messages: Sequence[Message], image_tokens: int
) -> list[_Part]:
    """The messages as the published template writes them (janus/utils/conversation.py)."""
    if messages[-1].role == "user":
        messages = [*messages, Message("assistant", "")]
    parts: list[_Part] = []
    for turn, message in enumerate(messages):
        if message.role != ("user", "assistant")[turn % 2]:
            raise PromptError("the messages must take turns: user, assistant, user and so on")
        user = message.role == "user"
        role = template.user if user else template.assistant
        # "<|User|>" is one control id in the vocabularies of Pro; "User" is text in all.
        parts += [tokenizer.control.get(role, role), ":"]
        if content := _content(tokenizer, message, image_tokens):
            parts += [" ", *content, "\n\n" if user else tokenizer.eos]
    return parts


def _content(tokenizer: Tokenizer, message: Message, image_tokens: int) -> list[_Part]:
    """The pictures of a message, each with a line of its own, and its text, stripped as one."""
    if not message.images:
        return [text] if (text := message.text.strip()) else []
    picture = [tokenizer.begin_image, *[tokenizer.image] * image_tokens, tokenizer.end_image]
    lines: list[_Part] = ["\n", *picture] * message.images
    return [*lines[1:], f"\n{message.text}".rstrip()]


def _join(tokenizer: Tokenizer, parts: Sequence[_Part]) -> list[int]:
    """The ids of parts, neighbouring texts encoded together."""
    ids: list[int] = []
    text = ""
    for part in parts:
        if isinstance(part, str):
            text += part
        else:
            ids += [*tokenizer.encode(text), part] if text else [part]
            text = ""
    return ids + tokenizer.encode(text)


@dataclass(frozen=True, eq=False)
class ModelInputs:
    """Rows of unequal length as one batch, aligned at their ends; all fields are [b, t]."""

    tokens: Tensor  # long; pad where a row is shorter
    mask: Tensor  # bool; False only where the batch padded
    positions: Tensor  # long; each row counts from 0 at its own first token


def pad_left(rows: Sequence[Sequence[int]], pad: int) -> ModelInputs:
    """Rows of ids -> ModelInputs [b, longest]. A pad id inside a row is a token like others."""
    if not all(rows) or not rows:
        raise PromptError("a batch needs at least one row, and each row at least one id")
    longest = max(map(len, rows))
    tokens = torch.tensor([[pad] * (longest - len(row)) + list(row) for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(longest) >= longest - lengths[:, None]
    return ModelInputs(tokens, mask, (mask.cumsum(1) - 1).clamp(min=0))
