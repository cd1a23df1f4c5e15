"""The parts of drawing that need no pipeline: what comes out, random streams, codes → pictures."""

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from janus_kit import loading
from janus_kit.config import JanusConfig
from janus_kit.errors import OptionError, PromptError
from janus_kit.generation.sampling import SamplingOptions, uniforms
from janus_kit.generation.vq import decode_in_chunks
from janus_kit.graphs import own_stream, replays
from janus_kit.metadata import Settings, save_png
from janus_kit.model import Janus
from janus_kit.options import SEEDS, first_seed, texts, whole
from janus_kit.prompts import drawing_ids, unconditional_ids
from janus_kit.vision import images as pictures

if TYPE_CHECKING:
    from janus_kit.pipeline import JanusPipeline

__all__ = [
    "BatchDecoder",
    "DrawingOutput",
    "beginnings",
    "check_output",
    "common",
    "drawing_rows",
    "goes_on",
    "label",
    "negatives",
    "noise",
    "picture_bytes",
    "to_pictures",
]

BELOW = 2  # rows that are decoded below those that are there


@dataclass(frozen=True)
class DrawingOutput:
    """What a call has drawn; picture i has seeds[i] and settings[i].

    images: PIL pictures, or by output_type "np" float32 [b, 384, 384, 3] in [0, 1], "pt" float32
    [b, 3, 384, 384] in [0, 1], "tokens" the codes. codes: int64 [b, 576], -1 where the call was
    stopped before. scores: with best_of, how likely the model says yes to each, 0 to 1, else None.
    """

    images: Any
    seeds: list[int]
    codes: Tensor
    settings: list[Settings]
    scores: list[float] | None = None

    def save(
        self, folder: str | os.PathLike[str], name: str = "{index:03}_{seed}.png"
    ) -> list[Path]:
        """Write every picture as a PNG with its settings inside; returns the paths.

        Each file appears whole or not at all, in place of one that had its name. Raises OptionError
        unless output_type was "pil", and for a name that does not tell the pictures apart.
        """
        if not isinstance(self.images, list):
            raise OptionError('save needs output_type="pil"')
        try:
            names = [name.format(index=i, seed=s.seed) for i, s in enumerate(self.settings)]
        except (AttributeError, IndexError, KeyError, ValueError) as error:
            raise OptionError(f"name may hold {{index}} and {{seed}}; {name!r} does not") from error
        if len(set(names)) < len(names):
            raise OptionError(f"name {name!r} is the same for several pictures; add {{index}}")
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        paths = [target / each for each in names]
        for image, path, settings in zip(self.images, paths, self.settings, strict=True):
            save_png(image, path, settings)
        return paths


def common(pipe: "JanusPipeline", options: SamplingOptions, digest: str) -> Settings:
    """What all pictures of a call have in common, without their prompts and seeds."""
    side = pipe.config.vision.image_size
    return Settings(
        prompt="",
        seed=0,
        guidance_scale=float(options.guidance),
        temperature=float(options.temperature),
        top_k=options.top_k,
        top_p=float(options.top_p),
        size=(side, side),
        model=pipe.name,
        model_hash=digest,
        dtype=str(pipe.dtype).removeprefix("torch."),
        device=pipe.device.type,
        torch_version=torch.__version__,
        version=loading.version(),
    )


def drawing_rows(
    pipe: "JanusPipeline", prompts: Sequence[str], against: Sequence[str], copies: int
) -> list[tuple[list[int], list[int]]]:
    """The conditional and unconditional ids of every picture."""
    if not prompts:
        raise PromptError("there is no prompt to draw; give at least one")
    rows = []
    for text, negative in zip(prompts, against, strict=True):
        ids = drawing_ids(pipe.tokenizer, pipe.template, text)
        other = drawing_ids(pipe.tokenizer, pipe.template, negative) if negative else None
        pipe.check_room(max(len(ids), len(other or ())), pipe.config.codes)
        rows += [(ids, unconditional_ids(ids, pipe.tokenizer, other))] * copies
    return rows


def negatives(prompts: Sequence[str], negative: str | Sequence[str] | None) -> list[str]:
    """One for each prompt; "" stands for the published pads."""
    found = texts("negative_prompt", negative, optional=True)
    if negative is None or isinstance(negative, str):
        return found * len(prompts)
    if len(found) != len(prompts):
        raise OptionError(f"there are {len(found)} negative prompts for {len(prompts)} prompts")
    return found


