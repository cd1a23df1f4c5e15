"""Who answers DPG-Bench's questions: a vision-language model of transformers, Janus, or a file."""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from PIL import Image

from janus_kit import loading
from janus_kit.errors import ScoringError
from janus_kit.scoring.records import weights_version

if TYPE_CHECKING:
    from janus_kit.pipeline import JanusPipeline

__all__ = [
    "MPLUG",
    "Answer",
    "JanusJudge",
    "Judge",
    "TransformersJudge",
    "by_mplug",
    "open_judge",
    "read_answers",
]

MPLUG = "mplug_visual-question-answering_coco_large_en"  # the published judge, of modelscope
FORM = "{question} Answer with yes or no."
SPELLINGS = {
    "yes": ("yes", "Yes", "YES", " yes", " Yes", " YES"),
    "no": ("no", "No", "NO", " no", " No", " NO"),
}
LENGTH = 8  # tokens of an answer; only its first word counts


@dataclass(frozen=True)
class Answer:
    """What was said, and how likely yes was, of yes and no, before a word was said."""

    text: str
    yes: float | None = None

    @property
    def verdict(self) -> str:
        """The text; where it begins with neither yes nor no, the likelier of the two."""
        word = self.text.lower().split()[:1]
        plain = bool(word) and word[0].strip(".,;:!?'\"*()") in ("yes", "no")
        if plain or self.yes is None:
            return self.text
        return "yes" if self.yes > 0.5 else "no"


class Judge(Protocol):
    """Answers questions about pictures."""

    @property
    def name(self) -> str:
        """What a summary calls it."""
        ...

    def answer(self, images: Sequence[Image.Image], questions: Sequence[str]) -> list[Answer]:
        """The answer to each question about the picture of the same place."""
        ...


class JanusJudge:
    """A Janus model that looks at pictures, its own or others'."""

    def __init__(self, pipe: "JanusPipeline", *, form: str = "{question}", batch_size: int = 8):
        self.name = f"{pipe.name} {pipe.model_hash}"
        self._pipe = pipe
        self._form = form
        self._batch = batch_size

    def answer(self, images: Sequence[Image.Image], questions: Sequence[str]) -> list[Answer]:
        """See Judge."""
        asked = [
            [{"role": "user", "images": [image], "content": self._form.format(question=question)}]
            for image, question in zip(images, questions, strict=True)
        ]
        said = self._pipe.answer(asked, batch_size=self._batch, max_new_tokens=LENGTH)
        return [Answer(text) for text in said]


