"""What draws the pictures that are scored: Janus, or any text-to-image pipeline of diffusers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from PIL import Image

from janus_kit import loading
from janus_kit.errors import PromptError, ScoringError
from janus_kit.generation.sampling import SamplingOptions
from janus_kit.metadata import Settings, save_png
from janus_kit.scoring.records import write_whole

if TYPE_CHECKING:
    from janus_kit.pipeline import JanusPipeline

__all__ = ["DiffusersDrawer", "Drawer", "JanusDrawer", "Wanted", "draw_all", "save"]

Drawn = tuple[Image.Image, Settings | None]


@dataclass(frozen=True)
class Wanted:
    """A picture that is to be drawn."""

    prompt: str
    seed: int


class Drawer(Protocol):
    """Draws pictures."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What a summary says of it; two runs may share pictures only where it is equal."""
        ...

    @property
    def batch(self) -> int:
        """How many pictures it draws at once."""
        ...

    def draw(self, wanted: Sequence[Wanted]) -> list[Drawn]:
        """The pictures, each by its own seed. Raises PromptError for a prompt that is none."""
        ...


class JanusDrawer:
    """A Janus model of ours."""

    def __init__(
        self,
        pipe: "JanusPipeline",
        *,
        guidance: float | None = None,
        temperature: float | None = None,
        batch_size: int | None = None,
        revision: str | None = None,
    ) -> None:
        guidance = pipe.defaults.guidance if guidance is None else guidance
        temperature = pipe.defaults.temperature if temperature is None else temperature
        SamplingOptions(guidance=guidance, temperature=temperature)  # tells at once what is wrong
        if revision is None and pipe.folder.parent.name == "snapshots":  # of a hub's cache
            revision = pipe.folder.name
        self._pipe = pipe
        self.batch = batch_size or (64 if pipe.device.type == "cuda" else 8)
        self.facts: Mapping[str, Any] = {
            "model": pipe.name,
            "revision": revision,
            "weights_sha256": pipe.model_hash,  # its first ten digits
            "dtype": str(pipe.dtype).removeprefix("torch."),
            "device": pipe.device.type,
            "guidance": guidance,
            "temperature": temperature,
        }

    def draw(self, wanted: Sequence[Wanted]) -> list[Drawn]:
        """See Drawer."""
        drawn = self._pipe(
            [picture.prompt for picture in wanted],
            guidance_scale=self.facts["guidance"],
            temperature=self.facts["temperature"],
            generator=[torch.Generator().manual_seed(picture.seed) for picture in wanted],
            batch_size=min(self.batch, len(wanted)),
        )
        return list(zip(drawn.images, drawn.settings, strict=True))


class DiffusersDrawer:
    """A pipeline of diffusers, by its AutoPipelineForText2Image."""

    def __init__(
        self,
        pipe: Any,
        name: str,
        *,
        guidance: float | None = None,
        steps: int | None = None,
        batch_size: int | None = None,
        revision: str | None = None,
    ) -> None:
        pipe.set_progress_bar_config(disable=True)
        self._pipe = pipe
        self.batch = batch_size or (8 if pipe.device.type == "cuda" else 1)
        given = {"guidance_scale": guidance, "num_inference_steps": steps}
        self._options = {option: value for option, value in given.items() if value is not None}
        self.facts: Mapping[str, Any] = {
            "model": name,
            "revision": revision,
            "pipeline": type(pipe).__name__,
            "dtype": str(pipe.dtype).removeprefix("torch."),
            "device": pipe.device.type,
            "guidance": guidance,  # None: the pipeline's own
            "steps": steps,
        }

    @classmethod
    def open(
        cls,
        name: str,
        *,
        device: Any = "auto",
        dtype: Any = "auto",
        revision: str | None = None,
        **options: Any,
    ) -> "DiffusersDrawer":
        """Load a hub id or folder; raises ScoringError where that fails."""
        place = loading.device_of(device)
        kind = loading.dtype_of(dtype, place)
        try:
            from diffusers import AutoPipelineForText2Image
        except ImportError as error:
            raise ScoringError(
                f"{name}: needs diffusers ({error}); install janus-kit[diffusers]"
            ) from error
        opener: Any = AutoPipelineForText2Image
        try:
            # The argument for a dtype has another name in every second version; `to` has not.
            pipe = opener.from_pretrained(name, revision=revision)
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ScoringError(
                f"{name}: cannot be loaded as a text-to-image pipeline of diffusers ({reason}); "
                "check the name and the network"
            ) from error
        pipe = pipe.to(place) if kind is None else pipe.to(place, kind)
        return cls(pipe, name, revision=revision, **options)

    def draw(self, wanted: Sequence[Wanted]) -> list[Drawn]:
        """See Drawer."""
        # Noise made on the CPU is the same whatever card draws.
        streams = [torch.Generator().manual_seed(picture.seed) for picture in wanted]
        prompts = [picture.prompt for picture in wanted]
        drawn = self._pipe(prompt=prompts, generator=streams, **self._options)
        return [(image.convert("RGB"), None) for image in drawn.images]


def draw_all(
    drawer: Drawer,
    wanted: Sequence[Wanted],
    save_one: Callable[[int, Drawn], None],
) -> list[str]:
    """Draw everything, in parts of drawer.batch, handing on each picture; what could not be drawn.

    A part is drawn whole or not at all, so that half precision, too, gives what it gave before.
    """
    failed = []
    for start in range(0, len(wanted), drawer.batch):
        part = range(start, min(start + drawer.batch, len(wanted)))
        try:
            drawn = drawer.draw([wanted[number] for number in part])
        except PromptError:
            for number in part:
                try:
                    save_one(number, drawer.draw([wanted[number]])[0])
                except PromptError as error:
                    failed.append(f"{wanted[number].prompt[:40]!r}: {error}")
            continue
        for number, picture in zip(part, drawn, strict=True):
            save_one(number, picture)
    return failed


def save(path: Path, drawn: Drawn) -> None:
    """Write a picture as PNG, whole or not at all, with its settings where it has some."""
    image, settings = drawn
    if settings is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_png(image, path, settings)
        return
    data = BytesIO()
    image.save(data, format="PNG")
    write_whole(path, data.getvalue())
