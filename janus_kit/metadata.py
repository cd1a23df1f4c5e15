"""How a picture was drawn, kept inside its PNG: as text for people and tools, and as JSON."""

import json
import os
import re
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin, UnidentifiedImageError

from janus_kit.errors import ImageError, OptionError

__all__ = ["Settings", "png_bytes", "read_settings", "save_png"]

# Names on the settings line: AUTOMATIC1111's own, then ours. Steps and Sampler are for show.
_NAMES = {
    "CFG scale": "guidance_scale",
    "Seed": "seed",
    "Size": "size",
    "Model hash": "model_hash",
    "Model": "model",
    "Temperature": "temperature",
    "Top k": "top_k",
    "Top p": "top_p",
    "Dtype": "dtype",
    "Device": "device",
    "Torch": "torch_version",
    "Version": "version",
}
# A name is bounded, so that a hostile line of many megabytes is still read in linear time.
_PAIR = re.compile(r'(\w[\w \-/]{0,40}):\s*("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)')
_SIZE = re.compile(r"(\d{1,6})x(\d{1,6})")


def _is_whole(value: object) -> bool:
    return type(value) is int and abs(value) < 2**64


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and type(value) is not bool and abs(value) < 1e300


def _is_size(value: object) -> bool:
    if not isinstance(value, tuple) or len(value) != 2:
        return False
    return all(_is_whole(side) and side > 0 for side in value)


def _are_codes(value: object) -> bool:
    return isinstance(value, tuple) and all(_is_whole(code) and code >= 0 for code in value)