class TransformersJudge:
    """Any model that AutoModelForImageTextToText loads and that has a chat template."""

    def __init__(
        self, model: Any, processor: Any, name: str, *, form: str = FORM, batch_size: int = 8
    ) -> None:
        """Raises ScoringError for a processor without a chat template."""
        if not getattr(processor, "chat_template", None):
            raise ScoringError(f"{name}: has no chat template; take a model that chats")
        self.name = name
        self._model = model.eval()
        self._processor = processor
        # Answers are written behind the prompts of a batch, which must then end together.
        self._processor.tokenizer.padding_side = "left"
        self._form = form
        self._batch = batch_size
        self._ids = {word: self._first_ids(word) for word in SPELLINGS}

    @classmethod
    def open(
        cls, name: str, *, device: Any = "auto", batch_size: int | None = None
    ) -> "TransformersJudge":
        """Load a hub id or folder; raises ScoringError where that fails."""
        place = loading.device_of(device)
        kind = loading.dtype_of("auto", place) or "auto"
        try:
            from transformers import AutoModelForImageTextToText, AutoProcessor
        except ImportError as error:
            raise ScoringError(f"{name}: needs transformers; install janus-kit[score]") from error
        try:
            model: Any = AutoModelForImageTextToText.from_pretrained(name, dtype=kind)
            reader: Any = AutoProcessor
            processor = reader.from_pretrained(name)
        except (OSError, ValueError, ImportError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ScoringError(
                f"{name}: cannot be loaded as a vision-language model ({reason}); check the name "
                "and the network, or take --judge self"
            ) from error
        told = f"{name} {weights_version(name, model.config)}".rstrip()
        return cls(model.to(place), processor, told, batch_size=batch_size or 8)

    def _first_ids(self, word: str) -> list[int]:
        """The first tokens of a word's spellings."""
        tokenizer = self._processor.tokenizer
        read = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in SPELLINGS[word]]
        return sorted({ids[0] for ids in read if ids})

    @torch.inference_mode()
    def answer(self, images: Sequence[Image.Image], questions: Sequence[str]) -> list[Answer]:
        """See Judge."""
        found: list[Answer] = []
        pairs = list(zip(images, questions, strict=True))
        for start in range(0, len(pairs), self._batch):
            found += self._some(pairs[start : start + self._batch])
        return found

    def _some(self, pairs: Sequence[tuple[Image.Image, str]]) -> list[Answer]:
        talks = [
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "image", "image": image},
                        {"type": "text", "text": self._form.format(question=question)},
                    ],
                }
            ]
            for image, question in pairs
        ]
        read = self._processor.apply_chat_template(
            talks,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            padding=True,
        ).to(self._model.device, self._model.dtype)
        out = self._model.generate(
            **read,
            max_new_tokens=LENGTH,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        written = out.sequences[:, read["input_ids"].shape[1] :]
        texts = self._processor.tokenizer.batch_decode(written, skip_special_tokens=True)
        shares = out.logits[0].float().softmax(-1)
        yes, no = (shares[:, self._ids[word]].sum(-1) for word in ("yes", "no"))
        sure = (yes / (yes + no)).nan_to_num(0.5).tolist()
        return [
            Answer(text.strip(), round(share, 6)) for text, share in zip(texts, sure, strict=True)
        ]


def open_judge(
    name: str, load: "Callable[[], JanusPipeline]", *, device: Any, batch_size: int | None
) -> Judge:
    """The judge of a name: "self" is the Janus that load opens; else see TransformersJudge.open."""
    if name == "self":
        return JanusJudge(load(), batch_size=batch_size or 8)
    return TransformersJudge.open(name, device=device, batch_size=batch_size)


def read_answers(
    path: str | os.PathLike[str],
) -> tuple[dict[str, dict[int, dict[int, str]]], set[str], list[str]]:
    """Answers made elsewhere, by item, tile and question; who gave them; and what cannot be used.

    A line is a JSON object with item_id, tile (from 0), question_id and answer, and judge, who gave
    it: "" where a line does not tell. Of two answers to one question the later counts. Raises
    ScoringError for a file that cannot be read or holds no answer.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ScoringError(f"{path}: cannot be read as UTF-8 text ({error})") from error
    answers: dict[str, dict[int, dict[int, str]]] = {}
    judges, complaints = set(), []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        row = _row(line)
        if row is None:
            complaints.append(
                f"{path}:{number}: has not item_id, tile, question_id and answer; left out"
            )
            continue
        answers.setdefault(row["item_id"], {}).setdefault(row["tile"], {})[row["question_id"]] = (
            row["answer"]
        )
        judges.add(str(row.get("judge") or ""))
    if not answers:
        raise ScoringError(f"{path}: holds no answer; see janus-kit score dpg --help")
    return answers, judges, complaints


def by_mplug(judges: Iterable[str]) -> bool:
    """Whether each of the judges that read_answers found is the published one, from any owner."""
    return all(judge.rstrip("/").rpartition("/")[2] == MPLUG for judge in judges)


def _row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    kinds: Iterable[tuple[str, type]] = (
        ("item_id", str),
        ("tile", int),
        ("question_id", int),
        ("answer", str),
    )
    whole = isinstance(row, dict) and all(type(row.get(name)) is kind for name, kind in kinds)
    return row if whole else None
