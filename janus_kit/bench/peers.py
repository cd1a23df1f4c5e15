"""The contenders of a benchmark. Each takes the likeliest code or token, so all must agree."""

import inspect
import os
import time
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from janus_kit.drawing import to_pictures
from janus_kit.engine import CodeDrawer
from janus_kit.generation.sampling import SamplingOptions, sample
from janus_kit.pipeline import JanusPipeline
from janus_kit.prompts import drawing_ids, unconditional_ids
from janus_kit.writing import write_text

__all__ = ["GUIDANCE", "PROMPT", "Ours", "Theirs"]

PROMPT = "a red apple left of a blue car"
GUIDANCE = 5.0


class Ours:
    """janus_kit. steps: of each drawing the mean seconds of a step after its first row."""

    def __init__(self, pipe: JanusPipeline) -> None:
        self.pipe = pipe
        self.steps: list[float] = []

    @torch.inference_mode()
    def draw(self, count: int, pictures: int = 1) -> list[list[int]]:
        """The first count codes of each picture (a square number), decoded when they are all."""
        pipe, model = self.pipe, self.pipe.model
        ids = drawing_ids(pipe.tokenizer, pipe.template, PROMPT)
        other = unconditional_ids(ids, pipe.tokenizer, None)
        rows = [ids] * pictures, [other] * pictures
        drawer = CodeDrawer(model, pipe.code_table, pipe.tokenizer.pad, *rows)
        noise = torch.zeros(pictures, count, dtype=torch.float64)
        ends: list[float] = []

        def note(codes: Tensor) -> bool:
            ends.append(time.perf_counter())
            return True

        codes = sample(drawer, noise, SamplingOptions(guidance=GUIDANCE, temperature=0), note)
        if len(ends) > 1:
            self.steps.append((ends[-1] - ends[0]) / (count - len(ends)))
        drawn: list[list[int]] = codes.tolist()
        if count == pipe.config.codes:
            self.paint(drawn)
        return drawn

    @torch.inference_mode()
    def paint(self, codes: list[list[int]]) -> None:
        """Make all codes of pictures into PIL pictures."""
        to_pictures(self.pipe.model, torch.tensor(codes, device=self.pipe.device), "pil", None)

    def first_row(self, pictures: int = 1) -> None:
        """Up to the preview of the first row, as the page and the server show it."""

        def show(pipe: JanusPipeline, row: int, place: int, state: dict[str, Any]) -> list[bool]:
            pipe.decode(state["codes"].clone())
            return [False] * pictures

        self.pipe(
            [PROMPT] * pictures,
            guidance_scale=GUIDANCE,
            temperature=0,
            callback_on_step_end=show,
            output_type="tokens",
            batch_size=pictures,
        )

    @torch.inference_mode()
    def answer(self, ids: list[int], pixels: Tensor, tokens: int, *, end: bool) -> list[list[int]]:
        """Ids of answers about each of pixels [b, 3, h, w]; end: whether one is looked for."""
        model, tokenizer = self.pipe.model, self.pipe.tokenizer
        steps = write_text(
            model,
            [ids] * len(pixels),
            list(model.features(pixels.to(model.device))),
            pad=tokenizer.pad,
            eos=tokenizer.eos if end else -1,
            image=tokenizer.image,
            noise=torch.zeros(len(pixels), tokens, dtype=torch.float64),
            options=SamplingOptions(guidance=1, temperature=0),
        )
        return torch.stack(list(steps), 1).tolist()


