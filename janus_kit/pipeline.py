"""JanusPipeline: load a Janus model, draw pictures with it, ask it about pictures.

Argument names and defaults follow diffusers where it has them; drawing and its defaults follow
deepseek-ai/Janus (generation_inference.py), answering follows its inference.py.
"""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

import janus_kit.config as configs
from janus_kit import answering, checkpoint, conversation, loading
from janus_kit.answering import QUESTION, Ranked
from janus_kit.drawing import (
    BatchDecoder,
    DrawingOutput,
    beginnings,
    check_output,
    common,
    drawing_rows,
    goes_on,
    label,
    negatives,
    noise,
    picture_bytes,
    to_pictures,
)
from janus_kit.engine import CodeDrawer
from janus_kit.errors import CheckpointError, ImageError, OptionError, PromptError
from janus_kit.generation.sampling import SamplingOptions, sample
from janus_kit.graphs import kept_bytes
from janus_kit.known import Hint
from janus_kit.model import Janus
from janus_kit.options import batch_rows, texts, whole
from janus_kit.progress import rows_bar
from janus_kit.prompts import OLD, PRO, Tokenizer
from janus_kit.variants import Variant, check_offered
from janus_kit.vision import images as pictures

__all__ = ["DrawingOutput", "JanusPipeline"]

log = logging.getLogger(__name__)

CAPTION = "Describe the image."  # what caption asks unless told otherwise

Picture = Image.Image | str | os.PathLike[str]
RowCallback = Callable[["JanusPipeline", int, int, dict[str, Any]], Any]