def noise(
    count: int,
    codes: int,
    seed: int | None,
    generator: torch.Generator | Sequence[torch.Generator] | None,
) -> tuple[Tensor, list[int]]:
    """The random streams of count pictures, float64 [count, codes], and their seeds."""
    if generator is None:
        first = first_seed(seed, count)
        seeds = [first + i for i in range(count)]
        return uniforms(seeds, codes), seeds
    if seed is not None:
        raise OptionError("give a seed or a generator, not both")
    sources = list(generator) if isinstance(generator, Sequence) else [generator] * count
    if not all(isinstance(source, torch.Generator) for source in sources):
        raise OptionError("generator must be a torch.Generator or a list of them")
    if len(sources) != count:
        raise OptionError(f"there are {len(sources)} generators for {count} pictures")
    seeds = [_next_seed(source) for source in sources]
    return uniforms(seeds, codes), seeds


def _next_seed(source: torch.Generator) -> int:
    """The seed of the picture that a generator draws next, and the generator a step further.

    A fresh generator stands for the seed that it was made with; later ones come out of it. Either
    way the seed alone draws the picture again.
    """
    fresh = torch.Generator(source.device).manual_seed(source.initial_seed()).get_state()
    first = torch.equal(source.get_state(), fresh)
    drawn = torch.randint(2**62, (), generator=source, device=source.device)
    return source.initial_seed() if first and source.initial_seed() < SEEDS else int(drawn)