class Theirs:
    """transformers' generate as its docs show it, and other loops on the same model."""

    def __init__(self, pipe: JanusPipeline, dtype: torch.dtype) -> None:
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        from transformers import JanusForConditionalGeneration

        tokenizer = self.tokenizer = pipe.tokenizer
        ids = drawing_ids(tokenizer, pipe.template, PROMPT)
        self.rows = ids, unconditional_ids(ids, tokenizer, None)
        self.device = pipe.device
        self.codes = pipe.config.codes
        model: Any = JanusForConditionalGeneration.from_pretrained(pipe.folder, dtype=dtype)
        self.model = model.eval().to(pipe.device)
        # As our own folders state them; not every published folder does.
        settings = self.model.generation_config
        settings.bos_token_id, settings.eos_token_id = tokenizer.bos, tokenizer.eos
        settings.pad_token_id = tokenizer.pad
        settings.guidance_scale = GUIDANCE
        settings.generation_kwargs = {"boi_token_id": tokenizer.begin_image}

    def draw(self, count: int, pictures: int = 1, **cache: Any) -> list[list[int]]:
        """As Ours.draw, by generate with the static cache that it takes by itself."""
        ids = torch.tensor([self.rows[0]] * pictures, device=self.device)
        vision = self.model.model.vision_model.config
        kept, vision.num_image_tokens = vision.num_image_tokens, count
        try:
            codes = self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                generation_mode="image",
                do_sample=False,
                **cache,
            )
        finally:
            vision.num_image_tokens = kept
        return self._decoded(codes)

    def draw_dynamic(self, count: int, pictures: int = 1) -> list[list[int]]:
        """With a cache that grows: faster on a CPU, where the static one is read as a whole."""
        from transformers import DynamicCache

        return self.draw(count, pictures, **{_cache_name(self.model): DynamicCache()})

    @torch.inference_mode()
    def draw_published(self, count: int, pictures: int = 1) -> list[list[int]]:
        """deepseek-ai/Janus's generation_inference.py from its description: all rows are read,
        conditional and unconditional in turns, and a cache that grows is read a code at a time."""
        inner = self.model.model
        ids = torch.tensor([row for _ in range(pictures) for row in self.rows], device=self.device)
        embeds, past, drawn = inner.get_input_embeddings()(ids), None, []
        name = _cache_name(inner.language_model)
        for _ in range(count):
            out = inner.language_model(inputs_embeds=embeds, use_cache=True, **{name: past})
            past = out.past_key_values
            logits = inner.generation_head(out.last_hidden_state[:, -1])
            conditional, other = logits[0::2], logits[1::2]
            codes = (other + GUIDANCE * (conditional - other)).argmax(-1)
            drawn.append(codes)
            embeds = self.model.prepare_embeddings_for_image_generation(
                codes.repeat_interleave(2)
            ).unsqueeze(1)
        return self._decoded(torch.stack(drawn, 1))

    @torch.inference_mode()
    def _decoded(self, codes: Tensor) -> list[list[int]]:
        drawn: list[list[int]] = codes.tolist()
        if codes.shape[1] == self.codes:
            self.paint(drawn)
        return drawn

    @torch.inference_mode()
    def paint(self, codes: list[list[int]]) -> None:
        """Make all codes of pictures into pixels, as its docs do before they are PIL pictures."""
        self.model.decode_image_tokens(torch.tensor(codes, device=self.device))

    def compile(self) -> None:
        """Have torch.compile make the language model's steps, as its docs say for static caches."""
        language = self.model.model.language_model
        language.forward = torch.compile(language.forward, mode="reduce-overhead")

    def answer(self, ids: list[int], pixels: Tensor, tokens: int, *, end: bool) -> list[list[int]]:
        """As Ours.answer."""
        rows = torch.tensor([ids] * len(pixels), device=self.device)
        found = self.model.generate(
            rows,
            attention_mask=torch.ones_like(rows),
            pixel_values=pixels.to(self.device, self.model.dtype),
            generation_mode="text",
            do_sample=False,
            max_new_tokens=tokens,
            min_new_tokens=0 if end else tokens,
        )
        return found[:, len(ids) :].tolist()  # type: ignore[no-any-return]


def agreement(ours: Iterable[list[int]], theirs: Iterable[list[int]]) -> dict[str, Any]:
    """Whether all rows are equal, of how many of their numbers how many are before they part, how
    many there are of ours, and the share of those that are equal wherever they stand."""
    same = own = total = alike = 0
    for a, b in zip(ours, theirs, strict=True):
        equal = [x == y for x, y in zip(a, b, strict=False)]
        same += equal.index(False) if False in equal else len(equal)
        alike += sum(equal)
        own += len(a)
        total += len(b)
    return {
        "equal": same == total == own,
        "same": same,
        "of": total,
        "ours": own,
        "share": round(alike / max(1, total), 4),
    }


def _cache_name(model: Any) -> str:
    """What a model's forward calls its cache: transformers 5.24 has renamed it."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