class JanusPipeline:
    """A Janus model with its tokenizer. Calls share nothing but the weights, so threads may."""

    def __init__(
        self,
        model: Janus,
        tokenizer: Tokenizer,
        folder: Path,
        name: str,
        quantization: str | None = None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.folder = folder
        self.name = name
        self.template = OLD if model.config.template == "old" else PRO
        self.progress = True
        self.hint = Hint(folder)
        self.defaults = loading.drawing_defaults(folder)
        self.quantization = quantization

    @classmethod
    def from_pretrained(
        cls,
        id_or_folder: str | os.PathLike[str] | None = None,
        *,
        revision: str | None = None,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
        torch_dtype: str | torch.dtype | None = None,
        local_files_only: bool = False,
        token: str | None = None,
        verify: bool = True,
        compile: bool = False,
        quantization: str | None = None,
        components: str = "all",
        offload: str | None = None,
    ) -> "JanusPipeline":
        """Load a model: a hub id, a folder, or nothing for the embedded model of the package.

        Reads transformers' layout and deepseek-ai's own, safetensors or .bin. device: "auto" takes
        CUDA, then MPS, then the CPU. dtype: "auto" is float32 on the CPU and the dtype of the
        weights elsewhere; torch_dtype is diffusers' name of it. verify looks for NaN and infinite
        numbers in the weights, in large ones once. compile: have torch.compile make the steps of a
        GPU. quantization "int8", "int4" or "fp8" holds fewer bits of what a step reads, components
        "draw" or "understand" only what that takes, offload "cpu" the weights in memory until a GPU
        needs them. Raises CheckpointError for a folder that is not whole, DeviceError for a device
        or dtype that is not there, OptionError for what a device cannot do and for a quantization
        that the model was found not to stand.
        """
        variant = Variant(
            quantization=quantization, components=components, offload=offload, compile=compile
        )
        place = loading.device_of(device)
        kind = loading.dtype_of(dtype if torch_dtype is None else torch_dtype, place)
        folder, name = loading.find(
            id_or_folder, revision=revision, local_files_only=local_files_only, token=token
        )
        check_offered(folder, quantization, lambda: loading.digest(folder, None))
        config, _ = checkpoint.read_config(folder)
        tokenizer = Tokenizer.from_folder(folder, config.language.vocab_size)
        model = loading.open_model(folder, place, kind, verify, variant)
        log.info("%s on %s in %s", name, place, str(model.dtype).removeprefix("torch."))
        return cls(model, tokenizer, folder, name, quantization)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the model as a folder that from_pretrained and transformers load."""
        draws = {"guidance_scale": self.defaults.guidance, "temperature": self.defaults.temperature}
        checkpoint.save(self.model, Path(folder), tokenizer_folder=self.folder, draws=draws)

    def to(
        self,
        device: str | torch.device | torch.dtype | None = None,
        dtype: str | torch.dtype | None = None,
    ) -> "JanusPipeline":
        """Move the model; returns self, as diffusers does. A dtype alone is taken as one.

        Raises OptionError for a quantized or offloaded model, which stays as it was loaded.
        """
        if isinstance(device, torch.dtype):
            device, dtype = None, device
        loading.move(self.model, self.quantization is not None, device, dtype)
        self.__dict__.pop("code_table", None)
        return self

    @property
    def config(self) -> configs.JanusConfig:
        return self.model.config

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    def set_progress_bar_config(self, *, disable: bool = False) -> None:
        """Switch the bar of rows on or off, for all calls to come."""
        self.progress = not disable

    @cached_property
    def model_hash(self) -> str:
        """The first ten digits of the weights' sha256, as PNG settings carry them, and -int8 …"""
        return loading.digest(self.folder, self.quantization)

    def _digest(self) -> str:
        """model_hash, or "" with a warning: a folder that has gone must not stop a drawing."""
        try:
            return self.model_hash
        except CheckpointError as error:
            log.warning("the pictures will not tell their model's hash: %s", error)
            return ""

    @cached_property
    def code_table(self) -> Tensor:
        with torch.inference_mode():
            return self.model.code_table()

    @torch.inference_mode()
    def __call__(
        self,
        prompt: str | Sequence[str],
        *,
        negative_prompt: str | Sequence[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_images_per_prompt: int = 1,
        best_of: int | None = None,
        initial_codes: Tensor | Sequence[int] | None = None,
        guidance_scale: float | None = None,
        temperature: float | None = None,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        output_type: str = "pil",
        callback_on_step_end: RowCallback | None = None,
        batch_size: int | str = "auto",
    ) -> DrawingOutput:
        """Draw num_images_per_prompt pictures of 384×384 pixels for each prompt.

        Picture i of the call, counted over all its prompts, has the random stream seed + i and, in
        float32, does not depend on batch_size or on the others (half precision rounds differently
        in another batch, which can turn a close choice); seed None takes a random one, told in
        .seeds. A generator (a list must have one a picture) is drawn from instead. guidance_scale 1
        switches guidance off, temperature 0 takes the likeliest code; without them counts what the
        model's generation_config.json says, else 5 and 1, as published, and .defaults has them.
        top_k 0 and top_p 1 keep the whole codebook. negative_prompt stands in the unconditional row
        in place of pads: an extension that Janus was not trained for.

        best_of draws that many for each prompt and keeps the num_images_per_prompt best by rank's
        score, best first, told in .scores; each is still the picture that its own seed draws alone.
        A call that is stopped has judged nothing and gives what it has drawn.

        initial_codes: int64 [k] for all pictures or [b, k], one row a picture, k below 576: the
        codes that a picture begins with, from .codes or encode; the rest is drawn anew. 24 codes
        are a row, so codes[:, : 24 * 12] keeps the upper half.

        callback_on_step_end(pipe, row, place, {"codes": int64 [b, place]}) is called once a row of
        24 codes and stops the call by returning False; the unfinished part is then grey. A list of
        bool, one a picture of the batch, stops those with False and draws the others on.

        height and width are here for diffusers' users and take no other value than the model's.

        Raises OptionError for a value out of range, PromptError for a text that cannot be a prompt,
        GenerationError when the weights give NaN.
        """
        scale = self.defaults.guidance if guidance_scale is None else guidance_scale
        heat = self.defaults.temperature if temperature is None else temperature
        options = SamplingOptions(guidance=scale, temperature=heat, top_k=top_k, top_p=top_p)
        check_output(output_type)
        for name, side in (("height", height), ("width", width)):
            if side not in (None, self.config.vision.image_size):
                raise OptionError(
                    f"{name} must be {self.config.vision.image_size}, not {side!r}: the model has "
                    "learnt no other size; enlarge the picture afterwards"
                )
        prompts = texts("prompt", prompt)
        against = negatives(prompts, negative_prompt)
        self.hint.once(prompts)
        copies = whole("num_images_per_prompt", num_images_per_prompt, 1, 1000)
        each = copies if best_of is None else whole("best_of", best_of, copies, 1000)
        rows = drawing_rows(self, prompts, against, each)
        begun = beginnings(initial_codes, len(rows), self.config)
        digest = self._digest()
        streams, seeds = noise(len(rows), self.config.codes, seed, generator)
        needed = picture_bytes(self.config, rows, self.dtype)
        size = batch_rows(batch_size, len(rows), needed, self.device, kept_bytes(self.model))
        stopped = False
        decoder = BatchDecoder(self.model, output_type if best_of is None else "pil")
        with decoder, rows_bar(len(rows), self.config.side, self.progress) as advance:

            def on_row(codes: Tensor) -> bool | list[bool]:
                nonlocal stopped
                advance(len(codes))
                if callback_on_step_end is None:
                    return True
                row, place = codes.shape[1] // self.config.side - 1, codes.shape[1]
                answer = callback_on_step_end(self, row, place, {"codes": codes})
                going = goes_on(answer, len(codes))
                stopped = not any(going)
                return going

            parts, drawer = [], None
            for start in range(0, len(rows), size):
                chunk = slice(start, start + size)
                drawer = CodeDrawer(
                    self.model,
                    self.code_table,
                    self.tokenizer.pad,
                    [row for row, _ in rows[chunk]],
                    [row for _, row in rows[chunk]] if scale != 1 else None,
                    drawer,
                )
                initial = None if begun is None else begun[chunk].to(self.device)
                part = sample(drawer, streams[chunk], options, on_row, initial)
                parts.append(F.pad(part, (0, self.config.codes - part.shape[1]), value=-1))
                decoder.add(parts[-1])
                if stopped:
                    break
            shown = decoder.images()
        codes = torch.cat(parts)
        base = common(self, options, digest)
        seeds = seeds[: len(codes)]
        settings = label(base, prompts, against, each, seeds, begun)
        pil = output_type == "pil"
        if best_of is None or stopped:
            if best_of is not None and not pil:
                shown = self.decode(codes, output_type)
            return DrawingOutput(shown, seeds, codes, settings)
        places, scores = answering.best(self, shown, prompts, copies)
        kept = codes[places]
        return DrawingOutput(
            [shown[i] for i in places] if pil else self.decode(kept, output_type),
            [seeds[i] for i in places],
            kept,
            [settings[i] for i in places],
            scores,
        )

    def check_room(self, read: int, written: int) -> None:
        """Raise PromptError unless the model reads that many tokens and writes as many more."""
        limit = self.config.language.max_positions
        if read + written > limit:
            raise PromptError(
                f"the text and pictures take {read} tokens and the answer {written}, but the model "
                f"reads {limit} at most; shorten the one or the other"
            )

    @torch.inference_mode()
    def decode(self, codes: Tensor, output_type: str = "pil", *, chunk: int | None = None) -> Any:
        """Codes int64 [b, k], k up to 576 in raster order -> pictures; what is not there is grey.

        Codes may also be -1, for not there. Decoded chunk at a time, so that memory does not grow
        with b; None is 1 on a CPU, where a picture's last bits would otherwise depend on its
        neighbours, and 8 elsewhere. For output_type see DrawingOutput. Raises
        OptionError for codes outside the codebook or of another shape.
        """
        return to_pictures(self.model, codes, output_type, chunk)

    @torch.inference_mode()
    def encode(self, images: Picture | Sequence[Picture]) -> Tensor:
        """Pictures as the drawing side sees them: codes int64 [b, 576]; the sides are cropped."""
        loaded = [pictures.load(image) for image in conversation.listed(images)]
        if not loaded:
            raise ImageError("there is no picture to encode; give at least one")
        pixels = torch.stack([pictures.to_square(i, self.config.vision.image_size) for i in loaded])
        return torch.cat(
            [self.model.vq.encode(part.to(self.device)) for part in torch.split(pixels, 4)]
        )

    def view(self, image: Picture) -> Image.Image:
        """What the model sees of a picture: RGB, 384×384, the whole on grey.

        Asking about the view gives the answer to the picture, and it takes 0.4 MB to keep.
        """
        return pictures.to_view(pictures.load(image), self.config.vision.image_size)

    @overload
    def ask(self, images: Picture, question: str, **options: Any) -> str: ...
    @overload
    def ask(self, images: Sequence[Picture], question: str, **options: Any) -> list[str]: ...
    def ask(self, images: Any, question: str, **options: Any) -> Any:
        """Answer one question about each picture (PIL or path); a list gives a list.

        Options are those of chat, without stream. A batch answers what single calls answer: with a
        seed, each answer has its stream.
        """
        messages = [
            [{"role": "user", "images": [image], "content": question}]
            for image in conversation.listed(images)
        ]
        if options.pop("stream", False):
            raise OptionError("stream=True is for one conversation; use chat")
        answers = self.answer(messages, **options)
        return answers[0] if conversation.is_picture(images) else answers

    def caption(self, images: Any, question: str = CAPTION, **options: Any) -> Any:
        """Describe a picture, or each of a list; see ask."""
        return self.ask(images, question, **options)

    def chat(
        self, messages: Sequence[Mapping[str, Any]], *, stream: bool = False, **options: Any
    ) -> Any:
        """Go on with a conversation: the answer as text, or with stream=True an iterator of pieces.

        messages: {"role": "user" | "assistant", "content": text or transformers-style parts,
        "images": pictures}, taking turns. Options: max_new_tokens (512), temperature (0 is greedy),
        top_p, seed. The iterator also counts tokens, see answering.Reply. Raises PromptError,
        ImageError or OptionError for what cannot be used.
        """
        if stream:
            return answering.reply(self, messages, **options)
        return self.answer([messages], **options)[0]

    def answer(
        self,
        conversations: Sequence[Sequence[Mapping[str, Any]]],
        *,
        batch_size: int | str = "auto",
        **options: Any,
    ) -> list[str]:
        """The next answer of every conversation, batch_size of them side by side."""
        return answering.answer(self, conversations, batch_size, **options)

    def rank(
        self,
        images: Any,
        prompt: str,
        *,
        question: str = QUESTION,
        batch_size: int | str = "auto",
    ) -> list[Ranked]:
        """Judge how well pictures show a prompt, by this model's own eyes; the best comes first.

        A picture's score is the probability of yes, of yes and no, as the answer to question, in
        which {prompt} stands for the prompt: VQAScore (Lin et al., 2024) with Janus as the judge.
        images: as for ask. Gives (place, score) pairs; place is where the
        picture stands among images. Raises as ask does, and CheckpointError for a tokenizer in
        which yes and no are one.
        """
        return answering.rank(self, images, prompt, question, batch_size)