def label(
    base: Settings,
    prompts: Sequence[str],
    against: Sequence[str],
    copies: int,
    seeds: Sequence[int],
    begun: Tensor | None = None,
) -> list[Settings]:
    """The settings of every picture with a seed: base with what differs from picture to picture."""
    first = [()] * len(seeds) if begun is None else [tuple(row) for row in begun.tolist()]
    return [
        replace(
            base,
            prompt=prompts[i // copies],
            negative_prompt=against[i // copies],
            seed=seed,
            initial_codes=first[i],
        )
        for i, seed in enumerate(seeds)
    ]


def beginnings(initial: object, count: int, config: JanusConfig) -> Tensor | None:
    """The codes that count pictures begin with, int64 [count, k]; None where all are drawn."""
    if initial is None:
        return None
    try:
        codes = initial if isinstance(initial, Tensor) else torch.tensor(initial)
    except (TypeError, ValueError, RuntimeError) as error:
        raise OptionError(f"initial_codes must be whole numbers, not {initial!r:.60}") from error
    if codes.dtype not in (torch.int64, torch.int32):
        raise OptionError(f"initial_codes must be whole numbers, not {_kind(codes)}")
    rows = codes[None] if codes.dim() == 1 else codes
    if rows.dim() != 2 or len(rows) not in (1, count) or not 1 <= rows.shape[1] < config.codes:
        raise OptionError(
            f"initial_codes must be [k] or [{count}, k] with k from 1 to {config.codes - 1}, "
            f"not {list(codes.shape)}"
        )
    low, high = int(rows.min()), int(rows.max())
    if low < 0 or high >= config.vq.codebook_size:
        raise OptionError(
            f"initial_codes must lie in 0 to {config.vq.codebook_size - 1}, not {low} to {high}"
        )
    return rows.long().cpu().expand(count, -1)


def goes_on(answer: object, count: int) -> list[bool]:
    """Which of count pictures are drawn on, by what a callback answers: for all, or for each.

    Python's, NumPy's and torch's False stop; whatever else a callback may return does not.
    """
    if isinstance(answer, Tensor | np.ndarray):
        answer = answer.tolist()
    if not isinstance(answer, list | tuple):
        return [not (isinstance(answer, bool | np.bool_) and not answer)] * count
    if len(answer) != count:
        raise OptionError(
            f"callback_on_step_end answered for {len(answer)} pictures; the batch has {count}"
        )
    return [bool(one) for one in answer]


def picture_bytes(
    config: JanusConfig, rows: Sequence[tuple[list[int], list[int]]], dtype: torch.dtype
) -> int:
    """The cache of one picture: two rows of keys and values."""
    language = config.language
    slots = max(max(map(len, pair)) for pair in rows) + config.codes
    width = 2 * language.layers * language.kv_heads * language.head_dim
    return 2 * slots * width * dtype.itemsize


def check_output(output_type: object) -> None:
    """Raise OptionError unless output_type is one."""
    if output_type not in ("pil", "np", "pt", "tokens"):
        raise OptionError(f"output_type must be pil, np, pt or tokens, not {output_type!r}")


def _kind(value: object) -> str:
    return f"{value.dtype}" if isinstance(value, Tensor) else type(value).__name__


def to_pictures(model: Janus, codes: Tensor, output_type: str, chunk: int | None) -> Any:
    """See JanusPipeline.decode."""
    config = model.config
    check_output(output_type)
    if not isinstance(codes, Tensor) or codes.dtype not in (torch.int64, torch.int32):
        raise OptionError(f"codes must be a tensor of whole numbers, not {_kind(codes)}")
    if codes.dim() != 2 or not 1 <= codes.shape[1] <= config.codes or not len(codes):
        raise OptionError(
            f"codes must be [b, 1 to {config.codes}] and not empty, not {list(codes.shape)}"
        )
    low, high = int(codes.min()), int(codes.max())
    if low < -1 or high >= config.vq.codebook_size:
        raise OptionError(
            f"codes must lie in 0 to {config.vq.codebook_size - 1}, not {low} to {high}"
        )
    if output_type == "tokens":
        return codes
    if chunk is None:
        chunk = 1 if model.device.type == "cpu" else 8
    whole("chunk", chunk, 1, 1_000_000)
    full = F.pad(codes.long(), (0, config.codes - codes.shape[1]), value=-1).to(model.device)
    known = full >= 0
    # Of an unfinished picture what is there is decoded, and a little below it: its last code fills
    # that, and is then hidden.
    last = full.gather(1, (known.sum(1, keepdim=True) - 1).clamp(min=0)).clamp(min=0)
    filled, side = torch.where(known, full, last), config.side
    there = int(known.any(0).nonzero().max()) // side + 1 if known.any() else 1
    read = min(there + BELOW, side)
    pixels = decode_in_chunks(model.vq, filled[:, : read * side], chunk, side)
    pixels = F.pad(pixels, (0, 0, 0, (side - read) * config.vq.stride))
    hidden = ~known.view(-1, 1, config.side, config.side).cpu()
    hidden = hidden.repeat_interleave(config.vq.stride, 2)
    pixels = pixels.masked_fill(hidden.repeat_interleave(config.vq.stride, 3), 0.0)
    if output_type == "pil":
        return pictures.to_pil(pixels)
    scaled = ((pixels + 1) / 2).clamp(0, 1)
    return scaled if output_type == "pt" else scaled.permute(0, 2, 3, 1).numpy()


class BatchDecoder:
    """Codes -> pictures, batch by batch in order; beside the drawing of the next batch on a GPU.

    There a batch is decoded on a stream of its own by another thread, which also makes the PIL
    pictures. A CPU has its cores busy with drawing, and a model whose weights come and go can do
    one thing at a time: there a batch is decoded at once. As a context it waits for its thread.
    """

    def __init__(self, model: Janus, output_type: str) -> None:
        self.model, self.output_type = model, output_type
        self.thread = ThreadPoolExecutor(1, "janus-decoder") if self.beside(model) else None
        self.stream: Any = None
        self.parts: list[Future[Any]] = []

    @staticmethod
    def beside(model: Janus) -> bool:
        """Whether the model can decode while it draws."""
        return replays(model)

    def __enter__(self) -> "BatchDecoder":
        return self

    def __exit__(self, *error: object) -> None:
        if self.thread is not None:
            self.thread.shutdown(cancel_futures=True)

    def add(self, codes: Tensor) -> None:
        """Decode codes int64 [b, 576] as to_pictures does; they must not change any more."""
        if self.thread is None:
            self.parts.append(Future())
            self.parts[-1].set_result(to_pictures(self.model, codes, self.output_type, None))
            return
        drawn = None
        if codes.is_cuda:
            drawn = torch.cuda.Event()  # type: ignore[no-untyped-call]
            drawn.record(torch.cuda.current_stream(codes.device))
        self.parts.append(self.thread.submit(self._decode, codes, drawn))

    def _decode(self, codes: Tensor, drawn: Any) -> Any:
        with torch.inference_mode():
            if drawn is None:
                return to_pictures(self.model, codes, self.output_type, None)
            self.stream = self.stream or own_stream(self, codes.device)
            with torch.cuda.stream(self.stream):
                self.stream.wait_event(drawn)
                return to_pictures(self.model, codes, self.output_type, None)

    def images(self) -> Any:
        """All pictures, as to_pictures gives them. Raises what it raised."""
        parts = [part.result() for part in self.parts]
        if self.output_type == "pil":
            return [image for part in parts for image in part]
        if self.output_type == "np":
            return np.concatenate(parts)
        return torch.cat(parts)