# The type of a field → its check, and the words for the message.
_CHECKS: dict[Any, tuple[Callable[[object], bool], str]] = {
    str: (lambda value: isinstance(value, str), "text"),
    int | None: (lambda value: value is None or _is_whole(value), "a whole number or None"),
    float: (_is_number, "a finite number"),
    float | None: (lambda value: value is None or _is_number(value), "a finite number or None"),
    tuple[int, int]: (_is_size, "(width, height) in pixels"),
    tuple[int, ...]: (_are_codes, "whole numbers from 0 on"),
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that is needed to draw a picture again. Empty text or None means not known.

    Raises OptionError for a value of a wrong type.
    """

    prompt: str
    negative_prompt: str = ""
    seed: int | None = None
    guidance_scale: float = 5.0
    temperature: float = 1.0
    top_k: int | None = None  # None: every code may be drawn
    top_p: float | None = None
    size: tuple[int, int] = (384, 384)  # width, height in pixels
    model: str = ""
    model_hash: str = ""
    dtype: str = ""
    device: str = ""
    torch_version: str = ""
    version: str = ""  # of janus_kit
    initial_codes: tuple[int, ...] = ()  # what the picture began with; the seed drew the rest

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            check, words = _CHECKS[field.type]
            if not check(value):
                raise OptionError(f"{field.name} must be {words}, not {str(value)[:80]!r}")

    def to_infotext(self) -> str:
        """The `parameters` text that image tools show: prompt, negative prompt, one settings line.

        A prompt that itself looks like such lines is read back wrongly from this; JSON keeps it.
        """
        width, height = self.size
        shown = asdict(self) | {
            "size": f"{width}x{height}",
            "version": self.version and f"janus_kit {self.version}",
        }
        pairs = {
            "Steps": (width // 16) * (height // 16),  # one code for a patch of 16 by 16 pixels
            "Sampler": "Janus",
            **{label: shown[name] for label, name in _NAMES.items()},
        }
        known = [f"{label}: {_quote(str(v))}" for label, v in pairs.items() if v not in (None, "")]
        negative = [f"Negative prompt: {self.negative_prompt}"] if self.negative_prompt else []
        return "\n".join([self.prompt, *negative, ", ".join(known)])

    def to_json(self) -> str:
        """One line of ASCII that `from_json` turns back into equal settings, whatever the text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Settings":
        """Settings from `to_json` of this version, or of a newer one that has more fields.

        Raises ImageError for text that is not JSON, has no prompt, or a value of a wrong type.
        """
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ImageError("the settings are not JSON; was the file changed?") from error
        if not isinstance(found, dict) or "prompt" not in found:
            raise ImageError("the settings have no prompt; was the file changed?")
        for name in ("size", "initial_codes"):
            if isinstance(found.get(name), list):
                found[name] = tuple(found[name])
        return _build(
            {field.name: found[field.name] for field in fields(cls) if field.name in found}
        )

    @classmethod
    def from_infotext(cls, text: str) -> "Settings":
        """Settings from the `parameters` text of this program or of another one.

        Raises ImageError where the last line lacks the three `name: value` pairs that the tools
        agree on, or a known value has a wrong type. Unknown names are left out.
        """
        body, _, last = text.strip().rpartition("\n")
        pairs = _PAIR.findall(last)
        if len(pairs) < 3:
            raise ImageError("the last line has no settings like 'Steps: 576, Seed: 1, Size: 1x1'")
        prompt, _, negative = f"\n{body}".partition("\nNegative prompt:")
        names = {label.lower(): name for label, name in _NAMES.items()}
        found: dict[str, Any] = {"prompt": prompt.strip(), "negative_prompt": negative.strip()}
        for label, value in pairs:
            name = names.get(label.lower())
            if name is not None:
                found[name] = _parse(name, _unquote(value.strip()))
        return _build(found)


def save_png(image: Image.Image, path: str | os.PathLike[str], settings: Settings) -> None:
    """Write image as a PNG that carries its settings: whole, or not at all.

    Raises OSError as the system gives it (a full disk, a folder that is not there); a file that
    stood at path before is then unchanged.
    """
    target = Path(path)
    part = target.with_name(f".janus-{secrets.token_hex(8)}.part")  # short: names end at 255 bytes
    try:
        with part.open("xb") as file:
            image.save(file, format="PNG", pnginfo=_chunks(settings))
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def png_bytes(image: Image.Image, settings: Settings) -> bytes:
    """The bytes of the PNG that save_png writes."""
    data = BytesIO()
    image.save(data, format="PNG", pnginfo=_chunks(settings))
    return data.getvalue()


def _chunks(settings: Settings) -> PngImagePlugin.PngInfo:
    """The text chunks that hold settings."""
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("parameters", _storable(settings.to_infotext()))
    chunks.add_text("janus_kit", settings.to_json())
    return chunks


def read_settings(path: str | os.PathLike[str]) -> Settings:
    """The settings inside a PNG: our JSON chunk, else the `parameters` text of other programs.

    Raises ImageError for a file that cannot be read, is no PNG, or carries no settings.
    """
    name = os.fspath(path)
    place = name if name.isprintable() else repr(name)
    chunks = _text_chunks(Path(name), place)
    try:
        if "janus_kit" in chunks:
            return Settings.from_json(chunks["janus_kit"])
        if "parameters" in chunks:
            return Settings.from_infotext(chunks["parameters"])
    except ImageError as error:
        raise ImageError(f"{place}: {error}") from error
    raise ImageError(
        f"{place}: carries no settings; programs that save a picture again often drop them"
    )


def _text_chunks(path: Path, place: str) -> dict[str, str]:
    """The text chunks before the pixels of a PNG, by keyword. The pixels are not decoded."""
    try:
        if not path.is_file():  # opening a FIFO would wait for ever
            raise ImageError(f"{place}: is not a file; check the path")
        with Image.open(path, formats=("PNG",)) as image:
            return {str(key): text for key, text in image.info.items() if isinstance(text, str)}
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{place}: is not a readable PNG; only PNG files carry settings"
        ) from error
    except Exception as error:  # as Pillow's decoders do on bad bytes
        raise ImageError(f"{place}: cannot be read ({error}); is the file damaged?") from error


def _build(found: dict[str, Any]) -> Settings:
    """Settings from values that a file holds, which are never trusted."""
    try:
        return Settings(**found)
    except OptionError as error:
        raise ImageError(f"the settings cannot be used: {error}") from error


def _parse(name: str, text: str) -> Any:
    """A value of the settings line as the type of its field."""
    try:
        if name == "size":
            match = _SIZE.fullmatch(text)
            return match and (int(match[1]), int(match[2]))
        if name in ("seed", "top_k"):
            return int(text)
        if name in ("guidance_scale", "temperature", "top_p"):
            return float(text)
    except ValueError as error:
        raise ImageError(f"{name} is no number: {text[:80]!r}") from error
    return text.removeprefix("janus_kit ") if name == "version" else text


def _quote(text: str) -> str:
    """As JSON where the settings line could not be split again, as AUTOMATIC1111 does."""
    plain = text == text.strip() and text.isprintable() and not set(text) & set(',:"')
    return text if plain else json.dumps(text, ensure_ascii=False)


def _unquote(text: str) -> str:
    """The text inside JSON quotes; text without them, or broken ones, as it is."""
    try:
        inside = json.loads(text) if text.startswith('"') else text
    except ValueError:
        return text
    return inside if isinstance(inside, str) else text


def _storable(text: str) -> str:
    """Text that a PNG chunk can hold: no NUL, and a question mark for half of a character."""
    return text.replace("\0", " ").encode("utf-8", "replace").decode("utf-8")
